//! Messages into a queue: in one command, or, where some are delayed or deduplicated, in one script.

use std::time::SystemTime;

use bytes::Bytes;
use bytestring::ByteString;
use pythia_core::broker::Published;
use pythia_core::{BrokerError, BrokerErrorKind, Deliver, Message, MessageId};

use super::Queue;
use crate::connection::{Args, Redis};
use crate::delay::{Names, due, millis};
use crate::error::RedisError;
use crate::outgoing::{ATTEMPT, check, failed, framer, within_bounds};
use crate::script::Script;

/// A message as it is sent.
struct Outgoing {
    id: MessageId,
    bytes: Bytes,
    deliver: Deliver,
    dedupe_key: Option<ByteString>,
}

/// Publishes a batch, in as few round trips as keep each of them bounded.
pub(super) async fn publish(
    redis: &Redis,
    queue: &Queue,
    names: &Names,
    batch: Vec<Message>,
) -> Result<Vec<Published>, BrokerError> {
    let limit = redis.config().max_message_bytes;
    let batch = outgoing(batch, limit).map_err(|error| error.queue(&queue.name))?;
    let is_plain = |one: &Outgoing| one.deliver == Deliver::Now && one.dedupe_key.is_none();
    let published = if batch.iter().all(is_plain) {
        push(redis, queue, batch).await
    } else {
        place(redis, queue, names, batch).await
    };
    published.map_err(|error| error.during(ATTEMPT, &queue.name))
}

/// Checks and frames them.
fn outgoing(batch: Vec<Message>, limit: usize) -> Result<Vec<Outgoing>, BrokerError> {
    let mut bytes = 0;
    for message in &batch {
        if message.payload.as_bytes().is_none() {
            let reason = "a list holds bytes, not fields: publish them to a stream";
            return Err(failed(BrokerErrorKind::Unsupported, reason.to_owned()));
        }
        bytes += check(message, limit)?;
    }
    let mut framer = framer(&batch, bytes, Some(SystemTime::now()));
    let outgoing = batch.into_iter().filter_map(|message| {
        // All are bytes: that was checked before.
        let payload = message.payload.into_bytes()?;
        let (id, bytes) = framer.frame(message.id, message.headers, payload);
        Some(Outgoing {
            id,
            bytes,
            deliver: message.deliver,
            dedupe_key: message.dedupe_key,
        })
    });
    Ok(outgoing.collect())
}

/// All of them are for now: the list's own command does it.
async fn push(
    redis: &Redis,
    queue: &Queue,
    mut batch: Vec<Outgoing>,
) -> Result<Vec<Published>, RedisError> {
    let mut published = Vec::with_capacity(batch.len());
    while !batch.is_empty() {
        let later = batch.split_off(in_one_call(&batch, PUSHED_AT_ONCE));
        let mut args = Args::with_capacity(1 + batch.len()).key(&queue.keys.ready);
        for one in batch {
            args.push(one.bytes);
            published.push(Published::Published(one.id));
        }
        redis.publisher().command("LPUSH", args).await?;
        batch = later;
    }
    Ok(published)
}

async fn place(
    redis: &Redis,
    queue: &Queue,
    names: &Names,
    mut batch: Vec<Outgoing>,
) -> Result<Vec<Published>, RedisError> {
    let keys = &queue.keys;
    let mut published = Vec::with_capacity(batch.len());
    while !batch.is_empty() {
        let later = batch.split_off(in_one_call(&batch, PLACED_AT_ONCE));
        let dedupe_keys: Vec<_> = batch
            .iter()
            .filter_map(|one| Some(keys.key(format_args!("dedupe:{}", one.dedupe_key.as_ref()?))))
            .collect();
        let mut all_keys = vec![&keys.ready, &keys.delayed, &keys.control];
        let mut args = Args::with_capacity(1 + 4 * batch.len())
            .arg(millis(redis.config().dedupe_window).max(1));
        let mut next_key = dedupe_keys.iter();
        for (one, name) in batch.iter().zip(names.mint(batch.len())) {
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
        if flags.len() != batch.len() {
            return Err(RedisError::unexpected(
                "an answer a message",
                "of another length",
            ));
        }
        for (one, flag) in batch.into_iter().zip(flags) {
            published.push(match flag.as_integer()? {
                0 => Published::Deduplicated,
                _ => Published::Published(one.id),
            });
        }
        batch = later;
    }
    Ok(published)
}

fn in_one_call(batch: &[Outgoing], max: usize) -> usize {
    within_bounds(batch.iter().map(|one| one.bytes.len()), max)
}

static PUBLISH: Script = Script::new(
    "list/publish",
    concat!(
        include_str!("../scripts/list/time.lua"),
        include_str!("../scripts/list/publish.lua")
    ),
);

/// One `LPUSH` of so many takes Redis a few milliseconds.
const PUSHED_AT_ONCE: usize = 10_000;
/// Of the script's, which does several things for each.
const PLACED_AT_ONCE: usize = 1_000;
