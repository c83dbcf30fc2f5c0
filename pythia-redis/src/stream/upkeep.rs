//! One round of upkeep: due messages become ready, what silent workers hold goes to others, the stream is trimmed.

use std::time::Duration;

use futures_util::future::try_join;
use pythia_core::broker::{Maintained, OverLimit};
use tokio::time::Instant;
use tracing::warn;

use super::queue::Queue;
use crate::config::{RedisConfig, StreamConfig, TrimStrategy};
use crate::connection::{Args, Connection};
use crate::error::{Kind, RedisError};
use crate::script::Script;

static PROMOTE: Script = Script::new(
    "stream/promote",
    concat!(
        include_str!("../scripts/stream/time.lua"),
        include_str!("../scripts/stream/entry.lua"),
        include_str!("../scripts/stream/promote.lua"),
    ),
);

static RECOVER: Script = Script::new(
    "stream/recover",
    concat!(
        include_str!("../scripts/stream/time.lua"),
        include_str!("../scripts/stream/entry.lua"),
        include_str!("../scripts/stream/recover.lua"),
    ),
);

static REAP: Script = Script::new(
    "stream/reap",
    concat!(
        include_str!("../scripts/stream/time.lua"),
        include_str!("../scripts/stream/reap.lua"),
    ),
);

static TRIM: Script = Script::new(
    "stream/trim",
    concat!(
        include_str!("../scripts/stream/time.lua"),
        include_str!("../scripts/stream/id.lua"),
        include_str!("../scripts/stream/trim.lua"),
    ),
);

/// A worker's upkeep of one queue.
pub(super) struct Upkeep<'a> {
    pub(super) queue: &'a Queue,
    pub(super) connection: &'a Connection,
    pub(super) config: &'a RedisConfig,
    pub(super) max_attempts: u32,
    /// By this name one of many workers is told when to look after the delayed messages.
    pub(super) worker: &'a str,
}

impl Upkeep<'_> {
    /// Does what is due, and now and then the rest too: rounds come as often as delayed messages do.
    pub(super) async fn round(&self) -> Result<Maintained, RedisError> {
        let mut done = Maintained::default();
        if !self.is_all_due() {
            self.promote(&mut done).await?;
            done.over_limit = self.queue.pace().over_limit.clone();
            return Ok(done);
        }
        let mut rest = Maintained::default();
        let all = async {
            self.recover(&mut rest).await?;
            self.reap().await?;
            self.trim(&mut rest).await
        };
        let outcome = try_join(self.promote(&mut done), all).await;
        if outcome.is_err() || rest.more {
            self.queue.pace().next = None;
        }
        outcome?;
        self.queue.pace().over_limit.clone_from(&rest.over_limit);
        rest.promoted = done.promoted;
        rest.more |= done.more;
        rest.next_due = done.next_due;
        Ok(rest)
    }

    async fn promote(&self, done: &mut Maintained) -> Result<(), RedisError> {
        let queue = self.queue;
        let args = Args::new()
            .arg(self.worker.to_owned())
            .arg(PROMOTER_LEASE.as_millis())
            .arg(self.config.maintain.promote.get());
        let keys = [
            &queue.delayed_for_all,
            &queue.delayed,
            &queue.promoter,
            &queue.dead,
        ];
        let reply = queue.eval(self.connection, &PROMOTE, &keys, args).await?;
        let [promoted, dead, more, next_due] = reply.into_tuple()?;
        done.promoted = promoted.as_count()?;
        let dead = dead.as_count()?;
        if dead > 0 {
            warn!(
                queue = %queue.name, group = %queue.group, count = dead,
                "delayed messages that no worker has put there are among the dead letters now"
            );
        }
        done.more = more.as_integer()? == 1;
        done.next_due = next_due.as_count().ok().map(Duration::from_millis);
        Ok(())
    }

    async fn recover(&self, done: &mut Maintained) -> Result<(), RedisError> {
        let queue = self.queue;
        let args = queue
            .args()
            .arg(self.config.lease.as_millis())
            .arg(self.max_attempts)
            .arg(self.config.maintain.recover.get());
        let keys = [&queue.dead, &queue.clock];
        let reply = queue.eval(self.connection, &RECOVER, &keys, args).await?;
        let [recovered, dead, more, suspects] = reply.into_tuple()?;
        done.recovered = recovered.as_count()?;
        done.dead = dead.as_count()?;
        done.more |= more.as_integer()? == 1;
        if suspects.as_integer()? == 1 {
            queue.suspects.tell();
        }
        Ok(())
    }

    /// Removes consumers of processes that are gone.
    async fn reap(&self) -> Result<(), RedisError> {
        let queue = self.queue;
        let args = queue
            .args()
            .arg(self.config.lease.as_millis())
            .arg(MAX_REAPED);
        let keys = [&queue.consumers, &queue.clock];
        match queue.eval(self.connection, &REAP, &keys, args).await {
            Err(error) if error.kind() == Kind::NoGroup => Ok(()),
            reply => reply.map(drop),
        }
    }

    async fn trim(&self, done: &mut Maintained) -> Result<(), RedisError> {
        let queue = self.queue;
        let [stream, ..] = &queue.streams;
        let wish = Wish::of(&self.config.stream);
        let budget = self.config.maintain.trim.get();
        let (exactness, budget) = if self.config.stream.trim_approximate {
            // A trim by whole nodes removes nothing if it may remove less than a node.
            ("~", budget.max(NODE))
        } else {
            ("=", budget)
        };
        let args = queue
            .args()
            .arg(wish.strategy)
            .arg(wish.limit)
            .arg(exactness)
            .arg(budget);
        let reply = self
            .connection
            .eval(&TRIM, &[stream, &queue.floor], args)
            .await?;
        let [trimmed, more, over, holder] = reply.into_tuple()?;
        done.trimmed = trimmed.as_count()?;
        done.more |= more.as_integer()? == 1;
        done.over_limit = match holder.into_array()?.pop() {
            Some(group) => Some(OverLimit {
                entries: over.as_count()?,
                group: group.into_text()?.to_string(),
            }),
            None => None,
        };
        Ok(())
    }

    fn is_all_due(&self) -> bool {
        let now = Instant::now();
        let mut pace = self.queue.pace();
        let due = pace.next.is_none_or(|next| next <= now);
        if due {
            pace.next = Some(now + (self.config.lease / 6).min(REGULAR));
        }
        due
    }
}

/// What the settings ask of a trim.
struct Wish {
    strategy: &'static str,
    limit: u128,
}

impl Wish {
    fn of(config: &StreamConfig) -> Self {
        let wish = match config.trim_strategy {
            TrimStrategy::Maxlen => config
                .max_length
                .map(|length| ("length", length.get() as u128)),
            TrimStrategy::Minid => config.retention.map(|age| ("age", age.as_millis())),
        };
        let (strategy, limit) = wish.unwrap_or(("processed", 0));
        Self { strategy, limit }
    }
}

/// How long a worker is the one that looks after the delayed messages. If it dies, one of them may be late by as much.
const PROMOTER_LEASE: Duration = Duration::from_secs(2);
const REGULAR: Duration = Duration::from_millis(500);
const MAX_REAPED: usize = 10;
/// Entries in one node of a stream, unless the server is configured otherwise.
const NODE: usize = 100;
