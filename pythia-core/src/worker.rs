//! [`Worker`]: the one trait to implement, [`worker_fn`] for closures, and [`BatchWorker`] for several messages a call.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

use crate::error::WorkError;
use crate::job::Job;

/// Processes one message at a time, many of them concurrently.
///
/// ```
/// use pythia_core::{Job, WorkError, Worker};
///
/// #[derive(serde::Deserialize)]
/// struct Order { id: u64 }
///
/// struct ShipOrder;
///
/// impl Worker for ShipOrder {
///     type Input = Order;
///     type Output = ();
///
///     async fn process(&self, job: &Job<Order>) -> Result<(), WorkError> {
///         println!("shipping order {}", job.input.id);
///         Ok(())
///     }
/// }
/// ```
///
/// The returned value decides what becomes of the message: `Ok` acknowledges it; any error is retried by the route's
/// schedule, unless it says otherwise ([`WorkError`]). A future that never awaits holds up its whole lane and can't be
/// stopped by a time limit: give such work to [`Job::blocking`].
pub trait Worker: Send + Sync + 'static {
    /// What the codec makes of the payload.
    type Input: Send + Sync;
    /// What a success yields; `()` where nobody keeps results.
    type Output: Send;

    /// Makes one attempt. It may be dropped at any `.await`: at the hard time limit, and when a drain time is over.
    ///
    /// # Errors
    /// What the error means for the message is its [`kind`](WorkError::kind).
    fn process(
        &self,
        job: &Job<Self::Input>,
    ) -> impl Future<Output = Result<Self::Output, WorkError>> + Send;

    /// Called once, before the first message of the route is fetched. It may be dropped at any `.await`: a shutdown does not
    /// wait for it.
    ///
    /// # Errors
    /// The runner does not start, and returns this error.
    fn start(&self) -> impl Future<Output = Result<(), WorkError>> + Send {
        async { Ok(()) }
    }

    /// Called once, after the last message of the route was settled or handed back. What is left of the
    /// [`drain_timeout`](crate::RunnerConfig::drain_timeout) is there for it, and 4 s at least; then it is dropped.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Processes several messages a call: for work that is cheaper in bulk, such as an `INSERT` of many rows.
///
/// ```
/// use pythia_core::{BatchRoute, BatchWorker, Job, MemoryBroker, Producer, Runner, WorkError};
/// # use std::sync::Arc;
/// # use pythia_core::testing::EventLog;
///
/// struct InsertRows;
///
/// impl BatchWorker for InsertRows {
///     type Input = i64;
///     type Output = ();
///
///     async fn process(&self, jobs: &[Job<i64>]) -> Vec<Result<(), WorkError>> {
///         println!("inserting {} rows at once", jobs.len());
///         jobs.iter()
///             .map(|job| match job.input {
///                 0.. => Ok(()),
///                 _ => Err(WorkError::permanent("a negative amount")), // the others of the batch succeed
///             })
///             .collect()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = MemoryBroker::new();
/// Producer::new(broker.clone()).send_all("amounts", &[3, -1, 4]).await?;
/// # let log = Arc::new(EventLog::new());
/// # let shutdown = log.wait_settled(3);
/// let runner = Runner::builder()
///     .route(&broker, BatchRoute::new("amounts", InsertRows))
/// #   .observer(Arc::clone(&log))
///     .build()?;
/// let summary = runner.run_until(shutdown).await?; // in a service: `shutdown_signal()`
/// assert_eq!((summary.settled.acked, summary.settled.dead), (2, 1));
/// # Ok(())
/// # }
/// ```
///
/// How many messages a call gets is set on its [`BatchRoute`](crate::BatchRoute). User layers do not apply to it; time
/// limit, panic isolation and breaker guard the call as a whole.
pub trait BatchWorker: Send + Sync + 'static {
    /// What the codec makes of each payload.
    type Input: Send + Sync;
    /// What a success yields; `()` where nobody keeps results.
    type Output: Send;

    /// Makes one attempt at all of them, and answers one outcome for each, in their order. Messages without an answer
    /// count as failed.
    fn process(
        &self,
        jobs: &[Job<Self::Input>],
    ) -> impl Future<Output = Vec<Result<Self::Output, WorkError>>> + Send;

    /// Called once, before the first message of the route is fetched. It may be dropped at any `.await`: a shutdown does not
    /// wait for it.
    ///
    /// # Errors
    /// The runner does not start, and returns this error.
    fn start(&self) -> impl Future<Output = Result<(), WorkError>> + Send {
        async { Ok(()) }
    }

    /// Called once, after the last message of the route was settled or handed back. What is left of the
    /// [`drain_timeout`](crate::RunnerConfig::drain_timeout) is there for it, and 4 s at least; then it is dropped.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// A worker made of an async closure or function that needs nothing but the job. One that needs state, such as a
/// connection or a counter, is made by [`worker_fn_with`].
///
/// ```
/// use pythia_core::{Job, worker_fn};
///
/// # #[derive(serde::Deserialize)] struct Order { id: u64 }
/// let ship = worker_fn(async |job: &Job<Order>| {
///     println!("shipping order {}", job.input.id);
///     Ok(())
/// });
/// # fn takes(_: impl pythia_core::Worker<Input = Order, Output = ()>) {}
/// # takes(ship);
/// ```
///
/// An async closure that captures state is refused, because its future would borrow from the closure:
///
/// ```compile_fail
/// # use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// # use pythia_core::{Job, worker_fn};
/// let counter = Arc::new(AtomicU64::new(0));
/// let count = worker_fn(async move |job: &Job<u64>| {
///     counter.fetch_add(job.input, Ordering::Relaxed);
///     Ok(())
/// });
/// ```
///
/// A plain closure may capture, if its future owns all that it uses: clones of the state, and copies of what it needs
/// of the job.
///
/// ```
/// # use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// # use pythia_core::{Job, worker_fn};
/// # #[derive(serde::Deserialize)] struct Order { id: u64 }
/// let shipped = Arc::new(AtomicU64::new(0));
/// let ship = worker_fn(move |job: &Job<Order>| {
///     let shipped = Arc::clone(&shipped);
///     let id = job.input.id;
///     async move {
///         println!("shipping order {id}");
///         shipped.fetch_add(1, Ordering::Relaxed);
///         Ok(())
///     }
/// });
/// # fn takes(_: impl pythia_core::Worker<Input = Order, Output = ()>) {}
/// # takes(ship);
/// ```
pub const fn worker_fn<T, F>(function: F) -> WorkerFn<T, F>
where
    F: for<'a> JobFn<'a, T>,
{
    WorkerFn {
        function,
        input: PhantomData,
    }
}

/// A worker made of some state and an async closure or function that borrows it. State that others hold too is an
/// [`Arc`](std::sync::Arc); several things are a tuple.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use pythia_core::{Job, worker_fn_with};
///
/// # #[derive(serde::Deserialize)] struct Order { id: u64 }
/// let shipped = Arc::new(AtomicU64::new(0));
/// let ship = worker_fn_with(Arc::clone(&shipped), async |shipped: &Arc<AtomicU64>, job: &Job<Order>| {
///     println!("shipping order {}", job.input.id);
///     shipped.fetch_add(1, Ordering::Relaxed);
///     Ok(())
/// });
/// # fn takes(_: impl pythia_core::Worker<Input = Order, Output = ()>) {}
/// # takes(ship);
/// ```
pub const fn worker_fn_with<S, T, F>(state: S, function: F) -> WorkerFnWith<S, T, F>
where
    F: for<'a> StateFn<'a, S, T>,
{
    WorkerFnWith {
        state,
        function,
        input: PhantomData,
    }
}

/// Made by [`worker_fn`].
pub struct WorkerFn<T, F> {
    function: F,
    input: PhantomData<fn(T)>,
}

/// Made by [`worker_fn_with`].
pub struct WorkerFnWith<S, T, F> {
    state: S,
    function: F,
    input: PhantomData<fn(T)>,
}

/// Implemented by async functions from `&Job<T>` to a result, for [`worker_fn`]. (A bound of `AsyncFn` could not say
/// that the future is `Send`.)
#[diagnostic::on_unimplemented(
    message = "this can't be the function of a worker",
    label = "not callable as `async |job: &Job<{T}>| ..`, or it captures state",
    note = "an async closure can't lend to its future what it captured: give the state to `worker_fn_with(state, async |state: &S, job: &Job<T>| ..)`",
    note = "or clone it for each call, and what the call needs of the job: `worker_fn(move |job: &Job<T>| {{ let (state, input) = (Arc::clone(&state), job.input.clone()); async move {{ .. }} }})`"
)]
pub trait JobFn<'a, T>: Send + Sync + 'static {
    /// What a success yields.
    type Output: Send;
    /// The function's future.
    type Future: Future<Output = Result<Self::Output, WorkError>> + Send;

    /// Calls the function.
    fn call(&self, job: &'a Job<T>) -> Self::Future;
}

impl<'a, T: 'a, F, Fut, O> JobFn<'a, T> for F
where
    F: Call<(&'a Job<T>,), Answer = Fut> + Send + Sync + 'static,
    Fut: Future<Output = Result<O, WorkError>> + Send,
    O: Send,
{
    type Output = O;
    type Future = Fut;

    fn call(&self, job: &'a Job<T>) -> Fut {
        Call::call(self, (job,))
    }
}

/// Implemented by async functions from `&S` and `&Job<T>` to a result, for [`worker_fn_with`].
#[diagnostic::on_unimplemented(
    message = "this can't be the function of a worker",
    label = "not callable as `async |state: &{S}, job: &Job<{T}>| ..`, or it captures state",
    note = "an async closure can't lend to its future what it captured: make it a part of the state, which may be a tuple"
)]
pub trait StateFn<'a, S, T>: Send + Sync + 'static {
    /// What a success yields.
    type Output: Send;
    /// The function's future.
    type Future: Future<Output = Result<Self::Output, WorkError>> + Send;

    /// Calls the function.
    fn call(&self, state: &'a S, job: &'a Job<T>) -> Self::Future;
}

impl<'a, S: 'a, T: 'a, F, Fut, O> StateFn<'a, S, T> for F
where
    F: Call<(&'a S, &'a Job<T>), Answer = Fut> + Send + Sync + 'static,
    Fut: Future<Output = Result<O, WorkError>> + Send,
    O: Send,
{
    type Output = O;
    type Future = Fut;

    fn call(&self, state: &'a S, job: &'a Job<T>) -> Fut {
        Call::call(self, (state, job))
    }
}

/// A function that can be called with these arguments. It stands between `Fn` and the two traits above so that the
/// compiler leaves out of its messages only what it would say of `Fn`, and shows the hints instead. What it says of a
/// future that is not `Send` names the value and the `.await`, and has to stay.
#[diagnostic::on_unimplemented(
    message = "this can't be the function of a worker",
    label = "not callable with `{Arguments}`, or it captures state",
    note = "an async closure can't lend to its future what it captured: give the state to `worker_fn_with(state, async |state: &S, job: &Job<T>| ..)`",
    note = "or clone it for each call, and what the call needs of the job: `worker_fn(move |job: &Job<T>| {{ let (state, input) = (Arc::clone(&state), job.input.clone()); async move {{ .. }} }})`"
)]
#[expect(unnameable_types, reason = "only there for the compiler's messages")]
pub trait Call<Arguments> {
    type Answer;

    fn call(&self, arguments: Arguments) -> Self::Answer;
}

#[diagnostic::do_not_recommend]
impl<F: Fn(A) -> R, A, R> Call<(A,)> for F {
    type Answer = R;

    fn call(&self, (a,): (A,)) -> R {
        self(a)
    }
}

#[diagnostic::do_not_recommend]
impl<F: Fn(A, B) -> R, A, B, R> Call<(A, B)> for F {
    type Answer = R;

    fn call(&self, (a, b): (A, B)) -> R {
        self(a, b)
    }
}

impl<T, F, O> Worker for WorkerFn<T, F>
where
    T: Send + Sync + 'static,
    O: Send + 'static,
    F: for<'a> JobFn<'a, T, Output = O>,
{
    type Input = T;
    type Output = O;

    async fn process(&self, job: &Job<T>) -> Result<O, WorkError> {
        self.function.call(job).await
    }
}

impl<S, T, F, O> Worker for WorkerFnWith<S, T, F>
where
    S: Send + Sync + 'static,
    T: Send + Sync + 'static,
    O: Send + 'static,
    F: for<'a> StateFn<'a, S, T, Output = O>,
{
    type Input = T;
    type Output = O;

    async fn process(&self, job: &Job<T>) -> Result<O, WorkError> {
        self.function.call(&self.state, job).await
    }
}

impl<T, F> fmt::Debug for WorkerFn<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkerFn")
    }
}

impl<S: fmt::Debug, T, F> fmt::Debug for WorkerFnWith<S, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerFnWith")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn named(job: &Job<u32>) -> Result<u32, WorkError> {
        tokio::task::yield_now().await;
        Ok(job.input + 1)
    }

    async fn run<W: Worker>(worker: W, input: W::Input) -> Result<W::Output, WorkError> {
        fn send<T: Send>(future: T) -> T {
            future
        }
        let job = Job::for_test(input);
        send(worker.process(&job)).await
    }

    #[tokio::test]
    async fn functions_and_closures_are_workers() {
        assert_eq!(run(worker_fn(named), 1).await.unwrap(), 2);
        assert_eq!(
            run(worker_fn(async |job: &Job<u32>| Ok(job.input + 2)), 1)
                .await
                .unwrap(),
            3
        );
        let with = worker_fn_with(String::from("a"), async |state: &String, job: &Job<u32>| {
            tokio::task::yield_now().await;
            Ok(format!("{state}{}", job.input))
        });
        assert_eq!(run(with, 1).await.unwrap(), "a1");
    }
}
