//! Messages into a queue: in one command, or, where some are delayed or deduplicated, in one script.

use std::time::SystemTime;

use bytes::Bytes;
use pythia_core::broker::Published;
use pythia_core::envelope::Frame;
use pythia_core::{BrokerError, BrokerErrorKind, Deliver, Message, MessageId, Payload};

use super::{MAX_BYTES, Queue};
use crate::connection::{Args, Redis};
use crate::delay::{Names, due, millis};
use crate::error::RedisError;
use crate::script::Script;

/// A message as it is sent.
struct Outgoing {
    id: MessageId,
    bytes: Bytes,
    deliver: Deliver,
    dedupe_key: Option<bytestring::ByteString>,
}

/// Publishes a batch, in as few round trips as keep each of them bounded.
pub(super) async fn publish(
    redis: &Redis,
    queue: &Queue,
    names: &Names,
    batch: Vec<Message>,
) -> Result<Vec<Published>, BrokerError> {
    let limit = redis.config().max_message_bytes;
    let now = SystemTime::now();
    let batch: Vec<Outgoing> = batch
        .into_iter()
        .map(|message| Outgoing::new(message, now, limit))
        .collect::<Result<_, _>>()
        .map_err(|error: BrokerError| error.queue(&queue.name))?;
    let is_plain = |one: &Outgoing| one.deliver == Deliver::Now && one.dedupe_key.is_none();
    let published = if batch.iter().all(is_plain) {
        push(redis, queue, batch).await
    } else {
        place(redis, queue, names, batch).await
    };
    published.map_err(|error| error.during(ATTEMPT, &queue.name))
}

/// All of them are for now: the list's own command does it.
async fn push(
    redis: &Redis,
    queue: &Queue,
    batch: Vec<Outgoing>,
) -> Result<Vec<Published>, RedisError> {
    let mut published = Vec::with_capacity(batch.len());
    for chunk in chunks(&batch, PUSHED_AT_ONCE) {
        let args = Args::with_capacity(1 + chunk.len())
            .key(&queue.keys.ready)
            .args(chunk.iter().map(|one| &one.bytes));
        redis.publisher().command("LPUSH", args).await?;
    }
    published.extend(batch.into_iter().map(|one| Published::Published(one.id)));
    Ok(published)
}

async fn place(
    redis: &Redis,
    queue: &Queue,
    names: &Names,
    batch: Vec<Outgoing>,
) -> Result<Vec<Published>, RedisError> {
    let keys = &queue.keys;
    let mut published = Vec::with_capacity(batch.len());
    for chunk in chunks(&batch, PLACED_AT_ONCE) {
        let dedupe_keys: Vec<_> = chunk
            .iter()
            .filter_map(|one| Some(keys.key(format_args!("dedupe:{}", one.dedupe_key.as_ref()?))))
            .collect();
        let mut all_keys = vec![&keys.ready, &keys.delayed, &keys.control];
        let mut args = Args::with_capacity(1 + 4 * chunk.len())
            .arg(millis(redis.config().dedupe_window).max(1));
        let mut next_key = dedupe_keys.iter();
        for (one, name) in chunk.iter().zip(names.mint(chunk.len())) {
            let key = one.dedupe_key.as_ref().and_then(|_| next_key.next());
            all_keys.extend(key);
            args = args
                .arg(due(one.deliver))
                .arg(key.map_or(0, |_| all_keys.len()))
                .arg(name)
                .arg(&one.bytes);
        }
        let flags = redis
            .publisher()
            .eval(&PUBLISH, &all_keys, args)
            .await?
            .into_array()?;
        if flags.len() != chunk.len() {
            return Err(RedisError::unexpected(
                "an answer a message",
                "of another length",
            ));
        }
        for (one, flag) in chunk.iter().zip(flags) {
            published.push(match flag.as_integer()? {
                0 => Published::Deduplicated,
                _ => Published::Published(one.id.clone()),
            });
        }
    }
    Ok(published)
}

impl Outgoing {
    fn new(message: Message, now: SystemTime, limit: usize) -> Result<Self, BrokerError> {
        let Message {
            id,
            payload,
            headers,
            deliver,
            dedupe_key,
            ..
        } = message;
        let refused = |kind, reason: String| Err(BrokerError::new(kind, ATTEMPT).because(reason));
        let Payload::Bytes(payload) = payload else {
            let reason = "a list holds bytes, not fields: publish them to a stream";
            return refused(BrokerErrorKind::Unsupported, reason.to_owned());
        };
        if let Some((name, _)) = headers
            .iter()
            .find(|(name, _)| name.len() > MAX_HEADER_NAME)
        {
            let reason = format!(
                "the name of a header has {} bytes, {MAX_HEADER_NAME} are allowed",
                name.len()
            );
            return refused(BrokerErrorKind::TooLarge, reason);
        }
        let headers_len: usize = headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let len = payload.len() + headers_len;
        if len > limit {
            let reason = format!(
                "a message of {len} bytes, headers included, is above the limit of {limit} bytes (`redis.max_message_bytes`)"
            );
            return refused(BrokerErrorKind::TooLarge, reason);
        }
        let id = id.unwrap_or_else(MessageId::random);
        let mut frame = Frame::new(payload);
        frame.id = Some(id.clone());
        frame.enqueued_at = Some(now);
        frame.headers = headers;
        let bytes = frame.encode();
        Ok(Self {
            id,
            bytes,
            deliver,
            dedupe_key,
        })
    }
}

/// Cuts a batch into chunks of at most so many messages and about so many bytes.
fn chunks(mut batch: &[Outgoing], max: usize) -> impl Iterator<Item = &[Outgoing]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let len = batch
            .iter()
            .take(max)
            .take_while(|one| {
                let fits = bytes < MAX_BYTES;
                bytes += one.bytes.len() as u64;
                fits
            })
            .count();
        let (now, later) = batch.split_at(len);
        batch = later;
        (!now.is_empty()).then_some(now)
    })
}

static PUBLISH: Script = Script::new(
    "list/publish",
    concat!(
        include_str!("../scripts/list/time.lua"),
        include_str!("../scripts/list/publish.lua")
    ),
);

const ATTEMPT: &str = "publish messages";
/// One `LPUSH` of so many takes Redis a few milliseconds.
const PUSHED_AT_ONCE: usize = 10_000;
/// Of the script's, which does several things for each.
const PLACED_AT_ONCE: usize = 1_000;
/// A frame writes the length of a header's name as two bytes.
const MAX_HEADER_NAME: usize = u16::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(message: Message) -> Result<Outgoing, BrokerError> {
        Outgoing::new(message, SystemTime::UNIX_EPOCH, 1_000)
    }

    #[test]
    fn the_limit_counts_payload_and_headers() {
        assert!(outgoing(Message::new(vec![0; 1_000])).is_ok());
        for large in [
            Message::new(vec![0; 1_001]),
            Message::new(vec![0; 800]).header("h", "x".repeat(200)),
            Message::new("x").header("h".repeat(70_000), "x"),
        ] {
            let error = outgoing(large).err().expect("too large");
            assert_eq!(error.kind(), BrokerErrorKind::TooLarge);
        }
    }

    #[test]
    fn a_payload_that_looks_like_a_frame_comes_out_as_it_went_in() {
        let payload = Bytes::from_static(b"\xF5PY1\x05\x05\0\0\0\0x");
        let sent = outgoing(Message::new(payload.clone())).unwrap();
        assert_eq!(Frame::decode(sent.bytes).payload, payload);
    }

    #[test]
    fn chunks_are_bounded_in_number_and_size() {
        let batch = |sizes: &[usize]| -> Vec<Outgoing> {
            sizes
                .iter()
                .map(|&size| Outgoing {
                    id: "id".into(),
                    bytes: vec![0; size].into(),
                    deliver: Deliver::Now,
                    dedupe_key: None,
                })
                .collect()
        };
        let lens = |batch: &[Outgoing], max| chunks(batch, max).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!(lens(&batch(&[1; 5]), 2), [2, 2, 1]);
        let large = MAX_BYTES as usize;
        assert_eq!(lens(&batch(&[1, large, 1, large, large]), 10), [2, 2, 1]);
        assert!(lens(&[], 10).is_empty());
    }
}
