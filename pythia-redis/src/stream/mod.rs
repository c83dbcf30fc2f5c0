//! Redis streams, at least once, by consumer groups.
//!
//! A queue is a stream under its bare name, which any client may `XADD` to. Each group gets every entry; its workers share them.
//! What a group does with an entry is never seen by another group, so nothing goes back into the stream itself. A group has
//! keys of its own, all in the stream's cluster slot:
//!
//! | key | what is in it |
//! |---|---|
//! | `pythia:{s}:retry:<group>` | a stream: what is tried again, was handed back, or was recovered from a dead worker |
//! | `pythia:{s}:suspect:<group>` | a stream: what was held in two crashes or more; read one by one, run alone |
//! | `pythia:{s}:delayed:<group>` | a sorted set by due time: what is tried again later |
//! | `pythia:{s}:dead:<group>` | a stream: dead letters, with their reason |
//! | `pythia:{s}:consumers:<group>` | a sorted set: when each worker's lease ends |
//! | `pythia:{s}:floor:<group>`, `clock`, `promoter` | where the group goes on if it is removed; the last sign of life; who looks after the delayed |
//! | `pythia:{s}:answer:<consumer>:acks`, `moves` | what its last settle came to, for ten minutes |
//! | `pythia:{s}:delayed` | a sorted set: published for later, for all groups |
//!
//! One blocking `XREADGROUP` reads the stream and the retry stream. An entry leaves a group's list of pending ones only together
//! with the step that follows, in one script: acknowledged, stored elsewhere, or dead. An entry that was recovered never comes
//! back under its old id, so whoever was too slow finds nothing to settle, to renew, or to take back.
//!
//! | file | what it does |
//! |---|---|
//! | `entry` | a message as fields, and back |
//! | `id` | a place and an entry id as a receipt, and back |
//! | `group` | makes the group, and makes it again |
//! | `source` | reads |
//! | `suspects` | one suspect at a time |
//! | `settler` | acknowledges, moves, renews |
//! | `calls` | what a settler has called, so that it can repeat it |
//! | `publish` | publishes |
//! | `upkeep` | promotes, recovers, removes dead consumers, trims |
//! | `admin` | depth, delayed and dead messages |

mod admin;
mod calls;
mod entry;
mod group;
mod id;
mod publish;
mod queue;
mod settler;
mod source;
mod suspects;
mod upkeep;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use pythia_core::admin::Admin;
use pythia_core::broker::{Broker, Endpoint, Guarantee, Maintained, Published, Subscription};
use pythia_core::observe::Observer;
use pythia_core::store::KvStore;
use pythia_core::{BrokerError, ConfigError, Message, QueueName};
use tokio::sync::Notify;

use self::group::Occasion;
use self::queue::{Lane, Queue};
use self::settler::StreamSettler;
use self::source::StreamSource;
use self::upkeep::Upkeep;
use crate::acl::Pattern;
use crate::config::{RedisConfig, StreamStart, TrimStrategy};
use crate::connection::Redis;
use crate::doctor::Checkup;
use crate::server;
use crate::store::RedisStore;

/// A broker whose queues are Redis streams, read by one consumer group.
///
/// Connects when it is first used. Clones share connections and everything else.
///
/// Give all workers of a group the same [`lease`](RedisConfig::lease): whoever does the upkeep goes by its own.
///
/// Let producers trim nothing (`XADD .. MAXLEN`): that also removes what a group has not processed. Set
/// [`max_length`](crate::config::StreamConfig::max_length) here instead.
#[derive(Clone)]
pub struct StreamBroker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    redis: Redis,
    checkup: Checkup,
    config: Arc<RedisConfig>,
    /// Names this process among the workers.
    worker: String,
    lanes: AtomicU64,
    queues: Mutex<HashMap<QueueName, Arc<Queue>>>,
}

impl StreamBroker {
    /// Checks the settings. Connects to nothing yet.
    ///
    /// # Errors
    /// If the name of the group is empty, only the trim strategy that is not chosen has its limit, or a setting of all
    /// patterns can't be used.
    pub fn new(config: RedisConfig) -> Result<Self, ConfigError> {
        if config.stream.group.is_empty() {
            return Err(ConfigError::new(
                "redis.stream.group is empty; name the consumer group, as in \"billing\"",
            ));
        }
        let stream = &config.stream;
        // What is set would be taken for kept, while all that is processed goes at once.
        let ignored = match (stream.trim_strategy, stream.max_length, stream.retention) {
            (TrimStrategy::Maxlen, None, Some(_)) => Some(("retention", "minid")),
            (TrimStrategy::Minid, Some(_), None) => Some(("max_length", "maxlen")),
            _ => None,
        };
        if let Some((setting, strategy)) = ignored {
            return Err(ConfigError::new(format!(
                "redis.stream.{setting} has no effect without redis.stream.trim_strategy = \"{strategy}\"; add it",
            )));
        }
        let config = Arc::new(config);
        Ok(Self(Arc::new(Shared {
            redis: Redis::new((*config).clone())?,
            checkup: Checkup::default(),
            config,
            worker: format!("{}-{:016x}", std::process::id(), rand::random::<u64>()),
            lanes: AtomicU64::new(0),
            queues: Mutex::default(),
        })))
    }

    /// Moves the group to another point of a queue's stream: what was added after it is delivered again, as far as the
    /// stream still holds it. Makes the group there if there is none. What is being processed at the moment goes on.
    ///
    /// The setting [`replay_from`](crate::config::StreamConfig::replay_from) does the same once, when a worker starts.
    ///
    /// # Errors
    /// If Redis can't be reached, or something else is stored under the queue's name.
    pub async fn replay(&self, queue: &QueueName, from: &StreamStart) -> Result<(), BrokerError> {
        let queue = self.queue(queue);
        group::replay(self.redis().pool(), &queue, from)
            .await
            .map_err(queue.failed("replay"))
    }

    fn queue(&self, name: &QueueName) -> Arc<Queue> {
        let mut queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let config = &self.0.config;
        let queue = queues
            .entry(name.clone())
            .or_insert_with(|| Arc::new(Queue::new(&config.key_prefix, &config.stream, name)));
        Arc::clone(queue)
    }

    fn redis(&self) -> &Redis {
        &self.0.redis
    }

    fn config(&self) -> &RedisConfig {
        &self.0.config
    }

    fn worker(&self) -> &str {
        &self.0.worker
    }
}

/// Which server, without the password.
impl fmt::Debug for StreamBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamBroker({})", self.0.redis.server())
    }
}

#[async_trait]
impl Broker for StreamBroker {
    fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("stream").at(server::name(self.redis()))
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn is_fan_out(&self) -> bool {
        // The workers of a group share its messages.
        false
    }

    fn attach(&self, observer: Arc<dyn Observer>) {
        self.redis().attach(observer);
    }

    async fn subscribe(&self, queue: &QueueName) -> Result<Subscription, BrokerError> {
        let queue = self.queue(queue);
        let checkup = &self.0.checkup;
        checkup.begin(self.redis(), Pattern::Stream, &queue.name);
        let number = self.0.lanes.fetch_add(1, Relaxed);
        // New for each subscription: what an earlier one still holds is not this one's.
        let consumer = format!("{}-{number}", self.worker()).into();
        let lane = Arc::new(Lane::new(Arc::clone(&queue), number, consumer));
        let mut reader = self.redis().reader();
        let settling = self.redis().dedicated();
        // Before the group knows of a consumer that could not settle.
        let ready = reader.ready_beside(&[&settling]).await;
        ready.map_err(queue.failed("subscribe"))?;
        group::ensure_by(&mut reader, &lane, self.config(), Occasion::of(&queue))
            .await
            .map_err(queue.failed("join the consumer group"))?;
        let lease = self.config().lease;
        let config = Arc::clone(&self.0.config);
        let source = StreamSource::new(Arc::clone(&lane), reader, settling.clone(), config);
        let settler = StreamSettler::new(lane, settling, lease);
        Ok(Subscription {
            source: Box::new(source),
            settler: Arc::new(settler),
            lease: Some(lease),
            // A read that nobody waits for goes on at the server, and takes messages with it.
            cancel_safe: false,
        })
    }

    async fn publish(
        &self,
        queue: &QueueName,
        batch: Vec<Message>,
    ) -> Result<Vec<Published>, BrokerError> {
        let queue = self.queue(queue);
        publish::publish(&self.redis().publisher(), &queue, self.config(), batch).await
    }

    async fn maintain(
        &self,
        queue: &QueueName,
        max_attempts: u32,
    ) -> Result<Maintained, BrokerError> {
        let queue = self.queue(queue);
        let upkeep = Upkeep {
            queue: &queue,
            connection: self.redis().pool(),
            config: self.config(),
            max_attempts,
            worker: self.worker(),
        };
        upkeep
            .round()
            .await
            .map_err(queue.failed("look after messages"))
    }

    fn due_earlier(&self, queue: &QueueName) -> Arc<Notify> {
        Arc::clone(&self.queue(queue).due_earlier)
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        let answered = server::ping(self.redis()).await;
        answered.map_err(|error| error.while_attempting("ping the server"))
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }

    fn store(&self) -> Option<Arc<dyn KvStore>> {
        Some(Arc::new(RedisStore::new(self.redis().store().clone())))
    }
}
