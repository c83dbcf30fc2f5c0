//! Events in, text out.

use pythia_core::MessageId;
use pythia_core::WorkErrorKind;
use pythia_core::broker::Maintained;
use pythia_core::observe::{Event, GapCause};
use pythia_core::resilience::BreakerState;
use pythia_core::settlement::{DeadKind, DeadReason};
use pythia_metrics::{BucketBounds, names};

use crate::exposition::Exposition;
use crate::metrics::{MS, Metrics, counts, everything, job, queue, text};
use crate::promtool::promtool;

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
    let started = |breaker| {
        metrics.on(&Event::Started {
            queue: orders,
            lanes: 2,
            breaker,
        })
    };
    started(None);
    assert_eq!(state(), [None; 3], "the route has none");
    started(Some(BreakerState::Closed));
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
    // A runner's breaker is closed when it starts, however that of the last one was.
    change(BreakerState::Open);
    started(Some(BreakerState::Closed));
    assert_eq!(state(), [1.0, 0.0, 0.0].map(Some));
    assert_eq!(to("closed"), Some(1.0));
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
    assert_eq!([of("decode", false), of("permanent", true)], [Some(0.0); 2]);
}

#[test]
fn messages_that_die_in_crashes_are_dead_letters_too() {
    let metrics = Metrics::new();
    let of = |series: &str| metrics.value(&format!("pythia_{series}"));
    let crashed = "dead_letters_total{kept=\"true\",queue=\"orders\",reason=\"crashed\"}";
    metrics.received(&queue("orders"), 1);
    assert_eq!(of(crashed), Some(0.0), "an alert has to see the first one");
    let mut maintained = Maintained::default();
    (maintained.dead, maintained.recovered) = (2, 5);
    metrics.on(&Event::Maintained {
        queue: &queue("orders"),
        maintained: &maintained,
    });
    assert_eq!(of(crashed), Some(2.0));
    let moved = "messages_maintained_total{action=\"dead\",queue=\"orders\"}";
    assert_eq!(of(moved), Some(2.0));
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
