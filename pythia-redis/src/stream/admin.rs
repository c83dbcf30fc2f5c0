//! Inspection and operation of a queue, as its group sees it.

use std::collections::HashSet;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use pythia_core::admin::{Admin, DeadLetter, Delayed, Depth, Page, Purge, ServerStats};
use pythia_core::{BrokerError, BrokerErrorKind, MessageId, QueueName};

use super::StreamBroker;
use super::entry::{self, Entry};
use super::id::{EntryId, id_text};
use super::queue::Queue;
use crate::connection::{Args, Reply};
use crate::error::{Kind, RedisError};
use crate::script::Script;
use crate::server;

static DEPTH: Script = Script::new(
    "stream/depth",
    concat!(
        include_str!("../scripts/stream/time.lua"),
        include_str!("../scripts/stream/id.lua"),
        include_str!("../scripts/stream/depth.lua"),
    ),
);

static DELAYED: Script = Script::new(
    "stream/delayed",
    include_str!("../scripts/stream/delayed.lua"),
);

static REQUEUE: Script = Script::new(
    "stream/requeue",
    concat!(
        include_str!("../scripts/stream/entry.lua"),
        include_str!("../scripts/stream/requeue.lua"),
    ),
);

static PURGE: Script = Script::new("stream/purge", include_str!("../scripts/stream/purge.lua"));

static PURGE_READY: Script = Script::new(
    "stream/purge_ready",
    include_str!("../scripts/stream/purge_ready.lua"),
);

#[async_trait]
impl Admin for StreamBroker {
    async fn depth(&self, queue: &QueueName) -> Result<Depth, BrokerError> {
        let queue = self.queue(queue);
        self.read_depth(&queue)
            .await
            .map_err(queue.failed("read the depth"))
    }

    async fn delayed(&self, queue: &QueueName, page: Page) -> Result<Vec<Delayed>, BrokerError> {
        let queue = self.queue(queue);
        self.read_delayed(&queue, page)
            .await
            .map_err(queue.failed("list delayed messages"))
    }

    async fn dead(&self, queue: &QueueName, page: Page) -> Result<Vec<DeadLetter>, BrokerError> {
        let queue = self.queue(queue);
        self.read_dead(&queue, page)
            .await
            .map_err(queue.failed("list dead letters"))
    }

    async fn requeue(
        &self,
        queue: &QueueName,
        ids: Option<&[MessageId]>,
        limit: usize,
    ) -> Result<u64, BrokerError> {
        let queue = self.queue(queue);
        self.requeue_letters(&queue, ids, limit)
            .await
            .map_err(queue.failed("requeue dead letters"))
    }

    async fn purge(&self, queue: &QueueName, state: Purge) -> Result<u64, BrokerError> {
        let queue = self.queue(queue);
        let purged = match state {
            Purge::Dead => self.delete(&[&queue.dead]).await,
            Purge::Delayed => self.delete(&[&queue.delayed_for_all, &queue.delayed]).await,
            Purge::Ready => self.purge_ready(&queue).await,
            _ => {
                return Err(
                    BrokerError::new(BrokerErrorKind::Unsupported, "purge").queue(&queue.name)
                );
            }
        };
        purged.map_err(queue.failed("purge"))
    }

    async fn server(&self) -> Result<Option<ServerStats>, BrokerError> {
        server::stats(self.redis())
            .await
            .map(Some)
            .map_err(|error| error.while_attempting("read the server's state"))
    }
}

impl StreamBroker {
    async fn read_depth(&self, queue: &Queue) -> Result<Depth, RedisError> {
        let args = queue.args().arg(self.config().stream.start.redis_id());
        let keys = [&queue.delayed_for_all, &queue.delayed, &queue.dead];
        let reply = queue.eval(self.redis().pool(), &DEPTH, &keys, args).await?;
        let counts: [Reply; 6] = reply.into_tuple()?;
        // -1 stands for what is not known.
        let [ready, pending, delayed, dead, lag, oldest] =
            counts.map(|count| count.as_count().ok());
        let mut depth = Depth::default();
        depth.ready = ready;
        depth.pending = pending;
        depth.delayed = delayed;
        depth.dead = dead;
        depth.lag = lag;
        depth.oldest = oldest.map(Duration::from_millis);
        Ok(depth)
    }

    async fn read_delayed(&self, queue: &Queue, page: Page) -> Result<Vec<Delayed>, RedisError> {
        // Lua's numbers are exact up to 2^53 only.
        let end = page
            .offset
            .saturating_add(page.limit)
            .min(u32::MAX as usize);
        if end == 0 {
            return Ok(Vec::new());
        }
        let keys = [&queue.delayed_for_all, &queue.delayed];
        let reply = self
            .redis()
            .pool()
            .eval(&DELAYED, &keys, Args::new().arg(end))
            .await?;
        let sets: [Reply; 2] = reply.into_tuple()?;
        let mut delayed = Vec::new();
        for set in sets {
            let mut values = set.into_array()?.into_iter();
            while let (Some(member), Some(due)) = (values.next(), values.next()) {
                let due = Duration::from_millis(due.as_count()?);
                delayed.push(Delayed {
                    delivery: entry::delayed(&member.into_bytes()?),
                    due: UNIX_EPOCH.checked_add(due).unwrap_or(UNIX_EPOCH),
                });
            }
        }
        delayed.sort_by_key(|delayed| delayed.due);
        Ok(delayed
            .into_iter()
            .skip(page.offset)
            .take(page.limit)
            .collect())
    }

    async fn read_dead(&self, queue: &Queue, page: Page) -> Result<Vec<DeadLetter>, RedisError> {
        let mut letters = Vec::new();
        let mut skip = page.offset;
        let mut newest = None;
        while letters.len() < page.limit {
            let args = Args::new().key(&queue.dead);
            let args = match newest {
                None => args.arg("+"),
                Some(id) => args.arg(format!("({id}")),
            };
            let args = args.arg("-").arg("COUNT").arg(PAGE);
            let reply = self.redis().pool().command("XREVRANGE", args).await?;
            let entries = read_entries(reply)?;
            let Some(last) = entries.last() else { break };
            newest = Some(last.id);
            let skipped = skip.min(entries.len());
            skip -= skipped;
            for entry in entries
                .into_iter()
                .skip(skipped)
                .take(page.limit - letters.len())
            {
                let (delivery, reason, died_at) = entry.into_dead();
                letters.push(DeadLetter {
                    delivery,
                    reason,
                    died_at: Some(died_at),
                });
            }
        }
        Ok(letters)
    }

    /// Looks through the letters from the oldest on, a page at a time.
    async fn requeue_letters(
        &self,
        queue: &Queue,
        ids: Option<&[MessageId]>,
        limit: usize,
    ) -> Result<u64, RedisError> {
        let wanted: Option<HashSet<&MessageId>> = ids.map(|ids| ids.iter().collect());
        let (mut requeued, mut oldest) = (0, EntryId::default());
        let mut room = if ids.is_some() { usize::MAX } else { limit };
        while room > 0 {
            let args = Args::new()
                .key(&queue.dead)
                .arg(format!("({oldest}"))
                .arg("+")
                .arg("COUNT")
                .arg(PAGE);
            let entries = read_entries(self.redis().pool().command("XRANGE", args).await?)?;
            let Some(last) = entries.last() else { break };
            oldest = last.id;
            let mut letters = Args::new();
            for entry in entries {
                let letter = id_text(entry.id);
                let chosen = wanted
                    .as_ref()
                    .is_none_or(|wanted| wanted.contains(&entry.into_dead().0.id));
                if chosen && letters.len() < room {
                    letters.push(letter);
                }
            }
            room -= letters.len();
            if letters.len() > 0 {
                let keys = [&queue.dead, &queue.streams[1]];
                requeued += self
                    .redis()
                    .pool()
                    .eval(&REQUEUE, &keys, letters)
                    .await?
                    .as_count()?;
            }
        }
        Ok(requeued)
    }

    async fn delete(&self, keys: &[&bytestring::ByteString]) -> Result<u64, RedisError> {
        self.redis()
            .pool()
            .eval(&PURGE, keys, Args::new())
            .await?
            .as_count()
    }

    async fn purge_ready(&self, queue: &Queue) -> Result<u64, RedisError> {
        let mut purged = 0;
        loop {
            let args = queue
                .args()
                .arg(format!("purge-{}", self.worker()))
                .arg(PURGE_BUDGET);
            let reply = match queue
                .eval(self.redis().pool(), &PURGE_READY, &[], args)
                .await
            {
                // Without a group there is nothing ready for it.
                Err(error) if error.kind() == Kind::NoGroup => return Ok(purged),
                reply => reply?,
            };
            let [count, more] = reply.into_tuple()?;
            purged += count.as_count()?;
            if more.as_integer()? == 0 {
                return Ok(purged);
            }
        }
    }
}

fn read_entries(reply: Reply) -> Result<Vec<Entry>, RedisError> {
    reply.into_array()?.into_iter().map(Entry::read).collect()
}

/// Dead letters in one answer.
const PAGE: usize = 100;
/// Entries of each stream that one call passes over.
const PURGE_BUDGET: usize = 500;
