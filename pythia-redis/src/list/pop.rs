//! Lists at most once: what is handed out has left Redis.
//!
//! `BLMPOP .. COUNT` where there is one (7.0), otherwise `BRPOP` for the first and `RPOP` for more.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use async_trait::async_trait;
use bytestring::ByteString;
use pythia_core::broker::{Settled, Settler, Source};
use pythia_core::observe::{Event, GapCause};
use pythia_core::settlement::Settlement;
use pythia_core::{BrokerError, Delivery, Receipt};
use tokio::time::Instant;

use super::deliveries::append;
use super::{MAX_BATCH, Queue, idle_wait, random_id};
use crate::connection::{Args, Reader, Redis, Reply};
use crate::error::{Kind, RedisError};
use crate::script::Script;

/// Takes messages for good.
#[derive(Debug)]
pub(super) struct PopSource {
    queue: Arc<Queue>,
    redis: Redis,
    reader: Reader,
    /// What the ids of messages without one begin with.
    consumer: ByteString,
    /// The number of the next batch.
    number: u64,
    /// Halved by each time-out, doubled by each answer.
    limit: usize,
    /// Since when nothing was read: the reply to the last read may have been lost, with messages in it.
    broken: Option<Instant>,
}

/// Nothing is held, so there is nothing to settle: an ack is what has happened anyway, and all else comes too late.
#[derive(Debug)]
pub(super) struct PopSettler;

impl PopSource {
    pub(super) fn new(redis: Redis, reader: Reader, queue: Arc<Queue>) -> Self {
        Self {
            queue,
            redis,
            reader,
            consumer: random_id(),
            number: 1,
            limit: MAX_BATCH,
            broken: None,
        }
    }

    async fn pop(&mut self, max: usize) -> Result<Vec<Reply>, RedisError> {
        if !self.queue.without_blmpop.load(Relaxed) {
            match self.blmpop(max).await {
                Err(error) if error.kind() == Kind::UnknownCommand => {
                    self.queue.without_blmpop.store(true, Relaxed);
                }
                popped => return popped,
            }
        }
        self.brpop(max).await
    }

    async fn blmpop(&mut self, max: usize) -> Result<Vec<Reply>, RedisError> {
        let wait = idle_wait();
        let args = Args::with_capacity(6)
            .arg(format!("{:.3}", wait.as_secs_f64()))
            .arg(1)
            .key(&self.queue.keys.ready)
            .arg("RIGHT")
            .arg("COUNT")
            .arg(max);
        let reply = self.reader.blocking("BLMPOP", args, wait).await?;
        if reply.is_nil() {
            return Ok(Vec::new());
        }
        let [_key, messages] = reply.into_tuple()?;
        messages.into_array()
    }

    async fn brpop(&mut self, max: usize) -> Result<Vec<Reply>, RedisError> {
        let (wait, key) = (idle_wait(), &self.queue.keys.ready);
        let args = Args::with_capacity(2)
            .key(key)
            .arg(format!("{:.3}", wait.as_secs_f64()));
        let reply = self.reader.blocking("BRPOP", args, wait).await?;
        if reply.is_nil() {
            return Ok(Vec::new());
        }
        let [_key, first] = reply.into_tuple()?;
        let mut messages = vec![first];
        if max > 1 {
            let more = self
                .reader
                .eval(&POP, &[key], Args::new().arg(max - 1))
                .await;
            // The first is in hand, whatever has become of the others.
            match more.and_then(Reply::into_tuple) {
                Ok([more]) => messages.extend(more.into_array()?),
                Err(error) => self.failed(&error, max),
            }
        }
        Ok(messages)
    }

    fn failed(&mut self, error: &RedisError, asked: usize) {
        match error.kind() {
            Kind::TimedOut => self.limit = (asked / 2).max(1),
            Kind::Unavailable => {}
            // An answer: nothing was popped.
            _ => return,
        }
        self.broken.get_or_insert_with(Instant::now);
    }

    fn answered(&mut self) {
        self.limit = self.limit.saturating_mul(2).min(MAX_BATCH);
        if let Some(broken) = self.broken.take() {
            self.redis.report(&Event::Gap {
                queue: &self.queue.name,
                cause: GapCause::Disconnected,
                lost: None,
                lasted: Some(Instant::now().saturating_duration_since(broken)),
            });
        }
    }
}

#[async_trait]
impl Source for PopSource {
    async fn receive(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        let asked = max.min(self.limit).max(1);
        let popped = match self.pop(asked).await {
            Ok(popped) => popped,
            Err(error) => {
                self.failed(&error, asked);
                return Err(error.during("take messages", &self.queue.name));
            }
        };
        self.answered();
        self.number += 1;
        append(popped, &self.consumer, self.number, into)
            .map_err(|error| error.during("take messages", &self.queue.name))
    }

    async fn close(&mut self, _: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        Ok(())
    }
}

#[async_trait]
impl Settler for PopSettler {
    async fn settle(&self, batch: &[Settlement]) -> Result<Settled, BrokerError> {
        let late = |settlement: &&Settlement| !matches!(settlement, Settlement::Ack(_));
        Ok(Settled::stale(batch.iter().filter(late).count() as u64))
    }

    async fn extend(&self, _in_flight: &[Receipt]) -> Result<Vec<Receipt>, BrokerError> {
        Ok(Vec::new())
    }
}

static POP: Script = Script::new("list/pop", include_str!("../scripts/list/pop.lua"));
