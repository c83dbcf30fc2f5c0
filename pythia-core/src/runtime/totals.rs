//! What a runner has done, counted per batch.

use std::sync::{Mutex, PoisonError};

use crate::observe::SettledCounts;

/// What a runner has done, from its start to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Deliveries fetched.
    pub received: u64,
    /// What became of them.
    pub settled: SettledCounts,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.settled += other.settled;
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SettledCounts {
            acked,
            dead,
            released,
            retried,
            snoozed,
            stale,
        } = self.settled;
        write!(
            f,
            "received {}, acked {acked}, retried {retried}, snoozed {snoozed}, dead {dead}, released {released}, stale {stale}",
            self.received
        )
    }
}

#[derive(Debug, Default)]
pub(super) struct Totals(Mutex<Summary>);

impl Totals {
    pub(super) fn received(&self, count: usize) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .received += count as u64;
    }

    pub(super) fn settled(&self, counts: SettledCounts) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .settled += counts;
    }

    pub(super) fn summary(&self) -> Summary {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
