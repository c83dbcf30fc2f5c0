//! Dispositions and renewals of one lane.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join;
use pythia_core::broker::{Settled, Settler};
use pythia_core::settlement::Settlement;
use pythia_core::{BrokerError, Delivery, Receipt};

use super::entry;
use super::id::{EntryId, Place, entry_of, id_text, push_entries, receipt};
use super::queue::Lane;
use crate::connection::{Args, Connection};
use crate::error::RedisError;
use crate::script::Script;

static ACK: Script = Script::new("stream/ack", include_str!("../scripts/stream/ack.lua"));

static SETTLE: Script = Script::new(
    "stream/settle",
    concat!(
        include_str!("../scripts/stream/time.lua"),
        include_str!("../scripts/stream/entry.lua"),
        include_str!("../scripts/stream/settle.lua"),
    ),
);

static RENEW: Script = Script::new(
    "stream/renew",
    concat!(
        include_str!("../scripts/stream/time.lua"),
        include_str!("../scripts/stream/renew.lua"),
    ),
);

/// Settles what one consumer has read.
#[derive(Debug)]
pub(super) struct StreamSettler {
    lane: Arc<Lane>,
    connection: Connection,
    lease: Duration,
}

impl StreamSettler {
    pub(super) fn new(lane: Arc<Lane>, connection: Connection, lease: Duration) -> Self {
        Self {
            lane,
            connection,
            lease,
        }
    }

    /// Acknowledges, and answers how many were stale.
    async fn ack(&self, entries: &[(Place, EntryId)]) -> Result<u64, RedisError> {
        let queue = &self.lane.queue;
        let mut stale = 0;
        for chunk in entries.chunks(MAX_ENTRIES) {
            let mut args = queue.args().arg(&self.lane.consumer);
            push_entries(&mut args, chunk);
            let reply = queue
                .eval(&self.connection, &ACK, &[&queue.consumers], args)
                .await?;
            stale += reply.as_count()?;
        }
        Ok(stale)
    }

    /// Moves to the delayed messages, the dead letters, or back, and answers how many were stale.
    async fn move_all(&self, moves: &[Move]) -> Result<u64, RedisError> {
        let queue = &self.lane.queue;
        let mut stale = 0;
        let mut rest = moves;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(within_bounds(rest));
            let args = queue.args().arg(&self.lane.consumer);
            let args = chunk.iter().fold(args, |args, moved| moved.push_to(args));
            let keys = [&queue.delayed, &queue.dead];
            stale += queue
                .eval(&self.connection, &SETTLE, &keys, args)
                .await?
                .as_count()?;
            rest = after;
        }
        Ok(stale)
    }

    /// Renews the consumer's lease and those of the entries, which are sorted; answers the lost ones.
    async fn renew(&self, entries: &[(Place, EntryId)]) -> Result<Vec<Receipt>, RedisError> {
        let queue = &self.lane.queue;
        let args = queue
            .args()
            .arg(&self.lane.consumer)
            .arg(self.lease.as_millis());
        let mut args = args;
        push_entries(&mut args, entries);
        let keys = [&queue.consumers, &queue.clock];
        let reply = queue.eval(&self.connection, &RENEW, &keys, args).await?;
        let [suspects, stream, retry, suspect] = reply.into_tuple()?;
        if suspects.as_integer()? == 1 {
            queue.suspects.tell();
        }
        let mut lost = Vec::new();
        for (place, ids) in Place::ALL.into_iter().zip([stream, retry, suspect]) {
            for id in ids.into_array()? {
                let id = EntryId::parse(&id.into_bytes()?);
                lost.extend(id.and_then(|id| receipt(place, id)));
            }
        }
        Ok(lost)
    }

    /// A suspect that is settled or lost makes way for the next.
    fn done_with(&self, receipts: impl IntoIterator<Item = Receipt>) {
        for receipt in receipts {
            if entry_of(receipt).0 == Place::Suspect {
                self.lane.queue.suspects.settled(receipt);
            }
        }
    }
}

#[async_trait]
impl Settler for StreamSettler {
    async fn settle(&self, batch: &[Settlement]) -> Result<Settled, BrokerError> {
        let mut acks = Vec::with_capacity(batch.len());
        let mut moves = Vec::new();
        for settlement in batch {
            match Move::of(settlement) {
                Some(moved) => moves.push(moved),
                None => acks.push(entry_of(settlement.receipt())),
            }
        }
        if !acks.is_sorted_by_key(|(place, _)| place) {
            acks.sort_unstable_by_key(|&(place, _)| place);
        }
        let (stale_acks, stale_moves) = try_join(self.ack(&acks), self.move_all(&moves))
            .await
            .map_err(self.lane.queue.failed("settle messages"))?;
        self.done_with(batch.iter().map(Settlement::receipt));
        Ok(Settled::stale(stale_acks + stale_moves))
    }

    async fn extend(&self, in_flight: &[Receipt]) -> Result<Vec<Receipt>, BrokerError> {
        let mut entries: Vec<_> = in_flight.iter().copied().map(entry_of).collect();
        entries.extend(
            self.lane
                .ahead()
                .iter()
                .map(|delivery| entry_of(delivery.receipt)),
        );
        entries.sort_unstable();
        let failed = |error: RedisError| self.lane.queue.failed("renew leases")(error);
        let mut lost = match entries.is_empty() {
            // Also a sign of life.
            true => self.renew(&[]).await.map_err(failed)?,
            false => Vec::new(),
        };
        for chunk in entries.chunks(MAX_ENTRIES) {
            lost.extend(self.renew(chunk).await.map_err(failed)?);
        }
        if !lost.is_empty() {
            self.lane
                .ahead()
                .retain(|delivery| !lost.contains(&delivery.receipt));
            self.done_with(lost.iter().copied());
        }
        Ok(lost)
    }
}

/// A message on its way to another place.
struct Move {
    operation: &'static str,
    place: Place,
    id: Bytes,
    argument: Bytes,
    member: Bytes,
}

impl Move {
    /// `None` for what is only acknowledged.
    fn of(settlement: &Settlement) -> Option<Self> {
        let moved = |operation, delivery: &Delivery, argument| {
            let (place, id) = entry_of(delivery.receipt);
            Self {
                operation,
                place,
                id: id_text(id),
                argument,
                member: entry::member(delivery),
            }
        };
        match settlement {
            Settlement::DeadLetter { delivery, reason } => {
                let reason = format!("{} {}", reason.kind.name(), reason.error);
                Some(moved("dead", delivery, reason.into()))
            }
            Settlement::Release(delivery) => Some(moved("release", delivery, Bytes::new())),
            Settlement::Retry { delivery, after } => {
                let after = after.as_millis().min(LONGEST_DELAY_MS);
                Some(moved("retry", delivery, after.to_string().into()))
            }
            _ => None,
        }
    }

    fn push_to(&self, args: Args) -> Args {
        args.arg(self.operation)
            .arg(self.place as usize + 1)
            .arg(&self.id)
            .arg(&self.argument)
            .arg(&self.member)
    }
}

/// How many of these one script moves: a number, or fewer large ones, but at least one.
fn within_bounds(moves: &[Move]) -> usize {
    let mut bytes = 0;
    let within = moves.iter().take(MAX_MOVES).take_while(|moved| {
        bytes += moved.member.len();
        bytes <= MAX_BYTES
    });
    within.count().max(1)
}

/// Entries in one call of a script that handles each of them in a microsecond or less.
const MAX_ENTRIES: usize = 1_000;
/// Messages in one call of a script that moves them.
const MAX_MOVES: usize = 200;
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// A hundred thousand years: beyond it the sums of milliseconds lose their precision.
const LONGEST_DELAY_MS: u128 = 100_000 * 365 * 86_400_000;
