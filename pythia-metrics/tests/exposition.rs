//! Events in, text out.

mod support;

use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime};

use pythia_core::admin::{Depth, ServerStats};
use pythia_core::broker::{Maintained, OverLimit};
use pythia_core::observe::{Event, GapCause, JobReport, Observer, SettledCounts};
use pythia_core::resilience::BreakerState;
use pythia_core::settlement::{DeadKind, DeadReason};
use pythia_core::{BrokerError, BrokerErrorKind, MessageId, QueueName, WorkErrorKind};
use pythia_metrics::prometheus::{IntCounter, Registry};
use pythia_metrics::{
    BucketBounds, FamilyName, MetricsConfig, MetricsErrorKind, PrometheusObserver, names,
};
use support::{Exposition, promtool, queue, text, value};

const MS: Duration = Duration::from_millis(1);

struct Metrics {
    registry: Registry,
    observer: PrometheusObserver,
}

impl Metrics {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut MetricsConfig)) -> Self {
        let mut config = MetricsConfig::default();
        change(&mut config);
        let registry = Registry::new();
        let observer = PrometheusObserver::register_with(&registry, &config).unwrap();
        Self { registry, observer }
    }

    fn on(&self, event: &Event<'_>) {
        self.observer.on_event(event);
    }

    fn received(&self, queue: &QueueName, count: u64) {
        self.on(&Event::Received { queue, count });
    }

    fn sampled(&self, queue: &QueueName, depth: &Depth) {
        self.on(&Event::Sampled { queue, depth });
    }

    fn server(&self, server: &str, change: impl FnOnce(&mut ServerStats)) {
        let mut stats = ServerStats::default();
        stats.server = server.to_owned();
        change(&mut stats);
        self.on(&Event::ServerSampled { stats: &stats });
    }

    fn value(&self, series: &str) -> Option<f64> {
        value(&self.registry, series)
    }

    /// The lines of one family, comments included.
    fn lines(&self, family: &str) -> String {
        let text = text(&self.registry);
        let name = |line: &str| {
            let name = line
                .trim_start_matches("# HELP ")
                .trim_start_matches("# TYPE ");
            name.split([' ', '{']).next().unwrap().to_owned()
        };
        let ours = |line: &&str| {
            let name = name(line);
            name.strip_prefix(family)
                .is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
        };
        text.lines().filter(ours).collect::<Vec<_>>().join("\n")
    }
}

fn counts(change: impl FnOnce(&mut SettledCounts)) -> SettledCounts {
    let mut counts = SettledCounts::default();
    change(&mut counts);
    counts
}

fn job(failure: Option<WorkErrorKind>, took: Duration, waited: Option<Duration>) -> JobReport {
    JobReport {
        failure,
        took,
        waited,
    }
}

/// One event of each kind, so that every family has a series.
fn everything(metrics: &Metrics) {
    let orders = &queue("orders");
    let error = &BrokerError::new(BrokerErrorKind::Unavailable, "claim messages");
    let retry_in = MS;
    metrics.on(&Event::Subscribed {
        queue: orders,
        lane: 0,
    });
    metrics.received(orders, 7);
    metrics.on(&Event::Processed {
        queue: orders,
        jobs: &[
            job(None, 3 * MS, Some(20 * MS)),
            job(Some(WorkErrorKind::Panic), MS, None),
        ],
    });
    metrics.on(&Event::Settled {
        queue: orders,
        counts: counts(|counts| {
            counts.acked = 1;
            counts.retried = 1;
            counts.stale = 1;
        }),
        took: 2 * MS,
    });
    metrics.on(&Event::DeadLettered {
        queue: orders,
        id: &MessageId::from("1"),
        attempts: 5,
        reason: &DeadReason {
            kind: DeadKind::Exhausted,
            error: "no".into(),
        },
        kept: true,
    });
    metrics.on(&Event::FetchFailed {
        queue: orders,
        error,
        retry_in,
    });
    metrics.on(&Event::SettleFailed {
        queue: orders,
        error,
        retry_in,
    });
    metrics.on(&Event::ExtendFailed {
        queue: orders,
        error,
    });
    metrics.on(&Event::MaintainFailed {
        queue: orders,
        error,
    });
    metrics.on(&Event::LeasesLost {
        queue: orders,
        count: 2,
    });
    metrics.on(&Event::BreakerChanged {
        queue: orders,
        state: BreakerState::Open,
    });
    metrics.on(&Event::LaneBlocked {
        queue: orders,
        lane: 0,
        blocked: MS,
    });
    metrics.on(&Event::Stalled {
        queue: orders,
        lane: 0,
        silent: MS,
    });
    metrics.on(&Event::Gap {
        queue: orders,
        cause: GapCause::BufferFull,
        lost: Some(4),
        lasted: Some(1_500 * MS),
    });
    let mut maintained = Maintained::default();
    maintained.promoted = 3;
    maintained.over_limit = Some(OverLimit {
        entries: 12,
        group: "slow".into(),
    });
    metrics.on(&Event::Maintained {
        queue: orders,
        maintained: &maintained,
    });
    let mut depth = Depth::default();
    depth.ready = Some(11);
    depth.pending = Some(5);
    depth.delayed = Some(2);
    depth.dead = Some(1);
    depth.lag = Some(6);
    depth.oldest = Some(2_500 * MS);
    metrics.sampled(orders, &depth);
    metrics.server("redis:6379/0", |stats| {
        stats.pool_size = 4;
        stats.connected = 6;
        stats.connecting = 1;
        stats.in_flight = 3;
        stats.queued = 2;
        stats.reconnects = 1;
        stats.memory_used = Some(1_048_576);
        stats.memory_max = Some(2_097_152);
    });
    metrics.on(&Event::Command {
        command: "list/claim",
        took: MS,
        ok: true,
    });
    metrics.on(&Event::Command {
        command: "list/claim",
        took: MS,
        ok: false,
    });
}

#[test]
fn every_family_of_the_table_is_exported_and_no_other() {
    let metrics = Metrics::new();
    everything(&metrics);
    let page = Exposition::parse(&text(&metrics.registry));
    let exported: Vec<_> = page.families.keys().map(String::as_str).collect();
    let mut table: Vec<_> = names::ALL.iter().map(|family| family.name).collect();
    table.sort_unstable();
    assert_eq!(exported, table);
}

#[test]
fn promtool_has_nothing_to_say() {
    let metrics = Metrics::new();
    everything(&metrics);
    promtool(&text(&metrics.registry));
}

#[test]
fn a_batch_from_its_receipt_to_its_settlement() {
    let metrics = Metrics::new();
    everything(&metrics);
    for (series, expected) in [
        ("pythia_subscriptions_total{queue=\"orders\"}", 1.0),
        ("pythia_batches_received_total{queue=\"orders\"}", 1.0),
        ("pythia_messages_received_total{queue=\"orders\"}", 7.0),
        ("pythia_messages_in_flight{queue=\"orders\"}", 5.0),
        ("pythia_job_processing_seconds_count{queue=\"orders\"}", 2.0),
        ("pythia_job_processing_seconds_sum{queue=\"orders\"}", 0.004),
        (
            "pythia_job_processing_seconds_bucket{queue=\"orders\",le=\"0.001\"}",
            1.0,
        ),
        (
            "pythia_job_processing_seconds_bucket{queue=\"orders\",le=\"0.0025\"}",
            1.0,
        ),
        (
            "pythia_job_processing_seconds_bucket{queue=\"orders\",le=\"0.005\"}",
            2.0,
        ),
        ("pythia_job_wait_seconds_count{queue=\"orders\"}", 1.0),
        (
            "pythia_job_wait_seconds_bucket{queue=\"orders\",le=\"0.01\"}",
            0.0,
        ),
        (
            "pythia_job_wait_seconds_bucket{queue=\"orders\",le=\"0.025\"}",
            1.0,
        ),
        (
            "pythia_job_failures_total{kind=\"panic\",queue=\"orders\"}",
            1.0,
        ),
        (
            "pythia_job_failures_total{kind=\"timeout\",queue=\"orders\"}",
            0.0,
        ),
        (
            "pythia_messages_settled_total{outcome=\"acked\",queue=\"orders\"}",
            1.0,
        ),
        (
            "pythia_messages_settled_total{outcome=\"retried\",queue=\"orders\"}",
            1.0,
        ),
        (
            "pythia_messages_settled_total{outcome=\"dead\",queue=\"orders\"}",
            0.0,
        ),
        ("pythia_messages_stale_total{queue=\"orders\"}", 1.0),
        ("pythia_settle_seconds_count{queue=\"orders\"}", 1.0),
        ("pythia_settle_seconds_sum{queue=\"orders\"}", 0.002),
        (
            "pythia_dead_letters_total{kept=\"true\",queue=\"orders\",reason=\"exhausted\"}",
            1.0,
        ),
        ("pythia_leases_lost_total{queue=\"orders\"}", 2.0),
        ("pythia_lanes_blocked_total{queue=\"orders\"}", 1.0),
        ("pythia_lanes_stalled_total{queue=\"orders\"}", 1.0),
        (
            "pythia_messages_maintained_total{action=\"promoted\",queue=\"orders\"}",
            3.0,
        ),
        (
            "pythia_broker_command_seconds_count{command=\"list/claim\"}",
            2.0,
        ),
        (
            "pythia_broker_command_failures_total{command=\"list/claim\"}",
            1.0,
        ),
    ] {
        assert_eq!(metrics.value(series), Some(expected), "{series}");
    }
    for operation in ["extend", "fetch", "maintain", "settle"] {
        let series = format!(
            "pythia_broker_failures_total{{kind=\"unavailable\",operation=\"{operation}\",queue=\"orders\"}}"
        );
        assert_eq!(metrics.value(&series), Some(1.0), "{series}");
    }
}

#[test]
fn the_text_is_exactly_this() {
    let metrics = Metrics::with(|config| {
        config.processing_buckets = BucketBounds::new([0.005, 1.0]).unwrap();
    });
    let orders = &queue("orders");
    metrics.on(&Event::Processed {
        queue: orders,
        jobs: &[
            job(None, 5 * MS, None),
            job(None, 6 * MS, None),
            job(None, 2_000 * MS, None),
        ],
    });
    assert_eq!(
        metrics.lines("pythia_job_processing_seconds"),
        "\
# HELP pythia_job_processing_seconds From the start of an attempt to its end, layers included.
# TYPE pythia_job_processing_seconds histogram
pythia_job_processing_seconds_bucket{queue=\"orders\",le=\"0.005\"} 1
pythia_job_processing_seconds_bucket{queue=\"orders\",le=\"1\"} 2
pythia_job_processing_seconds_bucket{queue=\"orders\",le=\"+Inf\"} 3
pythia_job_processing_seconds_sum{queue=\"orders\"} 2.011
pythia_job_processing_seconds_count{queue=\"orders\"} 3"
    );
}

#[test]
fn a_queue_that_is_known_starts_at_zero() {
    let metrics = Metrics::new();
    metrics.on(&Event::Subscribed {
        queue: &queue("orders"),
        lane: 0,
    });
    let settled = metrics.lines("pythia_messages_settled_total");
    assert_eq!(
        settled.lines().filter(|line| line.ends_with(" 0")).count(),
        5,
        "{settled}"
    );
    let failures = metrics.lines("pythia_job_failures_total");
    assert_eq!(
        failures.lines().filter(|line| line.ends_with(" 0")).count(),
        7,
        "{failures}"
    );
}

#[test]
fn every_kind_of_failure_has_its_series() {
    let metrics = Metrics::new();
    let kinds = [
        WorkErrorKind::BreakerOpen,
        WorkErrorKind::Decode,
        WorkErrorKind::Panic,
        WorkErrorKind::Permanent,
        WorkErrorKind::Retryable { after: Some(MS) },
        WorkErrorKind::Snooze { delay: MS },
        WorkErrorKind::Timeout,
    ];
    for (times, kind) in kinds.into_iter().enumerate() {
        let jobs = vec![job(Some(kind), MS, None); times + 1];
        metrics.on(&Event::Processed {
            queue: &queue("orders"),
            jobs: &jobs,
        });
    }
    for (times, kind) in kinds.into_iter().enumerate() {
        let series = format!(
            "pythia_job_failures_total{{kind=\"{}\",queue=\"orders\"}}",
            kind.name()
        );
        assert_eq!(metrics.value(&series), Some((times + 1) as f64), "{series}");
    }
}

#[test]
fn what_a_broker_can_not_tell_has_no_series() {
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
fn gaps_and_known_losses_are_counted_apart() {
    let metrics = Metrics::new();
    let news = &queue("news");
    let gap = |cause, lost, lasted| {
        metrics.on(&Event::Gap {
            queue: news,
            cause,
            lost,
            lasted,
        })
    };
    gap(GapCause::Disconnected, None, Some(1_500 * MS));
    gap(GapCause::Disconnected, None, None);
    gap(GapCause::BufferFull, Some(40), None);
    gap(GapCause::MissingNumbers, Some(2), None);
    let of = |family: &str, cause: &str| {
        metrics.value(&format!("{family}{{cause=\"{cause}\",queue=\"news\"}}"))
    };
    assert_eq!(of("pythia_gaps_total", "disconnected"), Some(2.0));
    assert_eq!(of("pythia_messages_lost_total", "disconnected"), None);
    assert_eq!(of("pythia_gap_seconds_total", "disconnected"), Some(1.5));
    assert_eq!(of("pythia_gaps_total", "buffer_full"), Some(1.0));
    assert_eq!(of("pythia_messages_lost_total", "buffer_full"), Some(40.0));
    assert_eq!(of("pythia_gap_seconds_total", "buffer_full"), None);
    assert_eq!(
        of("pythia_messages_lost_total", "missing_numbers"),
        Some(2.0)
    );
}

#[test]
fn the_breaker_is_in_one_state_and_only_changes_are_counted() {
    let metrics = Metrics::new();
    let orders = &queue("orders");
    let state = || {
        ["closed", "half_open", "open"].map(|state| {
            metrics.value(&format!(
                "pythia_breaker_state{{queue=\"orders\",state=\"{state}\"}}"
            ))
        })
    };
    let to = |state: &str| {
        metrics.value(&format!(
            "pythia_breaker_transitions_total{{queue=\"orders\",to=\"{state}\"}}"
        ))
    };
    let change = |state| {
        metrics.on(&Event::BreakerChanged {
            queue: orders,
            state,
        })
    };
    assert_eq!(state(), [None; 3]);
    change(BreakerState::Closed);
    assert_eq!(state(), [1.0, 0.0, 0.0].map(Some));
    assert_eq!(to("closed"), None);
    change(BreakerState::Open);
    change(BreakerState::Open);
    assert_eq!(state(), [0.0, 0.0, 1.0].map(Some));
    assert_eq!(to("open"), Some(1.0));
    change(BreakerState::HalfOpen);
    assert_eq!(state(), [0.0, 1.0, 0.0].map(Some));
    change(BreakerState::Closed);
    assert_eq!(state(), [1.0, 0.0, 0.0].map(Some));
    assert_eq!(["closed", "half_open", "open"].map(to), [1.0; 3].map(Some));
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

#[test]
fn dead_letters_that_nobody_keeps_are_counted_apart() {
    let metrics = Metrics::new();
    for (kind, kept) in [
        (DeadKind::Decode, true),
        (DeadKind::Permanent, false),
        (DeadKind::Permanent, false),
    ] {
        metrics.on(&Event::DeadLettered {
            queue: &queue("orders"),
            id: &MessageId::from("1"),
            attempts: 1,
            reason: &DeadReason {
                kind,
                error: String::new(),
            },
            kept,
        });
    }
    let of = |reason: &str, kept: bool| {
        metrics.value(&format!(
            "pythia_dead_letters_total{{kept=\"{kept}\",queue=\"orders\",reason=\"{reason}\"}}"
        ))
    };
    assert_eq!(
        [of("decode", true), of("permanent", false)],
        [Some(1.0), Some(2.0)]
    );
    assert_eq!([of("decode", false), of("permanent", true)], [None, None]);
}

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
fn each_family_can_be_switched_off() {
    for family in names::ALL {
        let metrics = Metrics::with(|config| {
            config.disabled_families = [FamilyName::new(family.name).unwrap()].into();
        });
        everything(&metrics);
        let page = Exposition::parse(&text(&metrics.registry));
        assert!(!page.families.contains_key(family.name), "{}", family.name);
        assert_eq!(page.families.len(), names::ALL.len() - 1, "{}", family.name);
    }
}

#[test]
fn metrics_that_are_not_enabled_are_not_there() {
    let metrics = Metrics::with(|config| config.enabled = false);
    everything(&metrics);
    assert_eq!(text(&metrics.registry), "");
}

#[test]
fn each_histogram_has_the_buckets_that_were_set() {
    let metrics = Metrics::with(|config| {
        config.processing_buckets = BucketBounds::new([11.0]).unwrap();
        config.wait_buckets = BucketBounds::new([12.0]).unwrap();
        config.round_trip_buckets = BucketBounds::new([13.0]).unwrap();
    });
    everything(&metrics);
    for (family, bound) in [
        ("pythia_job_processing_seconds", "le=\"11\""),
        ("pythia_job_wait_seconds", "le=\"12\""),
        ("pythia_settle_seconds", "le=\"13\""),
        ("pythia_broker_command_seconds", "le=\"13\""),
    ] {
        let lines = metrics.lines(family);
        assert_eq!(lines.matches("le=\"").count(), 2, "{lines}");
        assert!(lines.contains(bound), "{lines}");
    }
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

#[test]
fn metrics_of_the_user_are_on_the_same_page() {
    let metrics = Metrics::new();
    let parcels = IntCounter::new("shop_parcels_total", "Parcels that were shipped.").unwrap();
    metrics
        .registry
        .register(Box::new(parcels.clone()))
        .unwrap();
    everything(&metrics);
    parcels.inc_by(3);
    assert_eq!(metrics.value("shop_parcels_total"), Some(3.0));
    assert_eq!(
        metrics.value("pythia_messages_received_total{queue=\"orders\"}"),
        Some(7.0)
    );
    promtool(&text(&metrics.registry));
}

#[test]
fn a_registry_takes_them_once_and_whole() {
    let metrics = Metrics::new();
    let error = PrometheusObserver::register(&metrics.registry).unwrap_err();
    assert_eq!(error.kind(), MetricsErrorKind::AlreadyRegistered);
    assert!(
        error.to_string().contains("this registry has them already"),
        "{error}"
    );
    // A clone counts into the same metrics.
    let second = metrics.observer.clone();
    second.on_event(&Event::Received {
        queue: &queue("orders"),
        count: 1,
    });
    metrics.received(&queue("orders"), 1);
    assert_eq!(
        metrics.value("pythia_messages_received_total{queue=\"orders\"}"),
        Some(2.0)
    );

    let registry = Registry::new();
    let taken = IntCounter::new("pythia_gaps_total", "Somebody else's.").unwrap();
    registry.register(Box::new(taken)).unwrap();
    let error = PrometheusObserver::register(&registry).unwrap_err();
    assert_ne!(error.kind(), MetricsErrorKind::Bind);
    assert!(
        error.to_string().contains("could not register the metrics"),
        "{error}"
    );
    let page = text(&registry);
    assert_eq!(page.matches("# TYPE").count(), 1, "{page}");
}

#[test]
fn nothing_is_lost_between_threads() {
    const THREADS: u64 = 4;
    const BATCHES: u64 = 500;
    let metrics = Metrics::new();
    let jobs = [
        job(None, MS, Some(MS)),
        job(Some(WorkErrorKind::Timeout), MS, None),
    ];
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (metrics, jobs) = (&metrics, &jobs);
            scope.spawn(move || {
                for batch in 0..BATCHES {
                    // One queue that all share, one of each thread, and new ones as they go.
                    for name in [
                        "all".to_owned(),
                        format!("t{thread}"),
                        format!("n{}", batch % 50),
                    ] {
                        let queue = &queue(&name);
                        metrics.received(queue, 2);
                        metrics.on(&Event::Processed { queue, jobs });
                        let counts = counts(|counts| counts.acked = 2);
                        metrics.on(&Event::Settled {
                            queue,
                            counts,
                            took: MS,
                        });
                    }
                    if batch % 50 == 0 {
                        Exposition::parse(&text(&metrics.registry));
                    }
                }
            });
        }
    });
    let page = Exposition::parse(&text(&metrics.registry));
    let batches = (THREADS * BATCHES) as f64;
    for (series, expected) in [
        (
            "pythia_messages_received_total{queue=\"all\"}",
            2.0 * batches,
        ),
        ("pythia_messages_in_flight{queue=\"all\"}", 0.0),
        (
            "pythia_job_processing_seconds_count{queue=\"all\"}",
            2.0 * batches,
        ),
        ("pythia_job_wait_seconds_count{queue=\"all\"}", batches),
        (
            "pythia_job_failures_total{kind=\"timeout\",queue=\"all\"}",
            batches,
        ),
        (
            "pythia_messages_settled_total{outcome=\"acked\",queue=\"all\"}",
            2.0 * batches,
        ),
        (
            "pythia_messages_received_total{queue=\"t0\"}",
            2.0 * BATCHES as f64,
        ),
        (
            "pythia_messages_received_total{queue=\"n7\"}",
            2.0 * batches / 50.0,
        ),
    ] {
        assert_eq!(page.series.get(series), Some(&expected), "{series}");
    }
}
