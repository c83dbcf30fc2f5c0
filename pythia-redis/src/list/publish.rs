//! Messages into a queue: in one command, or, where some are delayed or deduplicated, in one script.

use std::time::SystemTime;

use pythia_core::broker::Published;
use pythia_core::{BrokerError, BrokerErrorKind, Deliver, Message};

use super::Queue;
use crate::connection::{Args, Redis};
use crate::delay::{Names, due, millis};
use crate::error::RedisError;
use crate::outgoing::{ATTEMPT, check, failed, frame, in_one_call};
use crate::script::Script;

/// Publishes a batch, in as few round trips as keep each of them bounded.
pub(super) async fn publish(
    redis: &Redis,
    queue: &Queue,
    names: &Names,
    batch: Vec<Message>,
) -> Result<Vec<Published>, BrokerError> {
    let limit = redis.config().max_message_bytes;
    for message in &batch {
        check_here(message, limit).map_err(|error| error.queue(&queue.name))?;
    }
    let is_plain = |one: &Message| one.deliver == Deliver::Now && one.dedupe_key.is_none();
    let published = if batch.iter().all(is_plain) {
        push(redis, queue, batch).await
    } else {
        place(redis, queue, names, batch).await
    };
    published.map_err(|error| error.during(ATTEMPT, &queue.name))
}

fn check_here(message: &Message, limit: usize) -> Result<(), BrokerError> {
    if message.payload.as_bytes().is_none() {
        let reason = "a list holds bytes, not fields: publish them to a stream";
        return Err(failed(BrokerErrorKind::Unsupported, reason.to_owned()));
    }
    check(message, limit)
}

/// All of them are for now: the list's own command does it.
async fn push(
    redis: &Redis,
    queue: &Queue,
    mut batch: Vec<Message>,
) -> Result<Vec<Published>, RedisError> {
    let now = SystemTime::now();
    let mut published = Vec::with_capacity(batch.len());
    while !batch.is_empty() {
        let later = batch.split_off(in_one_call(&batch, PUSHED_AT_ONCE));
        let (ids, frames) = frame(&mut batch, Some(now));
        let args = Args::with_capacity(1 + frames.len())
            .key(&queue.keys.ready)
            .args(frames);
        redis.publisher().command("LPUSH", args).await?;
        published.extend(ids.into_iter().map(Published::Published));
        batch = later;
    }
    Ok(published)
}

async fn place(
    redis: &Redis,
    queue: &Queue,
    names: &Names,
    mut batch: Vec<Message>,
) -> Result<Vec<Published>, RedisError> {
    let keys = &queue.keys;
    let now = SystemTime::now();
    let mut published = Vec::with_capacity(batch.len());
    while !batch.is_empty() {
        let later = batch.split_off(in_one_call(&batch, PLACED_AT_ONCE));
        let (ids, frames) = frame(&mut batch, Some(now));
        let dedupe_keys: Vec<_> = batch
            .iter()
            .filter_map(|one| Some(keys.key(format_args!("dedupe:{}", one.dedupe_key.as_ref()?))))
            .collect();
        let mut all_keys = vec![&keys.ready, &keys.delayed, &keys.control];
        let mut args = Args::with_capacity(1 + 4 * batch.len())
            .arg(millis(redis.config().dedupe_window).max(1));
        let mut next_key = dedupe_keys.iter();
        for ((one, frame), name) in batch.iter().zip(frames).zip(names.mint(batch.len())) {
            let key = one.dedupe_key.as_ref().and_then(|_| next_key.next());
            all_keys.extend(key);
            args = args
                .arg(due(one.deliver))
                .arg(key.map_or(0, |_| all_keys.len()))
                .arg(name)
                .arg(frame);
        }
        let flags = redis
            .publisher()
            .eval(&PUBLISH, &all_keys, args)
            .await?
            .into_array()?;
        if flags.len() != ids.len() {
            return Err(RedisError::unexpected(
                "an answer a message",
                "of another length",
            ));
        }
        for (id, flag) in ids.into_iter().zip(flags) {
            published.push(match flag.as_integer()? {
                0 => Published::Deduplicated,
                _ => Published::Published(id),
            });
        }
        batch = later;
    }
    Ok(published)
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
