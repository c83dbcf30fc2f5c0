//! An observer that keeps what it is told, and that tests can wait on.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::admin::{Depth, ServerStats};
use crate::broker::Maintained;
use crate::error::{BrokerError, WorkErrorKind};
use crate::message::{MessageId, QueueName};
use crate::observe::{Event, GapCause, JobReport, Observer, SettledCounts};
use crate::resilience::BreakerState;
use crate::settlement::DeadReason;

/// Records every event, so that a test waits for what happens and not for time to pass.
///
/// ```
/// # use std::sync::Arc;
/// # use pythia_core::QueueName;
/// # use pythia_core::observe::{Event, Observer};
/// # use pythia_core::testing::{EventLog, Record};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let log = Arc::new(EventLog::new());
/// # let queue = QueueName::new("orders").unwrap();
/// # log.on_event(&Event::Received { queue: &queue, count: 3 });
/// // .. a runner or a broker with `log.clone()` as its observer ..
/// log.wait_for(|records| records.iter().any(|record| matches!(record, Record::Received { .. }))).await;
/// assert_eq!(log.received(), 3);
/// # }
/// ```
#[derive(Debug, Default)]
pub struct EventLog {
    records: Mutex<Vec<Record>>,
    recorded: Notify,
}

/// An [`Event`] that owns what it tells.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "each variant and field is that of the event of the same name, and documented there; errors by kind and text"
)]
pub enum Record {
    AttemptFailed {
        queue: QueueName,
        id: MessageId,
        attempt: u32,
        max_attempts: u32,
        kind: WorkErrorKind,
        error: String,
        retry_in: Duration,
    },
    BreakerChanged {
        queue: QueueName,
        state: BreakerState,
    },
    Command {
        command: &'static str,
        took: Duration,
        ok: bool,
    },
    DeadLettered {
        queue: QueueName,
        id: MessageId,
        attempts: u32,
        reason: DeadReason,
        kept: bool,
    },
    ExtendFailed {
        queue: QueueName,
        error: BrokerError,
    },
    FetchFailed {
        queue: QueueName,
        error: BrokerError,
        retry_in: Duration,
    },
    Gap {
        queue: QueueName,
        cause: GapCause,
        lost: Option<u64>,
        lasted: Option<Duration>,
    },
    LaneBlocked {
        queue: QueueName,
        lane: usize,
        blocked: Duration,
    },
    LeasesLost {
        queue: QueueName,
        count: u64,
    },
    Maintained {
        queue: QueueName,
        maintained: Maintained,
    },
    MaintainFailed {
        queue: QueueName,
        error: BrokerError,
    },
    Processed {
        queue: QueueName,
        jobs: Vec<JobReport>,
    },
    Received {
        queue: QueueName,
        count: u64,
    },
    Sampled {
        queue: QueueName,
        depth: Depth,
    },
    ServerSampled {
        stats: ServerStats,
    },
    Settled {
        queue: QueueName,
        counts: SettledCounts,
        took: Duration,
    },
    SettleFailed {
        queue: QueueName,
        error: BrokerError,
        retry_in: Duration,
    },
    Stalled {
        queue: QueueName,
        lane: usize,
        silent: Duration,
    },
    Started {
        queue: QueueName,
        lanes: usize,
        breaker: Option<BreakerState>,
    },
    Subscribed {
        queue: QueueName,
        lane: usize,
    },
}

impl EventLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until the records satisfy the condition, looking again at each new one. The log is locked meanwhile, so the
    /// condition looks at what it is given, and calls no method of the log.
    ///
    /// # Panics
    /// If that takes longer than a minute of tokio's time; under paused time that is at once, when nothing else is left
    /// to happen. The panic shows the last records.
    pub async fn wait_for(&self, condition: impl Fn(&[Record]) -> bool + Send + Sync) {
        let satisfied = async {
            loop {
                // Made before the look, so that an event between the look and the wait wakes it.
                let recorded = self.recorded.notified();
                if condition(&self.lock()) {
                    return;
                }
                recorded.await;
            }
        };
        if timeout(PATIENCE, satisfied).await.is_err() {
            let records = self.lock();
            let last = &records[records.len().saturating_sub(SHOWN)..];
            panic!(
                "not satisfied within {PATIENCE:?} by {} records, the last of them {last:#?}",
                records.len()
            );
        }
    }

    /// Waits until so many dispositions have been taken by the broker.
    ///
    /// # Panics
    /// As [`wait_for`](Self::wait_for) does.
    pub async fn wait_settled(&self, count: u64) {
        self.wait_for(|records| settled(records).total() >= count)
            .await;
    }

    /// Every record so far.
    pub fn records(&self) -> Vec<Record> {
        self.lock().clone()
    }

    /// How many messages were fetched so far.
    pub fn received(&self) -> u64 {
        self.lock()
            .iter()
            .map(|record| match record {
                Record::Received { count, .. } => *count,
                _ => 0,
            })
            .sum()
    }

    /// All dispositions so far that the broker has taken.
    pub fn settled(&self) -> SettledCounts {
        settled(&self.lock())
    }

    /// How many messages were lost in gaps so far, as far as that is known.
    pub fn lost(&self) -> u64 {
        self.lock()
            .iter()
            .map(|record| match record {
                Record::Gap { lost, .. } => lost.unwrap_or(0),
                _ => 0,
            })
            .sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn settled(records: &[Record]) -> SettledCounts {
    let mut sum = SettledCounts::default();
    for record in records {
        if let Record::Settled { counts, .. } = record {
            sum += *counts;
        }
    }
    sum
}

impl Observer for EventLog {
    fn on_event(&self, event: &Event<'_>) {
        self.lock().push(Record::from(event));
        self.recorded.notify_waiters();
    }
}

impl From<&Event<'_>> for Record {
    fn from(event: &Event<'_>) -> Self {
        match *event {
            Event::AttemptFailed {
                queue,
                id,
                attempt,
                max_attempts,
                error,
                retry_in,
            } => Self::AttemptFailed {
                queue: queue.clone(),
                id: id.clone(),
                attempt,
                max_attempts,
                kind: error.kind(),
                error: error.to_string(),
                retry_in,
            },
            Event::BreakerChanged { queue, state } => Self::BreakerChanged {
                queue: queue.clone(),
                state,
            },
            Event::Command { command, took, ok } => Self::Command { command, took, ok },
            Event::DeadLettered {
                queue,
                id,
                attempts,
                reason,
                kept,
            } => Self::DeadLettered {
                queue: queue.clone(),
                id: id.clone(),
                attempts,
                reason: reason.clone(),
                kept,
            },
            Event::ExtendFailed { queue, error } => Self::ExtendFailed {
                queue: queue.clone(),
                error: error.clone(),
            },
            Event::FetchFailed {
                queue,
                error,
                retry_in,
            } => Self::FetchFailed {
                queue: queue.clone(),
                error: error.clone(),
                retry_in,
            },
            Event::Gap {
                queue,
                cause,
                lost,
                lasted,
            } => Self::Gap {
                queue: queue.clone(),
                cause,
                lost,
                lasted,
            },
            Event::LaneBlocked {
                queue,
                lane,
                blocked,
            } => Self::LaneBlocked {
                queue: queue.clone(),
                lane,
                blocked,
            },
            Event::LeasesLost { queue, count } => Self::LeasesLost {
                queue: queue.clone(),
                count,
            },
            Event::Maintained { queue, maintained } => Self::Maintained {
                queue: queue.clone(),
                maintained: maintained.clone(),
            },
            Event::MaintainFailed { queue, error } => Self::MaintainFailed {
                queue: queue.clone(),
                error: error.clone(),
            },
            Event::Processed { queue, jobs } => Self::Processed {
                queue: queue.clone(),
                jobs: jobs.to_vec(),
            },
            Event::Received { queue, count } => Self::Received {
                queue: queue.clone(),
                count,
            },
            Event::Sampled { queue, depth } => Self::Sampled {
                queue: queue.clone(),
                depth: depth.clone(),
            },
            Event::ServerSampled { stats } => Self::ServerSampled {
                stats: stats.clone(),
            },
            Event::Settled {
                queue,
                counts,
                took,
            } => Self::Settled {
                queue: queue.clone(),
                counts,
                took,
            },
            Event::SettleFailed {
                queue,
                error,
                retry_in,
            } => Self::SettleFailed {
                queue: queue.clone(),
                error: error.clone(),
                retry_in,
            },
            Event::Stalled {
                queue,
                lane,
                silent,
            } => Self::Stalled {
                queue: queue.clone(),
                lane,
                silent,
            },
            Event::Started {
                queue,
                lanes,
                breaker,
            } => Self::Started {
                queue: queue.clone(),
                lanes,
                breaker,
            },
            Event::Subscribed { queue, lane } => Self::Subscribed {
                queue: queue.clone(),
                lane,
            },
        }
    }
}

/// How long [`EventLog::wait_for`] waits.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many records its panic shows.
const SHOWN: usize = 20;
