//! What one consumer holds: its claims, and which of their messages are not settled yet.
//!
//! The source opens a claim, the settler closes it. The book is kept here as well as in Redis so that the settle which covers
//! the last of a claim is known as such: it deletes the claim whole, and names no message.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytestring::ByteString;
use pythia_core::Receipt;
use pythia_core::settlement::Settlement;

use super::MAX_BATCH;
use crate::keys::Keys;

/// A consumer: one source and its settler.
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) consumer: ByteString,
    /// The key of the hash that holds, in Redis, how much is left of each claim.
    pub(super) held: ByteString,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    open: HashMap<u64, Claim>,
    /// The last claim that brought messages.
    newest: u64,
}

#[derive(Clone, Debug)]
struct Claim {
    settled: Slots,
    left: u32,
    /// A settle of some of it got no answer: it may have been carried out.
    doubtful: bool,
}

/// What one settle does to one claim.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) claim: u64,
    pub(super) acks: Vec<u32>,
    /// All but acks, with their slots.
    pub(super) moves: Vec<(u32, &'a Settlement)>,
    pub(super) form: Form,
    settled: Slots,
    left: u32,
}

/// How Redis is told of a part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// Some of it may be settled already: look at each message.
    Care,
    /// Others of the claim are left.
    Part,
    /// Nothing is left after it.
    Rest,
}

/// A set of slots of one claim.
#[derive(Clone, Copy, Debug, Default)]
struct Slots([u64; MAX_BATCH.div_ceil(64)]);

impl Claims {
    pub(super) fn new(keys: &Keys, consumer: ByteString) -> Self {
        Self {
            held: keys.key(format_args!("held:{consumer}")),
            consumer,
            book: Mutex::default(),
        }
    }

    /// The key of a claim's messages.
    pub(super) fn batch(&self, keys: &Keys, claim: u64) -> ByteString {
        keys.key(format_args!("batch:{}:{claim}", self.consumer))
    }

    /// What the keys of all its claims begin with.
    pub(super) fn batches(&self, keys: &Keys) -> ByteString {
        keys.key(format_args!("batch:{}:", self.consumer))
    }

    /// The claims of which something is left to settle, and the last one that was given: of all others up to that one,
    /// Redis has nothing any more, unless it has forgotten a settle.
    pub(super) fn in_hand(&self) -> (Vec<u64>, u64) {
        let book = self.lock();
        (book.open.keys().copied().collect(), book.newest)
    }

    /// Notes that a claim of so many messages is in hand.
    pub(super) fn open(&self, claim: u64, len: usize) {
        let claimed = Claim {
            settled: Slots::default(),
            left: len as u32,
            doubtful: false,
        };
        let mut book = self.lock();
        book.open.insert(claim, claimed);
        book.newest = claim;
    }

    /// Sorts a batch by claim, the newest first and in each the newest message first: what is handed back goes before the
    /// head in this order. Leaves out what was settled before, as the rest of a batch that is repeated.
    pub(super) fn parts<'a>(&self, batch: &'a [Settlement]) -> Vec<Part<'a>> {
        let book = self.lock();
        let mut parts: Vec<Part<'a>> = Vec::new();
        let mut at = 0;
        for settlement in batch {
            let (number, slot) = place(settlement.receipt());
            // Neighbours are mostly of one claim.
            if parts.get(at).is_none_or(|part| part.claim != number) {
                at = match parts.iter().position(|part| part.claim == number) {
                    Some(at) => at,
                    None => {
                        let Some(claim) = book.open.get(&number) else {
                            continue;
                        };
                        parts.push(Part::new(number, claim));
                        parts.len() - 1
                    }
                };
            }
            parts[at].add(slot, settlement);
        }
        drop(book);
        parts.retain(|part| part.len() > 0);
        for part in &mut parts {
            if part.left == 0 {
                part.form = Form::Rest;
            }
            part.moves
                .sort_unstable_by_key(|&(slot, _)| std::cmp::Reverse(slot));
        }
        parts.sort_unstable_by_key(|part| std::cmp::Reverse(part.claim));
        parts
    }

    /// Notes that Redis has carried out a part. `certain`: no earlier call about it is left without an answer.
    pub(super) fn close(&self, part: &Part<'_>, certain: bool) {
        let mut book = self.lock();
        let Some(claim) = book.open.get_mut(&part.claim) else {
            return;
        };
        claim.settled = claim.settled.and(&part.settled);
        claim.left = claim.left.saturating_sub(part.len() as u32);
        claim.doubtful = !certain && part.form == Form::Care;
        if claim.left == 0 {
            book.open.remove(&part.claim);
        }
    }

    /// Notes that a call about a part is under way: until it is answered, nobody knows whether Redis has carried it out.
    pub(super) fn doubt(&self, part: &Part<'_>) {
        if let Some(claim) = self.lock().open.get_mut(&part.claim) {
            claim.doubtful = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Part<'a> {
    fn new(number: u64, claim: &Claim) -> Self {
        Self {
            claim: number,
            acks: Vec::new(),
            moves: Vec::new(),
            form: if claim.doubtful {
                Form::Care
            } else {
                Form::Part
            },
            settled: claim.settled,
            left: claim.left,
        }
    }

    /// How many messages it settles.
    pub(super) fn len(&self) -> usize {
        self.acks.len() + self.moves.len()
    }

    /// Their receipts.
    pub(super) fn receipts(&self) -> impl Iterator<Item = Receipt> {
        let moves = self.moves.iter().map(|&(slot, _)| slot);
        let slots = self.acks.iter().copied().chain(moves);
        slots.map(|slot| receipt(self.claim, slot as usize))
    }

    fn add(&mut self, slot: u32, settlement: &'a Settlement) {
        // Settled twice, a message would count for two: the last of its claim would seem to be settled, and be lost.
        if !self.settled.insert(slot) {
            return;
        }
        self.left = self.left.saturating_sub(1);
        match settlement {
            Settlement::Ack(_) => self.acks.push(slot),
            _ => self.moves.push((slot, settlement)),
        }
    }
}

impl Form {
    /// Its name in the script.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Care => "care",
            Self::Part => "part",
            Self::Rest => "rest",
        }
    }
}

impl Slots {
    /// Answers whether it was not there before; what no claim can hold is taken as there.
    fn insert(&mut self, slot: u32) -> bool {
        let Some(word) = self.0.get_mut(slot as usize / 64) else {
            return false;
        };
        let bit = 1 << (slot % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    fn and(mut self, other: &Self) -> Self {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
        self
    }
}

/// Where a message is settled: its claim, and its slot there.
pub(super) fn receipt(claim: u64, slot: usize) -> Receipt {
    Receipt(u128::from(claim) << 32 | slot as u128)
}

/// What [`receipt`] was made of.
pub(super) fn place(receipt: Receipt) -> (u64, u32) {
    ((receipt.0 >> 32) as u64, receipt.0 as u32)
}

#[cfg(test)]
mod tests {
    use pythia_core::settlement::Disposition;
    use pythia_core::{Delivery, QueueName};

    use super::*;
    use crate::config::KeyPrefix;

    fn claims() -> Claims {
        let queue = QueueName::new("q").unwrap();
        Claims::new(&Keys::new(&KeyPrefix::default(), &queue), "c".into())
    }

    fn ack(claim: u64, slot: usize) -> Settlement {
        Settlement::Ack(receipt(claim, slot))
    }

    fn release(claim: u64, slot: usize) -> Settlement {
        let delivery = Delivery::new("id", "x", receipt(claim, slot));
        Settlement::new(delivery, Disposition::Release)
    }

    #[test]
    fn the_part_that_covers_what_is_left_is_the_rest() {
        let claims = claims();
        claims.open(7, 3);
        let first = [ack(7, 0)];
        let parts = claims.parts(&first);
        assert_eq!((parts[0].form, parts[0].len()), (Form::Part, 1));
        claims.close(&parts[0], false);
        let rest = [ack(7, 2), release(7, 1)];
        let parts = claims.parts(&rest);
        assert_eq!((parts[0].form, parts[0].len()), (Form::Rest, 2));
        claims.close(&parts[0], false);
        assert!(claims.parts(&rest).is_empty());
    }

    #[test]
    fn what_is_settled_twice_counts_once() {
        let claims = claims();
        claims.open(1, 2);
        let twice = [ack(1, 0), ack(1, 0)];
        let parts = claims.parts(&twice);
        assert_eq!((parts[0].form, parts[0].len()), (Form::Part, 1));
        claims.close(&parts[0], false);
        assert!(claims.parts(&twice).is_empty());
        assert!(claims.parts(&[ack(1, 5_000)]).is_empty());
    }

    #[test]
    fn what_is_handed_back_goes_newest_first() {
        let claims = claims();
        claims.open(1, 2);
        claims.open(2, 2);
        let batch = [release(1, 0), release(2, 1), release(2, 0), release(1, 1)];
        let order: Vec<_> = claims
            .parts(&batch)
            .iter()
            .flat_map(Part::receipts)
            .map(place)
            .collect();
        assert_eq!(order, [(2, 1), (2, 0), (1, 1), (1, 0)]);
    }

    #[test]
    fn after_a_settle_without_an_answer_each_message_is_looked_at() {
        let claims = claims();
        claims.open(1, 4);
        let (first, second) = ([ack(1, 0)], [ack(1, 1)]);
        claims
            .parts(&first)
            .iter()
            .for_each(|part| claims.doubt(part));
        let parts = claims.parts(&second);
        assert_eq!(parts[0].form, Form::Care);
        claims.close(&parts[0], false);
        let parts = claims.parts(&first);
        assert_eq!(parts[0].form, Form::Care);
        claims.close(&parts[0], true);
        assert_eq!(claims.parts(&[ack(1, 2)])[0].form, Form::Part);
    }
}
