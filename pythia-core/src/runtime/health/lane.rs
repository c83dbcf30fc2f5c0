//! What one lane does: noted by its stages a few times a batch, read by probes.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::message::QueueName;

/// One lane as [`Health`](super::Health) sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStatus {
    /// Its queue.
    pub queue: QueueName,
    /// Which lane of the route, from 0.
    pub lane: usize,
    /// What it does.
    pub state: LaneState,
    /// Why it does not read, if it is [waiting](LaneState::Waiting).
    pub waits_for: Option<WaitReason>,
    /// How long it has been waiting or stopped; when it reads or connects, how long ago its last read completed, or what
    /// it waited for came.
    pub since: Duration,
    /// How long ago its last read completed, one that brought nothing included; `None` before the first.
    pub last_read: Option<Duration>,
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
    /// It has reason not to read.
    Waiting,
}

impl LaneState {
    /// A short fixed name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Reading => "reading",
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
        }
    }
}

/// Why a lane does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitReason {
    /// The circuit breaker is open, or half open and its probes are out.
    Breaker,
    /// What is fetched has no place to go: the jobs are at their limit, or the broker takes no results.
    Capacity,
    /// The rate is used up.
    Rate,
    /// A message that may have killed processes runs alone, or is about to.
    Suspect,
}

impl WaitReason {
    /// A short fixed name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Breaker => "breaker",
            Self::Capacity => "capacity",
            Self::Rate => "rate",
            Self::Suspect => "suspect",
        }
    }
}

/// One lane's entry: written by its fetch and its settle stage.
pub(in crate::runtime) struct LaneHealth {
    queue: QueueName,
    lane: usize,
    state: AtomicU8,
    /// What it waits for, or would wait for next.
    waits_for: AtomicU8,
    /// When it entered its state.
    entered: AtomicU64,
    /// When a read completed, or a wait ended, for the last time.
    progress: AtomicU64,
    /// When a read completed for the last time.
    read: AtomicU64,
    /// Since when results are on their way to the broker and it has taken none.
    unsettled: AtomicU64,
    epoch: Instant,
}

impl LaneHealth {
    pub(super) fn new(queue: &QueueName, lane: usize) -> Self {
        Self {
            queue: queue.clone(),
            lane,
            state: AtomicU8::new(CONNECTING),
            waits_for: AtomicU8::new(CAPACITY),
            entered: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            read: AtomicU64::new(NEVER),
            unsettled: AtomicU64::new(NEVER),
            epoch: Instant::now(),
        }
    }

    pub(in crate::runtime) fn connecting(&self) {
        self.enter(CONNECTING);
    }

    pub(in crate::runtime) fn subscribed(&self) {
        self.enter(READING);
    }

    /// What was waited for has come. That nothing was waited for is no progress, and what failed before the next read
    /// is still to be shown to work.
    pub(in crate::runtime) fn admitted(&self) {
        if self.state.load(Ordering::Relaxed) == WAITING {
            self.enter(READING);
            self.progress.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A read has completed.
    pub(in crate::runtime) fn has_read(&self) {
        self.enter(READING);
        let now = self.now();
        self.progress.store(now, Ordering::Relaxed);
        self.read.store(now, Ordering::Relaxed);
    }

    pub(in crate::runtime) fn waiting(&self) {
        self.enter(WAITING);
    }

    /// What it waits for from now on, if it comes to waiting.
    pub(in crate::runtime) fn waits_for(&self, reason: WaitReason) {
        let reason = match reason {
            WaitReason::Breaker => BREAKER,
            WaitReason::Capacity => CAPACITY,
            WaitReason::Rate => RATE,
            WaitReason::Suspect => SUSPECT,
        };
        self.waits_for.store(reason, Ordering::Relaxed);
    }

    pub(in crate::runtime) fn stopped(&self) {
        self.enter(STOPPED);
    }

    /// Results go out to the broker.
    pub(in crate::runtime) fn settling(&self) {
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        // Those that are on their way already have been waiting for longer.
        let _first = self
            .unsettled
            .compare_exchange(NEVER, self.now(), success, failure);
    }

    /// The broker has taken results.
    pub(in crate::runtime) fn settled(&self) {
        self.unsettled.store(NEVER, Ordering::Relaxed);
    }

    fn enter(&self, state: u8) {
        if self.state.swap(state, Ordering::Relaxed) != state {
            self.entered.store(self.now(), Ordering::Relaxed);
        }
    }

    pub(super) fn status(&self) -> LaneStatus {
        let (state, since) = match self.state.load(Ordering::Relaxed) {
            READING => (LaneState::Reading, &self.progress),
            STOPPED => (LaneState::Stopped, &self.entered),
            WAITING => (LaneState::Waiting, &self.entered),
            _ => (LaneState::Connecting, &self.progress),
        };
        let waits_for = match self.waits_for.load(Ordering::Relaxed) {
            BREAKER => WaitReason::Breaker,
            RATE => WaitReason::Rate,
            SUSPECT => WaitReason::Suspect,
            _ => WaitReason::Capacity,
        };
        LaneStatus {
            queue: self.queue.clone(),
            lane: self.lane,
            state,
            waits_for: (state == LaneState::Waiting).then_some(waits_for),
            since: self.ago(since).unwrap_or_default(),
            last_read: self.ago(&self.read),
            unsettled: self.ago(&self.unsettled),
        }
    }

    /// How long ago that was, unless it is not so.
    fn ago(&self, then: &AtomicU64) -> Option<Duration> {
        let then = then.load(Ordering::Relaxed);
        (then != NEVER).then(|| Duration::from_millis(self.now().saturating_sub(then)))
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

const CAPACITY: u8 = 0;
const BREAKER: u8 = 1;
const RATE: u8 = 2;
const SUSPECT: u8 = 3;

/// No time: nothing was read yet, no result is on its way.
const NEVER: u64 = u64::MAX;
