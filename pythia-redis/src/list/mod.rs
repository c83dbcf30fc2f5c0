//! Redis lists: what `LPUSH queue message` writes is consumed, and nothing but the list itself is needed for it.
//!
//! | file | what is in it |
//! |---|---|
//! | `publish.rs` | messages into the queue, or among the delayed ones |
//! | `source.rs` | claims: a batch moves into a list of its own, named by its consumer and its number |
//! | `deliveries.rs` | what a claim's messages say of themselves: frames, or a plain client's bytes |
//! | `claims.rs` | which of the claimed messages are not settled yet |
//! | `settler.rs` | dispositions: a batch of which nothing is left is deleted in one go |
//! | `pop.rs` | the other mode: what is handed out is gone, at most once |
//! | `admin.rs` | inspection and operation |
//!
//! A message is always in exactly one of the queue, the inbox, a claim, the delayed messages and the dead letters, and every
//! move between these is one atomic command or script. A claim exists as long as its messages are its consumer's: recovery
//! deletes it, so whoever comes to settle it later finds nothing to settle.

mod admin;
mod claims;
mod deliveries;
mod pop;
mod publish;
mod settler;
mod source;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytestring::ByteString;
use pythia_core::admin::Admin;
use pythia_core::broker::{Broker, Endpoint, Guarantee, Maintained, Published, Subscription};
use pythia_core::observe::Observer;
use pythia_core::store::KvStore;
use pythia_core::{BrokerError, ConfigError, Message, QueueName};
use tokio::sync::Notify;

use self::claims::Claims;
use self::pop::{PopSettler, PopSource};
use self::settler::ListSettler;
use self::source::ListSource;
use crate::acl::Pattern;
use crate::config::{Delivery, RedisConfig};
use crate::connection::{Args, Redis};
use crate::delay::{Names, Watch};
use crate::doctor::Checkup;
use crate::keys::Keys;
use crate::recovery::recover;
use crate::server;
use crate::store::RedisStore;

/// Queues that are Redis lists. Clones share their connections.
///
/// At least once by default; with [`Delivery::AtMostOnce`] a message leaves Redis when it is handed out.
///
/// ```no_run
/// # use pythia_redis::{ListBroker, config::RedisConfig};
/// let broker = ListBroker::new(RedisConfig::from_url("redis://127.0.0.1:6379")?)?;
/// # Ok::<(), pythia_core::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct ListBroker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    redis: Redis,
    checkup: Checkup,
    /// By which this process is known as a promoter.
    worker: ByteString,
    names: Arc<Names>,
    queues: Mutex<HashMap<QueueName, Arc<Queue>>>,
}

/// What is known of one queue.
#[derive(Debug)]
struct Queue {
    name: QueueName,
    keys: Keys,
    watch: Watch,
    /// Whether this Redis turned out to have no `BLMPOP`.
    without_blmpop: AtomicBool,
}

impl ListBroker {
    /// A broker for the lists of this Redis. Connects to nothing yet.
    ///
    /// # Errors
    /// If settings contradict each other or can't be used, or a file that TLS needs can't be read.
    pub fn new(config: RedisConfig) -> Result<Self, ConfigError> {
        Ok(Self(Arc::new(Shared {
            redis: Redis::new(config)?,
            checkup: Checkup::default(),
            worker: random_id(),
            names: Arc::new(Names::new()),
            queues: Mutex::default(),
        })))
    }

    fn redis(&self) -> &Redis {
        &self.0.redis
    }

    fn queue(&self, name: &QueueName) -> Arc<Queue> {
        let mut queues = self.0.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(name) {
            return Arc::clone(queue);
        }
        let queue = Arc::new(Queue {
            name: name.clone(),
            keys: Keys::new(&self.redis().config().key_prefix, name),
            watch: Watch::default(),
            without_blmpop: AtomicBool::new(false),
        });
        queues.insert(name.clone(), Arc::clone(&queue));
        queue
    }
}

/// Which server, without the password.
impl fmt::Debug for ListBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListBroker({})", self.0.redis.server())
    }
}

#[async_trait]
impl Broker for ListBroker {
    fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("list").at(server::name(self.redis()))
    }

    fn guarantee(&self) -> Guarantee {
        match self.redis().config().list.delivery {
            Delivery::AtLeastOnce => Guarantee::AtLeastOnce,
            Delivery::AtMostOnce => Guarantee::AtMostOnce,
        }
    }

    fn is_fan_out(&self) -> bool {
        false
    }

    fn attach(&self, observer: Arc<dyn Observer>) {
        self.redis().attach(observer);
    }

    async fn subscribe(&self, queue: &QueueName) -> Result<Subscription, BrokerError> {
        let (redis, queue) = (self.redis(), self.queue(queue));
        self.0.checkup.begin(redis, Pattern::List, &queue.name);
        let mut reader = redis.reader();
        // Connects, and finds a key of another type, before anything is promised.
        let length = Args::new().key(&queue.keys.ready);
        reader
            .command("LLEN", length)
            .await
            .map_err(|error| error.during("subscribe", &queue.name))?;
        if self.guarantee() == Guarantee::AtMostOnce {
            return Ok(Subscription {
                source: Box::new(PopSource::new(redis.clone(), reader, queue)),
                settler: Arc::new(PopSettler),
                lease: None,
                cancel_safe: false,
            });
        }
        let settling = redis.dedicated();
        // The source would wait for them anyway; what is wrong is said before anything is promised.
        let ready = reader.ready_beside(&[&settling, redis.pool()]).await;
        ready.map_err(|error| error.during("subscribe", &queue.name))?;
        let claims = Arc::new(Claims::new(&queue.keys, random_id()));
        let source = ListSource::new(
            redis,
            reader,
            settling.clone(),
            Arc::clone(&queue),
            Arc::clone(&claims),
        );
        let names = Arc::clone(&self.0.names);
        let settler = ListSettler::new(redis, settling, queue, claims, names);
        Ok(Subscription {
            source: Box::new(source),
            settler: Arc::new(settler),
            lease: Some(redis.config().lease),
            cancel_safe: false,
        })
    }

    async fn publish(
        &self,
        queue: &QueueName,
        batch: Vec<Message>,
    ) -> Result<Vec<Published>, BrokerError> {
        publish::publish(self.redis(), &self.queue(queue), &self.0.names, batch).await
    }

    async fn maintain(
        &self,
        queue: &QueueName,
        max_attempts: u32,
    ) -> Result<Maintained, BrokerError> {
        let (redis, queue) = (self.redis(), self.queue(queue));
        let during =
            |error: crate::error::RedisError| error.during("look after messages", &queue.name);
        // Also where messages are handed out at most once: another mode, or another worker's, may have held some.
        let recovered = recover(redis, &queue.keys, max_attempts)
            .await
            .map_err(during)?;
        let promotion = queue.watch.promote(redis, &queue.keys, &self.0.worker);
        let promoted = promotion.await.map_err(during)?;
        let mut maintained = Maintained::default();
        maintained.recovered = recovered.count;
        maintained.dead = recovered.dead;
        maintained.promoted = promoted.count;
        maintained.more = recovered.more || promoted.more;
        maintained.next_due = promoted.next_due;
        Ok(maintained)
    }

    fn due_earlier(&self, queue: &QueueName) -> Arc<Notify> {
        let queue = self.queue(queue);
        queue.watch.due_earlier(self.redis(), &queue.keys.control)
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

/// Unlike any other, also that of the same process before its restart.
fn random_id() -> ByteString {
    format!("{:016x}", rand::random::<u64>()).into()
}

/// How long a source waits on an empty queue before it looks elsewhere: about a second, not all of them in step.
fn idle_wait() -> Duration {
    Duration::from_secs_f64(rand::random_range(0.8..1.0))
}

/// How many messages one claim takes at most: its scripts move whole batches.
const MAX_BATCH: usize = 1_000;
/// About how many bytes one script moves, however few messages that are.
const MAX_BYTES: u64 = 8 << 20;
