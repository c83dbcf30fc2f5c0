//! Log lines from events: one place, one level for each, nothing per message but for failed attempts and dead letters.
//! What would come in floods is said now and then; the rest of it is there at debug level.

mod faults;
mod pace;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Level, debug, enabled, error, info, warn};

use self::faults::{Faults, Operation, Worth};
use self::pace::Pace;
use crate::broker::Maintained;
use crate::error::{BrokerError, BrokerErrorKind, WorkErrorKind};
use crate::message::QueueName;
use crate::observe::{Event, Observer};
use crate::resilience::BreakerState;

/// The observer that every runner has.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// By queue; only the runner's own routes get here.
    queues: Mutex<HashMap<QueueName, Said>>,
    /// Whether something that went well may be worth a line, because something else did not. What is reported with every
    /// batch looks no further as long as all is well.
    expectant: AtomicBool,
}

/// What was said about a queue.
#[derive(Debug)]
struct Said {
    attempts: Pace,
    faults: Faults,
    over_limit: Pace,
}

impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::AttemptFailed { .. } => self.attempt_failed(event),
            Event::BreakerChanged {
                queue,
                state: BreakerState::Open,
            } => {
                warn!(%queue, "the circuit breaker opened: until it is tried again no message is worked on");
            }
            Event::BreakerChanged { queue, state } => {
                info!(%queue, state = state.name(), "the circuit breaker changed")
            }
            Event::DeadLettered {
                queue,
                id,
                attempts,
                reason,
                kept,
            } => {
                error!(%queue, %id, attempts, kept, "dead letter: {reason}");
            }
            Event::ExtendFailed { queue, error } => {
                self.fault(Operation::Settle, queue, error, "renewing leases fails")
            }
            Event::FetchFailed { queue, error, .. } => {
                self.fault(Operation::Fetch, queue, error, "reading fails")
            }
            Event::Gap {
                queue,
                cause,
                lost,
                lasted,
            } => {
                let cause = cause.name();
                match (lost, lasted) {
                    (Some(lost), _) => error!(%queue, cause, lost, "messages were lost"),
                    (None, Some(lasted)) => {
                        error!(%queue, cause, "messages may have been lost in {:?}", rounded(*lasted))
                    }
                    (None, None) => error!(%queue, cause, "messages may have been lost"),
                }
                // Where that is known it is over.
                if lasted.is_some() {
                    self.went_well(Operation::Fetch, queue);
                }
            }
            Event::LaneBlocked {
                queue,
                lane,
                blocked,
            } => {
                warn!(%queue, lane, ?blocked, "a handler blocks its lane: await, or give the work to `Job::blocking`");
            }
            Event::LeasesLost { queue, count } => {
                warn!(%queue, count, "leases were lost; their jobs were cancelled")
            }
            Event::Maintained { queue, maintained } => {
                self.maintained(queue, maintained);
                self.went_well(Operation::Maintain, queue);
            }
            Event::MaintainFailed { queue, error } => {
                self.fault(Operation::Maintain, queue, error, "upkeep fails")
            }
            Event::Processed { queue, jobs } => debug!(%queue, count = jobs.len(), "processed"),
            Event::Received { queue, count } => {
                debug!(%queue, count, "received");
                self.went_well(Operation::Fetch, queue);
            }
            Event::Settled {
                queue,
                counts,
                took,
            } => {
                if counts.stale > 0 {
                    warn!(%queue, stale = counts.stale, "others own what was to be settled");
                }
                debug!(%queue, ?counts, ?took, "settled");
                self.went_well(Operation::Settle, queue);
            }
            Event::SettleFailed { queue, error, .. } => {
                self.fault(Operation::Settle, queue, error, "settling fails")
            }
            Event::Stalled {
                queue,
                lane,
                silent,
            } => {
                warn!(%queue, lane, ?silent, "no read completed; the subscription is made again");
            }
            Event::Subscribed { queue, lane } => {
                info!(%queue, lane, "subscribed");
                // An idle channel brings nothing else that would end it.
                self.went_well(Operation::Fetch, queue);
            }
            // The runner logs its start itself: it knows the broker.
            Event::Command { .. }
            | Event::Sampled { .. }
            | Event::ServerSampled { .. }
            | Event::Started { .. } => {}
        }
    }
}

impl Log {
    fn attempt_failed(&self, event: &Event<'_>) {
        let &Event::AttemptFailed {
            queue,
            id,
            attempt,
            max_attempts,
            error,
            retry_in,
        } = event
        else {
            return;
        };
        let retry_in = rounded(retry_in);
        if matches!(error.kind(), WorkErrorKind::Snooze { .. }) {
            debug!(%queue, %id, "attempt {attempt} of {max_attempts} snoozed, again in {retry_in:?}: {error}");
            return;
        }
        // In a storm of failures this is called for each of them.
        if !enabled!(Level::INFO) {
            return;
        }
        let (left_out, admitted) = self.about(queue, |said, now| {
            (said.attempts.left_out(now), said.attempts.admits(now))
        });
        say_left_out(queue, left_out);
        macro_rules! say {
            ($level:ident) => {
                $level!(%queue, %id, "attempt {attempt} of {max_attempts} failed, again in {retry_in:?}: {error}")
            };
        }
        match admitted {
            true => say!(info),
            false => say!(debug),
        }
    }

    fn maintained(&self, queue: &QueueName, maintained: &Maintained) {
        debug!(%queue, ?maintained, "upkeep");
        if maintained.dead > 0 {
            error!(%queue, dead = maintained.dead, "dead letters: held in too many crashes");
        }
        if maintained.recovered > 0 {
            warn!(%queue, count = maintained.recovered, "messages of dead workers, or of silent ones, came back");
        }
        if let Some(over) = &maintained.over_limit
            && self.about(queue, |said, now| said.over_limit.admits(now))
        {
            warn!(%queue, entries = over.entries, group = over.group, "the stream can't be trimmed");
        }
    }

    fn fault(&self, operation: Operation, queue: &QueueName, error: &BrokerError, text: &str) {
        let worth = self.about(queue, |said, now| {
            said.faults.failed(operation, error.kind(), now)
        });
        // It does not heal by itself, as an outage does.
        let needs_a_human = matches!(
            error.kind(),
            BrokerErrorKind::Authentication
                | BrokerErrorKind::Permission
                | BrokerErrorKind::Unsupported
                | BrokerErrorKind::WrongType
        );
        match worth {
            Worth::First if needs_a_human => error!(%queue, %error, "{text}"),
            Worth::Still(lasted) if needs_a_human => {
                error!(%queue, %error, "{text}: still, for {:?}", rounded(lasted))
            }
            Worth::First => warn!(%queue, %error, "{text}"),
            Worth::Still(lasted) => {
                warn!(%queue, %error, "{text}: still, for {:?}", rounded(lasted))
            }
            Worth::Nothing => debug!(%queue, %error, "{text}"),
        }
    }

    fn went_well(&self, operation: Operation, queue: &QueueName) {
        if !self.expectant.load(Ordering::Relaxed) {
            return;
        }
        let (lasted, left_out) = self.about(queue, |said, now| {
            (
                said.faults.went_well(operation, now),
                said.attempts.left_out(now),
            )
        });
        if let Some(lasted) = lasted {
            info!(%queue, "the broker answers again, after {:?}", rounded(lasted));
        }
        say_left_out(queue, left_out);
    }

    /// What the change answers, made to what was said about the queue. Nothing is logged meanwhile, because that takes
    /// its time.
    fn about<T>(&self, queue: &QueueName, change: impl FnOnce(&mut Said, Instant) -> T) -> T {
        let mut queues = self.queues();
        if !queues.contains_key(queue) {
            queues.insert(queue.clone(), Said::default());
        }
        let Some(said) = queues.get_mut(queue) else {
            unreachable!("it was inserted a moment ago")
        };
        let answer = change(said, Instant::now());
        let expectant = queues
            .values()
            .any(|said| said.faults.any() || said.attempts.owes());
        // Under the lock, so that the latest change is what it says.
        self.expectant.store(expectant, Ordering::Relaxed);
        answer
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<QueueName, Said>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Said {
    fn default() -> Self {
        Self {
            attempts: Pace::new(10, Duration::from_secs(1)),
            faults: Faults::default(),
            over_limit: Pace::new(1, Duration::from_secs(30)),
        }
    }
}

fn say_left_out(queue: &QueueName, left_out: Option<u64>) {
    if let Some(count) = left_out {
        info!(%queue, count, "more attempts failed; at debug level each has its line");
    }
}

/// As precise as a reader wants it.
fn rounded(duration: Duration) -> Duration {
    match duration.as_secs() {
        10.. => Duration::from_secs(duration.as_secs_f64().round() as u64),
        _ => Duration::from_millis(duration.as_millis() as u64),
    }
}
