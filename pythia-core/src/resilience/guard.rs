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
    /// Makes one call; answers also when it ended. `tally` says how a call that was finished counts for the breaker;
    /// `ask_to_stop` is called when the soft time limit is over.
    ///
    /// Each layer makes the call within it by itself, so that a call in progress is stored once: a future that is handed
    /// from one async function to the next takes its place in both.
    async fn call<T, F>(
        &self,
        tally: impl Fn(&Result<T, WorkError>) -> Tally,
        ask_to_stop: impl FnOnce(),
        call: impl FnOnce() -> F,
    ) -> (Result<T, WorkError>, Instant)
    where
        F: Future<Output = Result<T, WorkError>>,
    {
        let permit = match &self.gate {
            None => None,
            Some(gate) => match gate.admit(Instant::now) {
                Some(permit) => Some(permit),
                None => return (Err(refused()), Instant::now()),
            },
        };
        let result = within(self.limits, ask_to_stop, || {
            catch_panic(self.isolate_panics, call)
        })
        .await;
        // Read once for each message: it costs as much as the rest of this.
        let ended = Instant::now();
        if let Some(permit) = permit {
            permit.record(ended, tally(&result));
        }
        (result, ended)
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

    /// What is guarded.
    pub(crate) const fn worker(&self) -> &W {
        &self.worker
    }
}

impl<W: Worker> Guarded<W> {
    /// Calls the worker; answers also when that ended.
    pub(crate) async fn process(
        &self,
        job: &Job<W::Input>,
    ) -> (Result<W::Output, WorkError>, Instant) {
        let ask_to_stop = || job.cancellation().cancel(CancelReason::SoftLimit);
        self.guard
            .call(tally_of, ask_to_stop, || self.worker.process(job))
            .await
    }
}

/// The call of a batch is guarded as a whole: it is let in, stopped, and fails by a panic as one. For the breaker each
/// message counts, so that one bad row in a batch of hundreds is just that; as a probe the batch counts as one call, by
/// the share of its messages that failed.
impl<W: BatchWorker> Guarded<W> {
    /// Calls the worker; answers exactly one result for each job, and when that ended.
    pub(crate) async fn process_all(
        &self,
        jobs: &[Job<W::Input>],
    ) -> (Vec<Result<W::Output, WorkError>>, Instant) {
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
            results.resize_with(jobs.len(), || Err(unanswered()));
            Ok(results)
        });
        let (results, ended) = results.await;
        let results =
            results.unwrap_or_else(|error| jobs.iter().map(|_| Err(copy_of(&error))).collect());
        (results, ended)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::resilience::{BreakerConfig, Jitter, TimeoutConfig};
    use crate::worker::worker_fn;

    /// A guard that opens at the second failure of two calls or more, with a hard limit of 5 s and a soft one of 2 s.
    fn guard() -> Guard {
        let breaker = BreakerConfig {
            min_calls: 2.try_into().unwrap(),
            failure_ratio: 1.0,
            jitter: Jitter::None,
            probes: 1.try_into().unwrap(),
            ..BreakerConfig::default()
        };
        let timeout = TimeoutConfig {
            soft: Some(Duration::from_secs(2)),
            hard: Some(Duration::from_secs(5)),
        };
        Guard {
            gate: Some(Gate::new(breaker.checked().unwrap().unwrap(), |_| {})),
            limits: timeout.checked().unwrap(),
            isolate_panics: true,
        }
    }

    /// What the job is told to do.
    #[derive(Clone, Copy, Debug)]
    enum Order {
        Fail(WorkErrorKind),
        Hang,
        Panic,
        Succeed,
    }

    // Named functions in these tests: rustc 1.95, when it compiles incrementally, panics over async closures in here.
    async fn obey(job: &Job<Order>) -> Result<&'static str, WorkError> {
        match job.input {
            Order::Fail(kind) => Err(WorkError::new(kind, "as told")),
            Order::Hang => std::future::pending().await,
            Order::Panic => panic!("as told"),
            Order::Succeed => Ok("as told"),
        }
    }

    async fn run<W: Worker<Input = Order>>(
        worker: &Guarded<W>,
        order: Order,
    ) -> Result<(), WorkErrorKind> {
        let (result, _) = worker.process(&Job::for_test(order)).await;
        result.map(drop).map_err(|error| error.kind())
    }

    const RETRYABLE: WorkErrorKind = WorkErrorKind::Retryable { after: None };

    #[tokio::test(start_paused = true)]
    async fn failures_open_the_breaker_and_it_refuses_until_a_probe_succeeds() {
        for (order, kind) in [
            (Order::Fail(RETRYABLE), RETRYABLE),
            (Order::Hang, WorkErrorKind::Timeout),
            (Order::Panic, WorkErrorKind::Panic),
        ] {
            let worker = Guarded::new(worker_fn(obey), guard());
            assert_eq!(run(&worker, order).await, Err(kind));
            assert_eq!(run(&worker, order).await, Err(kind));
            let refused = Err(WorkErrorKind::BreakerOpen);
            assert_eq!(run(&worker, Order::Succeed).await, refused, "{order:?}");
            tokio::time::advance(Duration::from_secs(5)).await;
            assert_eq!(run(&worker, Order::Succeed).await, Ok(()));
            assert_eq!(run(&worker, order).await, Err(kind));
            assert_eq!(run(&worker, Order::Succeed).await, Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_says_nothing_about_the_worker_does_not_open_it() {
        let worker = Guarded::new(worker_fn(obey), guard());
        for kind in [
            WorkErrorKind::Decode,
            WorkErrorKind::Permanent,
            WorkErrorKind::Snooze {
                delay: Duration::ZERO,
            },
        ] {
            for _ in 0..10 {
                assert_eq!(run(&worker, Order::Fail(kind)).await, Err(kind));
            }
        }
        assert_eq!(run(&worker, Order::Fail(RETRYABLE)).await, Err(RETRYABLE));
        assert_eq!(
            run(&worker, Order::Succeed).await,
            Ok(()),
            "one failure, no other call"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_learns_of_its_soft_limit_and_may_still_succeed() {
        async fn wait(job: &Job<()>) -> Result<CancelReason, WorkError> {
            Ok(job.cancellation().cancelled().await)
        }

        let worker = Guarded::new(worker_fn(wait), guard());
        let began = Instant::now();
        let (reason, ended) = worker.process(&Job::for_test(())).await;
        assert_eq!(reason.unwrap(), CancelReason::SoftLimit);
        assert_eq!(ended - began, Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn all_switched_off_the_worker_is_on_its_own() {
        let worker = Guarded::new(worker_fn(obey), Guard::default());
        for _ in 0..100 {
            assert_eq!(run(&worker, Order::Fail(RETRYABLE)).await, Err(RETRYABLE));
        }
        let hang = run(&worker, Order::Hang);
        assert!(
            tokio::time::timeout(Duration::from_hours(24), hang)
                .await
                .is_err()
        );
    }

    /// Obeys each job; a job that panics or hangs takes the others along.
    struct Batch {
        answers: Option<usize>,
    }

    impl Batch {
        fn new() -> Self {
            Self { answers: None }
        }
    }

    impl BatchWorker for Batch {
        type Input = Order;
        type Output = &'static str;

        async fn process(&self, jobs: &[Job<Order>]) -> Vec<Result<&'static str, WorkError>> {
            let mut results = Vec::new();
            for job in jobs {
                results.push(obey(job).await);
            }
            results.resize_with(self.answers.unwrap_or(jobs.len()), || Ok("one more"));
            results
        }
    }

    async fn run_batch(
        worker: &Guarded<Batch>,
        orders: &[Order],
    ) -> Vec<Result<(), WorkErrorKind>> {
        let jobs: Vec<_> = orders.iter().copied().map(Job::for_test).collect();
        let (results, _) = worker.process_all(&jobs).await;
        let results = results.into_iter();
        results
            .map(|result| result.map(drop).map_err(|error| error.kind()))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_let_in_stopped_and_isolated_as_a_whole() {
        for (order, kind) in [
            (Order::Panic, WorkErrorKind::Panic),
            (Order::Hang, WorkErrorKind::Timeout),
        ] {
            let worker = Guarded::new(Batch::new(), guard());
            let results = run_batch(&worker, &[Order::Succeed, order, Order::Succeed]).await;
            assert_eq!(results, [Err(kind); 3]);
            let results = run_batch(&worker, &[Order::Succeed; 2]).await;
            assert_eq!(results, [Err(WorkErrorKind::BreakerOpen); 2]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_message_of_a_batch_counts_for_the_breaker() {
        let worker = Guarded::new(Batch::new(), guard());
        let bad = Order::Fail(RETRYABLE);
        for _ in 0..10 {
            let results = run_batch(&worker, &[bad, Order::Succeed]).await;
            assert_eq!(results, [Err(RETRYABLE), Ok(())]);
        }
        tokio::time::advance(Duration::from_secs(10)).await;
        let permanent = Order::Fail(WorkErrorKind::Permanent);
        run_batch(&worker, &[permanent, bad]).await;
        assert_eq!(run_batch(&worker, &[bad]).await, [Err(RETRYABLE)]);
        assert_eq!(
            run_batch(&worker, &[bad]).await,
            [Err(WorkErrorKind::BreakerOpen)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_has_one_result_for_each_message() {
        for (answers, expected) in [(1, Err(RETRYABLE)), (2, Ok(())), (3, Ok(()))] {
            let batch = Batch {
                answers: Some(answers),
            };
            let worker = Guarded::new(batch, guard());
            let results = run_batch(&worker, &[Order::Succeed; 2]).await;
            assert_eq!(results, [Ok(()), expected], "{answers} answers");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_jobs_of_a_batch_learn_of_the_soft_limit() {
        let worker = Guarded::new(Batch::new(), guard());
        let jobs = [Order::Hang, Order::Hang].map(Job::for_test);
        worker.process_all(&jobs).await;
        for job in jobs {
            assert_eq!(job.cancellation().reason(), Some(CancelReason::SoftLimit));
        }
    }

    /// The window holds one such future for each running job.
    #[test]
    fn a_guarded_call_is_stored_once() {
        async fn large(job: &Job<[u8; 1_000]>) -> Result<u8, WorkError> {
            let copy = job.input;
            tokio::task::yield_now().await;
            Ok(copy[0])
        }

        let worker = worker_fn(large);
        let job = Job::for_test([0; 1_000]);
        let bare = size_of_val(&worker.process(&job));
        let worker = Guarded::new(worker, guard());
        let guarded = size_of_val(&worker.process(&job));
        assert!(guarded < bare + 500, "{bare} bytes became {guarded}");
    }
}
