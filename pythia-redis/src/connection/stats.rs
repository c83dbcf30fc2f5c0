//! What the gauges and the latency histogram of a Redis are fed with.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use pythia_core::admin::ServerStats;
use pythia_core::observe::{Event, Observer, Observers};
use tokio::time::Instant;

use crate::error::RedisError;

/// Shared by all connections of one [`Redis`](super::Redis).
#[derive(Debug, Default)]
pub(super) struct Counters {
    in_flight: AtomicU64,
    reconnects: AtomicU64,
    observers: RwLock<Observers>,
}

impl Counters {
    pub(super) fn attach(&self, observer: Arc<dyn Observer>) {
        self.observers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(observer);
    }

    pub(super) fn report(&self, event: &Event<'_>) {
        self.observers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .on_event(event);
    }

    /// A command that Redis answers at once. One that waits for data is no command in this sense: its time says
    /// nothing of Redis, and one in flight is its normal state.
    pub(super) fn start(&self, command: &'static str) -> Running<'_> {
        self.in_flight.fetch_add(1, Relaxed);
        Running {
            counters: self,
            command,
            since: Instant::now(),
        }
    }

    pub(super) fn reconnected(&self, times: u64) {
        self.reconnects.fetch_add(times, Relaxed);
    }

    pub(super) fn fill(&self, stats: &mut ServerStats) {
        stats.in_flight = self.in_flight.load(Relaxed);
        stats.reconnects = self.reconnects.load(Relaxed);
    }
}

/// A command under way. Dropped without [`end`](Self::end), because its caller went away, it only leaves the gauge.
#[derive(Debug)]
pub(super) struct Running<'a> {
    counters: &'a Counters,
    command: &'static str,
    since: Instant,
}

impl Running<'_> {
    pub(super) fn end<T>(self, result: Result<T, RedisError>) -> Result<T, RedisError> {
        self.counters.report(&Event::Command {
            command: self.command,
            took: Instant::now().saturating_duration_since(self.since),
            ok: result.is_ok(),
        });
        result
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.counters.in_flight.fetch_sub(1, Relaxed);
    }
}
