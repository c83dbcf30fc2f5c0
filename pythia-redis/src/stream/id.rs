//! Where an entry lies: which of a group's three streams, and under which id. A [`Receipt`] holds both.

use std::fmt;
use std::str::FromStr;

use bytes::{BufMut, Bytes, BytesMut};
use pythia_core::Receipt;

use crate::connection::Args;

/// A stream that a group reads; its number is the index of its key in the scripts.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Place {
    /// The queue's own stream, which every group reads.
    Stream,
    /// The group's messages that are tried again.
    Retry,
    /// The group's messages that were held in two crashes or more.
    Suspect,
}

/// The id of an entry.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct EntryId {
    pub(super) ms: u64,
    pub(super) seq: u64,
}

impl Place {
    pub(super) const ALL: [Self; 3] = [Self::Stream, Self::Retry, Self::Suspect];
}

impl EntryId {
    /// Reads `ms-seq`.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let dash = text.iter().position(|&byte| byte == b'-')?;
        Some(Self {
            ms: decimal(&text[..dash])?,
            seq: decimal(&text[dash + 1..])?,
        })
    }

    fn write(self, out: &mut BytesMut) {
        put_decimal(out, self.ms);
        out.put_u8(b'-');
        put_decimal(out, self.seq);
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for EntryId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::parse(text.as_bytes()).ok_or(())
    }
}

/// The receipt of an entry. `None` for an id of 2^63 or more that somebody chose in the queue's stream: the place has no
/// room beside it.
pub(super) fn receipt(place: Place, id: EntryId) -> Option<Receipt> {
    let place = match place {
        Place::Stream => 0,
        Place::Retry => PRIVATE,
        Place::Suspect => PRIVATE | SUSPECT,
    };
    // The ids of the private streams are given by the server's clock, and small for the next hundred million years.
    let room = if place == 0 { PRIVATE } else { SUSPECT };
    (id.ms < room).then(|| Receipt(u128::from(id.ms | place) << 64 | u128::from(id.seq)))
}

/// What a receipt stands for.
pub(super) fn entry_of(Receipt(receipt): Receipt) -> (Place, EntryId) {
    let (ms, seq) = ((receipt >> 64) as u64, receipt as u64);
    match (ms & PRIVATE, ms & SUSPECT) {
        (0, _) => (Place::Stream, EntryId { ms, seq }),
        (_, 0) => (
            Place::Retry,
            EntryId {
                ms: ms & !PRIVATE,
                seq,
            },
        ),
        _ => (
            Place::Suspect,
            EntryId {
                ms: ms & !(PRIVATE | SUSPECT),
                seq,
            },
        ),
    }
}

/// Adds how many of these there are in each place, and then their ids. They are sorted by place.
pub(super) fn push_entries(args: &mut Args, entries: &[(Place, EntryId)]) {
    debug_assert!(entries.is_sorted_by_key(|(place, _)| place));
    args.reserve(Place::ALL.len() + entries.len());
    for place in Place::ALL {
        args.push(entries.iter().filter(|(at, _)| *at == place).count());
    }
    // One allocation for all ids.
    let mut text = BytesMut::with_capacity(entries.len() * LONGEST_ID);
    for (_, id) in entries {
        id.write(&mut text);
        args.push(text.split().freeze());
    }
}

/// An id as an argument.
pub(super) fn id_text(id: EntryId) -> Bytes {
    let mut text = BytesMut::with_capacity(LONGEST_ID);
    id.write(&mut text);
    text.freeze()
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.wrapping_sub(b'0');
        (digit < 10).then_some(())?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

fn put_decimal(out: &mut BytesMut, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

const PRIVATE: u64 = 1 << 63;
const SUSPECT: u64 = 1 << 62;
/// Two numbers of 64 bits and a dash.
const LONGEST_ID: usize = 41;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_receipt_keeps_place_and_id(ms in 0..1u64 << 62, seq: u64, place in 0usize..3) {
            let (place, id) = (Place::ALL[place], EntryId { ms, seq });
            prop_assert_eq!(entry_of(receipt(place, id).unwrap()), (place, id));
        }

        #[test]
        fn an_id_reads_as_it_is_written(ms: u64, seq: u64) {
            let id = EntryId { ms, seq };
            prop_assert_eq!(id_text(id), Bytes::from(id.to_string()));
            prop_assert_eq!(EntryId::parse(&id_text(id)), Some(id));
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for bad in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "1-x",
            "18446744073709551616-0",
            "1--1",
            " 1-1",
        ] {
            assert_eq!(EntryId::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn large_ids_that_people_choose_have_a_receipt() {
        let id = |ms| EntryId { ms, seq: u64::MAX };
        for ms in [0, 1 << 62, (1 << 63) - 1] {
            let receipt = receipt(Place::Stream, id(ms)).unwrap();
            assert_eq!(entry_of(receipt), (Place::Stream, id(ms)));
        }
        assert_eq!(receipt(Place::Stream, id(1 << 63)), None);
        assert_eq!(receipt(Place::Suspect, id(1 << 62)), None);
    }
}
