//! What stands between the runtime and the worker: the breaker, the time limits and the panic isolation, in this order.

use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;

use super::catch_panic::catch_panic;
use super::gate::Gate;
use super::timeout::{Limits, within};
use super::window::Tally;
use crate::error::{WorkError, WorkErrorKind};
use crate::job::{CancelReason, Job};
use crate::worker::{BatchWorker, Worker};

/// Guards calls of a worker. Each part may be switched off.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guard {
    /// The route's breaker, if it has one.
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) limits: Limits,
    pub(crate) isolate_panics: bool,
}

impl Guard {
    /// Makes one call. `tally` says how a call that was finished counts for the breaker; `ask_to_stop` is called when the
    /// soft time limit is over.
    ///
    /// Each layer makes the call within it by itself, so that a call in progress is stored once: a future that is handed
    /// from one async function to the next takes its place in both.
    async fn call<T, F>(
        &self,
        tally: impl Fn(&Result<T, WorkError>) -> Tally,
        ask_to_stop: impl FnOnce(),
        call: impl FnOnce() -> F,
    ) -> Result<T, WorkError>
    where
        F: Future<Output = Result<T, WorkError>>,
    {
        let permit = match &self.gate {
            None => None,
            Some(gate) => match gate.admit(Instant::now) {
                Some(permit) => Some(permit),
                None => return Err(refused()),
            },
        };
        let result = within(self.limits, ask_to_stop, || {
            catch_panic(self.isolate_panics, call)
        })
        .await;
        if let Some(permit) = permit {
            permit.record(Instant::now(), tally(&result));
        }
        result
    }
}

/// A worker within its guard: what the process stage calls.
#[derive(Debug)]
pub(crate) struct Guarded<W> {
    worker: W,
    guard: Guard,
}

impl<W> Guarded<W> {
    /// Puts the guard around a worker, or a batch worker, that has its layers already.
    pub(crate) const fn new(worker: W, guard: Guard) -> Self {
        Self { worker, guard }
    }
}

#[deny(
    clippy::missing_trait_methods,
    reason = "a wrapper that forgets a method changes its meaning"
)]
impl<W: Worker> Worker for Guarded<W> {
    type Input = W::Input;
    type Output = W::Output;

    async fn process(&self, job: &Job<W::Input>) -> Result<W::Output, WorkError> {
        self.guard
            .call(
                |result| tally_of(result),
                || {
                    job.cancellation().cancel(CancelReason::SoftLimit);
                },
                || self.worker.process(job),
            )
            .await
    }

    async fn start(&self) -> Result<(), WorkError> {
        self.worker.start().await
    }

    async fn stop(&self) {
        self.worker.stop().await;
    }
}

/// The call of a batch is guarded as a whole: it is let in, stopped, and fails by a panic as one. For the breaker each
/// message counts, so that one bad row in a batch of hundreds is just that; as a probe the batch counts as one call, by
/// the share of its messages that failed.
#[deny(
    clippy::missing_trait_methods,
    reason = "a wrapper that forgets a method changes its meaning"
)]
impl<W: BatchWorker> BatchWorker for Guarded<W> {
    type Input = W::Input;
    type Output = W::Output;

    /// Answers exactly one result for each job.
    async fn process(&self, jobs: &[Job<W::Input>]) -> Vec<Result<W::Output, WorkError>> {
        let tally = |results: &Result<Vec<Result<W::Output, WorkError>>, WorkError>| match results {
            Ok(results) => results.iter().fold(Tally::default(), |mut sum, result| {
                sum += tally_of(result);
                sum
            }),
            Err(error) => tally_of_error(error.kind(), jobs.len() as u64),
        };
        let ask_to_stop = || {
            for job in jobs {
                job.cancellation().cancel(CancelReason::SoftLimit);
            }
        };
        let results = self.guard.call(tally, ask_to_stop, || async {
            let mut results = self.worker.process(jobs).await;
            results.truncate(jobs.len());
            results.resize_with(jobs.len(), || Err(unanswered()));
            Ok(results)
        });
        match results.await {
            Ok(results) => results,
            Err(error) => jobs.iter().map(|_| Err(copy_of(&error))).collect(),
        }
    }

    async fn start(&self) -> Result<(), WorkError> {
        self.worker.start().await
    }

    async fn stop(&self) {
        self.worker.stop().await;
    }
}

fn tally_of<T>(result: &Result<T, WorkError>) -> Tally {
    match result {
        Ok(_) => Tally {
            successes: 1,
            failures: 0,
        },
        Err(error) => tally_of_error(error.kind(), 1),
    }
}

/// Which errors say that the worker, or what it depends on, is not well.
const fn tally_of_error(kind: WorkErrorKind, messages: u64) -> Tally {
    let failures = match kind {
        WorkErrorKind::Panic | WorkErrorKind::Retryable { .. } | WorkErrorKind::Timeout => messages,
        WorkErrorKind::BreakerOpen
        | WorkErrorKind::Decode
        | WorkErrorKind::Permanent
        | WorkErrorKind::Snooze { .. } => 0,
    };
    Tally {
        successes: 0,
        failures,
    }
}

fn refused() -> WorkError {
    WorkError::new(WorkErrorKind::BreakerOpen, "the circuit breaker is open")
}

fn unanswered() -> WorkError {
    WorkError::retryable("the batch worker gave no result for this message")
}

/// The error of a whole call, for each of its messages.
fn copy_of(error: &WorkError) -> WorkError {
    WorkError::new(error.kind(), error.to_string())
}
