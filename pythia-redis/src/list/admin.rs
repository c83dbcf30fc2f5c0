//! Inspection and operation of queues that are lists.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use pythia_core::admin::{Admin, DeadLetter, Delayed, Depth, Page, Purge, ServerStats};
use pythia_core::broker::{Broker, Guarantee};
use pythia_core::{BrokerError, BrokerErrorKind, MessageId, QueueName};

use super::{ListBroker, MAX_BYTES, Queue, random_id};
use crate::connection::Args;
use crate::dead_letter::{self, instant};
use crate::delay::without_name;
use crate::error::RedisError;
use crate::script::Script;
use crate::server;

#[async_trait]
impl Admin for ListBroker {
    async fn depth(&self, queue: &QueueName) -> Result<Depth, BrokerError> {
        let depth = self.read_depth(&self.queue(queue)).await;
        depth.map_err(|error| error.during("read the depth", queue))
    }

    async fn delayed(&self, queue: &QueueName, page: Page) -> Result<Vec<Delayed>, BrokerError> {
        let key = self.queue(queue).keys.delayed.clone();
        let found = self.page("ZRANGE", key, page).await;
        let found = found.map_err(|error| error.during("list delayed messages", queue))?;
        let delayed = |(member, due)| Delayed {
            delivery: dead_letter::delivery(without_name(member)),
            due,
        };
        Ok(found.into_iter().map(delayed).collect())
    }

    async fn dead(&self, queue: &QueueName, page: Page) -> Result<Vec<DeadLetter>, BrokerError> {
        let key = self.queue(queue).keys.dead.clone();
        let found = self.page("ZREVRANGE", key, page).await;
        let found = found.map_err(|error| error.during("list dead letters", queue))?;
        let letter = |(letter, died_at)| dead_letter::read(letter, died_at);
        Ok(found.into_iter().map(letter).collect())
    }

    async fn requeue(
        &self,
        queue: &QueueName,
        ids: Option<&[MessageId]>,
        limit: usize,
    ) -> Result<u64, BrokerError> {
        if self.guarantee() == Guarantee::AtMostOnce {
            return Err(unsupported("requeue dead letters", queue)
                .because("what is handed out at most once leaves none"));
        }
        let requeued = match ids {
            Some([]) => Ok(0),
            Some(ids) => {
                self.requeue_letters(&self.queue(queue), ids, usize::MAX)
                    .await
            }
            None => self.requeue_letters(&self.queue(queue), &[], limit).await,
        };
        requeued.map_err(|error| error.during("requeue dead letters", queue))
    }

    async fn purge(&self, queue: &QueueName, state: Purge) -> Result<u64, BrokerError> {
        let known = self.queue(queue);
        let keys = match state {
            Purge::Dead => vec![&known.keys.dead],
            Purge::Delayed => vec![&known.keys.delayed],
            Purge::Ready => vec![&known.keys.ready, &known.keys.inbox],
            _ => return Err(unsupported("purge messages of an unknown state", queue)),
        };
        let purged = self.redis().pool().eval(&PURGE, &keys, Args::new()).await;
        purged
            .and_then(|purged| purged.as_count())
            .map_err(|error| error.during("purge messages", queue))
    }

    async fn server(&self) -> Result<Option<ServerStats>, BrokerError> {
        match server::stats(self.redis()).await {
            Ok(stats) => Ok(Some(stats)),
            Err(error) => Err(error.while_attempting("read the state of the server")),
        }
    }
}

impl ListBroker {
    async fn read_depth(&self, queue: &Queue) -> Result<Depth, RedisError> {
        let keys = &queue.keys;
        let args = Args::new().arg(keys.base().to_owned());
        let keys = [
            &keys.ready,
            &keys.inbox,
            &keys.consumers,
            &keys.delayed,
            &keys.dead,
        ];
        let reply = self.redis().pool().eval(&DEPTH, &keys, args).await?;
        let [ready, pending, delayed, dead, oldest] = reply.into_tuple()?;
        let mut depth = Depth::default();
        depth.ready = Some(ready.as_count()?);
        depth.pending = Some(pending.as_count()?);
        depth.delayed = Some(delayed.as_count()?);
        depth.dead = Some(dead.as_count()?);
        depth.oldest = u64::try_from(oldest.as_integer()?)
            .ok()
            .map(Duration::from_millis);
        Ok(depth)
    }

    /// Members of a sorted set with their scores, which are instants. A member begins with sixteen bytes or a frame's magic,
    /// so this flat reply can't be mistaken for a pub/sub message.
    async fn page(
        &self,
        command: &'static str,
        key: bytestring::ByteString,
        page: Page,
    ) -> Result<Vec<(Bytes, SystemTime)>, RedisError> {
        if page.limit == 0 {
            return Ok(Vec::new());
        }
        let last = page.offset.saturating_add(page.limit - 1);
        let args = Args::new()
            .key(key)
            .arg(page.offset)
            .arg(i64::try_from(last).unwrap_or(-1))
            .arg("WITHSCORES");
        let reply = self
            .redis()
            .pool()
            .command(command, args)
            .await?
            .into_array()?;
        let mut found = Vec::with_capacity(reply.len() / 2);
        let mut reply = reply.into_iter();
        while let (Some(member), Some(score)) = (reply.next(), reply.next()) {
            found.push((member.into_bytes()?, instant(&score.into_text()?)?));
        }
        Ok(found)
    }

    async fn requeue_letters(
        &self,
        queue: &Queue,
        ids: &[MessageId],
        limit: usize,
    ) -> Result<u64, RedisError> {
        let (mut requeued, mut rank, mut more) = (0, 0, true);
        while more && requeued < limit as u64 {
            let count = LOOKED_AT_AT_ONCE.min(limit as u64 - requeued);
            // Where this very call keeps its answer: sent again by the connection, it must not take more letters.
            let answer = queue.keys.key(format_args!("answer:{}", random_id()));
            let args = Args::with_capacity(3 + ids.len())
                .arg(count)
                .arg(MAX_BYTES)
                .arg(rank)
                .args(ids.iter().map(MessageId::text));
            let keys = [&queue.keys.dead, &queue.keys.ready, &answer];
            let reply = self.redis().pool().eval(&REQUEUE, &keys, args).await?;
            let [moved, next_rank, left] = reply.into_tuple()?;
            requeued += moved.as_count()?;
            rank = next_rank.as_count()?;
            more = left.as_integer()? == 1;
        }
        Ok(requeued)
    }
}

fn unsupported(attempted: &str, queue: &QueueName) -> BrokerError {
    BrokerError::new(BrokerErrorKind::Unsupported, attempted).queue(queue)
}

static DEPTH: Script = Script::new(
    "list/depth",
    concat!(
        include_str!("../scripts/list/time.lua"),
        include_str!("../scripts/list/frame.lua"),
        include_str!("../scripts/list/depth.lua")
    ),
);
static REQUEUE: Script = Script::new(
    "list/requeue",
    concat!(
        include_str!("../scripts/list/frame.lua"),
        include_str!("../scripts/list/requeue.lua")
    ),
);
static PURGE: Script = Script::new("list/purge", include_str!("../scripts/list/purge.lua"));

/// Letters that one script looks at.
const LOOKED_AT_AT_ONCE: u64 = 200;
