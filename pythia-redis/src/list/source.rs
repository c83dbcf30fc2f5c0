//! Where a lane's deliveries come from, at least once: claims, each under a number of its own.
//!
//! The number goes on only when its answer was read, so a claim whose answer was lost is asked for again and not forgotten.
//! While the queue is empty the source waits with `BLMOVE` into an inbox that belongs to all consumers, and claims from
//! there: a message that is moved on behalf of a client which is gone, or stopped, is everybody's.

use std::sync::Arc;

use async_trait::async_trait;
use pythia_core::broker::Source;
use pythia_core::{BrokerError, Delivery};
use tokio::time::sleep;

use super::claims::Claims;
use super::deliveries::append;
use super::{MAX_BATCH, MAX_BYTES, Queue, idle_wait};
use crate::connection::{Args, Connection, Reader, Redis};
use crate::delay::millis;
use crate::error::{Kind, RedisError};
use crate::script::Script;

/// One consumer's claims.
#[derive(Debug)]
pub(super) struct ListSource {
    queue: Arc<Queue>,
    claims: Arc<Claims>,
    reader: Reader,
    pool: Connection,
    settling: Connection,
    lease_ms: u64,
    /// The number of the next claim.
    number: u64,
    /// What was asked for under this number, and not answered. A later call never asks for more: a batch that was too
    /// large to get through shrinks, and one whose answer was read never does.
    asked: usize,
    /// Halved by each time-out, doubled by each answer.
    limit: usize,
    /// Nothing was left when last looked at, so the next look waits first.
    drained: bool,
}

impl ListSource {
    pub(super) fn new(
        redis: &Redis,
        reader: Reader,
        settling: Connection,
        queue: Arc<Queue>,
        claims: Arc<Claims>,
    ) -> Self {
        Self {
            queue,
            claims,
            reader,
            pool: redis.pool().clone(),
            settling,
            lease_ms: millis(redis.config().lease),
            number: 1,
            asked: usize::MAX,
            limit: MAX_BATCH,
            drained: false,
        }
    }

    /// Claims what is ready; answers how many messages that were.
    async fn claim(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<usize, RedisError> {
        // Until it can be renewed and settled, nothing new is taken: others may be able to.
        self.reader
            .ready_beside(&[&self.settling, &self.pool])
            .await?;
        self.asked = self.asked.min(self.limit).min(max).max(1);
        let keys = &self.queue.keys;
        let batch = self.claims.batch(keys, self.number);
        let args = Args::with_capacity(5)
            .arg(&self.claims.consumer)
            .arg(self.number)
            .arg(self.asked)
            .arg(MAX_BYTES)
            .arg(self.lease_ms);
        let keys = [
            &keys.ready,
            &keys.inbox,
            &keys.consumers,
            &self.claims.held,
            &batch,
        ];
        let reply = match self.reader.eval(&CLAIM, &keys, args).await {
            Ok(reply) => reply,
            Err(error) => {
                if error.kind() == Kind::TimedOut {
                    self.limit = (self.asked / 2).max(1);
                }
                return Err(error);
            }
        };
        let [left, messages] = reply.into_tuple()?;
        let (left, messages) = (left.as_count()?, messages.into_array()?);
        let claimed = messages.len();
        append(messages, &self.claims.consumer, self.number, into)?;
        if claimed > 0 {
            self.claims.open(self.number, claimed);
        }
        self.number += 1;
        self.asked = usize::MAX;
        self.limit = self.limit.saturating_mul(2).min(MAX_BATCH);
        self.drained = left == 0;
        Ok(claimed)
    }

    /// Waits until a message is in the inbox, or some time has passed. What it brings is left to the claim.
    async fn wait(&mut self) -> Result<(), RedisError> {
        let wait = idle_wait();
        let keys = &self.queue.keys;
        let args = Args::with_capacity(5)
            .key(&keys.ready)
            .key(&keys.inbox)
            .arg("RIGHT")
            .arg("LEFT")
            .arg(format!("{:.3}", wait.as_secs_f64()));
        self.reader.blocking("BLMOVE", args, wait).await.map(drop)
    }

    async fn look(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<(), RedisError> {
        if !std::mem::take(&mut self.drained) && self.claim(max, into).await? > 0 {
            return Ok(());
        }
        match self.wait().await {
            // A full Redis refuses to wait for messages, but not to hand them out.
            Err(error) if error.kind() == Kind::OutOfMemory => {
                if self.claim(max, into).await? > 0 {
                    return Ok(());
                }
                sleep(idle_wait() / 4).await;
            }
            waited => waited?,
        }
        self.claim(max, into).await.map(drop)
    }
}

#[async_trait]
impl Source for ListSource {
    async fn receive(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        self.look(max, into)
            .await
            .map_err(|error| error.during("claim messages", &self.queue.name))
    }

    async fn close(&mut self, _: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        let keys = &self.queue.keys;
        let batch = self.claims.batch(keys, self.number);
        let args = Args::new().arg(&self.claims.consumer).arg(self.number);
        let keys = [&keys.ready, &keys.consumers, &self.claims.held, &batch];
        match self.pool.eval(&LEAVE, &keys, args).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.during("hand back messages", &self.queue.name)),
        }
    }
}

static CLAIM: Script = Script::new(
    "list/claim",
    concat!(
        include_str!("../scripts/list/time.lua"),
        include_str!("../scripts/list/frame.lua"),
        include_str!("../scripts/list/claim.lua")
    ),
);
static LEAVE: Script = Script::new(
    "list/leave",
    concat!(
        include_str!("../scripts/list/frame.lua"),
        include_str!("../scripts/list/hand_back.lua"),
        include_str!("../scripts/list/leave.lua")
    ),
);
