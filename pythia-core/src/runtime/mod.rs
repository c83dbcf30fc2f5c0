//! The runtime: [`Runner`] takes routes and runs each as a few lanes of three stages, fetch, process and settle.
//!
//! | file | what it does |
//! |---|---|
//! | `fetch` | first stage of a lane: waits for a spot and reason, reads a batch |
//! | `prefetch` | the way from fetch to process: a spot for the batch that is worked on, one for the next |
//! | `process`, `batch` | second stage: a bounded window of jobs; or calls for many messages each |
//! | `attempt` | decode, layers, worker, decision for one message |
//! | `settle` | third stage: dispositions to the broker, in batches |
//! | `lane` | joins the stages |
//! | `hold`, `renew` | what is fetched and not settled, and the renewal of its leases |
//! | `watch` | a thread that sees handlers which block theirs |
//! | `solitude` | a message that may have killed processes runs alone |
//! | `upkeep`, `sample` | one loop a queue for what is due, one a broker for gauges |
//! | `route`, `config` | what a user says about a queue |
//! | `builder` | routes and settings become a runner, or are refused |
//! | `rehearsal` | a runner whose lanes a test starts and stops |
//! | `shutdown`, `health`, `totals`, `log` | the end, probes, the summary, log lines |

mod attempt;
mod batch;
mod builder;
mod config;
mod fetch;
mod health;
mod hold;
mod lane;
mod log;
mod prefetch;
mod process;
#[cfg(feature = "testing")]
mod rehearsal;
mod renew;
mod route;
mod sample;
mod settle;
mod shutdown;
mod solitude;
mod totals;
mod upkeep;
mod watch;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

pub use self::builder::RunnerBuilder;
pub use self::config::{DeadLetters, RouteConfig, RunnerConfig};
pub use self::health::{
    BrokerStatus, Health, LaneState, LaneStatus, Ping, QueueStatus, WaitReason,
};
pub use self::route::{BatchRoute, IntoRoute, Route};
pub use self::shutdown::{Hurry, SecondSignal, shutdown_signal};
pub use self::totals::Summary;

use self::lane::{Lane, LanePlan};
use self::route::AnyRoute;
use self::sample::{Sampler, sample_last};
use self::shutdown::Phase;
use self::solitude::Solitude;
use self::totals::Totals;
use self::upkeep::Upkeep;
use self::watch::Watch;
use crate::broker::Broker;
use crate::error::{BrokerError, BrokerErrorKind, WorkError};
use crate::message::QueueName;
use crate::observe::{Event, Observer, Observers};
use crate::resilience::BreakerState;

/// Runs workers until it is told to stop.
///
/// ```
/// use pythia_core::{Job, MemoryBroker, Producer, Route, Runner, worker_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = MemoryBroker::new();
/// Producer::new(broker.clone()).send("greetings", "world").await?;
///
/// let (done, greeted) = tokio::sync::oneshot::channel();
/// let done = std::sync::Mutex::new(Some(done));
/// let greet = worker_fn(move |job: &Job<String>| {
///     println!("hello, {}", job.input);
///     done.lock().unwrap().take().map(|done| done.send(()));
///     async { Ok(()) }
/// });
/// let runner = Runner::builder().route(&broker, Route::new("greetings", greet)).build()?;
/// let summary = runner.run_until(async { greeted.await.unwrap() }).await?;
/// assert_eq!(summary.settled.acked, 1);
/// # Ok(())
/// # }
/// ```
pub struct Runner {
    routes: Vec<Built>,
    config: RunnerConfig,
    observers: Observers,
    health: Health,
}

/// A route that is ready to run.
struct Built {
    queue: QueueName,
    broker: Arc<dyn Broker>,
    route: Arc<dyn AnyRoute>,
    plan: LanePlan,
    /// Each lane's share of the concurrency.
    shares: Vec<usize>,
    max_attempts: u32,
}

impl Runner {
    /// A runner to be.
    pub fn builder() -> RunnerBuilder {
        RunnerBuilder::default()
    }

    /// A handle for probes, to be taken before the runner runs.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Runs until the future resolves, then stops: fetches no more, hands back what was not started, lets running jobs
    /// finish within [`drain_timeout`](RunnerConfig::drain_timeout), settles, closes. Brokers that are away are waited
    /// for, at the start too.
    ///
    /// With [`shutdown_signal`] a second signal skips the wait for running jobs. What waits for the second signal is what
    /// that future yields: an async block around it that yields `()` compiles, and loses it, so return it.
    ///
    /// ```no_run
    /// # use pythia_core::{Runner, RunError, shutdown_signal};
    /// # async fn run(runner: Runner) -> Result<(), RunError> {
    /// let shutdown = async {
    ///     let second_signal = shutdown_signal().await;
    ///     println!("finishing what runs; press Ctrl-C again to skip that");
    ///     second_signal // not `()`
    /// };
    /// let summary = runner.run_until(shutdown).await?;
    /// # let _ = summary;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Dropping this future kills the lanes where they are, as a crash would: what was in hand comes back after its
    /// lease.
    ///
    /// # Errors
    /// If a worker's start hook fails, or a task of the runtime panics (with `isolate_panics = false` also a worker's):
    /// the runner stops then.
    pub async fn run_until<F>(self, shutdown: F) -> Result<Summary, RunError>
    where
        F: Future,
        F::Output: Hurry,
    {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut started = 0;
        let begun = tokio::select! {
            biased;
            begun = start(&self.routes, &mut started) => Some(begun),
            // A start hook may wait for something that never comes.
            _hurry = &mut shutdown => None,
        };
        if !matches!(begun, Some(Ok(()))) {
            stop(&self.routes[..started], LAST_TASK).await;
            return begun
                .unwrap_or(Ok(()))
                .map(|()| Totals::default().summary());
        }
        let (ended, rest) = self.run_lanes(shutdown).await;
        stop(&self.routes, rest.max(LAST_TASK)).await;
        ended
    }

    /// The lanes from their start to their end, between the hooks. Answers also what is left of the drain time. May be
    /// called again: breakers and rates go on where they were.
    pub(crate) async fn run_lanes<F>(&self, shutdown: F) -> (Result<Summary, RunError>, Duration)
    where
        F: Future,
        F::Output: Hurry,
    {
        let mut shutdown = std::pin::pin!(shutdown);
        let phase = Phase::default();
        let totals = Arc::new(Totals::default());
        let (mut tasks, samplers, watch) = self.spawn(&phase, &totals);

        let ended = tokio::select! {
            hurry = &mut shutdown => Ok(hurry),
            failure = first_failure(&mut tasks) => Err(failure),
        };
        let drained_at = Instant::now() + self.config.drain_timeout;
        let failure = match ended {
            Ok(hurry) => {
                phase.begin_drain();
                let enough = async {
                    tokio::select! {
                        () = tokio::time::sleep(self.config.drain_timeout) => {}
                        () = hurry.hurry() => {}
                    }
                };
                let all = async {
                    all_end(&mut tasks).await?;
                    sample_last(&samplers).await;
                    Ok(())
                };
                let drained = tokio::select! {
                    drained = all => Some(drained),
                    () = enough => None,
                };
                match drained {
                    Some(Ok(())) => None,
                    Some(Err(failure)) => Some(failure),
                    None => {
                        phase.end_drain();
                        abandoned(&phase, all_end(&mut tasks)).await.err()
                    }
                }
            }
            Err(failure) => Some(failure),
        };
        // After a failure the others are stopped without waiting for their jobs.
        phase.end_drain();
        let rest = async {
            while tasks.join_next().await.is_some() {}
            Ok(())
        };
        abandoned(&phase, rest).await.unwrap_or_default();
        if !tasks.is_empty() {
            tracing::error!(
                tasks = tasks.len(),
                "some handlers block their threads, or a broker's calls never end: they are left behind, and their messages come back after their lease"
            );
        }
        drop((tasks, watch));
        let rest = drained_at.saturating_duration_since(Instant::now());
        let ended = match failure {
            Some(error) => Err(RunError(Failure::Task(error))),
            None => Ok(totals.summary()),
        };
        (ended, rest)
    }

    fn spawn(
        &self,
        phase: &Phase,
        totals: &Arc<Totals>,
    ) -> (JoinSet<()>, Vec<Arc<Sampler>>, Watch) {
        let mut tasks = JoinSet::new();
        let mut samplers = Vec::new();
        let mut lanes = Vec::new();
        let solitude = Solitude::default();
        let mut brokers: Vec<(Arc<dyn Broker>, Vec<QueueName>)> = Vec::new();
        for (number, built) in self.routes.iter().enumerate() {
            let Built {
                queue,
                broker,
                route,
                plan,
                shares,
                max_attempts,
            } = built;
            self.observers.on_event(&Event::Started {
                queue,
                lanes: shares.len(),
                breaker: plan.gate.as_ref().map(|_| BreakerState::Closed),
            });
            tracing::info!(%queue, ?broker, lanes = shares.len(), "the worker starts");
            let upkeep = Arc::new(Upkeep::new(
                queue.clone(),
                Arc::clone(broker),
                self.observers.clone(),
                self.config.maintain_interval,
                self.config.stall_after,
                *max_attempts,
            ));
            for (index, &concurrency) in shares.iter().enumerate() {
                let lane = Arc::new(Lane::new(
                    index,
                    concurrency,
                    plan,
                    queue.clone(),
                    Arc::clone(broker),
                    self.observers.clone(),
                    self.health.lane(number, index),
                    Arc::clone(totals),
                    solitude.clone(),
                    phase.clone(),
                ));
                lanes.push(Arc::clone(&lane));
                let route = Arc::clone(route);
                lane.spawn(&mut tasks, &upkeep, |lane, fetched, outbox| {
                    route.process(lane, fetched, outbox)
                });
            }
            let phase = phase.clone();
            tasks.spawn(async move { upkeep.run(&phase).await });
            match brokers
                .iter_mut()
                .find(|(other, _)| same_broker(other, broker))
            {
                Some((_, queues)) => queues.push(queue.clone()),
                None => brokers.push((Arc::clone(broker), vec![queue.clone()])),
            }
        }
        for (broker, queues) in brokers {
            broker.attach(Arc::new(self.observers.clone()));
            let sampler = Arc::new(Sampler {
                broker,
                queues,
                observers: self.observers.clone(),
                interval: self.config.sample_interval,
                patience: self.config.stall_after,
                wanted: self.observers.len() > 1,
                unanswered: AtomicBool::new(false),
            });
            samplers.push(Arc::clone(&sampler));
            let phase = phase.clone();
            tasks.spawn(async move { sampler.run(&phase).await });
        }
        (tasks, samplers, Watch::start(lanes))
    }
}

/// The end of the tasks, unless they have not ended some time after the drain.
async fn abandoned(
    phase: &Phase,
    ends: impl Future<Output = Result<(), JoinError>>,
) -> Result<(), JoinError> {
    tokio::select! {
        biased;
        ended = ends => ended,
        () = phase.over_for(LAST_TASK) => Ok(()),
    }
}

/// Waits for a task to panic; that others end by themselves is nothing special. Cancel safe.
async fn first_failure(tasks: &mut JoinSet<()>) -> JoinError {
    match all_end(tasks).await {
        Ok(()) => std::future::pending().await,
        Err(failure) => failure,
    }
}

/// Waits for all tasks to end, or for the first to panic. Cancel safe.
async fn all_end(tasks: &mut JoinSet<()>) -> Result<(), JoinError> {
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}

/// Calls the start hooks, and counts those that went well.
async fn start(routes: &[Built], started: &mut usize) -> Result<(), RunError> {
    for built in routes {
        if let Err(error) = built.route.start().await {
            let queue = built.queue.clone();
            return Err(RunError(Failure::Start { queue, error }));
        }
        *started += 1;
    }
    Ok(())
}

/// Calls the stop hooks, which have so long all together.
async fn stop(routes: &[Built], patience: Duration) {
    let hooks = async {
        for built in routes {
            built.route.stop().await;
        }
    };
    if tokio::time::timeout(patience, hooks).await.is_err() {
        tracing::error!("the stop hook of a worker did not end: it is left behind");
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queues: Vec<_> = self.routes.iter().map(|route| &route.queue).collect();
        f.debug_struct("Runner")
            .field("queues", &queues)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Why a runner ended other than by being told to.
pub struct RunError(Failure);

enum Failure {
    Start { queue: QueueName, error: WorkError },
    Task(JoinError),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Failure::Start { queue, error } => {
                write!(f, "the worker of queue {queue:?} did not start: {error}")
            }
            Failure::Task(error) => write!(f, "a task of the runner failed: {error}"),
        }
    }
}

impl fmt::Debug for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunError: {self}")
    }
}

/// The cause is part of the text, so it is not offered as a source as well.
impl std::error::Error for RunError {}

/// Growing pauses after faults of a broker: full jitter, from 50 ms to 1 s. A longer one would only make an outage longer.
#[derive(Debug, Default)]
struct FaultBackoff {
    faults: u32,
}

impl FaultBackoff {
    fn next_delay(&mut self) -> Duration {
        let cap = MIN_PAUSE
            .saturating_mul(1 << self.faults.min(16))
            .min(MAX_PAUSE);
        self.faults += 1;
        rand::random_range(MIN_PAUSE / 2..=cap)
    }
}

/// How long tasks may take to end after the drain time, which is longer than any of them needs; and stop hooks, at least.
const LAST_TASK: Duration = Duration::from_secs(4);
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// The broker's answer. A call without one is given up after a while: what waits for it must not wait for ever.
async fn answer<T>(
    call: impl Future<Output = Result<T, BrokerError>>,
    patience: Duration,
    attempted: &'static str,
    queue: &QueueName,
) -> Result<T, BrokerError> {
    let answer = tokio::time::timeout(patience, call).await;
    answer.unwrap_or_else(|_| {
        Err(BrokerError::new(BrokerErrorKind::Unavailable, attempted)
            .queue(queue)
            .because(format!("no answer within {patience:?}")))
    })
}

fn jittered(interval: Duration) -> Duration {
    // Only ever shorter, because what is renewed must not be late.
    interval.mul_f64(rand::random_range(0.75..=1.0))
}

fn same_broker(one: &Arc<dyn Broker>, other: &Arc<dyn Broker>) -> bool {
    one.identity() == other.identity()
}
