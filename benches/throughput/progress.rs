//! How far a measured process is, and how long its messages have waited.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pythia_core::observe::{Event, Observer};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::payment::{self, Payment};

#[derive(Clone)]
pub(crate) struct Progress(Arc<Shared>);

struct Shared {
    wanted: u64,
    settled: AtomicU64,
    /// When the first were, and how many.
    first: OnceLock<(Instant, u64)>,
    failed: AtomicU64,
    /// The wait of one message in so many is noted.
    one_in: u64,
    waits: Mutex<Vec<u32>>,
    all: Notify,
    /// Whoever started this process wants to know how many are settled.
    tells: bool,
}

/// From publishing to the start of the job, ms.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Waits {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Progress {
    pub(crate) fn new(wanted: u64, one_in: u64, tells: bool) -> Self {
        Self(Arc::new(Shared {
            wanted,
            settled: AtomicU64::new(0),
            first: OnceLock::new(),
            failed: AtomicU64::new(0),
            one_in,
            waits: Mutex::default(),
            all: Notify::new(),
            tells,
        }))
    }

    /// A job begins.
    pub(crate) fn begin(&self, payment: &Payment) {
        if payment.id.is_multiple_of(self.0.one_in) {
            let waited = payment::now().saturating_sub(payment.at);
            let waits = self.0.waits.lock();
            waits
                .unwrap_or_else(PoisonError::into_inner)
                .push(waited.min(u64::from(u32::MAX)) as u32);
        }
    }

    /// So many are done, and the broker knows it.
    pub(crate) fn settled(&self, count: u64) {
        let settled = self.0.settled.fetch_add(count, Relaxed) + count;
        self.0.first.get_or_init(|| (Instant::now(), settled));
        if self.0.tells {
            let mut out = std::io::stdout().lock();
            let _told = writeln!(out, "{SETTLED}{settled}").and_then(|()| out.flush());
        }
        if settled >= self.0.wanted {
            self.0.all.notify_one();
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.settled.load(Relaxed) >= self.0.wanted
    }

    /// For one waiter.
    pub(crate) async fn over(&self) {
        while !self.is_over() {
            self.0.all.notified().await;
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.settled.load(Relaxed)
    }

    /// Messages a second from the first settle until now: without the start. None if the first were all.
    pub(crate) fn steady(&self, now: Instant) -> Option<f64> {
        let &(began, first) = self.0.first.get()?;
        let later = self.count().saturating_sub(first);
        let seconds = now.saturating_duration_since(began).as_secs_f64();
        (later > 0 && seconds > 0.0).then(|| later as f64 / seconds)
    }

    pub(crate) fn failed(&self) -> u64 {
        self.0.failed.load(Relaxed)
    }

    pub(crate) fn waits(&self) -> Option<Waits> {
        let mut waits = self.0.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.sort_unstable();
        let last = waits.len().checked_sub(1)?;
        let at = |share: f64| f64::from(waits[(last as f64 * share).round() as usize]) / 1e3;
        Some(Waits {
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            max: at(1.0),
        })
    }
}

impl Observer for Progress {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Settled { counts, .. } => {
                let stale = counts.stale.min(counts.acked);
                let failed = counts.dead + counts.retried + counts.released + stale;
                self.0.failed.fetch_add(failed, Relaxed);
                self.settled(counts.acked - stale);
            }
            Event::Gap { lost, .. } => {
                let lost = lost.unwrap_or(1);
                self.0.failed.fetch_add(lost, Relaxed);
                // Nobody will ever settle them.
                self.settled(lost);
            }
            _ => {}
        }
    }
}

/// What a line begins with that tells how many are settled.
pub(crate) const SETTLED: &str = "settled ";
