//! How far a measured process is, and how long its messages have waited.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    /// How many wait at a time.
    filling: u64,
    /// A job of the present filling has begun.
    is_begun: AtomicBool,
    steady: Mutex<Steady>,
    failed: AtomicU64,
    /// The wait of one message in so many is noted; of none without it.
    one_in: Option<u64>,
    waits: Mutex<Vec<u32>>,
    all: Notify,
    tells: Tells,
}

/// When whoever started this process wants to know how many are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tells {
    Never,
    AtEachFilling,
    AtEachSettle,
}

/// The fillings that are over, each from its first job's start to its last settle.
#[derive(Clone, Copy, Default)]
struct Steady {
    /// When the first job of the present one began.
    began: Option<Instant>,
    fillings: u64,
    time: Duration,
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
    pub(crate) fn new(wanted: u64, filling: u64, one_in: Option<u64>, tells: Tells) -> Self {
        Self(Arc::new(Shared {
            wanted,
            settled: AtomicU64::new(0),
            filling,
            is_begun: false.into(),
            steady: Mutex::default(),
            failed: AtomicU64::new(0),
            one_in,
            waits: Mutex::default(),
            all: Notify::new(),
            tells,
        }))
    }

    /// A job begins.
    pub(crate) fn begin(&self, payment: &Payment) {
        if !self.0.is_begun.load(Relaxed) {
            self.0.is_begun.store(true, Relaxed);
            self.0.steady().began.get_or_insert_with(Instant::now);
        }
        if self.0.one_in.is_some_and(|n| payment.id.is_multiple_of(n)) {
            let waited = payment::now().saturating_sub(payment.at);
            let waits = self.0.waits.lock();
            waits
                .unwrap_or_else(PoisonError::into_inner)
                .push(waited.min(u64::from(u32::MAX)) as u32);
        }
    }

    /// So many are done, and the broker knows it.
    pub(crate) fn settled(&self, count: u64) {
        if count == 0 {
            return;
        }
        let (settled, is_filling_over) = {
            let mut steady = self.0.steady();
            let settled = self.0.settled.fetch_add(count, Relaxed) + count;
            (settled, steady.settled(settled, self.0.filling))
        };
        if is_filling_over {
            self.0.is_begun.store(false, Relaxed);
        }
        let tells = match self.0.tells {
            Tells::Never => false,
            Tells::AtEachFilling => is_filling_over,
            Tells::AtEachSettle => true,
        };
        if tells {
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

    /// Messages a second from the first job of each filling to its last settle: without the start. None before the first
    /// is over.
    pub(crate) fn steady(&self) -> Option<f64> {
        let Steady { fillings, time, .. } = *self.0.steady();
        let messages = fillings * self.0.filling;
        (fillings > 0 && !time.is_zero()).then(|| messages as f64 / time.as_secs_f64())
    }

    /// How many fillings are over.
    pub(crate) fn fillings(&self) -> u64 {
        self.0.steady().fillings
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

impl Shared {
    fn steady(&self) -> MutexGuard<'_, Steady> {
        self.steady.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Steady {
    /// So many are settled by now. Answers whether these were the last of their filling.
    fn settled(&mut self, settled: u64, filling: u64) -> bool {
        let is_over = settled / filling > self.fillings;
        if is_over {
            self.fillings = settled / filling;
            let (began, now) = (self.began.take(), Instant::now());
            self.time += began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        }
        is_over
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_between_two_fillings_does_not_count() {
        let progress = Progress::new(200, 100, None, Tells::Never);
        let payment = Payment::number(1, 110);
        let second = || tokio::time::sleep(Duration::from_secs(1));
        for _ in 0..2 {
            // Nothing begins, and nothing is settled, until there is more.
            second().await;
            progress.settled(0);
            second().await;
            progress.begin(&payment);
            second().await;
            progress.settled(20);
            progress.begin(&payment);
            second().await;
            progress.settled(80);
        }
        assert_eq!(progress.fillings(), 2);
        assert_eq!(progress.steady(), Some(50.0), "100 messages in 2 s, twice");
        assert!(progress.is_over());
    }
}
