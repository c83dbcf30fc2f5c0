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

    /// Called once, before the first message of the route is fetched.
    ///
    /// # Errors
    /// The runner does not start, and returns this error.
    fn start(&self) -> impl Future<Output = Result<(), WorkError>> + Send {
        async { Ok(()) }
    }

    /// Called once, after the last message of the route was settled or handed back.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Processes several messages a call: for work that is cheaper in bulk, such as an `INSERT` of many rows.
///
/// User layers do not apply to it; time limit, panic isolation and breaker guard the call as a whole.
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

    /// Called once, before the first message of the route is fetched.
    ///
    /// # Errors
    /// The runner does not start, and returns this error.
    fn start(&self) -> impl Future<Output = Result<(), WorkError>> + Send {
        async { Ok(()) }
    }

    /// Called once, after the last message of the route was settled or handed back.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// A worker made of an async closure or function.
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
pub const fn worker_fn<T, F>(function: F) -> WorkerFn<T, F>
where
    F: for<'a> JobFn<'a, T>,
{
    WorkerFn {
        function,
        input: PhantomData,
    }
}

/// A worker made of some state and an async closure or function that borrows it.
///
/// ```
/// use pythia_core::{Job, worker_fn_with};
///
/// # #[derive(serde::Deserialize)] struct Order { id: u64 }
/// struct Db;
/// let ship = worker_fn_with(Db, async |db: &Db, job: &Job<Order>| {
///     let _ = db;
///     println!("shipping order {}", job.input.id);
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
    F: Fn(&'a Job<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, WorkError>> + Send,
    O: Send,
{
    type Output = O;
    type Future = Fut;

    fn call(&self, job: &'a Job<T>) -> Fut {
        self(job)
    }
}

/// Implemented by async functions from `&S` and `&Job<T>` to a result, for [`worker_fn_with`].
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
    F: Fn(&'a S, &'a Job<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, WorkError>> + Send,
    O: Send,
{
    type Output = O;
    type Future = Fut;

    fn call(&self, state: &'a S, job: &'a Job<T>) -> Fut {
        self(state, job)
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
