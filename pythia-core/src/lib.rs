//! One `Worker` over any message broker.

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
    BatchRoute, DeadLetters, Health, Hurry, IntoRoute, LaneState, LaneStatus, Route, RouteConfig,
    RunError, Runner, RunnerBuilder, RunnerConfig, SecondSignal, Summary, shutdown_signal,
};
pub use worker::{
    BatchWorker, JobFn, StateFn, Worker, WorkerFn, WorkerFnWith, worker_fn, worker_fn_with,
};
