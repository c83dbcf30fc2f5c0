//! One lane: three stages, each a task, and a fourth task that renews leases. The way from fetch to process has a spot for
//! the batch that is worked on and one for the next (`prefetch`). The channel from process to settle is unbounded in form,
//! and bounded by the slots: a start takes one, and its settle gives it back.
//!
//! ```text
//! fetch ──(2 spots)──> process ──(dispositions)──> settle ──> broker
//!   ^                     |  window of running jobs   |
//!   |                     └── slots <─────────────────┘      renew ──> broker
//! broker
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::health::{LaneHealth, WaitReason};
use super::hold::Session;
use super::prefetch::{Batches, prefetch};
use super::settle::Outbox;
use super::shutdown::Phase;
use super::solitude::Solitude;
use super::totals::Totals;
use super::upkeep::Upkeep;
use super::{FaultBackoff, fetch, jittered, renew, settle};
use crate::broker::{Broker, Settler};
use crate::message::QueueName;
use crate::observe::Observers;
use crate::resilience::{Allowance, Gate, RateLimiter, Retry};

/// What the stages of one lane share.
pub(super) struct Lane {
    pub(super) index: usize,
    pub(super) queue: QueueName,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) observers: Observers,
    pub(super) health: Arc<LaneHealth>,
    pub(super) totals: Arc<Totals>,
    pub(super) solitude: Solitude,
    pub(super) phase: Phase,
    /// The most that one fetch takes.
    pub(super) batch: usize,
    pub(super) batch_bytes: usize,
    pub(super) linger: Duration,
    /// This lane's share of the route's.
    pub(super) concurrency: usize,
    pub(super) stall_after: Duration,
    pub(super) retry: Option<Retry>,
    /// The broker hands nothing out twice, so retries happen where the job runs.
    pub(super) retries_in_process: bool,
    pub(super) keeps_dead_letters: bool,
    pub(super) gate: Option<Arc<Gate>>,
    pub(super) rate: Option<Arc<RateLimiter>>,
    /// Cancelled when the settle stage has ended: everything that was fetched is settled.
    pub(super) settled: CancellationToken,
    /// Set when running jobs are to end at their next poll.
    pub(super) aborted: AtomicBool,
    /// Whether a read may be under way that brings more.
    reading: watch::Sender<bool>,
    /// Started and not settled: at most two batches and the window. This bounds what a crash repeats.
    slots: Semaphore,
    /// How many messages the next fetch should ask for.
    appetite: AtomicUsize,
    sessions: Mutex<Vec<Arc<Session>>>,
    session_opened: Notify,
    /// The lease of the latest session, in ms; zero: none.
    lease_ms: AtomicU64,
    /// How many polls of the process stage have begun or ended: odd during a poll.
    polls: AtomicU64,
}

/// As long as it is there, a read may be under way.
pub(super) struct Reading<'a>(&'a watch::Sender<bool>);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// What a route decides about each of its lanes.
pub(super) struct LanePlan {
    pub(super) batch: usize,
    pub(super) batch_bytes: usize,
    pub(super) linger: Duration,
    pub(super) retry: Option<Retry>,
    pub(super) retries_in_process: bool,
    pub(super) keeps_dead_letters: bool,
    pub(super) gate: Option<Arc<Gate>>,
    pub(super) rate: Option<Arc<RateLimiter>>,
    pub(super) stall_after: Duration,
}

impl Lane {
    #[expect(
        clippy::too_many_arguments,
        reason = "the one place where a lane is put together"
    )]
    pub(super) fn new(
        index: usize,
        concurrency: usize,
        plan: &LanePlan,
        queue: QueueName,
        broker: Arc<dyn Broker>,
        observers: Observers,
        health: Arc<LaneHealth>,
        totals: Arc<Totals>,
        solitude: Solitude,
        phase: Phase,
    ) -> Self {
        Self {
            index,
            queue,
            broker,
            observers,
            health,
            totals,
            solitude,
            phase,
            batch: plan.batch,
            batch_bytes: plan.batch_bytes,
            linger: plan.linger,
            concurrency,
            stall_after: plan.stall_after,
            retry: plan.retry.clone(),
            retries_in_process: plan.retries_in_process,
            keeps_dead_letters: plan.keeps_dead_letters,
            gate: plan.gate.clone(),
            rate: plan.rate.clone(),
            settled: CancellationToken::new(),
            aborted: AtomicBool::new(false),
            reading: watch::Sender::new(false),
            slots: Semaphore::new(slots(plan.batch, concurrency)),
            appetite: AtomicUsize::new(plan.batch.min(concurrency)),
            sessions: Mutex::new(Vec::new()),
            session_opened: Notify::new(),
            lease_ms: AtomicU64::new(0),
            polls: AtomicU64::new(0),
        }
    }

    /// Spawns the lane's tasks. `process` makes the second stage, which alone knows the worker's type.
    pub(super) fn spawn(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        upkeep: &Arc<Upkeep>,
        process: impl FnOnce(Arc<Self>, Batches, Outbox) -> Pin<Box<dyn Future<Output = ()> + Send>>,
    ) {
        let (feed, fetched) = prefetch();
        let (units, settlements) = mpsc::unbounded_channel();

        let lane = Arc::clone(self);
        let refused = Outbox::new(Arc::clone(self), units.clone());
        tasks.spawn(async move { fetch::run(&lane, feed, refused).await });

        let lane = Arc::clone(self);
        let outbox = Outbox::new(Arc::clone(self), units);
        let stage = process(Arc::clone(self), fetched, outbox);
        tasks.spawn(Watched { lane, stage });

        let lane = Arc::clone(self);
        let upkeep = Arc::clone(upkeep);
        tasks.spawn(async move {
            // Also when this task panics or is dropped: the stages that wait for it must not wait for ever.
            let _settled = lane.settled.clone().drop_guard();
            settle::run(&lane, &upkeep, settlements).await;
        });

        let lane = Arc::clone(self);
        tasks.spawn(async move { renew::run(&lane).await });
    }

    /// Waits until the breaker and the rate let some through, and claims up to `max`. Cancel safe: what was granted is
    /// given back when the claim is dropped.
    pub(super) async fn claim(&self, max: usize) -> Claim<'_> {
        let allowance = match &self.gate {
            Some(gate) => {
                self.health.waits_for(WaitReason::Breaker);
                gate.allowance(max).await
            }
            None => Allowance::unlimited(max),
        };
        let mut claim = Claim {
            rate: self.rate.as_deref(),
            max: allowance.places(),
            reserved: 0,
            allowance,
        };
        if let Some(rate) = claim.rate {
            self.health.waits_for(WaitReason::Rate);
            claim.max = rate.reserve(claim.max).await;
            claim.reserved = claim.max;
        }
        claim
    }

    /// Whether what is fetched and not started has to go back. An at-most-once broker takes nothing back, so its messages
    /// wait out an open breaker here, and are processed while there is time: what is left then is lost, and reported.
    pub(super) fn refuses_unstarted(&self) -> bool {
        if self.retries_in_process {
            return self.phase.is_over();
        }
        self.phase.is_draining() || self.gate.as_ref().is_some_and(|gate| gate.is_shut())
    }

    /// Waits until what is fetched and not started has to go back. Where an order is kept, a read that the end of the runner
    /// has caught brings what is newer: it is waited for, because the last to go back is at the head of the queue.
    /// Cancel safe.
    pub(super) async fn unstarted_is_refused(&self) {
        if self.retries_in_process {
            return self.phase.drain_is_over().await;
        }
        match &self.gate {
            Some(gate) => tokio::select! {
                () = self.phase.drain_begins() => {}
                () = gate.shuts() => {}
            },
            None => self.phase.drain_begins().await,
        }
        if self.concurrency > 1 || !self.phase.is_draining() {
            return;
        }
        let mut reading = self.reading.subscribe();
        tokio::select! {
            _never_closed = reading.wait_for(|reading| !reading) => {}
            () = self.phase.drain_is_over() => {}
        }
    }

    /// A read may be under way until the guard is dropped.
    pub(super) fn begin_reading(&self) -> Reading<'_> {
        self.reading.send_replace(true);
        Reading(&self.reading)
    }

    /// Waits until a call that was refused may be made again where it is. Cancel safe.
    pub(super) async fn may_be_called_again(&self) {
        // Those that were refused together must not all come back at once; and a worker that refuses by itself, with no
        // breaker to wait for, must not be called in a tight loop.
        tokio::time::sleep(jittered(REFUSED)).await;
        if let Some(gate) = &self.gate {
            gate.opens().await;
        }
    }

    /// Waits until a job may be started. Cancel safe.
    pub(super) async fn startable(&self) {
        if self.slots.available_permits() == 0 {
            drop(self.slots.acquire().await);
        }
    }

    /// Takes the place of one started job, given back when it is settled.
    pub(super) fn take_slot(&self) -> bool {
        self.slots
            .try_acquire()
            .map(tokio::sync::SemaphorePermit::forget)
            .is_ok()
    }

    pub(super) fn give_slots_back(&self, slots: usize) {
        self.slots.add_permits(slots);
    }

    /// How many messages the next fetch should ask for.
    pub(super) fn appetite(&self) -> usize {
        self.appetite.load(Ordering::Relaxed)
    }

    /// Learns from one round of starts. While jobs finish where they start, batches grow to the limit, unless they take so
    /// long that what is fetched ahead waits behind them while other workers are idle. Once jobs wait for something, no
    /// more is asked for than fits the window, and a quarter of it ahead.
    pub(super) fn learn(&self, round: Round, running: usize) {
        let appetite = match round {
            Round::InPlace => self.appetite().saturating_mul(2),
            Round::Slow { each } => (AHEAD.as_nanos() / each.as_nanos().max(1)) as usize,
            Round::Waiting => self
                .concurrency
                .saturating_sub(running)
                .max(self.concurrency / 4),
        };
        self.appetite
            .store(appetite.clamp(1, self.batch), Ordering::Relaxed);
    }

    /// Each fetch asks for a whole batch.
    pub(super) fn wants_whole_batches(&self) {
        self.appetite.store(self.batch, Ordering::Relaxed);
    }

    pub(super) fn open_session(
        &self,
        settler: Arc<dyn Settler>,
        lease: Option<Duration>,
    ) -> Arc<Session> {
        let session = Session::new(self.queue.clone(), settler, lease);
        self.lock_sessions().push(Arc::clone(&session));
        let lease_ms = lease.map_or(0, |lease| (lease.as_millis() as u64).max(1));
        self.lease_ms.store(lease_ms, Ordering::Relaxed);
        self.session_opened.notify_one();
        session
    }

    /// Waits until a session was opened since this was asked last. For one waiter; cancel safe.
    pub(super) async fn session_opened(&self) {
        self.session_opened.notified().await;
    }

    /// The sessions whose leases are to be renewed.
    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        let mut sessions = self.lock_sessions();
        sessions.retain(|session| session.is_alive());
        sessions.clone()
    }

    /// How long the broker lets this lane be silent.
    pub(super) fn lease(&self) -> Option<Duration> {
        let lease_ms = self.lease_ms.load(Ordering::Relaxed);
        (lease_ms > 0).then(|| Duration::from_millis(lease_ms))
    }

    /// Running jobs end at their next poll, and those that look at their cancellation learn of it.
    pub(super) fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
        self.sessions().iter().for_each(|session| session.cancel());
    }

    /// How many polls of the process stage have begun or ended so far: odd during a poll.
    pub(super) fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    /// A new series of growing pauses after faults of the broker.
    #[expect(
        clippy::unused_self,
        reason = "the one place to make it configurable by lane"
    )]
    pub(super) fn fault_backoff(&self) -> FaultBackoff {
        FaultBackoff::default()
    }

    fn lock_sessions(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As many as there can be, for those who ask for no limit by a huge number.
fn slots(batch: usize, concurrency: usize) -> usize {
    let slots = batch.saturating_mul(2).saturating_add(concurrency);
    slots.min(Semaphore::MAX_PERMITS)
}

/// How a round of starts went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// All jobs finished where they were started, quickly.
    InPlace,
    /// The round took so long that it was cut; each job took this long.
    Slow { each: Duration },
    /// Some are waiting for something.
    Waiting,
}

/// Leave to fetch a number of messages, by the breaker and by the rate. Kept until what came of it has been passed on;
/// what is not used goes back.
pub(super) struct Claim<'a> {
    allowance: Allowance,
    rate: Option<&'a RateLimiter>,
    max: usize,
    reserved: usize,
}

impl Claim<'_> {
    pub(super) const fn max(&self) -> usize {
        self.max
    }

    /// So many have come.
    pub(super) fn keep(&mut self, messages: usize) {
        self.allowance.keep(messages);
        self.refund(self.reserved.saturating_sub(messages));
        self.reserved = 0;
    }

    fn refund(&self, surplus: usize) {
        if let Some(rate) = self.rate
            && surplus > 0
        {
            rate.refund(surplus);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.refund(self.reserved);
    }
}

/// The process stage, with the beginning and the end of each poll counted: a poll that does not end is a handler that
/// blocks, and `watch` sees it.
struct Watched {
    lane: Arc<Lane>,
    stage: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Future for Watched {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.lane.polls.fetch_add(1, Ordering::Relaxed);
        let polled = self.stage.as_mut().poll(cx);
        self.lane.polls.fetch_add(1, Ordering::Relaxed);
        polled
    }
}

/// How much work may be fetched ahead of jobs that compute: more than a round trip to a distant broker, less than anyone
/// would wait for in vain.
const AHEAD: Duration = Duration::from_millis(50);
/// How long a call that was refused is held back.
const REFUSED: Duration = Duration::from_millis(100);
