//! Whatever happens, in whatever order, the page can be read and its numbers agree.

use std::num::NonZeroUsize;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use pythia_core::admin::{Depth, ServerStats};
use pythia_core::broker::{Maintained, OverLimit};
use pythia_core::observe::{Event, GapCause, JobReport, Observer, SettledCounts};
use pythia_core::resilience::BreakerState;
use pythia_core::settlement::{DeadKind, DeadReason};
use pythia_core::{BrokerError, BrokerErrorKind, MessageId, QueueName, WorkErrorKind};
use pythia_metrics::prometheus::Registry;
use pythia_metrics::{MetricsConfig, PrometheusObserver};

use crate::exposition::Exposition;
use crate::metrics::text;
use crate::promtool::promtool;

/// An event that owns what it tells.
#[derive(Clone, Debug)]
enum Told {
    Breaker(QueueName, BreakerState),
    Command(&'static str, Duration, bool),
    Dead(QueueName, DeadKind, bool),
    Failed(QueueName, u8, BrokerErrorKind),
    Gap(QueueName, GapCause, Option<u64>, Option<Duration>),
    Lost(QueueName, u64),
    Maintained(QueueName, Maintained),
    Processed(QueueName, Vec<JobReport>),
    Received(QueueName, u64),
    Sampled(QueueName, Depth),
    Server(ServerStats),
    Settled(QueueName, SettledCounts, Duration),
    Trouble(QueueName, usize, Duration),
}

impl Told {
    fn tell(&self, observer: &PrometheusObserver) {
        let on = |event: &Event<'_>| observer.on_event(event);
        match self {
            Self::Breaker(queue, state) => on(&Event::BreakerChanged {
                queue,
                state: *state,
            }),
            Self::Command(command, took, ok) => on(&Event::Command {
                command,
                took: *took,
                ok: *ok,
            }),
            Self::Dead(queue, kind, kept) => on(&Event::DeadLettered {
                queue,
                id: &MessageId::from("1"),
                attempts: 1,
                reason: &DeadReason {
                    kind: *kind,
                    error: "no".into(),
                },
                kept: *kept,
            }),
            Self::Failed(queue, operation, kind) => {
                let error = &BrokerError::new(*kind, "do something");
                let retry_in = Duration::ZERO;
                on(&match operation {
                    0 => Event::FetchFailed {
                        queue,
                        error,
                        retry_in,
                    },
                    1 => Event::SettleFailed {
                        queue,
                        error,
                        retry_in,
                    },
                    2 => Event::ExtendFailed { queue, error },
                    _ => Event::MaintainFailed { queue, error },
                });
            }
            Self::Gap(queue, cause, lost, lasted) => {
                on(&Event::Gap {
                    queue,
                    cause: *cause,
                    lost: *lost,
                    lasted: *lasted,
                });
            }
            Self::Lost(queue, count) => on(&Event::LeasesLost {
                queue,
                count: *count,
            }),
            Self::Maintained(queue, maintained) => on(&Event::Maintained { queue, maintained }),
            Self::Processed(queue, jobs) => on(&Event::Processed { queue, jobs }),
            Self::Received(queue, count) => on(&Event::Received {
                queue,
                count: *count,
            }),
            Self::Sampled(queue, depth) => on(&Event::Sampled { queue, depth }),
            Self::Server(stats) => on(&Event::ServerSampled { stats }),
            Self::Settled(queue, counts, took) => on(&Event::Settled {
                queue,
                counts: *counts,
                took: *took,
            }),
            Self::Trouble(queue, lane, time) => {
                on(&Event::Subscribed { queue, lane: *lane });
                on(&Event::LaneBlocked {
                    queue,
                    lane: *lane,
                    blocked: *time,
                });
                on(&Event::Stalled {
                    queue,
                    lane: *lane,
                    silent: *time,
                });
            }
        }
    }
}

/// Names that can be taken for one another, that need escapes, and any others that are allowed.
fn queue() -> impl Strategy<Value = QueueName> {
    prop_oneof![
        Just("a".to_owned()),
        Just("adead".to_owned()),
        Just("half_".to_owned()),
        Just("q\"\\{n}é".to_owned()),
        "\\PC{1,12}",
    ]
    .prop_filter_map("no name of a queue", |name| QueueName::new(&name).ok())
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..5_000_000_u64).prop_map(Duration::from_micros),
        any::<u32>().prop_map(|seconds| Duration::from_secs(seconds.into())),
        Just(Duration::ZERO),
        Just(Duration::MAX),
    ]
}

/// Sums of these are exact in the floating-point numbers of the page.
fn count() -> impl Strategy<Value = u64> {
    prop_oneof![0..2_000_u64, 0..=1_u64 << 40]
}

fn job() -> impl Strategy<Value = JobReport> {
    let failure = prop_oneof![
        Just(WorkErrorKind::BreakerOpen),
        Just(WorkErrorKind::Decode),
        Just(WorkErrorKind::Panic),
        Just(WorkErrorKind::Permanent),
        option::of(duration()).prop_map(|after| WorkErrorKind::Retryable { after }),
        duration().prop_map(|delay| WorkErrorKind::Snooze { delay }),
        Just(WorkErrorKind::Timeout),
    ];
    (option::of(failure), duration(), option::of(duration())).prop_map(|(failure, took, waited)| {
        JobReport {
            failure,
            took,
            waited,
        }
    })
}

fn depth() -> impl Strategy<Value = Depth> {
    let counts = [
        option::of(count()),
        option::of(count()),
        option::of(count()),
        option::of(count()),
        option::of(count()),
    ];
    (counts, option::of(duration())).prop_map(|([ready, pending, delayed, dead, lag], oldest)| {
        let mut depth = Depth::default();
        (depth.ready, depth.pending, depth.delayed) = (ready, pending, delayed);
        (depth.dead, depth.lag, depth.oldest) = (dead, lag, oldest);
        depth
    })
}

fn server() -> impl Strategy<Value = ServerStats> {
    let name = prop_oneof![
        Just("a:1/0".to_owned()),
        Just("a:1/0dis".to_owned()),
        any::<String>()
    ];
    (
        name,
        [count(), count(), count()],
        [option::of(count()), option::of(count())],
    )
        .prop_map(|(server, [connected, queued, reconnects], [used, max])| {
            let mut stats = ServerStats::default();
            stats.server = server;
            (stats.connected, stats.queued, stats.reconnects) = (connected, queued, reconnects);
            (stats.memory_used, stats.memory_max) = (used, max);
            stats
        })
}

fn maintained() -> impl Strategy<Value = Maintained> {
    let over = option::of((count(), any::<String>()));
    ([count(), count(), count(), count()], over).prop_map(
        |([promoted, recovered, dead, trimmed], over)| {
            let mut maintained = Maintained::default();
            (maintained.promoted, maintained.recovered) = (promoted, recovered);
            (maintained.dead, maintained.trimmed) = (dead, trimmed);
            maintained.over_limit = over.map(|(entries, group)| OverLimit { entries, group });
            maintained
        },
    )
}

fn settled() -> impl Strategy<Value = SettledCounts> {
    [count(), count(), count(), count(), count(), count()].prop_map(
        |[acked, dead, released, retried, snoozed, stale]| {
            let mut counts = SettledCounts::default();
            (counts.acked, counts.dead, counts.released) = (acked, dead, released);
            (counts.retried, counts.snoozed, counts.stale) = (retried, snoozed, stale);
            counts
        },
    )
}

fn told() -> impl Strategy<Value = Told> {
    let state = prop::sample::select(vec![
        BreakerState::Closed,
        BreakerState::HalfOpen,
        BreakerState::Open,
    ]);
    let command = prop::sample::select(vec!["list/claim", "LPUSH", "XADD"]);
    let dead = prop::sample::select(vec![
        DeadKind::Crashed,
        DeadKind::Decode,
        DeadKind::Exhausted,
        DeadKind::Permanent,
    ]);
    let cause = prop::sample::select(vec![
        GapCause::BufferFull,
        GapCause::Disconnected,
        GapCause::MissingNumbers,
    ]);
    let error = prop::sample::select(vec![
        BrokerErrorKind::Authentication,
        BrokerErrorKind::Other,
        BrokerErrorKind::OutOfMemory,
        BrokerErrorKind::Permission,
        BrokerErrorKind::Protocol,
        BrokerErrorKind::ReadOnly,
        BrokerErrorKind::SubscriptionLost,
        BrokerErrorKind::TooLarge,
        BrokerErrorKind::Unavailable,
        BrokerErrorKind::Unsupported,
        BrokerErrorKind::WrongType,
    ]);
    prop_oneof![
        (queue(), state).prop_map(|(queue, state)| Told::Breaker(queue, state)),
        (command, duration(), any::<bool>())
            .prop_map(|(command, took, ok)| Told::Command(command, took, ok)),
        (queue(), dead, any::<bool>())
            .prop_map(|(queue, kind, kept)| Told::Dead(queue, kind, kept)),
        (queue(), 0..4_u8, error)
            .prop_map(|(queue, operation, kind)| Told::Failed(queue, operation, kind)),
        (queue(), cause, option::of(count()), option::of(duration()))
            .prop_map(|(queue, cause, lost, lasted)| Told::Gap(queue, cause, lost, lasted)),
        (queue(), count()).prop_map(|(queue, count)| Told::Lost(queue, count)),
        (queue(), maintained()).prop_map(|(queue, maintained)| Told::Maintained(queue, maintained)),
        (queue(), vec(job(), 0..20)).prop_map(|(queue, jobs)| Told::Processed(queue, jobs)),
        (queue(), count()).prop_map(|(queue, count)| Told::Received(queue, count)),
        (queue(), depth()).prop_map(|(queue, depth)| Told::Sampled(queue, depth)),
        server().prop_map(Told::Server),
        (queue(), settled(), duration())
            .prop_map(|(queue, counts, took)| Told::Settled(queue, counts, took)),
        (queue(), any::<usize>(), duration())
            .prop_map(|(queue, lane, time)| Told::Trouble(queue, lane, time)),
    ]
}

fn page(events: &[Told], max_queues: usize) -> String {
    let mut config = MetricsConfig::default();
    config.max_queues = NonZeroUsize::new(max_queues).unwrap();
    let registry = Registry::new();
    let observer = PrometheusObserver::register_with(&registry, &config).unwrap();
    for event in events {
        event.tell(&observer);
    }
    text(&registry)
}

/// The sum over all series of a family.
fn sum(page: &Exposition, family: &str) -> f64 {
    let series = page
        .series
        .iter()
        .filter(|(series, _)| series.split('{').next() == Some(family));
    series.map(|(_, value)| value).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_page_can_be_read_and_adds_up(events in vec(told(), 0..40), max_queues in 1..8_usize) {
        let page = Exposition::parse(&page(&events, max_queues));
        let (mut received, mut settled, mut jobs, mut failures, mut gaps) = (0, 0, 0, 0, 0);
        for event in &events {
            match event {
                Told::Received(_, count) => received += count,
                Told::Settled(_, counts, _) => settled += counts.total(),
                Told::Processed(_, reports) => {
                    jobs += reports.len();
                    failures += reports.iter().filter(|job| job.failure.is_some()).count();
                }
                Told::Gap(..) => gaps += 1,
                _ => {}
            }
        }
        prop_assert_eq!(sum(&page, "pythia_messages_received_total"), received as f64);
        prop_assert_eq!(sum(&page, "pythia_messages_settled_total"), settled as f64);
        prop_assert_eq!(sum(&page, "pythia_messages_in_flight"), received as f64 - settled as f64);
        prop_assert_eq!(sum(&page, "pythia_job_processing_seconds_count"), jobs as f64);
        prop_assert_eq!(sum(&page, "pythia_job_failures_total"), failures as f64);
        prop_assert_eq!(sum(&page, "pythia_gaps_total"), gaps as f64);
    }
}

proptest! {
    // Each case starts a program.
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn promtool_reads_it_too(events in vec(told(), 30..60)) {
        promtool(&page(&events, 1_000));
    }
}
