//! Dead letters of lists: a frame whose headers say why and whose payload is the message, byte for byte as it would stand in
//! the queue. They are kept in a sorted set by the time of their death.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use pythia_core::admin::DeadLetter;
use pythia_core::envelope::Frame;
use pythia_core::settlement::{DeadKind, DeadReason};
use pythia_core::{Delivery, MessageId, Receipt};

use crate::error::RedisError;

/// The letter about a message. `from` is where it died, which makes the letter unique.
pub(crate) fn letter(message: Bytes, reason: &DeadReason, from: String) -> Bytes {
    let mut letter = Frame::new(message);
    letter.headers.insert(KIND, reason.kind.name());
    letter.headers.insert(FROM, from);
    letter.headers.insert(ERROR, reason.error.clone());
    letter.encode()
}

/// Reads a letter back. Whatever else somebody has put there is shown as a message that died for unknown reasons.
pub(crate) fn read(letter: Bytes, died_at: SystemTime) -> DeadLetter {
    let outer = Frame::decode(letter);
    let kind = outer.headers.get(KIND).and_then(DeadKind::from_name);
    let error = outer.headers.get(ERROR).unwrap_or_default().to_owned();
    DeadLetter {
        delivery: delivery(outer.payload),
        reason: kind.map(|kind| DeadReason { kind, error }),
        died_at: Some(died_at),
    }
}

/// A message that lies somewhere and is not handed out: its receipt means nothing.
pub(crate) fn delivery(bytes: Bytes) -> Delivery {
    let frame = Frame::decode(bytes);
    let id = frame.id.unwrap_or_else(|| MessageId::from(""));
    let mut delivery = Delivery::new(id.text().clone(), frame.payload, Receipt(0));
    delivery.headers = frame.headers;
    delivery.failures = frame.failures;
    delivery.crashes = frame.crashes;
    delivery.enqueued_at = frame.enqueued_at;
    delivery
}

/// A score, in milliseconds, as an instant.
pub(crate) fn instant(score: &str) -> Result<SystemTime, RedisError> {
    let millis: f64 = score
        .parse()
        .map_err(|_| RedisError::unexpected("a score", "another string"))?;
    // To the microsecond, which is what the scripts write and a score can hold; what is no time at all is the epoch.
    let micros = (millis * 1_000.0).round() as u64;
    Ok(UNIX_EPOCH + Duration::from_micros(micros))
}

/// Which kind of reason. The recovery script writes these headers as well.
const KIND: &str = "pythia-dead";
const ERROR: &str = "pythia-dead-error";
const FROM: &str = "pythia-dead-from";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_keeps_its_message_and_its_reason() {
        let reason = DeadReason {
            kind: DeadKind::Decode,
            error: "expected value at line 1".into(),
        };
        let mut frame = Frame::new(&b"\xF5PY1 not json"[..]);
        frame.id = Some("a/1/0".into());
        frame.failures = 3;
        let at = instant("1700000000123.4561").unwrap();
        assert_eq!(
            at,
            UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456)
        );
        let read = read(letter(frame.encode(), &reason, "c/1/0".into()), at);
        assert_eq!(read.reason, Some(reason));
        assert_eq!(read.died_at, Some(at));
        assert_eq!(read.delivery.id.as_str(), "a/1/0");
        assert_eq!(read.delivery.failures, 3);
        assert_eq!(
            read.delivery.payload,
            Bytes::from_static(b"\xF5PY1 not json").into()
        );
    }

    #[test]
    fn what_somebody_else_put_there_is_shown_as_it_is() {
        let read = read(Bytes::from_static(b"what?"), instant("-1").unwrap());
        assert_eq!(read.reason, None);
        assert_eq!(read.delivery.payload, Bytes::from_static(b"what?").into());
    }
}
