//! One [`Worker`] over any message broker: Redis lists, streams and pub/sub through `pythia-redis`, or the
//! [`MemoryBroker`] of this crate, which needs nothing and keeps the whole contract.
//!
//! ```
//! use pythia_core::{Job, MemoryBroker, Producer, Route, Runner, WorkError, Worker};
//!
//! struct Greet;
//!
//! impl Worker for Greet {
//!     type Input = String;
//!     type Output = ();
//!
//!     async fn process(&self, job: &Job<String>) -> Result<(), WorkError> {
//!         println!("hello, {}", job.input);
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = MemoryBroker::new();
//! Producer::new(broker.clone()).send("names", "world").await?;
//! let runner = Runner::builder().route(&broker, Route::new("names", Greet)).build()?;
//! # let until = tokio::time::sleep(std::time::Duration::from_millis(50));
//! let summary = runner.run_until(until).await?; // in a service: `run_until(shutdown_signal())`
//! assert_eq!(summary.settled.acked, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # The path of a message
//! Each route runs as a few *lanes*; each lane is three stages, and what lies between them is bounded:
//! between fetch and process by two spots, one for the batch that is worked on and one for the next, between process and
//! settle by the lane's slots, of which a message takes one when it is started, and gives it back when it is settled.
//! Everything is done per batch, but for the middle of the middle stage.
//!
//! ```text
//! fetch     gate -> Source::receive(max, &mut batch)                                      runtime/fetch.rs
//! process   decode -> breaker -> time limits -> panic isolation -> layers -> Worker       runtime/process.rs
//!           -> settlement::decide, which asks the retry schedule                          settlement.rs
//! settle    Settler::settle(&batch)                                                       runtime/settle.rs
//! ```
//!
//! - What a user implements: [`Worker`] or [`BatchWorker`], perhaps a [`Layer`]; a [`Codec`](codec::Codec) if the four of
//!   [`codec`] are not enough.
//! - What a worker's result means: [`WorkError`] and [`settlement`].
//! - What keeps it going: [`resilience`].
//! - What a broker has to do: [`broker`], [`admin`], [`store`]; with the feature `testing`, a conformance suite checks it.
//! - What is reported: [`observe`].
//! - Where settings come from: [`config`].
//!
//! # Guarantees
//! | | at least once | at most once |
//! |---|---|---|
//! | a message leaves the broker | when it is settled | when it is handed out |
//! | retries | stored with the message, by one schedule | in the process, by the same schedule |
//! | dead letters | kept, with their bytes intact | none; asking for them is refused when the runner is built |
//! | a dead worker's messages | come back after a lease; the crash counts as an attempt | are lost |
//! | a job that takes longer than a lease | keeps it: leases are renewed while the worker lives | – |
//! | a lost lease | its settle is refused and counted, its job cancelled | – |
//! | an open breaker | messages wait in the broker | messages wait in the process, then drop, counted |
//! | shutdown | running jobs finish, the rest goes back at once | all that was received is processed, within the drain time |
//!
//! Order is promised with one lane and a concurrency of one, and only then.
//!
//! # Testing a worker
//! With the feature `testing`, `testing::TestWorker` runs a worker by the real runtime on the in-memory broker until nothing
//! is left to do, and tells what became of each message, attempt by attempt; under tokio's paused time a week of backoff
//! takes milliseconds. For what needs no runtime a worker is called directly, with [`Job::for_test`].
//!
//! ```
//! use pythia_core::testing::TestWorker;
//! use pythia_core::{Job, WorkError, worker_fn};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let ring = worker_fn(async |job: &Job<String>| match job.attempt() {
//!     1 => Err(WorkError::retryable("nobody is at home")),
//!     _ => Ok(println!("hello, {}", job.input)),
//! });
//! let mut test = TestWorker::new(ring);
//! let ada = test.send("Ada").await;
//! test.run_until_idle().await;
//! test.message(&ada).assert_acked().assert_attempts(2);
//! # }
//! ```
//!
//! # Features
//! `testing`: a kit to test workers with, the conformance suite for brokers, a broker that fails on demand, and a log of
//! events.

pub mod admin;
pub mod broker;
pub mod codec;
pub mod config;
pub mod envelope;
mod error;
mod job;
mod layer;
pub mod memory;
mod message;
pub mod observe;
mod producer;
pub mod resilience;
mod runtime;
pub mod settlement;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod worker;

pub use config::Config;
pub use error::{BrokerError, BrokerErrorKind, ConfigError, WorkError, WorkErrorKind};
pub use job::{CancelReason, Cancellation, Job};
pub use layer::Layer;
pub use memory::{MemoryBroker, MemoryConfig};
pub use message::{
    Deliver, Delivery, EntryFields, Headers, Message, MessageId, Payload, QueueName, Receipt,
};
pub use producer::{Producer, PublishError, PublishErrorKind};
pub use runtime::{
    BatchRoute, BrokerStatus, DeadLetters, Health, Hurry, IntoRoute, LaneState, LaneStatus, Ping,
    QueueStatus, Route, RouteConfig, RunError, Runner, RunnerBuilder, RunnerConfig, SecondSignal,
    Summary, WaitReason, shutdown_signal,
};
pub use worker::{
    BatchWorker, JobFn, StateFn, Worker, WorkerFn, WorkerFnWith, worker_fn, worker_fn_with,
};
