//! Dispositions and renewals of one lane.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join;
use pythia_core::broker::{Settled, Settler};
use pythia_core::settlement::Settlement;
use pythia_core::{BrokerError, Delivery, Receipt};

use super::calls::Calls;
use super::entry;
use super::id::{EntryId, Place, entry_of, id_text, push_entries, receipt};
use super::queue::Lane;
use crate::connection::{Args, Connection};
use crate::error::RedisError;
use crate::script::Script;

static ACK: Script = Script::new(
    "stream/ack",
    concat!(
        include_str!("../scripts/stream/answer.lua"),
        include_str!("../scripts/stream/ack.lua"),
    ),
);

static SETTLE: Script = Script::new(
    "stream/settle",
    concat!(
        include_str!("../scripts/stream/time.lua"),
        include_str!("../scripts/stream/entry.lua"),
        include_str!("../scripts/stream/answer.lua"),
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
    calls: tokio::sync::Mutex<[Calls; 2]>,
}

impl StreamSettler {
    pub(super) fn new(lane: Arc<Lane>, connection: Connection, lease: Duration) -> Self {
        let calls = ["acks", "moves"].map(|kind| Calls::new(lane.answer_key(kind)));
        Self {
            calls: calls.into(),
            lane,
            connection,
            lease,
        }
    }

    /// Acknowledges; the receipts are sorted by place.
    async fn ack(&self, calls: &mut Calls, receipts: &[Receipt]) -> Result<(), RedisError> {
        let queue = &self.lane.queue;
        for chunk in receipts.chunks(MAX_ENTRIES) {
            let entries: Vec<_> = chunk.iter().copied().map(entry_of).collect();
            let call = calls.begin(chunk.iter().copied());
            let mut args = queue.args().arg(&self.lane.consumer).arg(call);
            push_entries(&mut args, &entries);
            let keys = [&queue.consumers, &calls.answer];
            let reply = queue.eval(&self.connection, &ACK, &keys, args).await?;
            calls.end(reply.as_count()?);
        }
        Ok(())
    }

    /// Moves to the delayed messages, the dead letters, or back.
    async fn move_all(&self, calls: &mut Calls, moves: &[Move]) -> Result<(), RedisError> {
        let queue = &self.lane.queue;
        let mut rest = moves;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(within_bounds(rest));
            let call = calls.begin(chunk.iter().map(|moved| moved.receipt));
            let args = queue.args().arg(&self.lane.consumer).arg(call);
            let args = chunk.iter().fold(args, |args, moved| moved.push_to(args));
            let keys = [&queue.delayed, &queue.dead, &calls.answer];
            let reply = queue.eval(&self.connection, &SETTLE, &keys, args).await?;
            calls.end(reply.as_count()?);
            rest = after;
        }
        Ok(())
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
        let mut calls = self.calls.lock().await;
        let [ack_calls, move_calls] = &mut *calls;
        // Of a batch that is repeated, what its first try has done.
        let (acked, moved) = (ack_calls.answered_before(), move_calls.answered_before());
        let mut acks = Vec::with_capacity(batch.len());
        let mut moves = Vec::new();
        for settlement in batch {
            let receipt = settlement.receipt();
            if acked.contains(&receipt) || moved.contains(&receipt) {
                continue;
            }
            match Move::of(settlement) {
                Some(moved) => moves.push(moved),
                None => acks.push(receipt),
            }
        }
        let place = |receipt: &Receipt| entry_of(*receipt).0;
        if !acks.is_sorted_by_key(place) {
            acks.sort_unstable_by_key(place);
        }
        // To their end, both of them: what the one has done is known to a repeat, whatever becomes of the other.
        let (acked, moved) = join(
            self.ack(ack_calls, &acks),
            self.move_all(move_calls, &moves),
        )
        .await;
        acked
            .and(moved)
            .map_err(self.lane.queue.failed("settle messages"))?;
        let receipts = || batch.iter().map(Settlement::receipt);
        let stale = ack_calls.settled(receipts()) + move_calls.settled(receipts());
        drop(calls);
        self.done_with(receipts());
        Ok(Settled::stale(stale))
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
    receipt: Receipt,
    argument: Bytes,
    member: Bytes,
}

impl Move {
    /// `None` for what is only acknowledged.
    fn of(settlement: &Settlement) -> Option<Self> {
        let moved = |operation, delivery: &Delivery, argument| Self {
            operation,
            receipt: delivery.receipt,
            argument,
            member: entry::member(delivery),
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
        let (place, id) = entry_of(self.receipt);
        args.arg(self.operation)
            .arg(place as usize + 1)
            .arg(id_text(id))
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
