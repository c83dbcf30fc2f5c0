//! What becomes of a message: [`decide`] turns a worker's result into a [`Disposition`], and nothing else does.

use std::fmt;
use std::time::Duration;

use crate::error::{WorkError, WorkErrorKind};
use crate::message::{Delivery, Receipt};
use crate::resilience::Retry;

/// What is to become of a message after one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disposition {
    /// Done: it leaves the broker.
    Ack,
    /// It moves to the dead letters.
    DeadLetter {
        /// Why it can't be processed.
        reason: DeadReason,
    },
    /// It goes back as it was, at once, for anyone; no attempt is burnt.
    Release,
    /// It moves to the delayed messages; the attempt counts.
    Retry {
        /// How long it waits.
        after: Duration,
    },
    /// It moves to the delayed messages; the attempt does not count.
    Snooze {
        /// How long it waits.
        after: Duration,
    },
}

/// Why a message is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadReason {
    /// What kind of reason it is.
    pub kind: DeadKind,
    /// The error's text, at most about 1 KiB.
    pub error: String,
}

/// Kinds of reasons for a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadKind {
    /// Processes died, or went silent, while they held it, up to the limit of attempts.
    Crashed,
    /// The payload can't be decoded.
    Decode,
    /// Every attempt that the route allows has failed.
    Exhausted,
    /// The worker said that no further attempt can help.
    Permanent,
}

impl DeadKind {
    /// A short fixed name: it is stored with the letter, and fit for a metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crashed => "crashed",
            Self::Decode => "decode",
            Self::Exhausted => "exhausted",
            Self::Permanent => "permanent",
        }
    }

    /// Every name that [`name`](Self::name) can give.
    pub const NAMES: [&'static str; 4] = [
        Self::Crashed.name(),
        Self::Decode.name(),
        Self::Exhausted.name(),
        Self::Permanent.name(),
    ];

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Crashed,
            Self::Decode,
            Self::Exhausted,
            Self::Permanent,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
    }
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.error)
    }
}

/// A disposition on its way to the broker, with what the broker needs to carry it out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Settlement {
    /// Remove it.
    Ack(Receipt),
    /// Store it among the dead letters, counters as given.
    DeadLetter {
        /// The message.
        delivery: Box<Delivery>,
        /// Stored beside it.
        reason: DeadReason,
    },
    /// Hand it back at once, at the head, as it was received.
    Release(Box<Delivery>),
    /// Store it among the delayed messages of this queue and group, counters as given, and remove it, atomically.
    Retry {
        /// The message.
        delivery: Box<Delivery>,
        /// By the broker's clock.
        after: Duration,
    },
}

impl Settlement {
    /// What the broker is to do about a delivery. Counts the attempt where the disposition says that it counts.
    pub fn new(mut delivery: Delivery, disposition: Disposition) -> Self {
        match disposition {
            Disposition::Ack => Self::Ack(delivery.receipt),
            Disposition::DeadLetter { reason } => {
                delivery.failures += 1;
                Self::DeadLetter {
                    delivery: Box::new(delivery),
                    reason,
                }
            }
            Disposition::Release => Self::Release(Box::new(delivery)),
            Disposition::Retry { after } => {
                delivery.failures += 1;
                Self::Retry {
                    delivery: Box::new(delivery),
                    after,
                }
            }
            Disposition::Snooze { after } => Self::Retry {
                delivery: Box::new(delivery),
                after,
            },
        }
    }

    /// How long the message waits before it is due again, if it is to be tried again.
    pub fn delay(&self) -> Option<Duration> {
        match self {
            Self::Retry { after, .. } => Some(*after),
            _ => None,
        }
    }

    /// Which delivery it is about.
    pub fn receipt(&self) -> Receipt {
        match self {
            Self::Ack(receipt) => *receipt,
            Self::DeadLetter { delivery, .. }
            | Self::Release(delivery)
            | Self::Retry { delivery, .. } => delivery.receipt,
        }
    }
}

/// The one place where a result becomes a disposition: `attempt` counts from 1 and includes crashes; without a retry
/// schedule the first failure is the last.
pub fn decide<T>(
    result: &Result<T, WorkError>,
    attempt: u32,
    retry: Option<&Retry>,
) -> Disposition {
    let Err(error) = result else {
        return Disposition::Ack;
    };
    let dead = |kind| Disposition::DeadLetter {
        reason: DeadReason {
            kind,
            error: error.to_string(),
        },
    };
    let again = |after: Option<Duration>| match retry.filter(|retry| attempt < retry.max_attempts())
    {
        Some(retry) => Disposition::Retry {
            after: after.unwrap_or_else(|| retry.delay(attempt)),
        },
        None => dead(DeadKind::Exhausted),
    };
    match error.kind() {
        WorkErrorKind::BreakerOpen => Disposition::Release,
        WorkErrorKind::Decode => dead(DeadKind::Decode),
        WorkErrorKind::Permanent => dead(DeadKind::Permanent),
        WorkErrorKind::Panic | WorkErrorKind::Timeout => again(None),
        WorkErrorKind::Retryable { after } => again(after),
        WorkErrorKind::Snooze { delay } => Disposition::Snooze { after: delay },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(kind: WorkErrorKind, attempt: u32) -> Disposition {
        let retry = Retry::fixed(3, Duration::from_secs(5));
        decide::<()>(&Err(WorkError::new(kind, "no")), attempt, Some(&retry))
    }

    fn dead(kind: DeadKind) -> Disposition {
        Disposition::DeadLetter {
            reason: DeadReason {
                kind,
                error: "no".into(),
            },
        }
    }

    #[test]
    fn every_kind_of_result_has_its_disposition() {
        let (second, five) = (Duration::from_secs(1), Duration::from_secs(5));
        assert_eq!(decide(&Ok(()), 9, None), Disposition::Ack);
        assert_eq!(decided(WorkErrorKind::BreakerOpen, 9), Disposition::Release);
        assert_eq!(decided(WorkErrorKind::Decode, 1), dead(DeadKind::Decode));
        assert_eq!(
            decided(WorkErrorKind::Permanent, 1),
            dead(DeadKind::Permanent)
        );
        assert_eq!(
            decided(WorkErrorKind::Snooze { delay: second }, 9),
            Disposition::Snooze { after: second }
        );
        assert_eq!(
            decided(
                WorkErrorKind::Retryable {
                    after: Some(second)
                },
                2
            ),
            Disposition::Retry { after: second }
        );
        for kind in [
            WorkErrorKind::Panic,
            WorkErrorKind::Timeout,
            WorkErrorKind::Retryable { after: None },
        ] {
            assert_eq!(decided(kind, 2), Disposition::Retry { after: five });
            assert_eq!(decided(kind, 3), dead(DeadKind::Exhausted));
        }
    }

    #[test]
    fn without_a_schedule_the_first_failure_is_the_last() {
        assert_eq!(
            decide::<()>(&Err(WorkError::retryable("no")), 1, None),
            dead(DeadKind::Exhausted)
        );
    }

    #[test]
    fn only_what_counts_is_counted() {
        let delivery = || Delivery::new("1", "x", Receipt(7));
        let after = Duration::ZERO;
        for (disposition, failures) in [
            (Disposition::Retry { after }, 1),
            (Disposition::Snooze { after }, 0),
            (Disposition::Release, 0),
        ] {
            match Settlement::new(delivery(), disposition) {
                Settlement::Retry { delivery, .. } | Settlement::Release(delivery) => {
                    assert_eq!(delivery.failures, failures);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
