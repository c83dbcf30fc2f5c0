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
use crate::outgoing::{ATTEMPT, check, failed, framer, within_bounds};
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
    frame: Bytes,
    /// Of a message that is fields: they follow its frame.
    fields: Vec<(Bytes, Bytes)>,
    bytes: usize,
}

pub(super) async fn publish(
    connection: &Connection,
    queue: &Queue,
    config: &RedisConfig,
    batch: Vec<Message>,
) -> Result<Vec<Published>, BrokerError> {
    let limit = config.max_message_bytes;
    let mut batch = outgoing(batch, limit).map_err(|error| error.queue(&queue.name))?;
    let mut published = Vec::with_capacity(batch.len());
    while !batch.is_empty() {
        let sizes = batch.iter().map(|message| message.bytes);
        let later = batch.split_off(within_bounds(sizes, AT_ONCE));
        let sent = send(connection, queue, config, batch).await;
        published.extend(sent.map_err(queue.failed(ATTEMPT))?);
        batch = later;
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
        let mut args = Args::with_capacity(1 + batch.len()).arg("now");
        let mut published = Vec::with_capacity(batch.len());
        for message in batch {
            args.push(message.frame);
            published.push(Published::Published(message.id));
        }
        connection.eval(&PUBLISH, &keys, args).await?;
        return Ok(published);
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
        args.push(entry::packed(&message.frame, &message.fields));
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

/// Checks and frames them.
fn outgoing(batch: Vec<Message>, limit: usize) -> Result<Vec<Outgoing>, BrokerError> {
    let mut bytes = Vec::with_capacity(batch.len());
    for message in &batch {
        if let Payload::Fields(fields) = &message.payload
            && fields.len() > MAX_FIELDS
        {
            let count = fields.len();
            let reason = format!("a message has {count} fields, {MAX_FIELDS} are allowed");
            return Err(failed(BrokerErrorKind::TooLarge, reason));
        }
        bytes.push(check(message, limit)?);
    }
    let mut framer = framer(&batch, bytes.iter().sum(), None);
    let outgoing = batch.into_iter().zip(bytes).map(|(message, bytes)| {
        let (body, fields) = match message.payload {
            Payload::Fields(fields) => (Bytes::new(), fields),
            payload => (payload.into_bytes().unwrap_or_default(), Vec::new()),
        };
        let (id, frame) = framer.frame(message.id, message.headers, body);
        Outgoing {
            id,
            frame,
            fields,
            bytes,
            deliver: message.deliver,
            dedupe_key: message.dedupe_key,
        }
    });
    Ok(outgoing.collect())
}

impl Outgoing {
    /// One frame, at once, in any case.
    fn is_plain(&self) -> bool {
        self.deliver == Deliver::Now && self.dedupe_key.is_none() && self.fields.is_empty()
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

fn millis_since_epoch(at: SystemTime) -> u128 {
    at.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis()
}

/// Messages in one call: half a millisecond of the server's time.
const AT_ONCE: usize = 500;
/// One command of a script takes about four thousand arguments.
const MAX_FIELDS: usize = 1_900;
/// A hundred thousand years: beyond it the sums of milliseconds lose their precision.
const LATEST_MS: u128 = 100_000 * 365 * 86_400_000;
