//! [`PrometheusObserver`]: from events to metrics.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Histogram, IntCounter, Registry};
use pythia_core::QueueName;
use pythia_core::admin::ServerStats;
use pythia_core::observe::{Event, Observer};

use crate::bounded::Bounded;
use crate::config::MetricsConfig;
use crate::error::MetricsError;
use crate::families::{Exported, Families};
use crate::names::OTHER_COMMANDS;
use crate::queue::{QueueMetrics, seconds_since_1970, set_or_remove};

/// Counts what a runner and its brokers report, for Prometheus.
///
/// Cheap to clone; clones count into the same metrics, so one serves several runners of a process. Each of them is to have
/// brokers of its own: a broker tells what its server answers to every runner that uses it.
///
/// ```
/// use pythia_metrics::PrometheusObserver;
/// use pythia_metrics::prometheus::{IntCounter, Registry};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::new();
/// let observer = PrometheusObserver::register(&registry)?; // goes to the runner's builder
///
/// let parcels = IntCounter::new("shop_parcels_total", "Parcels that were shipped.")?;
/// registry.register(Box::new(parcels.clone()))?; // exported beside Pythia's own
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PrometheusObserver(Arc<Inner>);

struct Inner {
    enabled: bool,
    families: Arc<Families>,
    queues: Bounded<QueueName, QueueMetrics>,
    commands: Bounded<&'static str, CommandMetrics>,
    /// The reconnects that each server had when last sampled.
    servers: Mutex<HashMap<String, u64>>,
}

struct CommandMetrics {
    seconds: Histogram,
    failures: IntCounter,
}

impl PrometheusObserver {
    /// Registers the metrics, with the default settings.
    ///
    /// # Errors
    /// If the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> Result<Self, MetricsError> {
        Self::register_with(registry, &MetricsConfig::default())
    }

    /// Registers the metrics. Where they are not [`enabled`](MetricsConfig::enabled), it registers and counts nothing.
    ///
    /// # Errors
    /// If the registry has metrics of these names already.
    pub fn register_with(
        registry: &Registry,
        config: &MetricsConfig,
    ) -> Result<Self, MetricsError> {
        let families = Families::new(config).map_err(|error| MetricsError::register(&error))?;
        let families = Arc::new(families);
        if config.enabled {
            registry
                .register(Box::new(Exported(Arc::clone(&families))))
                .map_err(|error| MetricsError::register(&error))?;
        }
        Ok(Self(Arc::new(Inner {
            enabled: config.enabled,
            families,
            queues: Bounded::new(config.max_queues.get()),
            commands: Bounded::new(MAX_COMMANDS),
            servers: Mutex::default(),
        })))
    }
}

impl Observer for PrometheusObserver {
    fn on_event(&self, event: &Event<'_>) {
        if self.0.enabled {
            self.0.count(event);
        }
    }
}

impl Inner {
    fn count(&self, event: &Event<'_>) {
        match *event {
            Event::BreakerChanged { queue, state } => self.queue(queue).breaker_changed(state),
            Event::Command { command, took, ok } => {
                let metrics = self.command(command);
                metrics.seconds.observe(took.as_secs_f64());
                metrics.failures.inc_by(u64::from(!ok));
            }
            Event::DeadLettered {
                queue,
                reason,
                kept,
                ..
            } => {
                self.queue(queue).dead_lettered(reason, kept);
            }
            Event::ExtendFailed { queue, error } => self.queue(queue).failed("extend", error),
            Event::FetchFailed { queue, error, .. } => self.queue(queue).failed("fetch", error),
            Event::Gap {
                queue,
                cause,
                lost,
                lasted,
            } => self.queue(queue).gap(cause, lost, lasted),
            Event::LaneBlocked { queue, .. } => self.queue(queue).lane_blocked(),
            Event::LeasesLost { queue, count } => self.queue(queue).leases_lost(count),
            Event::Maintained { queue, maintained } => self.queue(queue).maintained(maintained),
            Event::MaintainFailed { queue, error } => self.queue(queue).failed("maintain", error),
            Event::Processed { queue, jobs } => self.queue(queue).processed(jobs),
            Event::Received { queue, count } => self.queue(queue).received(count),
            Event::Sampled { queue, depth } => self.queue(queue).sampled(depth),
            Event::ServerSampled { stats } => self.server_sampled(stats),
            Event::Settled {
                queue,
                counts,
                took,
            } => self.queue(queue).settled(counts, took),
            Event::SettleFailed { queue, error, .. } => self.queue(queue).failed("settle", error),
            Event::Stalled { queue, .. } => self.queue(queue).stalled(),
            Event::Started { queue, breaker, .. } => self.queue(queue).started(breaker),
            Event::Subscribed { queue, .. } => self.queue(queue).subscribed(),
            // Failed attempts are counted with the jobs that were processed. Core may report more than this version knows.
            _ => {}
        }
    }

    fn queue(&self, queue: &QueueName) -> Arc<QueueMetrics> {
        self.queues.get(queue, |known| {
            if known.is_none() {
                tracing::warn!(%queue, "more queues than `metrics.max_queues`: the rest is counted together");
            }
            QueueMetrics::new(Arc::clone(&self.families), known)
        })
    }

    fn command(&self, command: &'static str) -> Arc<CommandMetrics> {
        self.commands.get(&command, |known| {
            let label = [known.map_or(OTHER_COMMANDS, |known| *known)];
            CommandMetrics {
                seconds: self.families.command_seconds.with_label_values(&label),
                failures: self.families.command_failures.with_label_values(&label),
            }
        })
    }

    fn server_sampled(&self, stats: &ServerStats) {
        let Some(reconnected) = self.reconnected(stats) else {
            return;
        };
        let families = &self.families;
        let server = [stats.server.as_str()];
        families
            .reconnects
            .with_label_values(&server)
            .inc_by(reconnected);
        for (state, count) in [
            ("connected", stats.connected),
            ("connecting", stats.connecting),
            ("disconnected", stats.disconnected),
        ] {
            set_or_remove(&families.clients, &[state, &stats.server], Some(count));
        }
        for (vec, value) in [
            (&families.pool_connections, Some(stats.pool_size)),
            (&families.commands_in_flight, Some(stats.in_flight)),
            (&families.commands_queued, Some(stats.queued)),
            (&families.memory_used, stats.memory_used),
            (&families.memory_max, stats.memory_max),
        ] {
            set_or_remove(vec, &server, value);
        }
        let sampled = families.server_sampled.with_label_values(&server);
        sampled.set(seconds_since_1970());
    }

    /// How many reconnects are new. `None` for a server beyond the limit of servers.
    fn reconnected(&self, stats: &ServerStats) -> Option<u64> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stats.reconnects;
        if let Some(before) = servers.get_mut(&stats.server) {
            let before = std::mem::replace(before, now);
            // Fewer than before: these are the connections of a new broker, which counts from zero.
            return Some(now.checked_sub(before).unwrap_or(now));
        }
        if servers.len() == MAX_SERVERS {
            return None;
        }
        servers.insert(stats.server.clone(), now);
        Some(now)
    }
}

impl fmt::Debug for PrometheusObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrometheusObserver")
            .field("enabled", &self.0.enabled)
            .finish_non_exhaustive()
    }
}

const MAX_COMMANDS: usize = 100;
const MAX_SERVERS: usize = 100;
