//! How calls went lately: a sliding window of counters, in tenths.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Successes and failures among calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) successes: u64,
    pub(crate) failures: u64,
}

impl Tally {
    /// All calls that went one way or the other.
    pub(crate) const fn calls(self) -> u64 {
        self.successes + self.failures
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.successes += other.successes;
        self.failures += other.failures;
    }
}

/// Counts calls for as long as the window is. It holds the present tenth and the nine before it, so what it tells is
/// between nine and ten tenths of the window old.
///
/// Counting is one addition to an atomic, in a shard that other threads leave alone mostly: one that all lanes count in
/// would go from core to core with each message. The mutex is taken once in each tenth, when a slot is used anew. A thread that
/// stands still for most of a window between finding its slot and adding to it adds to a newer tenth; one call among
/// many does not matter.
#[derive(Debug)]
pub(crate) struct Window {
    shards: Box<[Shard]>,
    slot_nanos: u64,
    epoch: Instant,
    renewal: Mutex<()>,
}

/// Alone in its cache lines, of which processors fetch two at a time.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    slots: [Slot; SLOTS as usize],
}

#[derive(Debug, Default)]
struct Slot {
    /// Which tenth since the epoch is counted here, from 1; zero: none.
    tenth: AtomicU64,
    successes: AtomicU64,
    failures: AtomicU64,
}

impl Window {
    pub(crate) fn new(length: Duration, now: Instant) -> Self {
        Self {
            shards: std::iter::repeat_with(Shard::default)
                .take(SHARDS)
                .collect(),
            slot_nanos: (nanos(length) / SLOTS).max(1),
            epoch: now,
            renewal: Mutex::new(()),
        }
    }

    /// Counts calls that ended now.
    pub(crate) fn add(&self, now: Instant, tally: Tally) {
        let tenth = self.tenth(now);
        let shard = &self.shards[SHARD.with(|shard| *shard)];
        let slot = &shard.slots[(tenth % SLOTS) as usize];
        if slot.tenth.load(Ordering::Acquire) != tenth {
            self.renew(slot, tenth);
        }
        if tally.successes > 0 {
            slot.successes.fetch_add(tally.successes, Ordering::Relaxed);
        }
        if tally.failures > 0 {
            slot.failures.fetch_add(tally.failures, Ordering::Relaxed);
        }
    }

    /// How the calls of the window went.
    pub(crate) fn tally(&self, now: Instant) -> Tally {
        let newest = self.tenth(now);
        let oldest = newest.saturating_sub(SLOTS - 1).max(1);
        let mut sum = Tally::default();
        for slot in self.slots() {
            if (oldest..=newest).contains(&slot.tenth.load(Ordering::Acquire)) {
                sum += Tally {
                    successes: slot.successes.load(Ordering::Relaxed),
                    failures: slot.failures.load(Ordering::Relaxed),
                };
            }
        }
        sum
    }

    /// Forgets all calls.
    pub(crate) fn clear(&self) {
        let _renewing = self.lock();
        for slot in self.slots() {
            slot.tenth.store(0, Ordering::Release);
        }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.shards.iter().flat_map(|shard| &shard.slots)
    }

    fn renew(&self, slot: &Slot, tenth: u64) {
        let _renewing = self.lock();
        // Another thread may have been here first; and it may be later by its clock.
        if slot.tenth.load(Ordering::Relaxed) < tenth {
            slot.successes.store(0, Ordering::Relaxed);
            slot.failures.store(0, Ordering::Relaxed);
            slot.tenth.store(tenth, Ordering::Release);
        }
    }

    fn tenth(&self, now: Instant) -> u64 {
        1 + nanos(now.saturating_duration_since(self.epoch)) / self.slot_nanos
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ()> {
        self.renewal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In 64 bits, which are enough for 584 years, because a division in 128 bits would cost more than the rest.
fn nanos(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(duration.subsec_nanos().into())
}

thread_local! {
    /// The shard in which this thread counts.
    static SHARD: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

const SLOTS: u64 = 10;
const SHARDS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(successes: u64, failures: u64) -> Tally {
        Tally {
            successes,
            failures,
        }
    }

    #[test]
    fn calls_are_forgotten_when_the_window_has_passed() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let window = Window::new(Duration::from_secs(1), start);
        window.add(at(0), tally(1, 0));
        window.add(at(950), tally(2, 1));
        assert_eq!(window.tally(at(999)), tally(3, 1));
        assert_eq!(window.tally(at(1_000)), tally(2, 1));
        window.add(at(1_000), tally(0, 5));
        assert_eq!(window.tally(at(1_850)), tally(2, 6));
        assert_eq!(window.tally(at(1_950)), tally(0, 5));
        assert_eq!(window.tally(at(2_000)), tally(0, 0));
        assert_eq!(window.tally(at(1_000_000_000)), tally(0, 0));
    }

    /// Each thread counts in a shard of its own, up to their number.
    #[test]
    fn what_all_threads_have_counted_is_told_and_cleared() {
        let now = Instant::now();
        let window = Window::new(Duration::from_secs(1), now);
        std::thread::scope(|scope| {
            for _ in 0..2 * SHARDS {
                scope.spawn(|| window.add(now, tally(1, 2)));
            }
        });
        let threads = 2 * SHARDS as u64;
        assert_eq!(window.tally(now), tally(threads, 2 * threads));
        window.clear();
        assert_eq!(window.tally(now), tally(0, 0));
    }

    #[test]
    fn a_clock_that_is_behind_adds_to_the_newer_tenth() {
        let start = Instant::now();
        let window = Window::new(Duration::from_secs(1), start);
        let later = start + Duration::from_secs(1);
        window.add(later, tally(1, 0));
        window.add(start, tally(1, 0));
        assert_eq!(window.tally(later), tally(2, 0));
    }

    #[test]
    fn what_was_cleared_is_gone_within_its_tenth() {
        let now = Instant::now();
        let window = Window::new(Duration::from_secs(1), now);
        window.add(now, tally(1, 1));
        window.clear();
        assert_eq!(window.tally(now), tally(0, 0));
        window.add(now, tally(1, 0));
        assert_eq!(window.tally(now), tally(1, 0));
    }

    #[test]
    fn no_call_is_lost_between_threads() {
        let start = Instant::now();
        let window = Window::new(Duration::from_hours(1), start);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for call in 0..10_000 {
                        window.add(start + Duration::from_millis(call), tally(1, 1));
                    }
                });
            }
        });
        let end = start + Duration::from_secs(10);
        assert_eq!(window.tally(end), tally(40_000, 40_000));
    }
}
