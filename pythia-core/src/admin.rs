//! Looking into queues and putting them in order: what gauges, dashboards and command lines are made of.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use crate::error::BrokerError;
use crate::message::{Delivery, MessageId, QueueName};
use crate::settlement::DeadReason;

/// Inspection and operation of a broker's queues: what [`Broker::admin`](crate::broker::Broker::admin) answers where the
/// broker has it.
///
/// ```
/// use pythia_core::admin::Page;
/// use pythia_core::broker::Broker;
/// # use std::sync::Arc;
/// # use pythia_core::testing::EventLog;
/// # use pythia_core::{Job, MemoryBroker, Producer, QueueName, Route, Runner, WorkError, worker_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = MemoryBroker::new();
/// # Producer::new(broker.clone()).send_all("orders", &[7, 8]).await?;
/// # let log = Arc::new(EventLog::new());
/// # let refuse = worker_fn(async |_: &Job<u64>| Err::<(), _>(WorkError::permanent("no such customer")));
/// # Runner::builder()
/// #     .route(&broker, Route::new("orders", refuse))
/// #     .observer(Arc::clone(&log))
/// #     .build()?
/// #     .run_until(log.wait_settled(2))
/// #     .await?;
/// let queue = QueueName::new("orders")?;
/// let admin = broker.admin().ok_or("this broker has no administration")?;
/// let dead = admin.dead(&queue, Page::first(50)).await?;
/// for letter in &dead {
///     if let Some(reason) = &letter.reason {
///         println!("message {} is dead: {reason}", letter.delivery.id);
///     }
/// }
/// # assert_eq!(dead.len(), 2);
///
/// // Once what killed them is mended: one of them by its id, then all others, the oldest 1,000 of them at most.
/// let newest = [dead[0].delivery.id.clone()];
/// assert_eq!(admin.requeue(&queue, Some(&newest), 1).await?, 1);
/// assert_eq!(admin.requeue(&queue, None, 1_000).await?, 1);
/// assert_eq!(admin.depth(&queue).await?.ready, Some(2));
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Admin: Send + Sync {
    /// How much is where. Costs the broker the same however long the queue is.
    ///
    /// # Errors
    /// If the broker can't be reached, or something else is stored under the queue's name.
    async fn depth(&self, queue: &QueueName) -> Result<Depth, BrokerError>;

    /// Delayed messages by due time, the next first.
    ///
    /// # Errors
    /// If the broker can't be reached.
    async fn delayed(&self, queue: &QueueName, page: Page) -> Result<Vec<Delayed>, BrokerError>;

    /// Dead letters, the newest first.
    ///
    /// # Errors
    /// If the broker can't be reached.
    async fn dead(&self, queue: &QueueName, page: Page) -> Result<Vec<DeadLetter>, BrokerError>;

    /// Makes dead letters ready again, with their counters at zero: those with these ids, or, without ids, the oldest
    /// `limit`. Answers how many.
    ///
    /// # Errors
    /// If the broker can't be reached; what was moved until then stays moved.
    async fn requeue(
        &self,
        queue: &QueueName,
        ids: Option<&[MessageId]>,
        limit: usize,
    ) -> Result<u64, BrokerError>;

    /// Deletes all messages in that state. Messages in flight are not touched. Answers how many.
    ///
    /// # Errors
    /// If the broker can't be reached.
    async fn purge(&self, queue: &QueueName, state: Purge) -> Result<u64, BrokerError>;

    /// The state of the broker's server and of the connections to it; `None` where there is no server.
    ///
    /// # Errors
    /// If the broker can't be reached.
    async fn server(&self) -> Result<Option<ServerStats>, BrokerError>;
}

/// How much is where in a queue. `None` means that it can't be known, which is not zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Depth {
    /// Waiting for a worker.
    pub ready: Option<u64>,
    /// In workers' hands.
    pub pending: Option<u64>,
    /// Waiting for their time.
    pub delayed: Option<u64>,
    /// Dead letters.
    pub dead: Option<u64>,
    /// Entries that the consumer group has not been given yet.
    pub lag: Option<u64>,
    /// How long the oldest ready message has waited.
    pub oldest: Option<Duration>,
}

/// A part of a listing. Default: the first 50.
///
/// ```
/// use pythia_core::admin::Page;
///
/// assert_eq!(Page::default(), Page::first(50));
/// let third = Page { offset: 100, limit: 50 };
/// assert_eq!(Page { offset: 100, ..Page::default() }, third);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// How many to skip.
    pub offset: usize,
    /// How many to answer at most.
    pub limit: usize,
}

impl Page {
    /// The first so many: `Page::first(50)`.
    pub const fn first(limit: usize) -> Self {
        Self { offset: 0, limit }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::first(50)
    }
}

/// A message that waits for its time.
#[derive(Clone, Debug)]
pub struct Delayed {
    /// The message; its receipt means nothing.
    pub delivery: Delivery,
    /// When it becomes ready, by the broker's clock.
    pub due: SystemTime,
}

/// A message that can't be processed.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The message, its payload as it came; its receipt means nothing.
    pub delivery: Delivery,
    /// Why it is dead, where that is known.
    pub reason: Option<DeadReason>,
    /// When it died, where that is known.
    pub died_at: Option<SystemTime>,
}

/// What to purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purge {
    /// Dead letters.
    Dead,
    /// Delayed messages.
    Delayed,
    /// Ready messages.
    Ready,
}

/// A broker's server and the connections to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Which server, and which connections to it: a short name without credentials, such as `127.0.0.1:6379/0`. Two
    /// brokers of a process that count separately have different names.
    pub server: String,
    /// Configured size of the pool for short commands.
    pub pool_size: u64,
    /// Connections that work.
    pub connected: u64,
    /// Connections that are being made.
    pub connecting: u64,
    /// Connections that are down.
    pub disconnected: u64,
    /// Commands written and not answered yet.
    pub in_flight: u64,
    /// Commands that wait to be written.
    pub queued: u64,
    /// Connections made again since the start.
    pub reconnects: u64,
    /// Memory in use on the server, in bytes.
    pub memory_used: Option<u64>,
    /// The server's memory limit, in bytes; `None` where it has none.
    pub memory_max: Option<u64>,
}
