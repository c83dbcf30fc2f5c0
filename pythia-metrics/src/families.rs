//! The families of the table as vectors of the Prometheus client, and all of them as one collector.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Result,
};

use crate::config::MetricsConfig;
use crate::names::{self, Family, Kind};

/// A vector for each family. One that is switched off still takes values, but is not exported.
pub(crate) struct Families {
    pub(crate) subscriptions: IntCounterVec,
    pub(crate) batches_received: IntCounterVec,
    pub(crate) messages_received: IntCounterVec,
    pub(crate) messages_in_flight: IntGaugeVec,

    /// `None` if switched off: these two are the only ones that cost time for each message.
    pub(crate) job_wait_seconds: Option<HistogramVec>,
    pub(crate) job_processing_seconds: Option<HistogramVec>,
    pub(crate) job_failures: IntCounterVec,
    pub(crate) messages_settled: IntCounterVec,
    pub(crate) messages_stale: IntCounterVec,
    pub(crate) dead_letters: IntCounterVec,
    pub(crate) settle_seconds: HistogramVec,

    pub(crate) queue_depth: IntGaugeVec,
    pub(crate) queue_oldest_seconds: GaugeVec,
    pub(crate) consumer_group_lag: IntGaugeVec,
    pub(crate) queue_sampled: GaugeVec,
    pub(crate) messages_maintained: IntCounterVec,
    entries_over_limit: Mutex<Vec<IntGaugeVec>>,
    exports_entries_over_limit: bool,

    pub(crate) broker_failures: IntCounterVec,
    pub(crate) breaker_state: IntGaugeVec,
    pub(crate) breaker_transitions: IntCounterVec,
    pub(crate) leases_lost: IntCounterVec,
    pub(crate) gaps: IntCounterVec,
    pub(crate) messages_lost: IntCounterVec,
    pub(crate) gap_seconds: CounterVec,
    pub(crate) lanes_blocked: IntCounterVec,
    pub(crate) lanes_stalled: IntCounterVec,

    pub(crate) pool_connections: IntGaugeVec,
    pub(crate) clients: IntGaugeVec,
    pub(crate) commands_in_flight: IntGaugeVec,
    pub(crate) commands_queued: IntGaugeVec,
    pub(crate) reconnects: IntCounterVec,
    pub(crate) memory_used: IntGaugeVec,
    pub(crate) memory_max: IntGaugeVec,
    pub(crate) server_sampled: GaugeVec,
    pub(crate) command_seconds: HistogramVec,
    pub(crate) command_failures: IntCounterVec,

    exported: Vec<Box<dyn Collector>>,
}

impl Families {
    pub(crate) fn new(config: &MetricsConfig) -> Result<Self> {
        let mut make = Maker {
            config,
            exported: Vec::new(),
        };
        Ok(Self {
            subscriptions: make.counter(&names::SUBSCRIPTIONS)?,
            batches_received: make.counter(&names::BATCHES_RECEIVED)?,
            messages_received: make.counter(&names::MESSAGES_RECEIVED)?,
            messages_in_flight: make.gauge(&names::MESSAGES_IN_FLIGHT)?,

            job_wait_seconds: make.histogram_if_exported(&names::JOB_WAIT_SECONDS)?,
            job_processing_seconds: make.histogram_if_exported(&names::JOB_PROCESSING_SECONDS)?,
            job_failures: make.counter(&names::JOB_FAILURES)?,
            messages_settled: make.counter(&names::MESSAGES_SETTLED)?,
            messages_stale: make.counter(&names::MESSAGES_STALE)?,
            dead_letters: make.counter(&names::DEAD_LETTERS)?,
            settle_seconds: make.histogram(&names::SETTLE_SECONDS)?,

            queue_depth: make.gauge(&names::QUEUE_DEPTH)?,
            queue_oldest_seconds: make.fractional_gauge(&names::QUEUE_OLDEST_SECONDS)?,
            consumer_group_lag: make.gauge(&names::CONSUMER_GROUP_LAG)?,
            queue_sampled: make.fractional_gauge(&names::QUEUE_SAMPLED)?,
            messages_maintained: make.counter(&names::MESSAGES_MAINTAINED)?,
            // Made so that the name is taken in the registry; the series are in the vectors of the queues.
            exports_entries_over_limit: {
                make.gauge(&names::ENTRIES_OVER_LIMIT)?;
                config.exports(&names::ENTRIES_OVER_LIMIT)
            },
            entries_over_limit: Mutex::default(),

            broker_failures: make.counter(&names::BROKER_FAILURES)?,
            breaker_state: make.gauge(&names::BREAKER_STATE)?,
            breaker_transitions: make.counter(&names::BREAKER_TRANSITIONS)?,
            leases_lost: make.counter(&names::LEASES_LOST)?,
            gaps: make.counter(&names::GAPS)?,
            messages_lost: make.counter(&names::MESSAGES_LOST)?,
            gap_seconds: make.fractional_counter(&names::GAP_SECONDS)?,
            lanes_blocked: make.counter(&names::LANES_BLOCKED)?,
            lanes_stalled: make.counter(&names::LANES_STALLED)?,

            pool_connections: make.gauge(&names::POOL_CONNECTIONS)?,
            clients: make.gauge(&names::CLIENTS)?,
            commands_in_flight: make.gauge(&names::COMMANDS_IN_FLIGHT)?,
            commands_queued: make.gauge(&names::COMMANDS_QUEUED)?,
            reconnects: make.counter(&names::RECONNECTS)?,
            memory_used: make.gauge(&names::MEMORY_USED)?,
            memory_max: make.gauge(&names::MEMORY_MAX)?,
            server_sampled: make.fractional_gauge(&names::SERVER_SAMPLED)?,
            command_seconds: make.histogram(&names::COMMAND_SECONDS)?,
            command_failures: make.counter(&names::COMMAND_FAILURES)?,

            exported: make.exported,
        })
    }

    /// The entries over the limit of one queue. Groups have any name, so two free labels would meet in one vector, which
    /// takes (`ab`, `c`) and (`a`, `bc`) for the same series: hence a vector for each queue.
    pub(crate) fn entries_over_limit(&self, queue: &str) -> Result<IntGaugeVec> {
        let family = names::ENTRIES_OVER_LIMIT;
        let [queue_label, group] = family.labels else {
            unreachable!("the family has two labels")
        };
        let opts = Opts::new(family.name, family.help).const_label(queue_label.name, queue);
        let vec = IntGaugeVec::new(opts, &[group.name])?;
        if self.exports_entries_over_limit {
            self.over_limit().push(vec.clone());
        }
        Ok(vec)
    }

    fn over_limit(&self) -> MutexGuard<'_, Vec<IntGaugeVec>> {
        self.entries_over_limit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the registry holds: one collector for all families, so that they are registered together or not at all.
pub(crate) struct Exported(pub(crate) Arc<Families>);

impl Collector for Exported {
    fn desc(&self) -> Vec<&Desc> {
        self.0.exported.iter().flat_map(|vec| vec.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let of_table = self.0.exported.iter().flat_map(|vec| vec.collect());
        let over_limit = self.0.over_limit();
        of_table
            .chain(over_limit.iter().flat_map(Collector::collect))
            .collect()
    }
}

struct Maker<'a> {
    config: &'a MetricsConfig,
    exported: Vec<Box<dyn Collector>>,
}

impl Maker<'_> {
    fn counter(&mut self, family: &Family) -> Result<IntCounterVec> {
        self.export(family, IntCounterVec::new(opts(family), &labels(family)))
    }

    fn fractional_counter(&mut self, family: &Family) -> Result<CounterVec> {
        self.export(family, CounterVec::new(opts(family), &labels(family)))
    }

    fn gauge(&mut self, family: &Family) -> Result<IntGaugeVec> {
        self.export(family, IntGaugeVec::new(opts(family), &labels(family)))
    }

    fn fractional_gauge(&mut self, family: &Family) -> Result<GaugeVec> {
        self.export(family, GaugeVec::new(opts(family), &labels(family)))
    }

    fn histogram(&mut self, family: &Family) -> Result<HistogramVec> {
        let Kind::Histogram(buckets) = family.kind else {
            unreachable!("{} is no histogram", family.name)
        };
        let bounds = self.config.buckets(buckets).as_slice();
        let opts = HistogramOpts::from(opts(family)).buckets(bounds.to_vec());
        self.export(family, HistogramVec::new(opts, &labels(family)))
    }

    fn histogram_if_exported(&mut self, family: &Family) -> Result<Option<HistogramVec>> {
        if self.config.exports(family) {
            self.histogram(family).map(Some)
        } else {
            Ok(None)
        }
    }

    fn export<V: Collector + Clone + 'static>(
        &mut self,
        family: &Family,
        vec: Result<V>,
    ) -> Result<V> {
        let vec = vec?;
        if self.config.exports(family) {
            self.exported.push(Box::new(vec.clone()));
        }
        Ok(vec)
    }
}

fn opts(family: &Family) -> Opts {
    Opts::new(family.name, family.help)
}

fn labels(family: &Family) -> Vec<&'static str> {
    family.labels.iter().map(|label| label.name).collect()
}
