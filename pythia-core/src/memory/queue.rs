//! One queue: where each of its messages is, and every move between these places. No clock, no lock and no waiting in
//! here: times come in as distances from the start of the broker's clock.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, SystemTime};

use super::Incoming;
use super::dedupe::SeenKeys;
use crate::admin::{DeadLetter, Depth, Page, Purge};
use crate::broker::{Maintained, Published};
use crate::message::{Delivery, MessageId, Receipt};
use crate::settlement::{DeadKind, DeadReason, Settlement};

/// The messages of one queue. Each is in exactly one of `ready`, `delayed`, `dead` and a claim.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The next one to hand out is in front.
    ready: VecDeque<Entry>,
    /// By due time; the number keeps the order of those that are due together.
    delayed: BTreeMap<(Duration, u64), Delivery>,
    /// The oldest letter is in front.
    dead: VecDeque<DeadLetter>,
    /// What was handed out and is not settled, by claim number. Its existence is the fence: recovery takes entries out,
    /// and whoever comes to settle them later finds them gone.
    claims: BTreeMap<u64, Claim>,
    /// Of the sources that hold claims, and of no others.
    leases: HashMap<u64, Lease>,
    seen: SeenKeys,
    last_number: u64,
    /// When upkeep last ran.
    maintained: Option<Duration>,
    /// How many sources wait for a message.
    pub(super) waiting: usize,
}

/// A message that is ready or handed out.
#[derive(Debug)]
struct Entry {
    delivery: Delivery,
    /// When it became ready for the first time since it was last delayed.
    ready_since: Duration,
}

/// What one `receive` handed out.
#[derive(Debug)]
struct Claim {
    holder: u64,
    /// In the order of the queue; `None` once settled.
    slots: Vec<Option<Entry>>,
    unsettled: usize,
}

/// How long a source may still be silent.
#[derive(Debug)]
struct Lease {
    expires: Duration,
    claims: usize,
    /// It expired while no upkeep ran, and was given half a lease to renew. Given once in a silence, so that rare
    /// upkeep can't keep a dead source's messages for ever.
    pardoned: bool,
}

impl Queue {
    /// Takes a message in, or holds it back until `due`, unless its dedupe key was seen within the window.
    pub(super) fn publish(
        &mut self,
        incoming: Incoming,
        now: Duration,
        due: Duration,
        window: Duration,
    ) -> Published {
        if incoming
            .dedupe_key
            .is_some_and(|key| !self.seen.insert(&key, now, window))
        {
            return Published::Deduplicated;
        }
        let published = Published::Published(incoming.delivery.id.clone());
        if due <= now {
            self.ready.push_back(Entry {
                delivery: incoming.delivery,
                ready_since: now,
            });
        } else {
            self.delay(incoming.delivery, due);
        }
        published
    }

    /// How many are ready.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// When the first delayed message is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.delayed.first_key_value().map(|(&(due, _), _)| due)
    }

    /// Whether someone who waits should be woken.
    pub(super) fn has_work_for_waiting(&self) -> bool {
        self.waiting > 0 && !self.ready.is_empty()
    }

    /// Makes up to `budget` due messages ready; answers how many.
    pub(super) fn promote(&mut self, now: Duration, budget: usize) -> usize {
        let mut promoted = 0;
        while promoted < budget
            && let Some(first) = self.delayed.first_entry()
            && first.key().0 <= now
        {
            let ((due, _), delivery) = first.remove_entry();
            self.ready.push_back(Entry {
                delivery,
                ready_since: due,
            });
            promoted += 1;
        }
        promoted
    }

    /// Hands up to `max` messages to a source and starts or renews its lease; answers how many.
    ///
    /// A short queue is shared with the sources that wait; a long one goes in full batches. A suspect goes alone.
    pub(super) fn claim(
        &mut self,
        holder: u64,
        max: usize,
        now: Duration,
        lease: Duration,
        into: &mut Vec<Delivery>,
    ) -> usize {
        let max = max.min(self.ready.len().div_ceil(1 + self.waiting));
        if max == 0 {
            return 0;
        }
        let number = self.next_number();
        let mut slots = Vec::with_capacity(max);
        while slots.len() < max
            && let Some(entry) = self.ready.pop_front()
        {
            let suspect = entry.delivery.crashes >= SUSPECT_CRASHES;
            if suspect && !slots.is_empty() {
                self.ready.push_front(entry);
                break;
            }
            let mut delivery = entry.delivery.clone();
            delivery.alone = suspect;
            delivery.receipt = receipt(number, slots.len());
            into.push(delivery);
            slots.push(Some(entry));
            if suspect {
                break;
            }
        }
        let unsettled = slots.len();
        self.claims.insert(
            number,
            Claim {
                holder,
                slots,
                unsettled,
            },
        );
        let held = self.leases.entry(holder).or_insert(Lease {
            expires: now,
            claims: 0,
            pardoned: false,
        });
        held.claims += 1;
        held.renew(now, lease);
        unsettled
    }

    /// Carries out dispositions; answers how many were stale.
    pub(super) fn settle(&mut self, batch: &[Settlement], now: Duration, wall: SystemTime) -> u64 {
        let mut stale = 0;
        let mut released = Vec::new();
        for settlement in batch {
            let receipt = settlement.receipt();
            let Some(entry) = self.take(receipt) else {
                stale += 1;
                continue;
            };
            match settlement {
                Settlement::Ack(_) => {}
                Settlement::DeadLetter { delivery, reason } => {
                    self.bury((**delivery).clone(), reason.clone(), wall);
                }
                Settlement::Release(_) => released.push((receipt, entry)),
                Settlement::Retry { delivery, after } => {
                    self.delay((**delivery).clone(), now.saturating_add(*after));
                }
            }
        }
        // Receipts grow in the order of the queue, so the head gets them back as they stood there.
        released.sort_unstable_by_key(|(receipt, _)| *receipt);
        for (_, entry) in released.into_iter().rev() {
            self.ready.push_front(entry);
        }
        stale
    }

    /// Renews a source's lease, if it holds anything; answers which of the receipts are no longer its own.
    pub(super) fn extend(
        &mut self,
        holder: u64,
        in_flight: &[Receipt],
        now: Duration,
        lease: Duration,
    ) -> Vec<Receipt> {
        if let Some(held) = self.leases.get_mut(&holder) {
            held.renew(now, lease);
        }
        let lost = |receipt: &&Receipt| {
            let (number, slot) = place(**receipt);
            self.claims
                .get(&number)
                .and_then(|claim| claim.slots.get(slot))
                .is_none_or(Option::is_none)
        };
        in_flight.iter().filter(lost).copied().collect()
    }

    /// One round of upkeep of at most `budget` moves each way.
    pub(super) fn maintain(
        &mut self,
        now: Duration,
        wall: SystemTime,
        lease: Duration,
        max_attempts: u32,
        budget: usize,
    ) -> Maintained {
        let mut round = Maintained {
            promoted: self.promote(now, budget) as u64,
            // Sources see to due messages themselves, so that leaves the dead, who are not missed before.
            quiet_for: Some(lease / 4),
            ..Maintained::default()
        };
        self.pardon_after_outage(now, lease);
        // The newest claim first, and its newest message first: pushed to the head one by one, they stand there in
        // their old order.
        let mut left = budget;
        while left > 0
            && let Some(number) = self.newest_abandoned(now)
            && let Some(claim) = self.claims.get(&number)
        {
            let Some(slot) = claim.slots.iter().rposition(Option::is_some) else {
                unreachable!("a claim goes with its last unsettled message");
            };
            if let Some(entry) = self.take(receipt(number, slot)) {
                left -= 1;
                self.recover(entry, max_attempts, wall, &mut round);
            }
        }
        round.more =
            self.newest_abandoned(now).is_some() || self.next_due().is_some_and(|due| due <= now);
        round
    }

    pub(super) fn depth(&self, now: Duration) -> Depth {
        let pending: usize = self.claims.values().map(|claim| claim.unsettled).sum();
        Depth {
            ready: Some(self.ready.len() as u64),
            pending: Some(pending as u64),
            delayed: Some(self.delayed.len() as u64),
            dead: Some(self.dead.len() as u64),
            // There are no groups that could lag.
            lag: None,
            oldest: self
                .ready
                .front()
                .map(|entry| now.saturating_sub(entry.ready_since)),
        }
    }

    /// Delayed messages with their due times, the next first.
    pub(super) fn delayed(&self, page: Page) -> impl Iterator<Item = (Duration, &Delivery)> {
        self.delayed
            .iter()
            .skip(page.offset)
            .take(page.limit)
            .map(|(&(due, _), delivery)| (due, delivery))
    }

    /// Dead letters, the newest first.
    pub(super) fn dead(&self, page: Page) -> impl Iterator<Item = &DeadLetter> {
        self.dead.iter().rev().skip(page.offset).take(page.limit)
    }

    /// Makes dead letters ready again: those with these ids, or the oldest `limit`.
    pub(super) fn requeue(
        &mut self,
        ids: Option<&[MessageId]>,
        limit: usize,
        now: Duration,
    ) -> u64 {
        let limit = if ids.is_some() { usize::MAX } else { limit };
        let ids: Option<HashSet<&MessageId>> = ids.map(|ids| ids.iter().collect());
        let mut requeued = 0;
        for letter in std::mem::take(&mut self.dead) {
            let chosen = ids
                .as_ref()
                .is_none_or(|ids| ids.contains(&letter.delivery.id));
            if chosen && requeued < limit {
                requeued += 1;
                let mut delivery = letter.delivery;
                (delivery.failures, delivery.crashes) = (0, 0);
                self.ready.push_back(Entry {
                    delivery,
                    ready_since: now,
                });
            } else {
                self.dead.push_back(letter);
            }
        }
        requeued as u64
    }

    pub(super) fn purge(&mut self, state: Purge) -> u64 {
        let purged = match state {
            Purge::Dead => std::mem::take(&mut self.dead).len(),
            Purge::Delayed => std::mem::take(&mut self.delayed).len(),
            Purge::Ready => std::mem::take(&mut self.ready).len(),
        };
        purged as u64
    }

    /// Takes a message out of its claim, and the claim away with its last one.
    fn take(&mut self, receipt: Receipt) -> Option<Entry> {
        let (number, slot) = place(receipt);
        let claim = self.claims.get_mut(&number)?;
        let entry = claim.slots.get_mut(slot)?.take()?;
        claim.unsettled -= 1;
        if claim.unsettled == 0 {
            let holder = claim.holder;
            self.claims.remove(&number);
            if let Some(held) = self.leases.get_mut(&holder) {
                held.claims -= 1;
                if held.claims == 0 {
                    self.leases.remove(&holder);
                }
            }
        }
        Some(entry)
    }

    /// If nobody has looked after the queue for more than half a lease, owners first get half a lease to renew: they may
    /// have been unable to.
    fn pardon_after_outage(&mut self, now: Duration, lease: Duration) {
        let away = self
            .maintained
            .replace(now)
            .is_none_or(|last| now.saturating_sub(last) > lease / 2);
        let until = now.saturating_add(lease / 2);
        if away {
            for held in self.leases.values_mut() {
                if !held.pardoned && held.expires < until {
                    held.expires = until;
                    held.pardoned = true;
                }
            }
        }
    }

    fn newest_abandoned(&self, now: Duration) -> Option<u64> {
        let abandoned = |claim: &Claim| {
            self.leases
                .get(&claim.holder)
                .is_none_or(|held| held.expires <= now)
        };
        self.claims
            .iter()
            .rev()
            .find(|(_, claim)| abandoned(claim))
            .map(|(&number, _)| number)
    }

    fn recover(
        &mut self,
        mut entry: Entry,
        max_attempts: u32,
        wall: SystemTime,
        round: &mut Maintained,
    ) {
        entry.delivery.crashes += 1;
        let Delivery {
            crashes, failures, ..
        } = entry.delivery;
        if crashes.saturating_add(failures) < max_attempts {
            round.recovered += 1;
            self.ready.push_front(entry);
        } else {
            round.dead += 1;
            let reason = DeadReason {
                kind: DeadKind::Crashed,
                error: format!(
                    "its worker died or went silent for a lease {crashes} times, and failed {failures} times"
                ),
            };
            self.bury(entry.delivery, reason, wall);
        }
    }

    fn bury(&mut self, delivery: Delivery, reason: DeadReason, wall: SystemTime) {
        self.dead.push_back(DeadLetter {
            delivery,
            reason: Some(reason),
            died_at: Some(wall),
        });
    }

    fn delay(&mut self, delivery: Delivery, due: Duration) {
        let number = self.next_number();
        self.delayed.insert((due, number), delivery);
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

impl Lease {
    fn renew(&mut self, now: Duration, lease: Duration) {
        self.expires = now.saturating_add(lease);
        self.pardoned = false;
    }
}

/// Claim number and slot in one.
fn receipt(number: u64, slot: usize) -> Receipt {
    Receipt(u128::from(number) << 64 | slot as u128)
}

/// What [`receipt`] put together.
fn place(receipt: Receipt) -> (u64, usize) {
    ((receipt.0 >> 64) as u64, receipt.0 as u64 as usize)
}

/// From that many crashes on, a message is handed out alone.
const SUSPECT_CRASHES: u32 = 2;

#[cfg(test)]
mod tests;
