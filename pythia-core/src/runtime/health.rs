//! Whether messages are being consumed: judged by reads that completed, not by a process that exists.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::message::QueueName;

/// The state of a runner's lanes, for probes. Cheap to clone; usable from any task or thread.
#[derive(Clone, Debug)]
pub struct Health {
    lanes: Arc<Mutex<Vec<Arc<LaneHealth>>>>,
    stall_after: Duration,
}

/// One lane as [`Health`] sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStatus {
    /// Its queue.
    pub queue: QueueName,
    /// Which lane of the route, from 0.
    pub lane: usize,
    /// What it does.
    pub state: LaneState,
    /// How long it has been waiting or stopped; when it reads or connects, how long ago its last read completed, or what
    /// it waited for came.
    pub since: Duration,
    /// For how long the broker has taken no result of finished jobs, if some are on their way to it.
    pub unsettled: Option<Duration>,
}

/// What a lane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LaneState {
    /// It has no subscription yet, or its latest read failed.
    Connecting,
    /// It reads from the broker.
    Reading,
    /// The runner has ended, or is ending.
    Stopped,
    /// It has reason not to read: its jobs are at their limit, the breaker is open, the rate is used up, or a message that
    /// may have killed processes runs alone.
    Waiting,
}

impl Health {
    pub(super) fn new(stall_after: Duration) -> Self {
        Self {
            lanes: Arc::default(),
            stall_after,
        }
    }

    pub(super) fn lane(&self, queue: &QueueName, lane: usize) -> Arc<LaneHealth> {
        let health = Arc::new(LaneHealth {
            queue: queue.clone(),
            lane,
            state: AtomicU8::new(CONNECTING),
            entered: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            unsettled: AtomicU64::new(SETTLED),
            epoch: Instant::now(),
        });
        self.lanes().push(Arc::clone(&health));
        health
    }

    /// Every lane's state.
    pub fn statuses(&self) -> Vec<LaneStatus> {
        self.lanes().iter().map(|lane| lane.status()).collect()
    }

    /// Whether the process does its work. It does not if a lane that ought to read has completed no read for twice
    /// [`stall_after`](super::RunnerConfig::stall_after): by then a new subscription was tried and did not help. Nor if
    /// for so long the broker has taken no result: the lane waits for that, and nothing else would show it.
    ///
    /// # Errors
    /// One line for each lane that consumes nothing: which, and for how long.
    pub fn live(&self) -> Result<(), Vec<String>> {
        let limit = 2 * self.stall_after;
        self.all(|status| {
            let problem = match (status.state, status.unsettled) {
                (LaneState::Stopped, _) => None,
                (LaneState::Connecting | LaneState::Reading, _) if status.since > limit => {
                    Some(("no read has completed", status.since))
                }
                (_, Some(unsettled)) if unsettled > limit => {
                    Some(("the broker has taken no result", unsettled))
                }
                _ => None,
            };
            problem.map(|(what, lasted)| {
                let (queue, lane) = (status.queue.as_str(), status.lane);
                format!("queue {queue:?}, lane {lane}: {what} for {lasted:.0?}")
            })
        })
    }

    /// Whether every lane has its subscription.
    ///
    /// # Errors
    /// One line for each lane that has none.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        if self.lanes().is_empty() {
            return Err(vec!["the runner has not started".into()]);
        }
        self.all(|status| match status.state {
            LaneState::Connecting => Some(format!(
                "queue {:?}, lane {}: not connected",
                status.queue.as_str(),
                status.lane
            )),
            LaneState::Stopped => Some(format!(
                "queue {:?}, lane {}: stopped",
                status.queue.as_str(),
                status.lane
            )),
            LaneState::Reading | LaneState::Waiting => None,
        })
    }

    fn all(&self, problem: impl Fn(LaneStatus) -> Option<String>) -> Result<(), Vec<String>> {
        let problems: Vec<String> = self.statuses().into_iter().filter_map(problem).collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn lanes(&self) -> std::sync::MutexGuard<'_, Vec<Arc<LaneHealth>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One lane's entry: written by its fetch and its settle stage, a few times a batch.
pub(super) struct LaneHealth {
    queue: QueueName,
    lane: usize,
    state: AtomicU8,
    /// When it entered its state.
    entered: AtomicU64,
    /// When a read completed, or a wait ended, for the last time.
    progress: AtomicU64,
    /// Since when results are on their way to the broker and it has taken none.
    unsettled: AtomicU64,
    epoch: Instant,
}

impl LaneHealth {
    pub(super) fn connecting(&self) {
        self.enter(CONNECTING);
    }

    pub(super) fn subscribed(&self) {
        self.enter(READING);
    }

    /// What was waited for has come. That nothing was waited for is no progress, and what failed before the next read
    /// is still to be shown to work.
    pub(super) fn admitted(&self) {
        if self.state.load(Ordering::Relaxed) == WAITING {
            self.has_read();
        }
    }

    /// A read has completed.
    pub(super) fn has_read(&self) {
        self.enter(READING);
        self.progress.store(self.now(), Ordering::Relaxed);
    }

    pub(super) fn waiting(&self) {
        self.enter(WAITING);
    }

    pub(super) fn stopped(&self) {
        self.enter(STOPPED);
    }

    /// Results go out to the broker.
    pub(super) fn settling(&self) {
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        // Those that are on their way already have been waiting for longer.
        let _first = self
            .unsettled
            .compare_exchange(SETTLED, self.now(), success, failure);
    }

    /// The broker has taken results.
    pub(super) fn settled(&self) {
        self.unsettled.store(SETTLED, Ordering::Relaxed);
    }

    fn enter(&self, state: u8) {
        if self.state.swap(state, Ordering::Relaxed) != state {
            self.entered.store(self.now(), Ordering::Relaxed);
        }
    }

    fn status(&self) -> LaneStatus {
        let (state, since) = match self.state.load(Ordering::Relaxed) {
            READING => (LaneState::Reading, &self.progress),
            STOPPED => (LaneState::Stopped, &self.entered),
            WAITING => (LaneState::Waiting, &self.entered),
            _ => (LaneState::Connecting, &self.progress),
        };
        let ago = |then: u64| Duration::from_millis(self.now().saturating_sub(then));
        let unsettled = self.unsettled.load(Ordering::Relaxed);
        LaneStatus {
            queue: self.queue.clone(),
            lane: self.lane,
            state,
            since: ago(since.load(Ordering::Relaxed)),
            unsettled: (unsettled != SETTLED).then(|| ago(unsettled)),
        }
    }

    fn now(&self) -> u64 {
        Instant::now()
            .saturating_duration_since(self.epoch)
            .as_millis() as u64
    }
}

impl fmt::Debug for LaneHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.status(), f)
    }
}

const CONNECTING: u8 = 0;
const READING: u8 = 1;
const WAITING: u8 = 2;
const STOPPED: u8 = 3;
/// No result is on its way.
const SETTLED: u64 = u64::MAX;
