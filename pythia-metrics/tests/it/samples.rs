//! What is read from the broker now and then: it comes, changes, and goes.

use std::time::SystemTime;

use pythia_core::QueueName;
use pythia_core::admin::Depth;
use pythia_core::broker::{Maintained, OverLimit};
use pythia_core::observe::Event;

use crate::metrics::{MS, Metrics, queue, text};

#[test]
fn what_a_broker_cannot_tell_has_no_series() {
    let metrics = Metrics::new();
    let orders = &queue("orders");
    let known = |metrics: &Metrics| {
        [
            "pythia_queue_depth{queue=\"orders\",state=\"dead\"}",
            "pythia_queue_depth{queue=\"orders\",state=\"delayed\"}",
            "pythia_queue_depth{queue=\"orders\",state=\"pending\"}",
            "pythia_queue_depth{queue=\"orders\",state=\"ready\"}",
            "pythia_consumer_group_lag{queue=\"orders\"}",
            "pythia_queue_oldest_message_age_seconds{queue=\"orders\"}",
        ]
        .map(|series| metrics.value(series))
    };
    metrics.sampled(orders, &Depth::default());
    assert_eq!(known(&metrics), [None; 6]);

    let mut depth = Depth::default();
    depth.dead = Some(0);
    depth.delayed = Some(2);
    depth.pending = Some(3);
    depth.ready = Some(4);
    depth.lag = Some(5);
    depth.oldest = Some(1_250 * MS);
    metrics.sampled(orders, &depth);
    assert_eq!(known(&metrics), [0.0, 2.0, 3.0, 4.0, 5.0, 1.25].map(Some));

    depth.lag = None;
    depth.oldest = None;
    depth.pending = None;
    metrics.sampled(orders, &depth);
    assert_eq!(
        known(&metrics),
        [Some(0.0), Some(2.0), None, Some(4.0), None, None]
    );
    assert!(!text(&metrics.registry).contains("pythia_consumer_group_lag"));

    metrics.server("a", |stats| stats.memory_max = Some(9));
    assert_eq!(
        metrics.value("pythia_broker_memory_max_bytes{server=\"a\"}"),
        Some(9.0)
    );
    assert_eq!(
        metrics.value("pythia_broker_memory_used_bytes{server=\"a\"}"),
        None
    );
    metrics.server("a", |stats| stats.memory_used = Some(7));
    assert_eq!(
        metrics.value("pythia_broker_memory_max_bytes{server=\"a\"}"),
        None
    );
    assert_eq!(
        metrics.value("pythia_broker_memory_used_bytes{server=\"a\"}"),
        Some(7.0)
    );
}

#[test]
fn a_sample_says_when_it_was_taken() {
    let metrics = Metrics::new();
    let now = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let before = now();
    metrics.sampled(&queue("orders"), &Depth::default());
    metrics.server("a", |_| {});
    let after = now();
    for series in [
        "pythia_queue_last_sample_timestamp_seconds{queue=\"orders\"}",
        "pythia_broker_last_sample_timestamp_seconds{server=\"a\"}",
    ] {
        let taken = metrics.value(series).unwrap();
        assert!(
            (before..=after).contains(&taken),
            "{before} {taken} {after}"
        );
    }
}

#[test]
fn servers_are_told_apart_and_reconnects_only_grow() {
    let metrics = Metrics::new();
    let reconnects = |server: &str| {
        metrics.value(&format!(
            "pythia_broker_reconnects_total{{server=\"{server}\"}}"
        ))
    };
    for (server, times) in [("a", 2), ("b", 5), ("a", 3), ("a", 3)] {
        metrics.server(server, |stats| stats.reconnects = times);
    }
    assert_eq!([reconnects("a"), reconnects("b")], [Some(3.0), Some(5.0)]);
    // A new broker to the same server counts from zero.
    metrics.server("a", |stats| stats.reconnects = 1);
    assert_eq!(reconnects("a"), Some(4.0));

    metrics.server("a", |stats| {
        stats.pool_size = 4;
        stats.connected = 6;
        stats.connecting = 1;
        stats.disconnected = 2;
        stats.in_flight = 3;
        stats.queued = 8;
    });
    for (series, expected) in [
        ("pythia_broker_pool_connections{server=\"a\"}", 4.0),
        (
            "pythia_broker_clients{server=\"a\",state=\"connected\"}",
            6.0,
        ),
        (
            "pythia_broker_clients{server=\"a\",state=\"connecting\"}",
            1.0,
        ),
        (
            "pythia_broker_clients{server=\"a\",state=\"disconnected\"}",
            2.0,
        ),
        (
            "pythia_broker_clients{server=\"b\",state=\"disconnected\"}",
            0.0,
        ),
        ("pythia_broker_commands_in_flight{server=\"a\"}", 3.0),
        ("pythia_broker_commands_queued{server=\"a\"}", 8.0),
    ] {
        assert_eq!(metrics.value(series), Some(expected), "{series}");
    }
}

#[test]
fn only_the_group_that_is_in_the_way_now_is_named() {
    let metrics = Metrics::new();
    let maintained = |queue: &QueueName, over: Option<(u64, &str)>| {
        let mut maintained = Maintained::default();
        maintained.over_limit = over.map(|(entries, group)| OverLimit {
            entries,
            group: group.into(),
        });
        metrics.on(&Event::Maintained {
            queue,
            maintained: &maintained,
        });
    };
    let series = || -> Vec<String> {
        let lines = metrics.lines("pythia_entries_over_limit");
        lines
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    };
    let orders = &queue("orders");
    maintained(orders, None);
    assert!(series().is_empty());
    maintained(orders, Some((12, "slow")));
    assert_eq!(
        series(),
        ["pythia_entries_over_limit{group=\"slow\",queue=\"orders\"} 12"]
    );
    maintained(orders, Some((3, "2")));
    assert_eq!(
        series(),
        ["pythia_entries_over_limit{group=\"2\",queue=\"orders\"} 3"]
    );
    // "orders" + "2x" and "orders2" + "x" are the same text, and two series.
    maintained(orders, Some((3, "2x")));
    maintained(&queue("orders2"), Some((4, "x")));
    assert_eq!(
        series(),
        [
            "pythia_entries_over_limit{group=\"2x\",queue=\"orders\"} 3",
            "pythia_entries_over_limit{group=\"x\",queue=\"orders2\"} 4",
        ]
    );
    maintained(orders, None);
    assert_eq!(
        series(),
        ["pythia_entries_over_limit{group=\"x\",queue=\"orders2\"} 4"]
    );
}
