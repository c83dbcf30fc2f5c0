//! Publishing: a batch in one call of a script, which is two and a half times as fast as as many commands in a pipeline.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use bytestring::ByteString;
use pythia_core::broker::Published;
use pythia_core::{BrokerError, BrokerErrorKind, Deliver, Message, MessageId, Payload};

use super::entry;
use super::queue::Queue;
use crate::config::RedisConfig;
use crate::connection::{Args, Connection};
use crate::error::RedisError;
use crate::script::Script;

static PUBLISH: Script = Script::new(
    "stream/publish",
    concat!(
        include_str!("../scripts/stream/time.lua"),
        include_str!("../scripts/stream/entry.lua"),
        include_str!("../scripts/stream/publish.lua"),
    ),
);

/// A message as it is sent.
struct Outgoing {
    id: MessageId,
    deliver: Deliver,
    dedupe_key: Option<ByteString>,
    fields: Vec<Bytes>,
    bytes: usize,
}

pub(super) async fn publish(
    connection: &Connection,
    queue: &Queue,
    config: &RedisConfig,
    batch: Vec<Message>,
) -> Result<Vec<Published>, BrokerError> {
    let outgoing = batch
        .into_iter()
        .map(|message| Outgoing::of(message, queue, config))
        .collect::<Result<Vec<_>, _>>()?;
    let mut published = Vec::with_capacity(outgoing.len());
    let mut rest = outgoing;
    while !rest.is_empty() {
        let after = rest.split_off(within_bounds(&rest));
        let sent = send(connection, queue, config, rest).await;
        published.extend(sent.map_err(queue.failed("publish messages"))?);
        rest = after;
    }
    Ok(published)
}

async fn send(
    connection: &Connection,
    queue: &Queue,
    config: &RedisConfig,
    batch: Vec<Outgoing>,
) -> Result<Vec<Published>, RedisError> {
    let [stream, ..] = &queue.streams;
    let mut keys = vec![stream, &queue.delayed_for_all];
    if batch.iter().all(Outgoing::is_plain) {
        let frames = batch.iter().map(|message| &message.fields[1]);
        let args = Args::with_capacity(1 + batch.len()).arg("now").args(frames);
        connection.eval(&PUBLISH, &keys, args).await?;
        return Ok(batch
            .into_iter()
            .map(|message| Published::Published(message.id))
            .collect());
    }
    let dedupe_keys: Vec<_> = batch
        .iter()
        .filter_map(|message| message.dedupe_key.as_ref())
        .map(|key| queue.dedupe_key(key))
        .collect();
    let mut args =
        Args::with_capacity(1 + 4 * batch.len()).arg(config.dedupe_window.as_millis().max(1));
    let mut next_key = keys.len();
    for message in &batch {
        args.push(message.due());
        next_key += usize::from(message.dedupe_key.is_some());
        args.push(if message.dedupe_key.is_some() {
            next_key
        } else {
            0
        });
        args.push(Bytes::copy_from_slice(&rand::random::<[u8; entry::NAME]>()));
        args.push(entry::pack(b"", &message.fields));
    }
    keys.extend(&dedupe_keys);
    let [answers, earliest] = connection.eval(&PUBLISH, &keys, args).await?.into_tuple()?;
    if earliest.as_integer()? >= 0 {
        queue.due_earlier.notify_one();
    }
    let answers = answers.into_array()?;
    if answers.len() != batch.len() {
        return Err(RedisError::unexpected(
            "an answer for each message",
            "of another length",
        ));
    }
    batch
        .into_iter()
        .zip(answers)
        .map(|(message, answer)| {
            Ok(match answer.as_integer()? {
                0 => Published::Deduplicated,
                _ => Published::Published(message.id),
            })
        })
        .collect()
}

impl Outgoing {
    fn of(message: Message, queue: &Queue, config: &RedisConfig) -> Result<Self, BrokerError> {
        let refused = |why: String| {
            BrokerError::new(BrokerErrorKind::TooLarge, "publish messages")
                .queue(&queue.name)
                .because(why)
        };
        if let Payload::Fields(fields) = &message.payload
            && fields.len() > MAX_FIELDS
        {
            return Err(refused(format!(
                "a message has {} fields, {MAX_FIELDS} are allowed",
                fields.len()
            )));
        }
        let headers = message.headers.iter();
        let headers: usize = headers.map(|(name, value)| name.len() + value.len()).sum();
        let bytes = message.payload.len() + headers;
        if bytes > config.max_message_bytes {
            return Err(refused(format!(
                "a message of {bytes} bytes, headers included, is larger than max_message_bytes ({})",
                config.max_message_bytes
            )));
        }
        let id = message.id.unwrap_or_else(MessageId::random);
        let fields = entry::published(&id, &message.headers, &message.payload);
        Ok(Self {
            id,
            deliver: message.deliver,
            dedupe_key: message.dedupe_key,
            fields,
            bytes,
        })
    }

    /// One frame, at once, in any case.
    fn is_plain(&self) -> bool {
        self.deliver == Deliver::Now && self.dedupe_key.is_none() && self.fields.len() == 2
    }

    /// When it is due, as the script reads it.
    fn due(&self) -> String {
        match self.deliver {
            Deliver::After(after) => format!("+{}", after.as_millis().min(LATEST_MS)),
            Deliver::At(at) => millis_since_epoch(at).min(LATEST_MS).to_string(),
            _ => String::new(),
        }
    }
}

fn within_bounds(batch: &[Outgoing]) -> usize {
    let mut bytes = 0;
    let within = batch.iter().take(MAX_MESSAGES).take_while(|message| {
        bytes += message.bytes;
        bytes <= MAX_BYTES
    });
    within.count().max(1)
}

fn millis_since_epoch(at: SystemTime) -> u128 {
    at.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis()
}

/// Messages in one call: half a millisecond of the server's time.
const MAX_MESSAGES: usize = 500;
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// One command of a script takes about four thousand arguments.
const MAX_FIELDS: usize = 1_900;
/// A hundred thousand years: beyond it the sums of milliseconds lose their precision.
const LATEST_MS: u128 = 100_000 * 365 * 86_400_000;
