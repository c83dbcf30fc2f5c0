//! Whether messages are being consumed: judged by reads that completed, not by a process that exists.
//!
//! | file | what is in it |
//! |---|---|
//! | `lane.rs` | what one lane does, as its stages note it |
//! | `ping.rs` | a question to each broker, asked when somebody wants to know |

mod lane;
mod ping;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) use self::lane::LaneHealth;
pub use self::lane::{LaneState, LaneStatus, WaitReason};
pub use self::ping::Ping;

use super::same_broker;
use crate::broker::{Broker, Endpoint};
use crate::message::QueueName;
use crate::resilience::{BreakerState, Gate};

/// The state of a runner's brokers, queues and lanes, for probes. Cheap to clone; usable from any task or thread. It keeps
/// the brokers alive.
///
/// ```
/// use std::time::Duration;
/// # use pythia_core::{Job, MemoryBroker, Route, Runner, worker_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = MemoryBroker::new();
/// # let greet = worker_fn(async |_: &Job<String>| Ok(()));
/// let runner = Runner::builder().route(&broker, Route::new("greetings", greet)).build()?;
/// let health = runner.health();
/// # let probe = async {
/// # while health.ready().is_err() { tokio::task::yield_now().await }
/// assert_eq!((health.live(), health.ready()), (Ok(()), Ok(())));
/// for ping in health.ping(Duration::from_secs(2)).await {
///     println!("{} answered after {:?}", ping.endpoint, ping.answered?);
/// }
/// # Ok::<(), pythia_core::BrokerError>(())
/// # };
/// # runner.run_until(async { probe.await.unwrap() }).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Health(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    routes: Vec<Watched>,
    stall_after: Duration,
}

/// A route as its runner was built with it.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) queue: QueueName,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) gate: Option<Arc<Gate>>,
    /// None before the runner runs.
    pub(super) lanes: Mutex<Vec<Arc<LaneHealth>>>,
}

/// One broker as [`Health`] sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerStatus {
    /// Which broker.
    pub endpoint: Endpoint,
    /// Its queues, in the order of the runner's routes.
    pub queues: Vec<QueueStatus>,
}

/// One queue as [`Health`] sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStatus {
    /// Its name.
    pub queue: QueueName,
    /// What the route's circuit breaker does; `None` if it has none.
    pub breaker: Option<BreakerState>,
    /// Its lanes; none before the runner runs.
    pub lanes: Vec<LaneStatus>,
}

impl Health {
    pub(super) fn new(stall_after: Duration, routes: Vec<Watched>) -> Self {
        Self(Arc::new(Shared {
            routes,
            stall_after,
        }))
    }

    /// Adds a lane of the route with that number.
    pub(super) fn lane(&self, route: usize, lane: usize) -> Arc<LaneHealth> {
        let route = &self.0.routes[route];
        let health = Arc::new(LaneHealth::new(&route.queue, lane));
        route.lanes().push(Arc::clone(&health));
        health
    }

    /// Every broker, in the order of the runner's routes, with its queues. Asks nobody: for that there is
    /// [`ping`](Self::ping).
    pub fn brokers(&self) -> Vec<BrokerStatus> {
        let of = |broker: &&Arc<dyn Broker>| BrokerStatus {
            endpoint: broker.endpoint(),
            queues: self
                .0
                .routes
                .iter()
                .filter(|route| same_broker(&route.broker, broker))
                .map(Watched::status)
                .collect(),
        };
        self.distinct_brokers().iter().map(of).collect()
    }

    /// Asks every broker for a sign of life, and its store to keep, give back and delete a value, all at the same time. An
    /// answer is waited for so long at most. The answers are in the order of [`brokers`](Self::brokers).
    pub async fn ping(&self, patience: Duration) -> Vec<Ping> {
        ping::all(&self.distinct_brokers(), patience).await
    }

    /// Every lane's state.
    pub fn statuses(&self) -> Vec<LaneStatus> {
        self.0.routes.iter().flat_map(Watched::statuses).collect()
    }

    /// Whether the process does its work. It does not if a lane that ought to read has completed no read for twice
    /// [`stall_after`](super::RunnerConfig::stall_after): by then a new subscription was tried and did not help. Nor if
    /// for so long the broker has taken no result: the lane waits for that, and nothing else would show it.
    ///
    /// # Errors
    /// One line for each lane that consumes nothing: which, and for how long.
    pub fn live(&self) -> Result<(), Vec<String>> {
        let limit = 2 * self.0.stall_after;
        all(self.statuses(), |status| {
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
        let statuses = self.statuses();
        if statuses.is_empty() {
            return Err(vec!["the runner has not started".into()]);
        }
        all(statuses, |status| {
            let problem = match status.state {
                LaneState::Connecting => "not connected",
                LaneState::Stopped => "stopped",
                LaneState::Reading | LaneState::Waiting => return None,
            };
            let (queue, lane) = (status.queue.as_str(), status.lane);
            Some(format!("queue {queue:?}, lane {lane}: {problem}"))
        })
    }

    fn distinct_brokers(&self) -> Vec<&Arc<dyn Broker>> {
        let mut brokers: Vec<&Arc<dyn Broker>> = Vec::new();
        for Watched { broker, .. } in &self.0.routes {
            if !brokers.iter().any(|other| same_broker(other, broker)) {
                brokers.push(broker);
            }
        }
        brokers
    }
}

impl Watched {
    fn status(&self) -> QueueStatus {
        QueueStatus {
            queue: self.queue.clone(),
            breaker: self.gate.as_ref().map(|gate| gate.state()),
            lanes: self.statuses(),
        }
    }

    fn statuses(&self) -> Vec<LaneStatus> {
        self.lanes().iter().map(|lane| lane.status()).collect()
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Arc<LaneHealth>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn all(
    statuses: Vec<LaneStatus>,
    problem: impl Fn(LaneStatus) -> Option<String>,
) -> Result<(), Vec<String>> {
    let problems: Vec<String> = statuses.into_iter().filter_map(problem).collect();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}
