//! Messages that were held in two crashes or more: one at a time in this process, each handed out alone.
//!
//! Which message killed a process is not known, so a crash counts for all that it held. If suspects were read in batches, or
//! by two lanes at once, the innocent ones would die with the guilty one. They wait in a stream of their own, which is read
//! one entry at a time, without waiting, when it is likely to hold some.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pythia_core::Receipt;

/// Whose turn it is to read and to hold the one suspect of a queue in this process.
#[derive(Debug)]
pub(super) struct Suspects {
    waiting: AtomicBool,
    turn: Mutex<Option<Turn>>,
}

#[derive(Debug)]
struct Turn {
    lane: u64,
    /// None while it is being read.
    suspect: Option<Receipt>,
}

impl Suspects {
    /// Some may wait from an earlier life.
    pub(super) fn new() -> Self {
        Self {
            waiting: AtomicBool::new(true),
            turn: Mutex::new(None),
        }
    }

    /// Some may wait.
    pub(super) fn tell(&self) {
        self.waiting.store(true, Relaxed);
    }

    /// Whether some may wait.
    pub(super) fn may_wait(&self) -> bool {
        self.waiting.load(Relaxed)
    }

    /// Whether this lane may read a suspect now. It then has the turn until it says what it found.
    pub(super) fn take_turn(&self, lane: u64) -> bool {
        let mut turn = self.lock();
        let free = turn.is_none();
        if free {
            *turn = Some(Turn {
                lane,
                suspect: None,
            });
        }
        free
    }

    /// The lane whose turn it is holds this one now. There may be more.
    pub(super) fn found(&self, lane: u64, suspect: Receipt) {
        *self.lock() = Some(Turn {
            lane,
            suspect: Some(suspect),
        });
    }

    /// The lane whose turn it is found none.
    pub(super) fn none_left(&self, lane: u64) {
        self.waiting.store(false, Relaxed);
        self.left(lane);
    }

    /// This one is settled, or lost to others.
    pub(super) fn settled(&self, suspect: Receipt) {
        self.lock().take_if(|turn| turn.suspect == Some(suspect));
    }

    /// Nobody will settle what this lane held, or it gives its turn up.
    pub(super) fn left(&self, lane: u64) {
        self.lock().take_if(|turn| turn.lane == lane);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Turn>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lane_holds_one_suspect_until_it_is_settled() {
        let suspects = Suspects::new();
        assert!(suspects.take_turn(1));
        assert!(!suspects.take_turn(2), "lane 1 is reading");
        suspects.found(1, Receipt(7));
        assert!(
            !suspects.take_turn(1) && !suspects.take_turn(2),
            "lane 1 holds one"
        );
        suspects.settled(Receipt(8));
        assert!(!suspects.take_turn(2), "another one was settled");
        suspects.settled(Receipt(7));
        assert!(suspects.take_turn(2));
        assert!(suspects.may_wait(), "there may be more");
        suspects.none_left(2);
        assert!(!suspects.may_wait() && suspects.take_turn(1));
        suspects.none_left(1);
        suspects.tell();
        assert!(suspects.may_wait());
    }

    #[test]
    fn a_lane_that_is_gone_blocks_nobody() {
        let suspects = Suspects::new();
        assert!(suspects.take_turn(1));
        suspects.found(1, Receipt(7));
        suspects.left(2);
        assert!(!suspects.take_turn(2));
        suspects.left(1);
        assert!(suspects.take_turn(2));
    }
}
