//! What every pattern does with a batch that is published: all of it is checked before anything is sent; then each message gets
//! an id and a frame.

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use pythia_core::envelope::Frame;
use pythia_core::{BrokerError, BrokerErrorKind, Headers, Message, MessageId};

/// Gives out the ids and frames of one batch. They share two allocations, which live as long as any of them.
pub(crate) struct Framer<I> {
    ids: I,
    frames: BytesMut,
    /// In every frame.
    enqueued_at: Option<SystemTime>,
}

/// The bytes of a message that count: of its body and its headers.
///
/// # Errors
/// [`TooLarge`](BrokerErrorKind::TooLarge) if they are more than the limit, or a header's name is more than a frame takes.
pub(crate) fn check(message: &Message, limit: usize) -> Result<usize, BrokerError> {
    let refused = |reason| Err(failed(BrokerErrorKind::TooLarge, reason));
    let mut bytes = message.payload.len();
    for (name, value) in message.headers.iter() {
        if name.len() > MAX_HEADER_NAME {
            return refused(format!(
                "the name of a header has {} bytes, {MAX_HEADER_NAME} are allowed",
                name.len()
            ));
        }
        bytes += name.len() + value.len();
    }
    if bytes > limit {
        return refused(format!(
            "a message of {bytes} bytes, headers included, is above the limit of {limit} bytes (`redis.max_message_bytes`)"
        ));
    }
    Ok(bytes)
}

/// Why a batch is not published.
pub(crate) fn failed(kind: BrokerErrorKind, reason: String) -> BrokerError {
    BrokerError::new(kind, ATTEMPT).because(reason)
}

/// A framer for this batch, whose bodies and headers have so many bytes.
pub(crate) fn framer(
    batch: &[Message],
    bytes: usize,
    enqueued_at: Option<SystemTime>,
) -> Framer<impl Iterator<Item = MessageId> + use<>> {
    let without_id = batch.iter().filter(|message| message.id.is_none());
    Framer {
        ids: MessageId::random_batch(without_id.count()),
        frames: BytesMut::with_capacity(bytes + batch.len() * USUAL_FRAME),
        enqueued_at,
    }
}

impl<I: Iterator<Item = MessageId>> Framer<I> {
    /// The id of a message, its own or a new one, and its frame.
    pub(crate) fn frame(
        &mut self,
        id: Option<MessageId>,
        headers: Headers,
        payload: Bytes,
    ) -> (MessageId, Bytes) {
        let id = id
            .or_else(|| self.ids.next())
            .unwrap_or_else(MessageId::random);
        let mut frame = Frame::new(payload);
        frame.id = Some(id.clone());
        frame.enqueued_at = self.enqueued_at;
        frame.headers = headers;
        frame.encode_into(&mut self.frames);
        (id, self.frames.split().freeze())
    }
}

/// How many messages of these sizes one call takes: at most so many, and about [`MAX_BYTES`].
pub(crate) fn within_bounds(sizes: impl Iterator<Item = usize>, max: usize) -> usize {
    let mut bytes = 0;
    let within = sizes.take(max).take_while(|size| {
        let fits = bytes < MAX_BYTES;
        bytes += size;
        fits
    });
    within.count()
}

/// What was attempted, in words for errors.
pub(crate) const ATTEMPT: &str = "publish messages";
/// A frame writes the length of a header's name as two bytes.
const MAX_HEADER_NAME: usize = u16::MAX as usize;
/// What a frame without headers adds to a body.
const USUAL_FRAME: usize = 86;
/// Few messages, if they are large: Redis does nothing else meanwhile.
const MAX_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_counts_payload_and_headers() {
        assert!(check(&Message::new(vec![0; 1_000]), 1_000).is_ok());
        for large in [
            Message::new(vec![0; 1_001]),
            Message::new(vec![0; 800]).header("h", "x".repeat(200)),
            Message::new("x").header("h".repeat(70_000), "x"),
        ] {
            let error = check(&large, 1_000).expect_err("too large");
            assert_eq!(error.kind(), BrokerErrorKind::TooLarge);
        }
    }

    #[test]
    fn a_call_is_bounded_in_number_and_size() {
        let within = |sizes: &[usize], max| within_bounds(sizes.iter().copied(), max);
        assert_eq!(within(&[1; 5], 2), 2);
        assert_eq!(within(&[1; 5], 9), 5);
        assert_eq!(within(&[1, MAX_BYTES, 1, 1], 9), 2);
        assert_eq!(within(&[MAX_BYTES + 1, 1], 9), 1);
        assert_eq!(within(&[], 9), 0);
    }

    #[test]
    fn each_message_of_a_batch_has_its_own_id_and_frame() {
        // Like a frame itself, which is no reason to take it for one.
        let odd = Bytes::from_static(b"\xF5PY1\x05\x05\0\0\0\0x");
        let batch = [
            Message::new("a"),
            Message::new(odd).id("mine"),
            Message::new("c").header("h", "x"),
        ];
        let mut framer = framer(&batch, 0, None);
        let framed = batch.clone().map(|message| {
            let body = message.payload.as_bytes().cloned().unwrap_or_default();
            framer.frame(message.id, message.headers, body)
        });
        assert_ne!(framed[0].0, framed[2].0);
        assert_eq!(framed[1].0, "mine".into());
        for (sent, (id, bytes)) in batch.into_iter().zip(framed) {
            let frame = Frame::decode(bytes);
            assert_eq!(frame.id, Some(id));
            assert_eq!(frame.headers, sent.headers);
            assert_eq!(sent.payload.as_bytes(), Some(&frame.payload));
        }
    }
}
