//! No name from outside can fill the memory or break the page.

use std::num::NonZeroUsize;

use pythia_core::QueueName;
use pythia_core::admin::Depth;
use pythia_core::observe::Event;
use pythia_core::resilience::BreakerState;
use pythia_metrics::names;

use crate::exposition::Exposition;
use crate::metrics::{MS, Metrics, queue, text};
use crate::promtool::promtool;

#[test]
fn queues_beyond_the_limit_are_counted_together() {
    let metrics = Metrics::with(|config| config.max_queues = NonZeroUsize::new(2).unwrap());
    for name in ["a", "b", "c", "d", "c"] {
        metrics.received(&queue(name), 10);
    }
    let of = |name: &str| {
        metrics.value(&format!(
            "pythia_messages_received_total{{queue=\"{name}\"}}"
        ))
    };
    assert_eq!(
        [of("a"), of("b"), of("c"), of("d")],
        [Some(10.0), Some(10.0), None, None]
    );
    assert_eq!(of(names::OTHER_QUEUES), Some(30.0));

    // The depth of one of them is not that of all.
    let mut depth = Depth::default();
    depth.ready = Some(5);
    metrics.sampled(&queue("a"), &depth);
    metrics.sampled(&queue("c"), &depth);
    metrics.on(&Event::BreakerChanged {
        queue: &queue("c"),
        state: BreakerState::Open,
    });
    let depths = metrics.lines("pythia_queue_depth");
    assert!(depths.contains("queue=\"a\""), "{depths}");
    let page = text(&metrics.registry);
    for family in [
        "pythia_queue_depth",
        "pythia_queue_last_sample_timestamp_seconds",
        "pythia_breaker_state",
    ] {
        assert!(
            !page.contains(&format!("{family}{{queue=\"{}\"", names::OTHER_QUEUES)),
            "{family}"
        );
    }
    assert!(
        QueueName::new(names::OTHER_QUEUES).is_err(),
        "a queue could have this name"
    );
}

#[test]
fn a_thousand_queues_have_series_of_their_own_by_default() {
    let metrics = Metrics::new();
    for number in 0..1_001 {
        metrics.received(&queue(&format!("q{number}")), 1);
    }
    let page = Exposition::parse(&text(&metrics.registry));
    let received = page
        .series
        .keys()
        .filter(|series| series.starts_with("pythia_messages_received_total"));
    assert_eq!(received.count(), 1_001);
    assert_eq!(
        page.series["pythia_messages_received_total{queue=\"other queues\"}"],
        1.0
    );
}

#[test]
fn commands_and_servers_are_bounded_too() {
    let metrics = Metrics::new();
    for number in 0..150 {
        let command: &'static str = format!("command-{number}").leak();
        metrics.on(&Event::Command {
            command,
            took: MS,
            ok: true,
        });
        metrics.server(&format!("server-{number}"), |_| {});
    }
    let page = Exposition::parse(&text(&metrics.registry));
    let of = |family: &str| {
        page.series
            .keys()
            .filter(|series| series.starts_with(family))
            .count()
    };
    assert_eq!(of("pythia_broker_command_seconds_count"), 101);
    assert_eq!(
        page.series["pythia_broker_command_seconds_count{command=\"other commands\"}"],
        50.0
    );
    assert_eq!(of("pythia_broker_pool_connections"), 100);
}

#[test]
fn names_of_queues_are_escaped() {
    let metrics = Metrics::new();
    let odd = queue("a\"b\\c{d}ö");
    metrics.received(&odd, 1);
    let page = text(&metrics.registry);
    assert!(
        page.contains("pythia_messages_received_total{queue=\"a\\\"b\\\\c{d}ö\"} 1\n"),
        "{page}"
    );
    promtool(&page);
}
