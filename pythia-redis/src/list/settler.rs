//! Where a lane's dispositions go, at least once.
//!
//! One call to Redis at a time, each with a number. A call that got no answer may have been carried out; the runtime repeats
//! it, the connection does so too, and under its number Redis answers what it answered the first time. So a repeat of our own
//! settle is not taken for a message that was lost to somebody else.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use pythia_core::broker::{Settled, Settler};
use pythia_core::envelope::Frame;
use pythia_core::settlement::Settlement;
use pythia_core::{BrokerError, BrokerErrorKind, Delivery, Receipt};

use super::claims::{Claims, Form, Part, place};
use super::{MAX_BYTES, Queue};
use crate::connection::{Args, Connection, Redis};
use crate::dead_letter::letter;
use crate::delay::{Names, millis};
use crate::script::Script;

/// Settles what one source has claimed.
#[derive(Debug)]
pub(super) struct ListSettler {
    queue: Arc<Queue>,
    claims: Arc<Claims>,
    names: Arc<Names>,
    connection: Connection,
    /// Renewals, so that a large settle does not hold them up.
    pool: Connection,
    lease_ms: u64,
    calls: tokio::sync::Mutex<Calls>,
}

/// The calls so far.
#[derive(Debug, Default)]
struct Calls {
    last: u64,
    /// What the last one was about, if it got no answer.
    unanswered: Vec<Receipt>,
    /// Stale messages of a batch whose later part failed: its repeat does not find them again.
    stale: u64,
}

impl ListSettler {
    pub(super) fn new(
        redis: &Redis,
        connection: Connection,
        queue: Arc<Queue>,
        claims: Arc<Claims>,
        names: Arc<Names>,
    ) -> Self {
        Self {
            queue,
            claims,
            names,
            connection,
            pool: redis.pool().clone(),
            lease_ms: millis(redis.config().lease),
            calls: tokio::sync::Mutex::default(),
        }
    }

    /// Carries out some parts in one call; answers how many messages were stale.
    async fn call(&self, calls: &mut Calls, parts: &[Part<'_>]) -> Result<u64, BrokerError> {
        let receipts = || parts.iter().flat_map(Part::receipts);
        let repeated =
            !calls.unanswered.is_empty() && calls.unanswered.iter().copied().eq(receipts());
        if !repeated {
            calls.last += 1;
        }
        let queue = &self.queue;
        let batches: Vec<_> = parts
            .iter()
            .map(|part| self.claims.batch(&queue.keys, part.claim))
            .collect();
        let keys = &queue.keys;
        let mut all_keys = vec![
            &self.claims.held,
            &keys.ready,
            &keys.delayed,
            &keys.dead,
            &keys.control,
        ];
        all_keys.extend(&batches);
        let args = self.args(calls.last, parts)?;
        // Before the call, because the caller may give it up.
        calls.unanswered = receipts().collect();
        parts.iter().for_each(|part| self.claims.doubt(part));
        let reply = self.connection.eval(&SETTLE, &all_keys, args).await;
        let stale = reply
            .and_then(|stale| stale.as_count())
            .map_err(|error| error.during("settle messages", &queue.name))?;
        calls.unanswered.clear();
        parts
            .iter()
            .for_each(|part| self.claims.close(part, repeated));
        Ok(stale)
    }

    fn args(&self, call: u64, parts: &[Part<'_>]) -> Result<Args, BrokerError> {
        let moves: usize = parts.iter().map(|part| part.moves.len()).sum();
        // The parts go from new to old, and names in their order: those that are due together stay in line.
        let mut names = self.names.mint(moves);
        let mut args = Args::with_capacity(2 + 5 * parts.len() + 5 * moves)
            .arg(call)
            .arg(moves);
        for part in parts {
            args.push(part.claim);
            args.push(part.len());
            args.push(part.form.name());
            let acks: &[u32] = match part.form {
                Form::Rest => &[],
                Form::Care | Form::Part => &part.acks,
            };
            args.push(acks.len());
            args = args.args(acks.iter().copied()).arg(part.moves.len());
            for &(slot, settlement) in &part.moves {
                let name = names.pop().unwrap_or_default();
                args.push(slot);
                match settlement {
                    Settlement::DeadLetter { delivery, reason } => {
                        let from = format!("{}/{}/{slot}", self.claims.consumer, part.claim);
                        let letter = letter(self.frame(delivery)?, reason, from);
                        args = args.arg("dead").arg("").arg("").arg(letter);
                    }
                    Settlement::Retry { delivery, after } => {
                        let (wait, frame) = (millis(*after), self.frame(delivery)?);
                        args = args.arg("retry").arg(wait).arg(name).arg(frame);
                    }
                    // `parts` counts acks apart; of a release Redis still has the bytes.
                    _ => args = args.arg("release").arg("").arg("").arg(""),
                }
            }
        }
        Ok(args)
    }

    fn frame(&self, delivery: &Delivery) -> Result<Bytes, BrokerError> {
        let frame = Frame::of(delivery).ok_or_else(|| {
            BrokerError::new(BrokerErrorKind::Unsupported, "settle messages")
                .queue(&self.queue.name)
                .because("a list holds bytes, and this message was given fields")
        })?;
        Ok(frame.encode())
    }
}

#[async_trait]
impl Settler for ListSettler {
    async fn settle(&self, batch: &[Settlement]) -> Result<Settled, BrokerError> {
        let mut calls = self.calls.lock().await;
        let parts = self.claims.parts(batch);
        for parts in bounded(&parts) {
            let stale = self.call(&mut calls, parts).await?;
            calls.stale += stale;
        }
        Ok(Settled::stale(std::mem::take(&mut calls.stale)))
    }

    async fn extend(&self, in_flight: &[Receipt]) -> Result<Vec<Receipt>, BrokerError> {
        let (open, newest) = self.claims.in_hand();
        let keys = &self.queue.keys;
        let args = Args::with_capacity(4 + open.len())
            .arg(&self.claims.consumer)
            .arg(self.lease_ms)
            .arg(self.claims.batches(keys))
            .arg(newest)
            .args(open);
        let keys = [&keys.ready, &keys.consumers, &self.claims.held];
        let lost = self.pool.eval(&HEARTBEAT, &keys, args).await;
        let lost: Result<Vec<u64>, _> = lost.and_then(|lost| {
            lost.into_array()?
                .iter()
                .map(|claim| claim.as_count())
                .collect()
        });
        let mut lost = lost.map_err(|error| error.during("renew leases", &self.queue.name))?;
        lost.sort_unstable();
        let is_lost = |receipt: &&Receipt| lost.binary_search(&place(**receipt).0).is_ok();
        Ok(in_flight.iter().filter(is_lost).copied().collect())
    }
}

/// Cuts the parts into calls that keep Redis busy for a bounded time.
fn bounded<'p, 'a>(mut parts: &'p [Part<'a>]) -> impl Iterator<Item = &'p [Part<'a>]> {
    std::iter::from_fn(move || {
        let mut room = MAX_COST;
        let len = parts
            .iter()
            .take_while(|part| {
                let fits = room > 0;
                room = room.saturating_sub(cost(part));
                fits
            })
            .count();
        let (now, later) = parts.split_at(len);
        parts = later;
        (!now.is_empty()).then_some(now)
    })
}

/// About how many messages' worth of work a part is: large ones count for several, and acks of a rest for none.
fn cost(part: &Part<'_>) -> u64 {
    let moved = |&(_, settlement): &(u32, &Settlement)| match settlement {
        Settlement::DeadLetter { delivery, .. } | Settlement::Retry { delivery, .. } => {
            1 + delivery.payload.len() as u64 / (MAX_BYTES / MAX_COST)
        }
        _ => 1,
    };
    let acks = match part.form {
        Form::Rest => 0,
        Form::Care | Form::Part => part.acks.len() as u64,
    };
    1 + acks + part.moves.iter().map(moved).sum::<u64>()
}

static SETTLE: Script = Script::new(
    "list/settle",
    concat!(
        include_str!("../scripts/list/time.lua"),
        include_str!("../scripts/list/frame.lua"),
        include_str!("../scripts/list/settle.lua")
    ),
);
static HEARTBEAT: Script = Script::new(
    "list/heartbeat",
    concat!(
        include_str!("../scripts/list/time.lua"),
        include_str!("../scripts/list/frame.lua"),
        include_str!("../scripts/list/hand_back.lua"),
        include_str!("../scripts/list/heartbeat.lua")
    ),
);

/// Messages that one settle script touches one by one, at most one claim more.
const MAX_COST: u64 = 2_000;
