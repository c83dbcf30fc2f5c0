//! What the lanes, the upkeep and the administration of one queue share.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytestring::ByteString;
use pythia_core::broker::OverLimit;
use pythia_core::{BrokerError, Delivery, QueueName};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::id::Place;
use super::suspects::Suspects;
use crate::config::{KeyPrefix, StreamConfig};
use crate::connection::{Args, Connection, Reader, Reply};
use crate::error::RedisError;
use crate::keys::Keys;
use crate::script::Script;

/// A queue as one group sees it.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: QueueName,
    pub(super) group: ByteString,
    /// The stream, the group's retry stream, and its suspects: the first three keys of most scripts.
    pub(super) streams: [ByteString; 3],
    pub(super) consumers: ByteString,
    /// Published for later, for all groups.
    pub(super) delayed_for_all: ByteString,
    /// To be tried again later by this group.
    pub(super) delayed: ByteString,
    pub(super) dead: ByteString,
    pub(super) floor: ByteString,
    pub(super) clock: ByteString,
    pub(super) promoter: ByteString,
    keys: Keys,
    pub(super) suspects: Suspects,
    pub(super) due_earlier: Arc<Notify>,
    /// Whether this process has found the group, or made it.
    pub(super) made: std::sync::atomic::AtomicBool,
    pace: Mutex<Pace>,
}

/// What one round of upkeep leaves to the next.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When all of it is to be done again, and not just what is due. None: at once.
    pub(super) next: Option<Instant>,
    /// As the last full round has found it.
    pub(super) over_limit: Option<OverLimit>,
}

/// What the source and the settler of one lane share.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) queue: Arc<Queue>,
    pub(super) id: u64,
    pub(super) consumer: ByteString,
    /// Read and not handed out yet: two streams are read at once, each up to the whole count.
    ahead: Mutex<VecDeque<Delivery>>,
}

impl Queue {
    pub(super) fn new(prefix: &KeyPrefix, config: &StreamConfig, name: &QueueName) -> Self {
        let keys = Keys::new(prefix, name);
        let group = &config.group;
        let own = keys.group(group);
        Self {
            name: name.clone(),
            group: group.as_str().into(),
            streams: [
                keys.ready.clone(),
                own.retry,
                keys.key(format_args!("suspect:{group}")),
            ],
            consumers: own.consumers,
            delayed_for_all: keys.delayed.clone(),
            delayed: own.delayed,
            dead: own.dead,
            floor: own.floor,
            clock: own.clock,
            promoter: keys.key(format_args!("promoter:{group}")),
            keys,
            suspects: Suspects::new(),
            due_earlier: Arc::default(),
            made: false.into(),
            pace: Mutex::default(),
        }
    }

    pub(super) fn key(&self, place: Place) -> &ByteString {
        &self.streams[place as usize]
    }

    pub(super) fn dedupe_key(&self, key: &str) -> ByteString {
        self.keys.key(format_args!("dedupe:{key}"))
    }

    /// Runs a script whose first keys are the three streams and whose first argument is the group.
    pub(super) async fn eval(
        &self,
        connection: &Connection,
        script: &'static Script,
        keys: &[&ByteString],
        args: Args,
    ) -> Result<Reply, RedisError> {
        connection
            .eval(script, &self.with_streams(keys), args)
            .await
    }

    /// As [`eval`](Self::eval), on a reader's connection.
    pub(super) async fn eval_by(
        &self,
        reader: &mut Reader,
        script: &'static Script,
        keys: &[&ByteString],
        args: Args,
    ) -> Result<Reply, RedisError> {
        reader.eval(script, &self.with_streams(keys), args).await
    }

    /// Arguments that begin with the group.
    pub(super) fn args(&self) -> Args {
        Args::new().arg(&self.group)
    }

    pub(super) fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error for the runtime.
    pub(super) fn failed(&self, attempted: &'static str) -> impl FnOnce(RedisError) -> BrokerError {
        move |error| error.during(attempted, &self.name)
    }

    fn with_streams<'a>(&'a self, keys: &[&'a ByteString]) -> Vec<&'a ByteString> {
        self.streams.iter().chain(keys.iter().copied()).collect()
    }
}

impl Lane {
    pub(super) fn new(queue: Arc<Queue>, id: u64, consumer: ByteString) -> Self {
        Self {
            queue,
            id,
            consumer,
            ahead: Mutex::default(),
        }
    }

    /// Where Redis keeps the answer to its last settle of that kind. No other consumer has this one's name.
    pub(super) fn answer_key(&self, kind: &str) -> ByteString {
        let keys = &self.queue.keys;
        keys.key(format_args!("answer:{}:{kind}", self.consumer))
    }

    pub(super) fn ahead(&self) -> MutexGuard<'_, VecDeque<Delivery>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lane {
    /// Source and settler are gone, so nobody settles a suspect that the lane held.
    fn drop(&mut self) {
        self.queue.suspects.left(self.id);
    }
}
