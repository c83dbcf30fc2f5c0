//! An observer with a registry of its own, and events to send it.

use std::time::Duration;

use pythia_core::admin::{Depth, ServerStats};
use pythia_core::broker::{Maintained, OverLimit};
use pythia_core::observe::{Event, GapCause, JobReport, Observer, SettledCounts};
use pythia_core::resilience::BreakerState;
use pythia_core::settlement::{DeadKind, DeadReason};
use pythia_core::{BrokerError, BrokerErrorKind, MessageId, QueueName, WorkErrorKind};
use pythia_metrics::prometheus::{Registry, TextEncoder};
use pythia_metrics::{MetricsConfig, PrometheusObserver};

use crate::exposition::Exposition;

pub(crate) const MS: Duration = Duration::from_millis(1);

pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    pub(crate) observer: PrometheusObserver,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut MetricsConfig)) -> Self {
        let mut config = MetricsConfig::default();
        change(&mut config);
        Self::by(&config)
    }

    pub(crate) fn by(config: &MetricsConfig) -> Self {
        let registry = Registry::new();
        let observer = PrometheusObserver::register_with(&registry, config).unwrap();
        Self { registry, observer }
    }

    pub(crate) fn on(&self, event: &Event<'_>) {
        self.observer.on_event(event);
    }

    pub(crate) fn received(&self, queue: &QueueName, count: u64) {
        self.on(&Event::Received { queue, count });
    }

    pub(crate) fn sampled(&self, queue: &QueueName, depth: &Depth) {
        self.on(&Event::Sampled { queue, depth });
    }

    pub(crate) fn server(&self, server: &str, change: impl FnOnce(&mut ServerStats)) {
        let mut stats = ServerStats::default();
        stats.server = server.to_owned();
        change(&mut stats);
        self.on(&Event::ServerSampled { stats: &stats });
    }

    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        value(&self.registry, series)
    }

    /// The lines of one family, comments included.
    pub(crate) fn lines(&self, family: &str) -> String {
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

pub(crate) fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

pub(crate) fn text(registry: &Registry) -> String {
    TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap()
}

/// The value of a series, written as it is exported: `name{label="value"}`.
pub(crate) fn value(registry: &Registry, series: &str) -> Option<f64> {
    Exposition::parse(&text(registry))
        .series
        .get(series)
        .copied()
}

pub(crate) fn counts(change: impl FnOnce(&mut SettledCounts)) -> SettledCounts {
    let mut counts = SettledCounts::default();
    change(&mut counts);
    counts
}

pub(crate) fn job(
    failure: Option<WorkErrorKind>,
    took: Duration,
    waited: Option<Duration>,
) -> JobReport {
    JobReport {
        failure,
        took,
        waited,
    }
}

/// One event of each kind, so that every family has a series.
pub(crate) fn everything(metrics: &Metrics) {
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
