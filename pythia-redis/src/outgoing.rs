//! What every pattern does with a batch that is published: all of it is checked before anything is sent; then the messages of
//! each call get their ids and frames.

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use pythia_core::envelope::Frame;
use pythia_core::{BrokerError, BrokerErrorKind, Message, MessageId, Payload};

/// Checks that a message is not too large.
///
/// # Errors
/// [`TooLarge`](BrokerErrorKind::TooLarge) if its bytes are more than the limit, or a header's name is more than a frame takes.
pub(crate) fn check(message: &Message, limit: usize) -> Result<(), BrokerError> {
    let refused = |reason| Err(failed(BrokerErrorKind::TooLarge, reason));
    if let Some((name, _)) = message
        .headers
        .iter()
        .find(|(name, _)| name.len() > MAX_HEADER_NAME)
    {
        return refused(format!(
            "the name of a header has {} bytes, {MAX_HEADER_NAME} are allowed",
            name.len()
        ));
    }
    let bytes = size(message);
    if bytes > limit {
        return refused(format!(
            "a message of {bytes} bytes, headers included, is above the limit of {limit} bytes (`redis.max_message_bytes`)"
        ));
    }
    Ok(())
}

/// Why a batch is not published.
pub(crate) fn failed(kind: BrokerErrorKind, reason: String) -> BrokerError {
    BrokerError::new(kind, ATTEMPT).because(reason)
}

/// How many of these messages go in one call: at least one, at most so many, and no more than [`MAX_BYTES`] if they are several.
pub(crate) fn in_one_call(batch: &[Message], max: usize) -> usize {
    let mut bytes = 0;
    let within = batch.iter().take(max).take_while(|message| {
        bytes += size(message);
        bytes <= MAX_BYTES
    });
    within.count().max(1)
}

/// Takes ids, headers and bodies out of the messages of one call; answers the ids, which are new where there was none, and the
/// frames. The frame of a message that is fields has no body, and its fields stay where they are.
///
/// New ids share one allocation, and so do the frames: each lives as long as any part of it.
pub(crate) fn frame(
    batch: &mut [Message],
    enqueued_at: Option<SystemTime>,
) -> (Vec<MessageId>, Vec<Bytes>) {
    let without_id = batch.iter().filter(|message| message.id.is_none());
    let mut new = MessageId::random_batch(without_id.count());
    let mut ids = Vec::with_capacity(batch.len());
    let mut frames = Vec::with_capacity(batch.len());
    for message in batch {
        let id = message.id.take().or_else(|| new.next());
        let id = id.expect("there is a new one for each that had none");
        let body = match &mut message.payload {
            Payload::Bytes(bytes) => std::mem::take(bytes),
            _ => Bytes::new(),
        };
        let mut frame = Frame::new(body);
        frame.id = Some(id.clone());
        frame.enqueued_at = enqueued_at;
        frame.headers = std::mem::take(&mut message.headers);
        ids.push(id);
        frames.push(frame);
    }
    let mut room = BytesMut::with_capacity(frames.iter().map(Frame::max_encoded_len).sum());
    let encoded = frames.into_iter().map(|frame| {
        frame.encode_into(&mut room);
        room.split().freeze()
    });
    (ids, encoded.collect())
}

/// The bytes that count: of the body, and of the headers.
fn size(message: &Message) -> usize {
    let headers = message.headers.iter();
    let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
    message.payload.len() + headers
}

/// What was attempted, in words for errors.
pub(crate) const ATTEMPT: &str = "publish messages";
/// A frame writes the length of a header's name as two bytes.
const MAX_HEADER_NAME: usize = u16::MAX as usize;
/// Redis does nothing else during a call.
const MAX_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_counts_payload_and_headers() {
        let name = |length| Message::new("x").header("h".repeat(length), "x");
        for (sound, limit) in [
            (Message::new(vec![0; 1_000]), 1_000),
            (name(65_535), usize::MAX),
        ] {
            assert!(check(&sound, limit).is_ok());
        }
        for (large, limit) in [
            (Message::new(vec![0; 1_001]), 1_000),
            (
                Message::new(vec![0; 800]).header("h", "x".repeat(200)),
                1_000,
            ),
            (name(65_536), usize::MAX),
        ] {
            let error = check(&large, limit).expect_err("too large");
            assert_eq!(error.kind(), BrokerErrorKind::TooLarge);
        }
    }

    #[test]
    fn a_call_is_bounded_in_number_and_size() {
        let half = MAX_BYTES / 2;
        for (sizes, max, within) in [
            (&[1; 5][..], 2, 2),
            (&[1; 5], 9, 5),
            (&[half, half, 1], 9, 2),
            (&[half, half + 1], 9, 1),
            (&[MAX_BYTES + 1, 1], 9, 1),
        ] {
            let body = Bytes::from(vec![0; MAX_BYTES + 1]);
            let batch = sizes.iter().map(|&size| Message::new(body.slice(..size)));
            assert_eq!(in_one_call(&batch.collect::<Vec<_>>(), max), within);
        }
        let headers = Message::new("").header("h", "x".repeat(half));
        assert_eq!(in_one_call(&vec![headers; 3], 9), 1);
    }

    #[test]
    fn each_message_of_a_call_has_its_own_id_and_frame() {
        // Like a frame itself, which is no reason to take it for one.
        let odd = Bytes::from_static(b"\xF5PY1\x05\x05\0\0\0\0x");
        let fields = Payload::Fields([("name", "value")].into());
        let mut batch = [
            Message::new("a"),
            Message::new(odd).id("chosen"),
            Message::new(vec![7; 9_000]).header("h", "x"),
            Message::new(fields.clone()),
        ];
        let sent = batch.clone();
        let (ids, frames) = frame(&mut batch, Some(SystemTime::UNIX_EPOCH));
        assert_ne!(ids[0], ids[2]);
        assert_eq!(ids[1], "chosen".into());
        for ((sent, id), bytes) in sent.into_iter().zip(ids).zip(frames) {
            let frame = Frame::decode(bytes);
            assert_eq!(frame.id, Some(id));
            assert_eq!(frame.enqueued_at, Some(SystemTime::UNIX_EPOCH));
            assert_eq!(frame.headers, sent.headers);
            let body = sent.payload.as_bytes().cloned().unwrap_or_default();
            assert_eq!(frame.payload, body);
        }
        assert_eq!(batch[3].payload, fields);
    }
}
