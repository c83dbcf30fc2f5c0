//! Publishing: a batch in one call of a script, which is two and a half times as fast as as many commands in a pipeline; one plain
//! message by a command of its own.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use pythia_core::broker::Published;
use pythia_core::{BrokerError, BrokerErrorKind, Deliver, Message, Payload};

use super::entry;
use super::queue::Queue;
use crate::config::RedisConfig;
use crate::connection::{Args, Connection};
use crate::error::RedisError;
use crate::outgoing::{ATTEMPT, check, failed, frame, in_one_call};
use crate::script::Script;

static PUBLISH: Script = Script::new(
    "stream/publish",
    concat!(
        include_str!("../scripts/stream/time.lua"),
        include_str!("../scripts/stream/entry.lua"),
        include_str!("../scripts/stream/publish.lua"),
    ),
);

pub(super) async fn publish(
    connection: &Connection,
    queue: &Queue,
    config: &RedisConfig,
    mut batch: Vec<Message>,
) -> Result<Vec<Published>, BrokerError> {
    for message in &batch {
        check_here(message, config.max_message_bytes).map_err(|error| error.queue(&queue.name))?;
    }
    let mut published = Vec::with_capacity(batch.len());
    while !batch.is_empty() {
        let later = batch.split_off(in_one_call(&batch, AT_ONCE));
        let sent = send(connection, queue, config, batch).await;
        published.extend(sent.map_err(queue.failed(ATTEMPT))?);
        batch = later;
    }
    Ok(published)
}

fn check_here(message: &Message, limit: usize) -> Result<(), BrokerError> {
    if let Payload::Fields(fields) = &message.payload
        && fields.len() > MAX_FIELDS
    {
        let count = fields.len();
        let reason = format!("a message has {count} fields, {MAX_FIELDS} are allowed");
        return Err(failed(BrokerErrorKind::TooLarge, reason));
    }
    check(message, limit)
}

async fn send(
    connection: &Connection,
    queue: &Queue,
    config: &RedisConfig,
    mut batch: Vec<Message>,
) -> Result<Vec<Published>, RedisError> {
    let [stream, ..] = &queue.streams;
    let mut keys = vec![stream, &queue.delayed_for_all];
    let (ids, frames) = frame(&mut batch, None);
    if batch.iter().all(is_plain) {
        if let [frame] = &frames[..] {
            // What the script would do, without the script.
            let args = Args::with_capacity(4).key(stream).arg("*");
            let args = args.arg(Bytes::from_static(entry::OWN)).arg(frame);
            connection.command("XADD", args).await?;
            return Ok(ids.into_iter().map(Published::Published).collect());
        }
        let args = Args::with_capacity(1 + frames.len())
            .arg("now")
            .args(frames);
        connection.eval(&PUBLISH, &keys, args).await?;
        return Ok(ids.into_iter().map(Published::Published).collect());
    }
    let dedupe_keys: Vec<_> = batch
        .iter()
        .filter_map(|message| message.dedupe_key.as_ref())
        .map(|key| queue.dedupe_key(key))
        .collect();
    let mut args =
        Args::with_capacity(1 + 4 * batch.len()).arg(config.dedupe_window.as_millis().max(1));
    let mut next_key = keys.len();
    for (message, frame) in batch.iter().zip(frames) {
        args.push(due(message.deliver));
        next_key += usize::from(message.dedupe_key.is_some());
        args.push(if message.dedupe_key.is_some() {
            next_key
        } else {
            0
        });
        args.push(Bytes::copy_from_slice(&rand::random::<[u8; entry::NAME]>()));
        args.push(entry::published(frame, &message.payload));
    }
    keys.extend(&dedupe_keys);
    let [answers, earliest] = connection.eval(&PUBLISH, &keys, args).await?.into_tuple()?;
    if earliest.as_integer()? >= 0 {
        queue.due_earlier.notify_one();
    }
    let answers = answers.into_array()?;
    if answers.len() != ids.len() {
        return Err(RedisError::unexpected(
            "an answer for each message",
            "of another length",
        ));
    }
    ids.into_iter()
        .zip(answers)
        .map(|(id, answer)| {
            Ok(match answer.as_integer()? {
                0 => Published::Deduplicated,
                _ => Published::Published(id),
            })
        })
        .collect()
}

/// One frame, at once, in any case.
fn is_plain(message: &Message) -> bool {
    let has_fields = matches!(&message.payload, Payload::Fields(fields) if !fields.is_empty());
    message.deliver == Deliver::Now && message.dedupe_key.is_none() && !has_fields
}

/// When it is due, as the script reads it.
fn due(deliver: Deliver) -> String {
    match deliver {
        Deliver::After(after) => format!("+{}", after.as_millis().min(LATEST_MS)),
        Deliver::At(at) => millis_since_epoch(at).min(LATEST_MS).to_string(),
        _ => String::new(),
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
