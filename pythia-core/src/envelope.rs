//! The byte frame in which lists and pub/sub channels carry what has no place of its own there: the id, the headers and
//! the counters of a message.
//!
//! ```text
//! F5 'P' 'Y' '1' | crashes u8 | failures u8 | header length u32 | headers | payload
//! headers: repeated  key length u16 | key | value length u32 | value        (integers big-endian, text UTF-8)
//! ```
//! `F5` occurs in no UTF-8 text, so JSON that a plain client wrote is never mistaken for a frame. Bytes that do not begin
//! with the magic pass through raw. The two counters sit at fixed offsets because scripts on the server bump them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use crate::message::{Delivery, Headers, MessageId};

/// What a frame begins with.
pub const MAGIC: [u8; 4] = *b"\xF5PY1";
/// The header under which a frame carries the message's id.
pub const ID: &str = "pythia-id";
/// The header under which a frame carries when it was published: milliseconds since the Unix epoch, decimal.
pub const ENQUEUED_AT: &str = "pythia-at";

/// A message in pieces: what [`encode`](Self::encode) writes and [`decode`](Self::decode) reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// The message's id, if the frame names one.
    pub id: Option<MessageId>,
    /// When it was published, if the frame says so; to the millisecond.
    pub enqueued_at: Option<SystemTime>,
    /// The user's headers.
    pub headers: Headers,
    /// Crashes so far; saturates at 255.
    pub crashes: u32,
    /// Failures so far; saturates at 255.
    pub failures: u32,
    /// The body.
    pub payload: Bytes,
}

impl Frame {
    /// The frame of a delivery that goes back to a broker. `None` for fields, which have no frame.
    pub fn of(delivery: &Delivery) -> Option<Self> {
        Some(Self {
            id: Some(delivery.id.clone()),
            enqueued_at: delivery.enqueued_at,
            headers: delivery.headers.clone(),
            crashes: delivery.crashes,
            failures: delivery.failures,
            payload: delivery.payload.as_bytes()?.clone(),
        })
    }

    /// A frame around a body, with nothing known about it.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            ..Self::default()
        }
    }

    /// Whether these bytes are to be read as a frame. A body of the user's that happens to begin so has to be framed.
    pub fn is_framed(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// The frame as bytes, in one allocation.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode_into(&mut out);
        out.freeze()
    }

    /// The most bytes that [`encode_into`](Self::encode_into) appends.
    pub fn max_encoded_len(&self) -> usize {
        let id = self.id.as_ref().map(|id| header_len(ID, id.as_str().len()));
        let at = self
            .enqueued_at
            .map(|_| header_len(ENQUEUED_AT, MAX_DIGITS));
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| header_len(name, value.len()));
        let headers: usize = headers.chain(id).chain(at).sum();
        FIXED + headers + self.payload.len()
    }

    /// Appends the frame as bytes: those of many messages can share one allocation.
    pub fn encode_into(&self, out: &mut BytesMut) {
        let mut digits = itoa::Buffer::new();
        let own = [
            (ID, self.id.as_ref().map(MessageId::as_str)),
            (
                ENQUEUED_AT,
                self.enqueued_at.map(|at| digits.format(millis(at))),
            ),
        ];
        let own = || own.iter().filter_map(|&(name, value)| Some((name, value?)));
        let header_len: usize = own()
            .chain(self.headers.iter())
            .map(|(name, value)| header_len(name, value.len()))
            .sum();
        out.reserve(FIXED + header_len + self.payload.len());
        out.put_slice(&MAGIC);
        out.put_u8(self.crashes.min(255) as u8);
        out.put_u8(self.failures.min(255) as u8);
        out.put_u32(header_len as u32);
        for (name, value) in own().chain(self.headers.iter()) {
            out.put_u16(name.len() as u16);
            out.put_slice(name.as_bytes());
            out.put_u32(value.len() as u32);
            out.put_slice(value.as_bytes());
        }
        out.put_slice(&self.payload);
    }

    /// Reads bytes that came off a list or a channel: a frame, or anything else as a raw body. Shares the bytes.
    ///
    /// Bytes that begin like a frame but are damaged are also handed out raw: they fail to decode further on, and end
    /// among the dead letters with every byte intact.
    pub fn decode(bytes: Bytes) -> Self {
        Self::parse(&bytes).unwrap_or_else(|| Self::new(bytes))
    }

    fn parse(bytes: &Bytes) -> Option<Self> {
        if !Self::is_framed(bytes) || bytes.len() < FIXED {
            return None;
        }
        let header_len = u32::from_be_bytes(bytes[6..FIXED].try_into().ok()?) as usize;
        let body = FIXED
            .checked_add(header_len)
            .filter(|&body| body <= bytes.len())?;
        let mut frame = Self {
            crashes: bytes[4].into(),
            failures: bytes[5].into(),
            payload: bytes.slice(body..),
            ..Self::default()
        };
        let mut rest = bytes.slice(FIXED..body);
        while !rest.is_empty() {
            let name = take_text(&mut rest, 2)?;
            let value = take_text(&mut rest, 4)?;
            match &*name {
                ID => frame.id = Some(value.into()),
                ENQUEUED_AT => frame.enqueued_at = Some(from_millis(value.parse().ok()?)),
                _ => frame.headers.insert(name, value),
            }
        }
        Some(frame)
    }
}

/// The bytes of a header: two lengths, and what they are the lengths of.
fn header_len(name: &str, value_len: usize) -> usize {
    2 + name.len() + 4 + value_len
}

/// Takes one piece of text off the front, behind its length of `width` bytes.
fn take_text(rest: &mut Bytes, width: usize) -> Option<ByteString> {
    if rest.len() < width {
        return None;
    }
    let len = rest
        .split_to(width)
        .iter()
        .fold(0, |len, &byte| len << 8 | usize::from(byte));
    if rest.len() < len {
        return None;
    }
    ByteString::try_from(rest.split_to(len)).ok()
}

fn millis(at: SystemTime) -> u64 {
    let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    since_epoch.as_millis().try_into().unwrap_or(u64::MAX)
}

fn from_millis(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.min(MAX_MILLIS))
}

/// Of a 64-bit number.
const MAX_DIGITS: usize = 20;
/// Magic, two counters, header length.
const FIXED: usize = 10;
/// The year 9999: a wild number in a frame must not overflow the clock.
const MAX_MILLIS: u64 = 253_402_300_799_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arbitrary_frame() -> impl Strategy<Value = Frame> {
        let text = "[a-zA-Zäß0-9:-]{0,12}";
        (
            proptest::option::of("[!-~]{1,40}"),
            proptest::option::of(0..MAX_MILLIS),
            proptest::collection::vec((text, text), 0..4),
            0..=255u32,
            0..=255u32,
            proptest::collection::vec(any::<u8>(), 0..200),
        )
            .prop_map(|(id, at, headers, crashes, failures, payload)| Frame {
                id: id.map(MessageId::from),
                enqueued_at: at.map(from_millis),
                headers: headers.into_iter().collect(),
                crashes,
                failures,
                payload: payload.into(),
            })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(frame in arbitrary_frame()) {
            let bytes = frame.encode();
            prop_assert!(bytes.len() <= frame.max_encoded_len());
            prop_assert_eq!(Frame::decode(bytes), frame);
        }

        #[test]
        fn any_bytes_are_read_without_panic_and_without_loss(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let framed = [&MAGIC[..], &bytes].concat();
            for bytes in [bytes, framed] {
                let frame = Frame::decode(bytes.clone().into());
                if Frame::parse(&bytes.clone().into()).is_none() {
                    prop_assert_eq!(frame.payload, bytes);
                }
            }
        }

        #[test]
        fn a_cut_frame_is_raw(frame in arbitrary_frame(), cut in 0usize..10) {
            let bytes = frame.encode();
            let cut = bytes.slice(..cut);
            prop_assert_eq!(Frame::decode(cut.clone()).payload, cut);
        }
    }

    #[test]
    fn json_of_a_plain_client_is_raw() {
        let frame = Frame::decode(Bytes::from_static(br#"{"a":1}"#));
        assert_eq!(frame, Frame::new(&br#"{"a":1}"#[..]));
    }

    #[test]
    fn counters_sit_where_the_scripts_expect_them() {
        let bytes = Frame {
            crashes: 3,
            failures: 300,
            ..Frame::new("x")
        }
        .encode();
        assert_eq!(&bytes[..], b"\xF5PY1\x03\xFF\0\0\0\0x");
    }
}
