//! What the kit has seen of each message: told by the broker's decorator and by the runner's events.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::history::{Attempt, History, Outcome};
use crate::error::{BrokerError, WorkErrorKind};
use crate::message::{Deliver, Delivery, Message, MessageId, QueueName};
use crate::observe::{Event, Observer};
use crate::settlement::Settlement;

/// Everything that happened to the messages of a test.
#[derive(Debug)]
pub(super) struct Journal {
    start: Instant,
    entries: Mutex<Entries>,
    changed: Notify,
}

#[derive(Debug)]
struct Entries {
    /// In the order in which they were first seen.
    histories: Vec<History>,
    places: HashMap<MessageId, usize>,
    /// How many deliveries are with the runner.
    in_hand: usize,
    subscribed: bool,
    progress: Progress,
    fault: Option<BrokerError>,
    /// The latest message that reached [`MOST_ATTEMPTS`].
    endless: Option<MessageId>,
    /// When a message was sent, by tokio's clock and by the broker's.
    clock: Option<(Instant, SystemTime)>,
}

/// When something happened for the last time, by both clocks: under paused time they go apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    at: Instant,
    really_at: SystemTime,
}

impl Progress {
    fn now() -> Self {
        Self {
            at: Instant::now(),
            really_at: SystemTime::now(),
        }
    }

    /// How long ago that is, by tokio's clock and by the system's.
    pub(super) fn ago(self) -> (Duration, Duration) {
        (
            Instant::now().saturating_duration_since(self.at),
            self.really_at.elapsed().unwrap_or_default(),
        )
    }
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            entries: Mutex::new(Entries {
                histories: Vec::new(),
                places: HashMap::new(),
                in_hand: 0,
                subscribed: false,
                progress: Progress::now(),
                fault: None,
                endless: None,
                clock: None,
            }),
            changed: Notify::new(),
        }
    }

    /// Resolves with the next change from now on, also before it is polled.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn begin_run(&self) {
        let mut entries = self.lock();
        entries.subscribed = false;
        entries.progress = Progress::now();
        entries.fault = None;
    }

    pub(super) fn sent(&self, queue: &QueueName, id: &MessageId, message: &Message) {
        self.note(|entries| {
            let history = entries.history(id, || {
                let Message {
                    payload, headers, ..
                } = message.clone();
                History::new(queue.clone(), id.clone(), payload, headers)
            });
            history.sent = Some(Instant::now());
            if let Deliver::After(after) = message.deliver {
                history.due = Instant::now().checked_add(after);
            }
        });
    }

    pub(super) fn subscribed(&self) {
        self.note(|entries| entries.subscribed = true);
    }

    pub(super) fn received(&self, queue: &QueueName, deliveries: &[Delivery]) {
        if deliveries.is_empty() {
            return;
        }
        self.note(|entries| {
            entries.in_hand += deliveries.len();
            for delivery in deliveries {
                let history = entries.history(&delivery.id, || {
                    let Delivery {
                        id,
                        payload,
                        headers,
                        ..
                    } = delivery.clone();
                    History::new(queue.clone(), id, payload, headers)
                });
                history.in_hand = true;
                history.due = None;
                history.earlier = history.attempts.len();
                let sent = history.sent;
                entries.clock = entries.clock.or(sent.zip(delivery.enqueued_at));
            }
        });
    }

    /// The broker has taken the disposition of that delivery.
    pub(super) fn settled(&self, id: &MessageId, attempt: u32, settlement: &Settlement) {
        let ended = self.elapsed();
        self.note(|entries| {
            entries.in_hand = entries.in_hand.saturating_sub(1);
            let Some(history) = entries.known(id) else {
                return;
            };
            history.in_hand = false;
            let latest = history.latest_in_hand();
            let outcome = match settlement {
                // Of a dead letter the event has told, whether or not it is kept.
                Settlement::Ack(_)
                    if !matches!(latest, Some(latest) if matches!(latest.outcome, Outcome::DeadLettered(_))) =>
                {
                    Outcome::Acked
                }
                Settlement::Release(_) => Outcome::Released,
                // Of failures the event has told.
                _ => return,
            };
            let number = match latest {
                // Tried again in the process, on an at-most-once broker.
                Some(Attempt {
                    number,
                    outcome: Outcome::Retried { .. },
                    ..
                }) => number + 1,
                Some(Attempt { number, .. }) => *number,
                None => attempt,
            };
            let attempt = Attempt {
                number,
                ended,
                outcome,
            };
            entries.attempted(id, attempt);
        });
    }

    pub(super) fn histories(&self) -> Vec<History> {
        self.lock().histories.clone()
    }

    pub(super) fn history(&self, id: &MessageId) -> Option<History> {
        self.lock().known(id).cloned()
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.lock().subscribed
    }

    /// How many deliveries are with the runner.
    pub(super) fn in_hand(&self) -> usize {
        self.lock().in_hand
    }

    /// Whether each message that is known has come to its end.
    pub(super) fn all_ended(&self) -> bool {
        let entries = self.lock();
        entries.in_hand == 0 && entries.histories.iter().all(History::has_ended)
    }

    /// When the first of so many delayed messages is due; `None` if not of all of them it is known when.
    pub(super) fn next_due(&self, delayed: u64) -> Option<Instant> {
        let entries = self.lock();
        let due = entries.histories.iter().filter_map(|history| history.due);
        if due.clone().count() as u64 == delayed {
            due.min()
        } else {
            None
        }
    }

    /// When it is that time by the broker's clock, if that can be told.
    pub(super) fn instant(&self, at: SystemTime) -> Option<Instant> {
        let (sent, sent_at) = self.lock().clock?;
        sent.checked_add(at.duration_since(sent_at).ok()?)
    }

    pub(super) fn progress(&self) -> Progress {
        self.lock().progress
    }

    /// The latest fault of the broker in this run.
    pub(super) fn fault(&self) -> Option<BrokerError> {
        self.lock().fault.clone()
    }

    /// A message that is tried again and again.
    pub(super) fn endless(&self) -> Option<History> {
        let mut entries = self.lock();
        let id = entries.endless.clone()?;
        let history = entries.known(&id)?;
        (!history.has_ended()).then(|| history.clone())
    }

    fn elapsed(&self) -> Duration {
        Instant::now().saturating_duration_since(self.start)
    }

    /// Makes an entry, and wakes who waits for one.
    fn note(&self, entry: impl FnOnce(&mut Entries)) {
        let mut entries = self.lock();
        entry(&mut entries);
        entries.progress = Progress::now();
        drop(entries);
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn known(&mut self, id: &MessageId) -> Option<&mut History> {
        let place = *self.places.get(id)?;
        self.histories.get_mut(place)
    }

    fn attempted(&mut self, id: &MessageId, attempt: Attempt) {
        let Some(history) = self.known(id) else {
            return;
        };
        history.attempts.push(attempt);
        if history.attempts.len() >= MOST_ATTEMPTS {
            self.endless = Some(id.clone());
        }
    }

    fn history(&mut self, id: &MessageId, new: impl FnOnce() -> History) -> &mut History {
        let next = self.histories.len();
        let place = *self.places.entry(id.clone()).or_insert(next);
        if place == next {
            self.histories.push(new());
        }
        &mut self.histories[place]
    }
}

impl Observer for Journal {
    fn on_event(&self, event: &Event<'_>) {
        let (id, number, outcome) = match event {
            Event::AttemptFailed {
                id,
                attempt,
                error,
                retry_in: after,
                ..
            } => {
                let after = *after;
                let outcome = match error.kind() {
                    WorkErrorKind::Snooze { .. } => Outcome::Snoozed { after },
                    kind => Outcome::Retried {
                        kind,
                        error: error.to_string(),
                        after,
                    },
                };
                (*id, *attempt, outcome)
            }
            Event::DeadLettered {
                id,
                attempts,
                reason,
                ..
            } => (*id, *attempts, Outcome::DeadLettered((*reason).clone())),
            Event::FetchFailed { error, .. }
            | Event::SettleFailed { error, .. }
            | Event::MaintainFailed { error, .. } => {
                // No progress: a broker that stays away would otherwise be waited for for ever.
                self.lock().fault = Some((*error).clone());
                return;
            }
            _ => return,
        };
        let ended = self.elapsed();
        self.note(|entries| {
            if let Some(history) = entries.known(id) {
                if let Outcome::Retried { after, .. } | Outcome::Snoozed { after } = outcome {
                    history.due = Instant::now().checked_add(after);
                }
                let attempt = Attempt {
                    number,
                    ended,
                    outcome,
                };
                entries.attempted(id, attempt);
            }
        });
    }
}

/// With so many attempts at it, snoozes and releases among them, a message that is not at its end is taken for one that never
/// will be. Each attempt is a change, and under paused time it takes none, so nothing else would end the run.
pub(super) const MOST_ATTEMPTS: usize = 10_000;
