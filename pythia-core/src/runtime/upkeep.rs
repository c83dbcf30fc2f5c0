//! The upkeep of a queue: due messages become ready, messages of dead workers come back, streams are trimmed. The broker
//! does it; this loop says when, and counts.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::shutdown::Phase;
use super::{FaultBackoff, jittered};
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
    pub(super) max_attempts: u32,
    /// When the next message that this process has delayed is due.
    soonest: Mutex<Option<Instant>>,
    sooner: Notify,
}

impl Upkeep {
    pub(super) fn new(
        queue: QueueName,
        broker: std::sync::Arc<dyn Broker>,
        observers: Observers,
        interval: Duration,
        max_attempts: u32,
    ) -> Self {
        let (soonest, sooner) = (Mutex::new(None), Notify::new());
        Self {
            queue,
            broker,
            observers,
            interval,
            max_attempts,
            soonest,
            sooner,
        }
    }

    /// A message of this queue was delayed by so much: it need not wait for the next regular round.
    pub(super) fn due_in(&self, after: Duration) {
        if after >= self.interval {
            return;
        }
        let due = Instant::now() + after;
        let mut soonest = self.soonest();
        if soonest.is_none_or(|soonest| due < soonest) {
            *soonest = Some(due);
            self.sooner.notify_one();
        }
    }

    /// Runs until the drain begins.
    pub(super) async fn run(&self, phase: &Phase) {
        let heard = self.broker.due_earlier(&self.queue);
        let mut backoff = FaultBackoff::default();
        while !phase.is_draining() {
            let next = Instant::now()
                + match self.tick().await {
                    Ok(wait) => {
                        backoff = FaultBackoff::default();
                        wait
                    }
                    Err(()) => backoff.next_delay(),
                };
            let due = async {
                loop {
                    let soonest = self.soonest().map_or(next, |soonest| soonest.min(next));
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
        {
            let mut soonest = self.soonest();
            if soonest.is_some_and(|soonest| soonest <= Instant::now()) {
                *soonest = None;
            }
        }
        match self.broker.maintain(&self.queue, self.max_attempts).await {
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

    fn soonest(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.soonest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
