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
//! between fetch and process by a channel that holds one batch, between process and settle by the lane's slots, of which
//! a message takes one when it is started, and gives it back when it is settled. Everything is done per batch, but for
//! the middle of the middle stage.
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
//! A worker is called directly with [`Job::for_test`]. What becomes of its messages shows on the [`MemoryBroker`], and
//! under tokio's paused time retries and delays take no time. `testing::EventLog` is an observer that a test waits on in
//! place of a sleep: its `wait_settled` resolves once the broker has taken so many dispositions, and ends the runner.
//!
//! ```toml
//! [dev-dependencies]
//! pythia-core = { path = "../pythia/pythia-core", features = ["testing"] } # from where [dependencies] has it
//! tokio = { version = "1", features = ["macros", "rt", "test-util"] }
//! ```
//!
//! ```
//! use std::sync::Arc;
//! use pythia_core::testing::EventLog;
//! use pythia_core::{Job, MemoryBroker, Producer, Route, Runner, WorkError, Worker};
//!
//! /// Finds nobody at home the first time.
//! struct Ring;
//!
//! impl Worker for Ring {
//!     type Input = String;
//!     type Output = String;
//!
//!     async fn process(&self, job: &Job<String>) -> Result<String, WorkError> {
//!         match (&*job.input, job.attempt()) {
//!             ("", _) => Err(WorkError::permanent("nobody lives there")),
//!             (_, 1) if job.queue().as_str() == "doors" => Err(WorkError::retryable("nobody is at home")),
//!             (name, _) => Ok(format!("hello, {name}")),
//!         }
//!     }
//! }
//!
//! # /* A documentation test runs `main` and no `#[test]`, so this hides the attribute from the compiler.
//! #[tokio::test]
//! # */
//! async fn it_greets() {
//!     let greeted = Ring.process(&Job::for_test("Ada".to_owned())).await;
//!     assert_eq!(greeted.unwrap(), "hello, Ada");
//!     let refused = Ring.process(&Job::for_test(String::new())).await;
//!     assert!(refused.unwrap_err().is_permanent());
//! }
//!
//! # /*
//! #[tokio::test(start_paused = true)]
//! # */
//! async fn it_comes_back_when_nobody_is_at_home() {
//!     let broker = MemoryBroker::new();
//!     Producer::new(broker.clone()).send("doors", "Ada").await.unwrap();
//!     let log = Arc::new(EventLog::new());
//!     let runner = Runner::builder()
//!         .route(&broker, Route::new("doors", Ring))
//!         .observer(Arc::clone(&log))
//!         .build()
//!         .unwrap();
//!     // Two dispositions of one message: delayed for another attempt, then acknowledged.
//!     let summary = runner.run_until(log.wait_settled(2)).await.unwrap();
//!     assert_eq!((summary.settled.retried, summary.settled.acked), (1, 1));
//! }
//! #
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! #     it_greets().await;
//! #     it_comes_back_when_nobody_is_at_home().await;
//! # }
//! ```
//!
//! # Features
//! `testing`: the conformance suite for brokers, a broker that fails on demand, and a log of events for tests.

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
pub use message::{Deliver, Delivery, Headers, Message, MessageId, Payload, QueueName, Receipt};
pub use producer::{Producer, PublishError, PublishErrorKind};
pub use runtime::{
    BatchRoute, BrokerStatus, DeadLetters, Health, Hurry, IntoRoute, LaneState, LaneStatus, Ping,
    QueueStatus, Route, RouteConfig, RunError, Runner, RunnerBuilder, RunnerConfig, SecondSignal,
    Summary, WaitReason, shutdown_signal,
};
pub use worker::{
    BatchWorker, JobFn, StateFn, Worker, WorkerFn, WorkerFnWith, worker_fn, worker_fn_with,
};
