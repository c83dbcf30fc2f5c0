//! The in-memory broker: the reference of the whole contract, and the default of examples and tests.
//!
//! | file | what is in it |
//! |---|---|
//! | `queue.rs`, `dedupe.rs` | one queue: where each message is, and every move between these places; keys seen lately |
//! | `shared.rs` | its lock, and who is woken by which change |
//! | `source.rs`, `settler.rs` | a lane's two ends of it |
//! | `fan_out.rs` | the other mode: every subscription gets every message, at most once |
//! | `admin.rs`, `store.rs` | inspection and operation; small values with a time to live |
//! | `clock.rs` | wall time that follows tokio's clock, so that tests can pause it |

mod admin;
mod clock;
mod dedupe;
mod fan_out;
mod queue;
mod settler;
mod shared;
mod source;
mod store;

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub use self::clock::Clock;
use self::fan_out::{Channel, FanOutSettler};
use self::settler::MemorySettler;
use self::shared::SharedQueue;
use self::source::MemorySource;
use self::store::MemoryStore;
use crate::admin::Admin;
use crate::broker::{Broker, Endpoint, Guarantee, Maintained, Published, Subscription};
use crate::error::{BrokerError, BrokerErrorKind, ConfigError};
use crate::message::{Deliver, Delivery, Message, MessageId, QueueName, Receipt};
use crate::observe::{Observer, Observers};
use crate::store::KvStore;

/// Settings of the in-memory broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// How long a worker may be silent before its messages go to others. 30 s by default.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// How long dedupe keys are remembered. 1 h by default.
    #[serde(with = "humantime_serde")]
    pub dedupe_window: Duration,
    /// The largest message that may be published, headers included, in bytes. 16 MiB by default.
    pub max_message_bytes: usize,
    /// Every subscription gets every message that is published while it exists, at most once. Off by default: each
    /// message goes to one worker, at least once.
    pub fan_out: bool,
    /// How many messages a subscription in fan-out mode holds for a slow worker; what exceeds it is dropped, counted
    /// and reported as a gap. 10,000 by default.
    pub buffer: NonZeroUsize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            dedupe_window: Duration::from_secs(3_600),
            max_message_bytes: 16 << 20,
            fan_out: false,
            buffer: const { NonZeroUsize::new(10_000).unwrap() },
        }
    }
}

/// A broker within the process. Clones share their queues.
///
/// It keeps the whole contract of an at-least-once broker: leases, recovery, retries and delays, dead letters,
/// deduplication; or, with [`MemoryConfig::fan_out`], that of an at-most-once broker whose every subscription gets every
/// message. What it holds is gone with the process.
///
/// All its times follow [`tokio::time`], so a test with paused time runs through a week of backoff in milliseconds.
#[derive(Clone)]
pub struct MemoryBroker(Arc<Shared>);

struct Shared {
    config: MemoryConfig,
    clock: Clock,
    queues: Mutex<HashMap<QueueName, Arc<SharedQueue>>>,
    channels: Mutex<HashMap<QueueName, Arc<Channel>>>,
    store: Arc<MemoryStore>,
    observers: Arc<Mutex<Observers>>,
    last_subscription: AtomicU64,
}

impl MemoryBroker {
    /// A broker with the default settings.
    pub fn new() -> Self {
        Self::build(MemoryConfig::default())
    }

    /// A broker with these settings.
    ///
    /// # Errors
    /// If the lease is zero: every message would be lost to others as soon as it is received.
    pub fn with_config(config: MemoryConfig) -> Result<Self, ConfigError> {
        if config.lease.is_zero() {
            return Err(ConfigError::new(
                "the in-memory broker's `lease` is zero; set how long a worker may be silent, such as \"30s\"",
            ));
        }
        Ok(Self::build(config))
    }

    /// The clock of all the broker's times: due times, leases, publishing times.
    pub fn clock(&self) -> Clock {
        self.0.clock
    }

    fn build(config: MemoryConfig) -> Self {
        let clock = Clock::new();
        Self(Arc::new(Shared {
            config,
            clock,
            queues: Mutex::default(),
            channels: Mutex::default(),
            store: Arc::new(MemoryStore::new(clock)),
            observers: Arc::default(),
            last_subscription: AtomicU64::new(0),
        }))
    }

    fn queue(&self, name: &QueueName) -> Arc<SharedQueue> {
        let mut queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(name) {
            return Arc::clone(queue);
        }
        let queue = Arc::new(SharedQueue::new(self.0.clock, self.0.config.lease));
        queues.insert(name.clone(), Arc::clone(&queue));
        queue
    }

    fn channel(&self, name: &QueueName) -> Arc<Channel> {
        let mut channels = self
            .0
            .channels
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let channel = channels
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Channel::new(name, &self.0.observers)));
        Arc::clone(channel)
    }

    /// Refuses a batch before any of it is published.
    fn check(&self, queue: &QueueName, batch: &[Message]) -> Result<(), BrokerError> {
        let limit = self.0.config.max_message_bytes;
        if let Some(bytes) = batch.iter().map(size).find(|&bytes| bytes > limit) {
            return Err(
                BrokerError::new(BrokerErrorKind::TooLarge, "publish messages")
                    .queue(queue)
                    .because(format!(
                        "a message of {bytes} bytes, headers included, is above the limit of {limit} bytes (`memory.max_message_bytes`)"
                    )),
            );
        }
        if self.0.config.fan_out && batch.iter().any(|message| message.deliver != Deliver::Now) {
            return Err(BrokerError::new(
                BrokerErrorKind::Unsupported,
                "publish a delayed message",
            )
            .queue(queue)
            .because("the in-memory broker holds no messages in fan-out mode"));
        }
        Ok(())
    }

    /// When a message is due, as a distance from the clock's start.
    fn due(&self, deliver: Deliver, now: Duration) -> Duration {
        match deliver {
            Deliver::After(after) => now.saturating_add(after),
            Deliver::At(at) => self.0.clock.since_start(at),
            Deliver::Now => now,
        }
    }
}

/// A message on its way in.
struct Incoming {
    delivery: Delivery,
    deliver: Deliver,
    dedupe_key: Option<ByteString>,
}

impl Incoming {
    fn new(message: Message, published_at: SystemTime) -> Self {
        let id = message.id.unwrap_or_else(MessageId::random);
        let mut delivery = Delivery::new(id.text().clone(), message.payload, Receipt(0));
        delivery.headers = message.headers;
        delivery.enqueued_at = Some(published_at);
        Self {
            delivery,
            deliver: message.deliver,
            dedupe_key: message.dedupe_key,
        }
    }
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryBroker")
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("memory")
    }

    fn guarantee(&self) -> Guarantee {
        if self.0.config.fan_out {
            Guarantee::AtMostOnce
        } else {
            Guarantee::AtLeastOnce
        }
    }

    fn is_fan_out(&self) -> bool {
        self.0.config.fan_out
    }

    fn attach(&self, observer: Arc<dyn Observer>) {
        self.0
            .observers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(observer);
    }

    async fn subscribe(&self, queue: &QueueName) -> Result<Subscription, BrokerError> {
        let id = self.0.last_subscription.fetch_add(1, Ordering::Relaxed);
        if self.0.config.fan_out {
            let source = self.channel(queue).subscribe(id, self.0.config.buffer);
            return Ok(Subscription {
                source: Box::new(source),
                settler: Arc::new(FanOutSettler),
                lease: None,
                cancel_safe: true,
            });
        }
        let (queue, holder) = (self.queue(queue), id);
        Ok(Subscription {
            source: Box::new(MemorySource {
                queue: Arc::clone(&queue),
                holder,
            }),
            settler: Arc::new(MemorySettler { queue, holder }),
            lease: Some(self.0.config.lease),
            cancel_safe: true,
        })
    }

    async fn publish(
        &self,
        queue: &QueueName,
        batch: Vec<Message>,
    ) -> Result<Vec<Published>, BrokerError> {
        self.check(queue, &batch)?;
        let window = self.0.config.dedupe_window;
        let published_at = self.0.clock.now();
        // Before the lock is taken, so that it is held for the moves only.
        let incoming: Vec<Incoming> = batch
            .into_iter()
            .map(|message| Incoming::new(message, published_at))
            .collect();
        if self.0.config.fan_out {
            let now = self.0.clock.elapsed();
            return Ok(self.channel(queue).publish(&incoming, now, window));
        }
        Ok(self.queue(queue).with(|queue, now| {
            incoming
                .into_iter()
                .map(|incoming| {
                    let due = self.due(incoming.deliver, now);
                    queue.publish(incoming, now, due, window)
                })
                .collect()
        }))
    }

    async fn maintain(
        &self,
        queue: &QueueName,
        max_attempts: u32,
    ) -> Result<Maintained, BrokerError> {
        if self.0.config.fan_out {
            return Ok(Maintained::default());
        }
        let (wall, lease) = (self.0.clock.now(), self.0.config.lease);
        Ok(self
            .queue(queue)
            .with(|queue, now| queue.maintain(now, wall, lease, max_attempts, MOVES_A_ROUND)))
    }

    /// Never notified: sources wait for due times themselves.
    fn due_earlier(&self, _queue: &QueueName) -> Arc<Notify> {
        Arc::new(Notify::new())
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        Ok(())
    }

    fn admin(&self) -> Option<&dyn Admin> {
        (!self.0.config.fan_out).then_some(self)
    }

    fn store(&self) -> Option<Arc<dyn KvStore>> {
        Some(Arc::clone(&self.0.store) as Arc<dyn KvStore>)
    }
}

/// Of a message's payload and headers together, in bytes.
fn size(message: &Message) -> usize {
    let headers = message.headers.iter();
    let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
    message.payload.len() + headers
}

/// How long a `receive` waits for its first message.
const IDLE_WAIT: Duration = Duration::from_secs(10);
/// How many messages one lock section moves at most for each purpose, so that it stays short; the rest follows at the
/// next look.
const MOVES_A_ROUND: usize = 1_000;
