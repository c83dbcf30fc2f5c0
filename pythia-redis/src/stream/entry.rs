//! How a message is written as a stream entry, and read from one.
//!
//! A message that this crate publishes is one field `pythia`, whose value is a frame: id, headers, body. If its
//! body is fields, the frame has no body and the fields follow. Any other entry was written by a plain client; its fields are
//! the message and its entry id is the message's id.
//!
//! What a group has moved, to be tried again or among its dead letters, gains leading fields: `pythia-meta` (the counters, when
//! it was published, its id), and on dead letters before it `pythia-dead` (the reason). More fields than a script can pass on
//! are packed into one, `pythia-packed`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use pythia_core::envelope::Frame;
use pythia_core::settlement::{DeadKind, DeadReason};
use pythia_core::{Delivery, EntryFields, Payload, Receipt};

use super::id::{EntryId, Place, receipt};
use crate::connection::Reply;
use crate::error::RedisError;

/// An entry as Redis answers it. Without fields it has been deleted, and only its place among the pending is left.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: EntryId,
    id_text: ByteString,
    fields: EntryFields,
}

/// Names and values, the first of which may be ours.
type Fields = Vec<(Bytes, Bytes)>;

impl Entry {
    pub(super) fn read(reply: Reply) -> Result<Self, RedisError> {
        let [id, fields] = reply.into_tuple()?;
        let id_text = id.into_text()?;
        let id = EntryId::parse(id_text.as_bytes())
            .ok_or_else(|| RedisError::unexpected("the id of a stream entry", "other text"))?;
        let mut texts = fields.into_elements()?;
        let mut fields = EntryFields::with_capacity(texts.len() / 2);
        while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
            fields.push(name.into_bytes()?, value.into_bytes()?);
        }
        Ok(Self {
            id,
            id_text,
            fields,
        })
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.fields.is_empty()
    }

    /// The message that was read from that place. `None` if its id leaves no room for the place: it is not handed out under
    /// this id, but comes back through the retry stream, whose ids are the server's.
    pub(super) fn into_delivery(self, place: Place) -> Option<Delivery> {
        let receipt = receipt(place, self.id)?;
        let fresh = Meta::of(self.id, self.id_text);
        let mut delivery = match place {
            // Nothing in there was moved, whatever its fields look like.
            Place::Stream => message(self.fields, fresh, receipt),
            Place::Retry | Place::Suspect => moved(self.fields.into(), fresh, receipt),
        };
        delivery.alone = place == Place::Suspect;
        Some(delivery)
    }

    /// The dead letter, and why it is one.
    pub(super) fn into_dead(self) -> (Delivery, Option<DeadReason>, SystemTime) {
        let mut fields = Fields::from(self.fields);
        let reason = take_field(&mut fields, DEAD).map(|reason| {
            let reason = String::from_utf8_lossy(&reason);
            let (kind, error) = reason.split_once(' ').unwrap_or((&reason, ""));
            DeadReason {
                kind: DeadKind::from_name(kind).unwrap_or(DeadKind::Permanent),
                error: error.to_owned(),
            }
        });
        let died_at = time(self.id.ms);
        (
            moved(fields, Meta::of(self.id, self.id_text), NO_RECEIPT),
            reason,
            died_at,
        )
    }
}

/// A message in the delayed set of the queue, or of a group: 16 bytes that name it, and its fields as one string.
pub(super) fn delayed(member: &Bytes) -> Delivery {
    let fields = unpack(member.slice(NAME.min(member.len())..));
    moved(fields, Meta::default(), NO_RECEIPT)
}

/// The member of the group's delayed set that a delivery becomes. The scripts also take it for the other moves.
pub(super) fn member(delivery: &Delivery) -> Bytes {
    let meta = Meta {
        crashes: delivery.crashes,
        failures: delivery.failures,
        enqueued_ms: delivery.enqueued_at.map_or(0, millis),
        id: delivery.id.text().clone(),
    };
    let mut values = vec![Bytes::from_static(META), meta.text()];
    match &delivery.payload {
        // The id is in the meta field, so that what a plain client wrote stays as it is.
        Payload::Fields(fields) if delivery.headers.is_empty() => push_fields(&mut values, fields),
        payload => {
            let mut frame = Frame::new(payload.as_bytes().cloned().unwrap_or_default());
            frame.id = Some(delivery.id.clone());
            frame.headers = delivery.headers.clone();
            push_own(&mut values, frame.encode(), payload);
        }
    }
    // A receipt is given once, so two messages that are equal in all else stay two members.
    pack(&delivery.receipt.0.to_be_bytes(), &values)
}

/// A message that is published, as one string: its frame, and the fields that follow it if that is what it is.
pub(super) fn published(frame: Bytes, payload: &Payload) -> Bytes {
    let mut values = Vec::with_capacity(2);
    push_own(&mut values, frame, payload);
    pack(b"", &values)
}

/// Fields as one string, behind a name: repeated  length u32 BE | bytes.
fn pack(name: &[u8], values: &[Bytes]) -> Bytes {
    let length = values.iter().map(|value| 4 + value.len()).sum::<usize>();
    let mut packed = BytesMut::with_capacity(name.len() + length);
    packed.put_slice(name);
    for value in values {
        packed.put_u32(value.len() as u32);
        packed.put_slice(value);
    }
    packed.freeze()
}

/// What a group knows of a message that it has moved.
#[derive(Debug, Default)]
struct Meta {
    crashes: u32,
    failures: u32,
    enqueued_ms: u64,
    id: ByteString,
}

impl Meta {
    /// What an entry itself says.
    fn of(id: EntryId, id_text: ByteString) -> Self {
        Self {
            enqueued_ms: id.ms,
            id: id_text,
            ..Self::default()
        }
    }

    fn take(fields: &mut Fields) -> Option<Self> {
        Self::parse(&take_field(fields, META)?)
    }

    fn parse(text: &Bytes) -> Option<Self> {
        let mut parts = text.splitn(4, |&byte| byte == b' ');
        let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
        let (crashes, failures, enqueued_ms) = (number()?, number()?, number()?);
        let id = text.slice_ref(parts.next()?);
        Some(Self {
            crashes: crashes.try_into().ok()?,
            failures: failures.try_into().ok()?,
            enqueued_ms,
            id: ByteString::try_from(id).ok()?,
        })
    }

    fn text(&self) -> Bytes {
        let Self {
            crashes,
            failures,
            enqueued_ms,
            id,
        } = self;
        format!("{crashes} {failures} {enqueued_ms} {id}").into()
    }
}

/// A message that a group has moved; one without the leading field, which a person may have put there, is taken as it is.
fn moved(mut fields: Fields, fresh: Meta, receipt: Receipt) -> Delivery {
    let meta = Meta::take(&mut fields).unwrap_or(fresh);
    if let [(name, packed)] = &fields[..]
        && name == PACKED
    {
        fields = unpack(packed.clone());
    }
    message(fields.into(), meta, receipt)
}

fn message(fields: EntryFields, meta: Meta, receipt: Receipt) -> Delivery {
    let own = fields.first().filter(|(name, _)| name == OWN);
    let own = own.filter(|(_, frame)| Frame::is_framed(frame));
    let frame = own.map(|(_, frame)| Frame::decode(frame.clone()));
    let mut delivery = match frame {
        Some(frame) if fields.len() == 1 => {
            let id = frame.id.unwrap_or_else(|| meta.id.into());
            let mut delivery = Delivery::new(id, frame.payload, receipt);
            delivery.headers = frame.headers;
            delivery
        }
        // A frame before fields of ours has no body; with one it is something that a plain client wrote.
        Some(frame) if frame.payload.is_empty() => {
            let id = frame.id.unwrap_or_else(|| meta.id.into());
            let mut fields = Fields::from(fields);
            fields.remove(0);
            let mut delivery = Delivery::new(id, EntryFields::from(fields), receipt);
            delivery.headers = frame.headers;
            delivery
        }
        _ => Delivery::new(meta.id, fields, receipt),
    };
    delivery.crashes = meta.crashes;
    delivery.failures = meta.failures;
    // Ids that people choose, such as 1-1, say nothing of the time.
    delivery.enqueued_at = (PLAUSIBLE.contains(&meta.enqueued_ms)).then(|| time(meta.enqueued_ms));
    delivery
}

fn push_own(values: &mut Vec<Bytes>, frame: Bytes, payload: &Payload) {
    values.extend([Bytes::from_static(OWN), frame]);
    if let Payload::Fields(fields) = payload {
        push_fields(values, fields);
    }
}

fn push_fields(values: &mut Vec<Bytes>, fields: &[(Bytes, Bytes)]) {
    values.extend(
        fields
            .iter()
            .flat_map(|(field, value)| [field.clone(), value.clone()]),
    );
}

fn take_field(fields: &mut Fields, name: &[u8]) -> Option<Bytes> {
    let is_there = fields.first().is_some_and(|(first, _)| first == name);
    is_there.then(|| fields.remove(0).1)
}

fn unpack(mut packed: Bytes) -> Fields {
    let mut next = || {
        let (length, _) = packed.split_first_chunk()?;
        let length = u32::from_be_bytes(*length) as usize;
        let _length = packed.split_to(4);
        Some(packed.split_to(length.min(packed.len())))
    };
    std::iter::from_fn(|| Some((next()?, next()?))).collect()
}

fn time(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms.min(PLAUSIBLE.end - 1))
}

fn millis(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since_epoch.as_millis().try_into().unwrap_or(u64::MAX)
}

pub(super) const OWN: &[u8] = b"pythia";
const META: &[u8] = b"pythia-meta";
const DEAD: &[u8] = b"pythia-dead";
const PACKED: &[u8] = b"pythia-packed";
/// How many bytes name a delayed message, so that two that are equal in all else are two.
pub(super) const NAME: usize = 16;
const NO_RECEIPT: Receipt = Receipt(0);
/// From 2001 to 9999.
const PLAUSIBLE: std::ops::Range<u64> = 1_000_000_000_000..253_402_300_800_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use pythia_core::Message;

    use super::*;
    use crate::outgoing;

    fn entry(id: &str, values: Vec<Bytes>) -> Entry {
        Entry {
            id: id.parse().unwrap(),
            id_text: id.to_owned().into(),
            fields: pairs(values).into(),
        }
    }

    /// As Redis answers them.
    fn pairs(values: Vec<Bytes>) -> Fields {
        let mut values = values.into_iter();
        std::iter::from_fn(|| Some((values.next()?, values.next()?))).collect()
    }

    fn bytes(texts: &[&str]) -> Vec<Bytes> {
        texts
            .iter()
            .map(|text| Bytes::from(text.to_string()))
            .collect()
    }

    /// What the scripts do with a member of the delayed set.
    fn promoted(member: &Bytes) -> Vec<Bytes> {
        let fields = unpack(member.slice(NAME..)).into_iter();
        fields.flat_map(|(name, value)| [name, value]).collect()
    }

    fn arbitrary_delivery() -> impl Strategy<Value = Delivery> {
        let some = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let payload = prop_oneof![
            some().prop_map(Payload::Bytes),
            proptest::collection::vec((some(), some()), 1..4)
                .prop_map(|fields| Payload::Fields(fields.into())),
        ];
        let headers = proptest::collection::vec(("[a-z]{1,9}", "[ -~]{0,9}"), 0..3);
        (
            "[ -~ä]{0,20}",
            payload,
            headers,
            any::<u32>(),
            any::<u32>(),
            PLAUSIBLE,
        )
            .prop_map(|(id, payload, headers, crashes, failures, ms)| {
                let mut delivery = Delivery::new(id, Bytes::new(), Receipt(7));
                delivery.payload = payload;
                delivery.headers = headers.into_iter().collect();
                delivery.crashes = crashes;
                delivery.failures = failures;
                delivery.enqueued_at = Some(time(ms));
                delivery
            })
    }

    proptest! {
        #[test]
        fn a_moved_message_comes_back_as_it_was(sent in arbitrary_delivery()) {
            let received = entry("5-5", promoted(&member(&sent))).into_delivery(Place::Retry).unwrap();
            prop_assert_eq!(&received.id, &sent.id);
            prop_assert_eq!(&received.payload, &sent.payload);
            prop_assert_eq!(&received.headers, &sent.headers);
            prop_assert_eq!(received.crashes, sent.crashes);
            prop_assert_eq!(received.failures, sent.failures);
            prop_assert_eq!(received.enqueued_at, sent.enqueued_at);
            prop_assert_eq!(delayed(&member(&sent)).payload, sent.payload);
        }

        #[test]
        fn a_published_message_is_received(sent in arbitrary_delivery()) {
            let mut message = Message::new(sent.payload.clone()).id(sent.id.clone());
            message.headers = sent.headers.clone();
            let mut batch = [message];
            let (_, frames) = outgoing::frame(&mut batch, None);
            let [message] = &batch;
            let fields = unpack(published(frames[0].clone(), &message.payload));
            let values = fields.into_iter().flat_map(|(name, value)| [name, value]);
            let received = entry("1718000000000-5", values.collect()).into_delivery(Place::Stream).unwrap();
            prop_assert_eq!(received.attempt(), 1);
            prop_assert_eq!(received.id, sent.id);
            prop_assert_eq!(received.payload, sent.payload);
            prop_assert_eq!(received.headers, sent.headers);
            prop_assert_eq!(received.enqueued_at, Some(time(1_718_000_000_000)));
        }

        #[test]
        fn any_fields_are_read_without_panic_and_without_loss(
            values in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..30).prop_map(Bytes::from),
                    Just(Bytes::from_static(OWN)), Just(Bytes::from_static(META)), Just(Bytes::from_static(DEAD)),
                    Just(Bytes::from_static(PACKED)), Just(Bytes::from_static(b"\xF5PY1\0\0\0\0\0\x01x")),
                ], 0..6),
        ) {
            for place in Place::ALL {
                let _delivery = entry("1-1", values.clone()).into_delivery(place);
            }
            let _dead = entry("1-1", values.clone()).into_dead();
            let _delayed = delayed(&pack(b"", &values));
        }
    }

    #[test]
    fn what_a_plain_client_wrote_is_fields_under_its_entry_id() {
        let delivery = entry("1718000000000-2", bytes(&["k", "v", "pythia", "x"]))
            .into_delivery(Place::Stream)
            .unwrap();
        assert_eq!(delivery.id.as_str(), "1718000000000-2");
        assert_eq!(
            delivery.payload,
            Payload::Fields(pairs(bytes(&["k", "v", "pythia", "x"])).into())
        );
        assert_eq!(delivery.enqueued_at, Some(time(1_718_000_000_000)));
        assert!(!delivery.alone);
    }

    #[test]
    fn what_looks_like_ours_in_the_queues_own_stream_is_the_clients() {
        let forged = bytes(&["pythia-meta", "9 9 1 1-1", "k", "v"]);
        let delivery = entry("1-1", forged.clone())
            .into_delivery(Place::Stream)
            .unwrap();
        assert_eq!(delivery.payload, Payload::Fields(pairs(forged).into()));
        assert_eq!((delivery.attempt(), delivery.enqueued_at), (1, None));
    }

    #[test]
    fn a_damaged_frame_keeps_its_bytes() {
        let damaged = Bytes::from_static(b"\xF5PY1\0\0\xff\xff\xff\xffrest");
        let values = vec![Bytes::from_static(OWN), damaged.clone()];
        let delivery = entry("1-1", values).into_delivery(Place::Stream).unwrap();
        assert_eq!(delivery.payload, Payload::Bytes(damaged));
    }

    #[test]
    fn more_fields_than_a_script_passes_on_arrive_unpacked() {
        let values = bytes(&["pythia-meta", "2 1 1718000000000 1-1", "pythia-packed"]);
        let packed = pack(b"", &bytes(&["a", "1", "b", "2"]));
        let delivery = entry("2-2", [values, vec![packed]].concat())
            .into_delivery(Place::Suspect)
            .unwrap();
        assert_eq!(
            delivery.payload,
            Payload::Fields(pairs(bytes(&["a", "1", "b", "2"])).into())
        );
        assert_eq!(
            (delivery.crashes, delivery.failures, delivery.alone),
            (2, 1, true)
        );
    }

    #[test]
    fn a_dead_letter_names_its_reason() {
        let letter = bytes(&[
            "pythia-dead",
            "decode not json",
            "pythia-meta",
            "0 1 1718000000000 1-1",
            "k",
            "v",
        ]);
        let (delivery, reason, died_at) = entry("1718000000009-0", letter).into_dead();
        let reason = reason.unwrap();
        assert_eq!(
            (reason.kind, reason.error.as_str()),
            (DeadKind::Decode, "not json")
        );
        assert_eq!((delivery.id.as_str(), delivery.failures), ("1-1", 1));
        assert_eq!(died_at, time(1_718_000_000_009));
    }
}
