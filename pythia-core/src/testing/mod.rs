//! For those who test workers, brokers, and what runs on brokers (feature `testing`).
//!
//! # A worker in five lines
//! [`TestWorker`] runs a worker by the real runtime on the [`MemoryBroker`](crate::MemoryBroker): its codec, layers, retries,
//! time limits and dead letters are those of production. Under tokio's paused time a week of backoff takes milliseconds.
//!
//! ```toml
//! [dev-dependencies]
//! pythia-core = { path = "../pythia/pythia-core", features = ["testing"] } # from where [dependencies] has it
//! tokio = { version = "1", features = ["macros", "rt", "test-util"] }
//! ```
//!
//! ```
//! use pythia_core::settlement::DeadKind;
//! use pythia_core::testing::TestWorker;
//! use pythia_core::{Job, WorkError, Worker};
//!
//! /// Rings at a door.
//! struct Ring;
//!
//! impl Worker for Ring {
//!     type Input = String;
//!     type Output = ();
//!
//!     async fn process(&self, job: &Job<String>) -> Result<(), WorkError> {
//!         match (&*job.input, job.attempt()) {
//!             ("", _) => Err(WorkError::permanent("nobody lives there")),
//!             (_, 1) => Err(WorkError::retryable("nobody is at home")),
//!             _ => Ok(()),
//!         }
//!     }
//! }
//!
//! # /* A documentation test runs `main` and no `#[test]`, so this hides the attribute from the compiler.
//! #[tokio::test(start_paused = true)]
//! # */
//! async fn it_comes_back_when_nobody_is_at_home() {
//!     let mut test = TestWorker::new(Ring);
//!     let ada = test.send("Ada").await;
//!     let nobody = test.send("").await;
//!     test.run_until_idle().await;
//!     test.message(&ada).assert_acked().assert_attempts(2);
//!     test.message(&nobody).assert_dead(DeadKind::Permanent).assert_attempts(1);
//! }
//! #
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! #     it_comes_back_when_nobody_is_at_home().await;
//! # }
//! ```
//!
//! An assertion that fails tells what happened to the message, attempt by attempt:
//!
//! ```text
//! expected to be acknowledged, but it is dead: permanent: nobody lives there
//! message "f3c01e..." of queue "test", 2 bytes: "\"\""
//!   +0ns  attempt 1: dead letter (permanent): nobody lives there
//! ```
//!
//! Closures are workers ([`worker_fn`](crate::worker_fn)); a [`BatchWorker`](crate::BatchWorker) goes to
//! [`TestWorker::batch`], a whole [`Route`](crate::Route) with its layers, codec and limits to [`TestWorker::route`].
//!
//! # A broker that fails
//! A [`FaultyBroker`] fails as it is told, and the worker has to get over it:
//!
//! ```
//! # use pythia_core::testing::{FaultyBroker, Operation, TestWorker};
//! # use pythia_core::{Job, worker_fn};
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! # let ship = worker_fn(async |_: &Job<u32>| Ok(()));
//! let broker = FaultyBroker::in_memory();
//! let faults = broker.faults().clone();
//! let mut test = TestWorker::new(ship).on(broker);
//! let order = test.send(&7).await;
//! faults.lose_reply(Operation::Settle); // of the next one: done, and the answer is lost
//! test.run_until_idle().await;
//! test.message(&order).assert_acked().assert_attempts(1);
//! # }
//! ```
//!
//! [`for_every_fault`] repeats a test with each operation of the broker failing in turn; a [`Ledger`] knows whether
//! anything was lost.
//!
//! # On Redis
//! [`TestWorker::on`] takes any broker. `pythia_redis::testing` starts a redis-server of the test's own, if one is installed.
//!
//! # Testing a broker
//! - [`conformance`]: every promise of the contract as a named check, which any broker runs by saying what it can do.
//! - [`EventLog`]: an observer to wait on, in place of a sleep.

pub mod conformance;
mod event_log;
mod faulty;
mod kit;

pub use event_log::{EventLog, Record};
pub use faulty::{FaultRuns, FaultWhen, Faults, FaultyBroker, Ledger, Operation, for_every_fault};
pub use kit::{Attempt, History, Outcome, TestWorker};
