//! Bytes off a list as deliveries: our own frames, and whatever a plain client wrote.
//!
//! Nothing is copied: payloads, ids and headers are slices of the buffer that the reply was read into, and a batch's missing
//! ids are slices of another.

use std::fmt::Write;

use bytestring::ByteString;
use pythia_core::envelope::Frame;
use pythia_core::{Delivery, MessageId};

use super::claims::receipt;
use crate::connection::Reply;
use crate::error::RedisError;

/// Appends the messages of a claim; all of them, or, if one is no string, none.
pub(super) fn append(
    messages: Vec<Reply>,
    consumer: &str,
    claim: u64,
    into: &mut Vec<Delivery>,
) -> Result<(), RedisError> {
    let (count, before) = (messages.len(), into.len());
    into.reserve(count);
    let mut ids = None;
    for (slot, message) in messages.into_iter().enumerate() {
        let bytes = message
            .into_bytes()
            .inspect_err(|_| into.truncate(before))?;
        let mut id = || {
            ids.get_or_insert_with(|| Ids::new(consumer, claim, slot, count))
                .of(slot)
        };
        let receipt = receipt(claim, slot);
        if !Frame::is_framed(&bytes) {
            into.push(Delivery::new(id(), bytes, receipt));
            continue;
        }
        let frame = Frame::decode(bytes);
        let mut delivery = Delivery::new(frame.id.unwrap_or_else(id), frame.payload, receipt);
        delivery.alone = frame.crashes >= SUSPECT_CRASHES;
        delivery.headers = frame.headers;
        delivery.failures = frame.failures;
        delivery.crashes = frame.crashes;
        delivery.enqueued_at = frame.enqueued_at;
        into.push(delivery);
    }
    Ok(())
}

/// The ids of messages that have none of their own: `consumer/claim/slot`, as the recovery script writes them.
struct Ids {
    text: ByteString,
    prefix_len: usize,
    slot: usize,
    at: usize,
}

impl Ids {
    /// For the slots from `first` on.
    fn new(consumer: &str, claim: u64, first: usize, count: usize) -> Self {
        let prefix = format!("{consumer}/{claim}/");
        let mut text = String::with_capacity((count - first) * (prefix.len() + 3));
        for slot in first..count {
            text.push_str(&prefix);
            // Writing to a string does not fail.
            let _infallible = write!(text, "{slot}");
        }
        Self {
            text: text.into(),
            prefix_len: prefix.len(),
            slot: first,
            at: 0,
        }
    }

    /// The id of a slot; asked for in ascending order.
    fn of(&mut self, slot: usize) -> MessageId {
        loop {
            let id = self.at..self.at + self.prefix_len + digits(self.slot);
            let found = self.slot == slot;
            self.at = id.end;
            self.slot += 1;
            if found {
                return self.text.slice_ref(&self.text[id]).into();
            }
        }
    }
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// From so many crashes on the scripts hand a message out alone.
const SUSPECT_CRASHES: u32 = 2;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use pythia_core::Payload;

    use super::*;

    #[test]
    fn ids_are_slices_of_one_buffer() {
        let mut ids = Ids::new("c", 12, 3, 120);
        for slot in [3, 4, 9, 10, 11, 99, 100, 119] {
            assert_eq!(ids.of(slot).as_str(), format!("c/12/{slot}"));
        }
    }

    #[test]
    fn frames_say_who_they_are_and_other_bytes_are_named() {
        let mut frame = Frame::new("framed");
        frame.id = Some("own".into());
        frame.crashes = 2;
        let plain = Bytes::from_static(b"{}");
        let damaged = Bytes::from_static(b"\xF5PY1 broken");
        let messages = [plain.clone(), frame.encode(), damaged.clone()];
        let mut into = Vec::new();
        append(messages.map(Reply::bytes).into(), "c", 7, &mut into).unwrap();
        let seen: Vec<_> = into
            .iter()
            .map(|one| (one.id.as_str(), &one.payload, one.alone))
            .collect();
        let framed = Bytes::from_static(b"framed");
        assert_eq!(
            seen,
            [
                ("c/7/0", &Payload::Bytes(plain), false),
                ("own", &Payload::Bytes(framed), true),
                ("c/7/2", &Payload::Bytes(damaged), false)
            ]
        );
    }

    #[test]
    fn a_reply_of_another_form_appends_nothing() {
        let mut into = vec![Delivery::new("before", "x", receipt(1, 0))];
        let messages = vec![Reply::bytes("a"), Reply::integer(1)];
        assert!(append(messages, "c", 2, &mut into).is_err());
        assert_eq!(into.len(), 1);
    }
}
