//! The ways of a message that are counted: in instructions, and in allocations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use pythia_core::broker::Broker;
use pythia_core::codec::Raw;
use pythia_core::observe::{Event, Observer};
use pythia_core::{
    Config, IntoRoute, Job, MemoryBroker, Message, QueueName, Route, Runner, WorkError, worker_fn,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::Prepared;

/// A way of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Fetched, run within all guards, settled: raw bytes, from a broker that costs nothing.
    Dispatch,
    /// A JSON object from the broker in memory.
    Memory,
}

/// Why a scenario could not be played.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Dispatch, Self::Memory];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dispatch => "dispatch",
            Self::Memory => "memory",
        }
    }

    /// Drains so many messages, in batches of so many, on this thread alone.
    ///
    /// # Errors
    /// If the runner can't be built, or fails.
    pub fn run(self, messages: u64, batch: usize) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            match self {
                Self::Dispatch => dispatch(messages, batch).await,
                Self::Memory => memory(messages, batch).await,
            }
        })
    }
}

async fn dispatch(messages: u64, batch: usize) -> Result<(), Failure> {
    let worker = worker_fn(async |_: &Job<Bytes>| Ok::<_, WorkError>(()));
    let route = Route::new("orders", worker).codec(Raw);
    drain(
        Prepared::new(messages, &b"a body"[..]),
        route,
        messages,
        &guarded(batch),
    )
    .await
}

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
    customer: String,
    cents: i64,
}

async fn memory(messages: u64, batch: usize) -> Result<(), Failure> {
    let broker = MemoryBroker::default();
    let order = Order {
        id: 7,
        customer: "Ada Lovelace".into(),
        cents: 1_999,
    };
    let body = Bytes::from(serde_json::to_vec(&order)?);
    let orders = (0..messages).map(|_| Message::new(body.clone()));
    let queue = QueueName::new("orders")?;
    broker.publish(&queue, orders.collect()).await?;
    let worker = worker_fn(async |job: &Job<Order>| {
        std::hint::black_box((job.input.id, &job.input.customer, job.input.cents));
        Ok::<_, WorkError>(())
    });
    let route = Route::new("orders", worker);
    drain(broker, route, messages, &guarded(batch)).await
}

/// Runs a route, with metrics on and settings as in TOML, until so many messages are acknowledged.
///
/// # Errors
/// If the runner can't be built, or fails.
pub async fn drain(
    broker: impl Broker,
    route: impl IntoRoute,
    messages: u64,
    settings: &str,
) -> Result<(), Failure> {
    let config = Config::from_toml(settings)?;
    let metrics = pythia_metrics::PrometheusObserver::register(&prometheus::Registry::new())?;
    let acked = Acked(Arc::new((messages.into(), Notify::new())));
    let runner = Runner::builder()
        .config(&config)
        .route(&Arc::new(broker), route)
        .observer(metrics)
        .observer(acked.clone())
        .build()?;
    runner.run_until(acked.0.1.notified()).await?;
    Ok(())
}

/// Every guard, and one lane.
fn guarded(batch: usize) -> String {
    let concurrency = 2 * batch;
    format!(
        "[worker]\nbatch = {batch}\nconcurrency = {concurrency}\nlanes = 1\n[timeout]\nhard = \"30s\""
    )
}

/// How many are left, and who waits for the last one.
#[derive(Clone)]
struct Acked(Arc<(AtomicU64, Notify)>);

impl Observer for Acked {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Settled { counts, .. } = event
            && self.0.0.fetch_sub(counts.acked, Relaxed) == counts.acked
        {
            self.0.1.notify_one();
        }
    }
}
