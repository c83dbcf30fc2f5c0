//! What the runtime and the brokers report: the contract of metrics, logs and dashboards.
//!
//! | event | when | log level |
//! |---|---|---|
//! | [`Started`](Event::Started) | a route runs, its broker connected or not | info |
//! | [`Subscribed`](Event::Subscribed) | a lane has its subscription | info |
//! | [`Received`](Event::Received) | a batch was fetched | debug |
//! | [`Processed`](Event::Processed) | jobs have ended, with their times | debug |
//! | [`AttemptFailed`](Event::AttemptFailed) | an attempt failed, and another one follows | info, ten a second of a queue; the others, and snoozes: debug |
//! | [`Settled`](Event::Settled) | the broker has taken a batch of dispositions | debug; warn if some were stale |
//! | [`DeadLettered`](Event::DeadLettered) | a message is on its way to the dead letters | error |
//! | [`FetchFailed`](Event::FetchFailed) | a read, or a subscription, failed | warn, once a fault |
//! | [`SettleFailed`](Event::SettleFailed) | a settle failed and is repeated | warn, once a fault |
//! | [`ExtendFailed`](Event::ExtendFailed) | a renewal failed and is repeated | warn, once a fault |
//! | [`LeasesLost`](Event::LeasesLost) | messages went to others while we held them | warn |
//! | [`BreakerChanged`](Event::BreakerChanged) | a circuit breaker opened, closed, or probes | warn, info |
//! | [`LaneBlocked`](Event::LaneBlocked) | a handler has held a lane's thread for half a lease without awaiting, and again at each further half | warn |
//! | [`Stalled`](Event::Stalled) | no read completed for too long; the subscription is made again | warn |
//! | [`Gap`](Event::Gap) | an at-most-once broker lost messages, or may have | error |
//! | [`Maintained`](Event::Maintained) | a round of upkeep ended | error if messages died; warn if some came back from dead workers, or a stream can't be trimmed; else debug |
//! | [`MaintainFailed`](Event::MaintainFailed) | a round of upkeep failed | warn, once a fault |
//! | [`Sampled`](Event::Sampled) | the depth of a queue was read, on an interval | none |
//! | [`ServerSampled`](Event::ServerSampled) | the state of a broker's server was read, on an interval | none |
//! | [`Command`](Event::Command) | a broker's server answered a command | none |
//!
//! All of them are per batch or rarer, but for `AttemptFailed` and `DeadLettered`, of which each failed attempt makes one.
//! The runtime logs them by itself through `tracing`: an error where something was lost or needs a human, a warning where
//! it recovers by itself. While a broker is away each of its users reports that again and again: of one queue the log says
//! it once, then every 30 s, and says when the broker answers again. What it leaves out is there at debug level.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::admin::{Depth, ServerStats};
use crate::broker::Maintained;
use crate::error::{BrokerError, WorkError, WorkErrorKind};
use crate::message::{MessageId, QueueName};
use crate::resilience::BreakerState;
use crate::settlement::DeadReason;

/// Is told what happens. Called on the path of the messages, so it never blocks and never awaits; one that panics is
/// reported and skipped.
pub trait Observer: Send + Sync + 'static {
    /// Something has happened.
    fn on_event(&self, event: &Event<'_>);
}

/// Something that has happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An attempt did not succeed, and its message will be tried again: by the schedule, or because the worker snoozed it.
    /// The error of the last attempt comes with [`DeadLettered`](Self::DeadLettered).
    AttemptFailed {
        /// On which queue.
        queue: &'a QueueName,
        /// Which message.
        id: &'a MessageId,
        /// Which attempt it was, from 1.
        attempt: u32,
        /// How many attempts the route allows.
        max_attempts: u32,
        /// What the worker, or a layer, answered.
        error: &'a WorkError,
        /// How long the message waits for its next attempt, at least.
        retry_in: Duration,
    },
    /// A circuit breaker changed its state.
    BreakerChanged {
        /// Whose breaker.
        queue: &'a QueueName,
        /// The state that it is in now.
        state: BreakerState,
    },
    /// A broker's server answered a command, or failed to.
    Command {
        /// The command's name, or the script's; from a fixed set.
        command: &'static str,
        /// From the write to the answer.
        took: Duration,
        /// Whether it was answered without an error.
        ok: bool,
    },
    /// A message is on its way to the dead letters.
    DeadLettered {
        /// From which queue.
        queue: &'a QueueName,
        /// Which message.
        id: &'a MessageId,
        /// How many attempts were made.
        attempts: u32,
        /// Why.
        reason: &'a DeadReason,
        /// Whether the letter is kept: at-most-once brokers, and routes that discard dead letters, keep none.
        kept: bool,
    },
    /// A renewal failed.
    ExtendFailed {
        /// Of which queue.
        queue: &'a QueueName,
        /// Why.
        error: &'a BrokerError,
    },
    /// A read or a subscription failed.
    FetchFailed {
        /// From which queue.
        queue: &'a QueueName,
        /// Why.
        error: &'a BrokerError,
        /// When the next try comes.
        retry_in: Duration,
    },
    /// Messages were lost, or may have been.
    Gap {
        /// On which queue.
        queue: &'a QueueName,
        /// How it came about.
        cause: GapCause,
        /// How many, where that can be known.
        lost: Option<u64>,
        /// How long nothing could be received, where that is known.
        lasted: Option<Duration>,
    },
    /// A handler holds its lane's thread without awaiting. Reported when it has done so for half a lease (15 s by default;
    /// 5 s where there are no leases), and again at each further half.
    LaneBlocked {
        /// On which queue.
        queue: &'a QueueName,
        /// Which lane, from 0.
        lane: usize,
        /// For how long, so far.
        blocked: Duration,
    },
    /// Messages went to others while we held them; their jobs were cancelled.
    LeasesLost {
        /// On which queue.
        queue: &'a QueueName,
        /// How many.
        count: u64,
    },
    /// A round of upkeep ended.
    Maintained {
        /// Of which queue.
        queue: &'a QueueName,
        /// What it did.
        maintained: &'a Maintained,
    },
    /// A round of upkeep failed.
    MaintainFailed {
        /// Of which queue.
        queue: &'a QueueName,
        /// Why.
        error: &'a BrokerError,
    },
    /// Jobs have ended.
    Processed {
        /// On which queue.
        queue: &'a QueueName,
        /// How each of them went.
        jobs: &'a [JobReport],
    },
    /// A batch was fetched.
    Received {
        /// From which queue.
        queue: &'a QueueName,
        /// How many messages.
        count: u64,
    },
    /// The depth of a queue was read.
    Sampled {
        /// Of which queue.
        queue: &'a QueueName,
        /// What was read.
        depth: &'a Depth,
    },
    /// The state of a broker's server was read.
    ServerSampled {
        /// What was read.
        stats: &'a ServerStats,
    },
    /// The broker has taken a batch of dispositions.
    Settled {
        /// On which queue.
        queue: &'a QueueName,
        /// How many of each.
        counts: SettledCounts,
        /// How long the broker took, repeats included.
        took: Duration,
    },
    /// A settle failed and is repeated.
    SettleFailed {
        /// On which queue.
        queue: &'a QueueName,
        /// Why.
        error: &'a BrokerError,
        /// When the next try comes.
        retry_in: Duration,
    },
    /// No read completed for too long; the subscription is made again.
    Stalled {
        /// On which queue.
        queue: &'a QueueName,
        /// Which lane, from 0.
        lane: usize,
        /// Since the last completed read.
        silent: Duration,
    },
    /// A route runs: the first event of its queue, whether or not the broker can be reached.
    Started {
        /// Its queue.
        queue: &'a QueueName,
        /// How many lanes it has.
        lanes: usize,
        /// The state that its circuit breaker begins in; `None` if it has none.
        breaker: Option<BreakerState>,
    },
    /// A lane has its subscription.
    Subscribed {
        /// To which queue.
        queue: &'a QueueName,
        /// Which lane, from 0.
        lane: usize,
    },
}

/// How one job went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobReport {
    /// `None`: it succeeded.
    pub failure: Option<WorkErrorKind>,
    /// From its start to its end, layers included.
    pub took: Duration,
    /// From publishing to its start, where the publishing time is known.
    pub waited: Option<Duration>,
}

/// Dispositions of a settled batch. A stale one is counted by what it was to be, and as stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettledCounts {
    /// Acknowledged.
    pub acked: u64,
    /// Sent to the dead letters, or discarded where a route keeps none.
    pub dead: u64,
    /// Handed back.
    pub released: u64,
    /// Delayed for another attempt. Those of an at-most-once broker are tried again in the process instead, and are not
    /// among these: [`AttemptFailed`](Event::AttemptFailed) tells of each.
    pub retried: u64,
    /// Delayed with no attempt burnt.
    pub snoozed: u64,
    /// Of all these, no longer ours to settle.
    pub stale: u64,
}

impl SettledCounts {
    /// All of them: each delivery is settled once.
    pub const fn total(&self) -> u64 {
        self.acked + self.dead + self.released + self.retried + self.snoozed
    }
}

impl std::ops::AddAssign for SettledCounts {
    fn add_assign(&mut self, other: Self) {
        self.acked += other.acked;
        self.dead += other.dead;
        self.released += other.released;
        self.retried += other.retried;
        self.snoozed += other.snoozed;
        self.stale += other.stale;
    }
}

/// How a gap came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GapCause {
    /// Our own buffer was full: the worker is slower than the channel.
    BufferFull,
    /// The connection was lost, or the server closed it because we read too slowly.
    Disconnected,
    /// Numbers of a publisher of ours are missing.
    MissingNumbers,
    /// Nobody was subscribed when it was published.
    NoReceiver,
    /// The drain time was over before all that had been received was processed.
    Shutdown,
    /// It has no form that could be handed out, such as a channel's name that is not UTF-8.
    Unreadable,
}

impl GapCause {
    /// A short fixed name, fit for a metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BufferFull => "buffer_full",
            Self::Disconnected => "disconnected",
            Self::MissingNumbers => "missing_numbers",
            Self::NoReceiver => "no_receiver",
            Self::Shutdown => "shutdown",
            Self::Unreadable => "unreadable",
        }
    }

    /// Every name that [`name`](Self::name) can give.
    pub const NAMES: [&'static str; 6] = [
        Self::BufferFull.name(),
        Self::Disconnected.name(),
        Self::MissingNumbers.name(),
        Self::NoReceiver.name(),
        Self::Shutdown.name(),
        Self::Unreadable.name(),
    ];
}

/// Several observers as one: what the runtime and the adapters report to.
#[derive(Clone, Default)]
pub struct Observers(Vec<Arc<dyn Observer>>);

impl Observers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one.
    pub fn push(&mut self, observer: Arc<dyn Observer>) {
        self.0.push(observer);
    }
}

impl Observer for Observers {
    fn on_event(&self, event: &Event<'_>) {
        for observer in &self.0 {
            // An observer is the user's code: its panic must not end the lane that reports.
            if catch_unwind(AssertUnwindSafe(|| observer.on_event(event))).is_err() {
                tracing::error!(?event, "an observer panicked");
            }
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observers({})", self.0.len())
    }
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn on_event(&self, event: &Event<'_>) {
        (**self).on_event(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_of_a_gap_is_among_the_names() {
        use GapCause::*;
        let first = BufferFull;
        // Exhaustive, so that a new cause does not compile before it is here, and then not pass before it is listed.
        let next = |cause| match cause {
            BufferFull => Some(Disconnected),
            Disconnected => Some(MissingNumbers),
            MissingNumbers => Some(NoReceiver),
            NoReceiver => Some(Shutdown),
            Shutdown => Some(Unreadable),
            Unreadable => None,
        };
        let causes = std::iter::successors(Some(first), |cause| next(*cause));
        assert!(causes.map(GapCause::name).eq(GapCause::NAMES));
    }
}
