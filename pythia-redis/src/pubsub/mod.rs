//! Redis pub/sub: whoever is subscribed gets every message, and nobody gets it twice. At most once: what is published
//! while a worker is away, or faster than it works, is lost to it, and counted where it can be known.
//!
//! | file | what is in it |
//! |---|---|
//! | `publish.rs` | messages into a channel, numbered, so that a subscriber notices what is missing |
//! | `source.rs` | what a subscription brings, and the gaps in it |
//! | `numbers.rs` | which numbers of which publisher have arrived |

mod numbers;
mod publish;
mod source;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytestring::ByteString;
use pythia_core::admin::{Admin, DeadLetter, Delayed, Depth, Page, Purge, ServerStats};
use pythia_core::broker::{
    Broker, Endpoint, Guarantee, Maintained, Published, Settled, Settler, Subscription,
};
use pythia_core::observe::Observer;
use pythia_core::settlement::Settlement;
use pythia_core::store::KvStore;
use pythia_core::{BrokerError, ConfigError, Message, MessageId, QueueName, Receipt};
use tokio::sync::Notify;

use self::source::PubSubSource;
use crate::acl::Pattern;
use crate::config::{PubSubMode, RedisConfig};
use crate::connection::{Channels, Redis};
use crate::doctor::Checkup;
use crate::keys::Keys;
use crate::server;
use crate::store::RedisStore;

/// Queues that are pub/sub channels, patterns of channels, or sharded channels. Clones share their connections.
///
/// ```no_run
/// # use pythia_redis::{PubSubBroker, config::RedisConfig};
/// let broker = PubSubBroker::new(RedisConfig::from_url("redis://127.0.0.1:6379")?)?;
/// # Ok::<(), pythia_core::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct PubSubBroker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    redis: Redis,
    checkup: Checkup,
    /// This process, in the numbers that it gives its messages.
    publisher: ByteString,
    /// The last number in each channel.
    sent: Mutex<HashMap<QueueName, u64>>,
}

impl PubSubBroker {
    /// A broker for the channels of this Redis. Connects to nothing yet.
    ///
    /// # Errors
    /// If settings contradict each other or can't be used, or a file that TLS needs can't be read.
    pub fn new(config: RedisConfig) -> Result<Self, ConfigError> {
        Ok(Self(Arc::new(Shared {
            redis: Redis::new(config)?,
            checkup: Checkup::default(),
            publisher: format!("{:016x}", rand::random::<u64>()).into(),
            sent: Mutex::default(),
        })))
    }

    /// The numbers of the next so many messages: the first of them.
    fn numbers(&self, queue: &QueueName, count: usize) -> u64 {
        let mut sent = self.0.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.len() >= MAX_CHANNELS && !sent.contains_key(queue) {
            // Subscribers take a number that is lower than the last for a fresh start.
            sent.clear();
        }
        let last = sent.entry(queue.clone()).or_default();
        *last += count as u64;
        *last - count as u64 + 1
    }
}

/// Which server, without the password.
impl fmt::Debug for PubSubBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PubSubBroker({})", self.0.redis.server())
    }
}

#[async_trait]
impl Broker for PubSubBroker {
    fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("pubsub").at(server::name(&self.0.redis))
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtMostOnce
    }

    fn is_fan_out(&self) -> bool {
        true
    }

    fn attach(&self, observer: Arc<dyn Observer>) {
        self.0.redis.attach(observer);
    }

    /// Waits until Redis has confirmed the subscription: what is published from here on arrives.
    async fn subscribe(&self, queue: &QueueName) -> Result<Subscription, BrokerError> {
        let redis = &self.0.redis;
        self.0.checkup.begin(redis, Pattern::PubSub, queue);
        let config = &redis.config().pubsub;
        let channel = Keys::new(&redis.config().key_prefix, queue).ready;
        let name = vec![channel.clone()];
        let channels = match config.mode {
            PubSubMode::Channel => Channels::Exact(name),
            PubSubMode::Pattern => Channels::Patterns(name),
            PubSubMode::Sharded => Channels::Sharded(name),
        };
        let mut subscriber = redis.subscriber(config.buffer.get(), channels);
        let subscribed = subscriber.subscribe().await;
        subscribed.map_err(|error| error.during("subscribe", queue))?;
        let source = PubSubSource::new(redis.clone(), subscriber, queue.clone(), channel);
        Ok(Subscription {
            source: Box::new(source),
            settler: Arc::new(NothingToSettle),
            lease: None,
            cancel_safe: true,
        })
    }

    async fn publish(
        &self,
        queue: &QueueName,
        batch: Vec<Message>,
    ) -> Result<Vec<Published>, BrokerError> {
        publish::publish(self, queue, batch).await
    }

    async fn maintain(&self, _: &QueueName, _: u32) -> Result<Maintained, BrokerError> {
        Ok(Maintained::default())
    }

    fn due_earlier(&self, _: &QueueName) -> Arc<Notify> {
        Arc::default()
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        let answered = server::ping(&self.0.redis).await;
        answered.map_err(|error| error.while_attempting("ping the server"))
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }

    fn store(&self) -> Option<Arc<dyn KvStore>> {
        Some(Arc::new(RedisStore::new(self.0.redis.store().clone())))
    }
}

/// A channel holds nothing, so there is nothing to count, list or move; only the server can be asked.
#[async_trait]
impl Admin for PubSubBroker {
    async fn depth(&self, _: &QueueName) -> Result<Depth, BrokerError> {
        Ok(Depth::default())
    }

    async fn delayed(&self, _: &QueueName, _: Page) -> Result<Vec<Delayed>, BrokerError> {
        Ok(Vec::new())
    }

    async fn dead(&self, _: &QueueName, _: Page) -> Result<Vec<DeadLetter>, BrokerError> {
        Ok(Vec::new())
    }

    async fn requeue(
        &self,
        _: &QueueName,
        _: Option<&[MessageId]>,
        _: usize,
    ) -> Result<u64, BrokerError> {
        Ok(0)
    }

    async fn purge(&self, _: &QueueName, _: Purge) -> Result<u64, BrokerError> {
        Ok(0)
    }

    async fn server(&self) -> Result<Option<ServerStats>, BrokerError> {
        let stats = server::stats(&self.0.redis).await;
        stats
            .map(Some)
            .map_err(|error| error.while_attempting("read the server's state"))
    }
}

/// A message of a channel is nobody's once it is handed out.
#[derive(Debug)]
struct NothingToSettle;

#[async_trait]
impl Settler for NothingToSettle {
    /// An acknowledgement is true anyway; anything else comes too late.
    async fn settle(&self, batch: &[Settlement]) -> Result<Settled, BrokerError> {
        let late = |settlement: &&Settlement| !matches!(settlement, Settlement::Ack(_));
        Ok(Settled::stale(batch.iter().filter(late).count() as u64))
    }

    async fn extend(&self, _: &[Receipt]) -> Result<Vec<Receipt>, BrokerError> {
        Ok(Vec::new())
    }
}

/// How many channels' numbers are kept.
const MAX_CHANNELS: usize = 10_000;
