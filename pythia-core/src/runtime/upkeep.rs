//! The upkeep of a queue: due messages become ready, messages of dead workers come back, streams are trimmed. The broker
//! does it; this loop says when, and counts.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::shutdown::Phase;
use super::{FaultBackoff, answer, jittered};
use crate::broker::Broker;
use crate::message::QueueName;
use crate::observe::{Event, Observer, Observers};

/// One queue's upkeep.
#[derive(Debug)]
pub(super) struct Upkeep {
    pub(super) queue: QueueName,
    pub(super) broker: std::sync::Arc<dyn Broker>,
    pub(super) observers: Observers,
    pub(super) interval: Duration,
    /// How long a round may take.
    pub(super) patience: Duration,
    pub(super) max_attempts: u32,
    /// When the messages that this process has delayed are due.
    due: Mutex<DueTimes>,
    sooner: Notify,
}

impl Upkeep {
    pub(super) fn new(
        queue: QueueName,
        broker: std::sync::Arc<dyn Broker>,
        observers: Observers,
        interval: Duration,
        patience: Duration,
        max_attempts: u32,
    ) -> Self {
        Self {
            queue,
            broker,
            observers,
            interval,
            patience,
            max_attempts,
            due: Mutex::new(DueTimes::new(Instant::now())),
            sooner: Notify::new(),
        }
    }

    /// Messages of this queue were delayed by so much: they need not wait for the next regular round.
    pub(super) fn due_in(&self, delays: impl Iterator<Item = Duration>) {
        let mut delays = delays.peekable();
        if delays.peek().is_none() {
            return;
        }
        let (now, mut due) = (Instant::now(), self.due());
        let before = due.soonest();
        delays.for_each(|delay| due.insert(now, delay));
        if due.soonest() != before {
            self.sooner.notify_one();
        }
    }

    /// Runs until the drain begins.
    pub(super) async fn run(&self, phase: &Phase) {
        let heard = self.broker.due_earlier(&self.queue);
        let mut backoff = FaultBackoff::default();
        // A round may be dropped half-way: the next one, of whatever worker, goes on where it was.
        while let Some(round) = phase.until_drain(self.tick()).await {
            let next = Instant::now()
                + match round {
                    Ok(wait) => {
                        backoff = FaultBackoff::default();
                        wait
                    }
                    Err(()) => backoff.next_delay(),
                };
            // Cancel safety: a notice that was taken and not acted on is one of the two that end this wait anyway, or
            // makes it look at the due times, as each new wait does.
            let due = async {
                loop {
                    let soonest = self.due().soonest().map_or(next, |due| due.min(next));
                    tokio::select! {
                        () = tokio::time::sleep_until(soonest) => return,
                        () = self.sooner.notified() => {}
                        () = heard.notified() => return,
                    }
                }
            };
            if phase.until_drain(due).await.is_none() {
                return;
            }
        }
    }

    /// One round. Answers how long until the next.
    async fn tick(&self) -> Result<Duration, ()> {
        self.due().forget_until(Instant::now());
        let round = self.broker.maintain(&self.queue, self.max_attempts);
        match answer(round, self.patience, "look after messages", &self.queue).await {
            Ok(maintained) => {
                self.observers.on_event(&Event::Maintained {
                    queue: &self.queue,
                    maintained: &maintained,
                });
                let regular = jittered(self.interval);
                let regular = maintained
                    .quiet_for
                    .map_or(regular, |quiet| quiet.max(regular));
                Ok(match maintained.next_due {
                    _ if maintained.more => Duration::ZERO,
                    Some(due) => due.min(regular),
                    None => regular,
                })
            }
            Err(error) => {
                self.observers.on_event(&Event::MaintainFailed {
                    queue: &self.queue,
                    error: &error,
                });
                Err(())
            }
        }
    }

    fn due(&self) -> MutexGuard<'_, DueTimes> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next few times at which messages are due, rounded up so that those that are due together are one.
///
/// Broker and queue have a process that promotes, but it may have died, and a notice of an earlier time may be lost: so
/// each process looks after what it has delayed itself. What finds no room here waits for the regular round.
#[derive(Debug)]
struct DueTimes {
    epoch: Instant,
    /// In grains since the epoch.
    times: BTreeSet<u64>,
}

impl DueTimes {
    const fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            times: BTreeSet::new(),
        }
    }

    fn insert(&mut self, now: Instant, delay: Duration) {
        let due = now.saturating_duration_since(self.epoch) + delay.min(FAR);
        self.times
            .insert(due.as_millis().div_ceil(GRAIN.as_millis()) as u64);
        if self.times.len() > MAX_DUE_TIMES {
            self.times.pop_last();
        }
    }

    fn soonest(&self) -> Option<Instant> {
        let &grain = self.times.first()?;
        Some(self.epoch + Duration::from_millis(grain * GRAIN.as_millis() as u64))
    }

    fn forget_until(&mut self, now: Instant) {
        while self.soonest().is_some_and(|soonest| soonest <= now) {
            self.times.pop_first();
        }
    }
}

/// Due times that are closer together than this share a round.
const GRAIN: Duration = Duration::from_millis(10);
/// Due times that are kept. With more, the latest wait for the regular round: it comes before long.
const MAX_DUE_TIMES: usize = 128;
/// No message that is delayed for longer needs a round of its own to be in time, and computing with it can't overflow.
const FAR: Duration = Duration::from_hours(24 * 365);

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[tokio::test(start_paused = true)]
    async fn each_due_time_is_kept_until_it_has_come() {
        let start = Instant::now();
        let mut due = DueTimes::new(start);
        for delay in [500, 3, 8, 200] {
            due.insert(start, ms(delay));
        }
        assert_eq!(due.soonest(), Some(start + ms(10)), "3 and 8 are one");
        due.forget_until(start + ms(10));
        assert_eq!(due.soonest(), Some(start + ms(200)));
        due.forget_until(start + ms(199));
        assert_eq!(due.soonest(), Some(start + ms(200)));
        due.forget_until(start + ms(10_000));
        assert_eq!(due.soonest(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_due_times_the_soonest_are_kept() {
        let start = Instant::now();
        let mut due = DueTimes::new(start);
        for delay in (0..10_000).rev() {
            due.insert(start, ms(delay));
        }
        due.insert(start, Duration::MAX);
        assert_eq!(due.times.len(), MAX_DUE_TIMES);
        assert_eq!(due.soonest(), Some(start));
        assert_eq!(due.times.last(), Some(&(MAX_DUE_TIMES as u64 - 1)));
    }
}
