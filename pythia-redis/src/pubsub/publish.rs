//! Messages into a channel, a batch in one round trip.

use std::time::SystemTime;

use bytestring::ByteString;
use pythia_core::broker::Published;
use pythia_core::observe::{Event, GapCause};
use pythia_core::{BrokerError, BrokerErrorKind, Deliver, Message, QueueName};

use super::PubSubBroker;
use super::numbers::NUMBER;
use crate::config::PubSubMode;
use crate::connection::Args;
use crate::error::RedisError;
use crate::keys::Keys;
use crate::outgoing::{ATTEMPT, check, failed, frame, in_one_call};
use crate::script::Script;

pub(super) async fn publish(
    broker: &PubSubBroker,
    queue: &QueueName,
    mut batch: Vec<Message>,
) -> Result<Vec<Published>, BrokerError> {
    let config = broker.0.redis.config();
    let command = match config.pubsub.mode {
        PubSubMode::Channel | PubSubMode::Pattern => "PUBLISH",
        PubSubMode::Sharded => "SPUBLISH",
    };
    // Everything is checked before anything is sent.
    for message in &batch {
        check_here(message, config.max_message_bytes).map_err(|error| error.queue(queue))?;
    }
    let keys = Keys::new(&config.key_prefix, queue);
    let now = SystemTime::now();
    let mut published = Vec::with_capacity(batch.len());
    let mut unheard = 0;
    while !batch.is_empty() {
        let later = batch.split_off(in_one_call(&batch, AT_ONCE));
        let first = broker.numbers(queue, batch.len());
        for (number, message) in (first..).zip(&mut batch) {
            let number = format!("{}:{number}", broker.0.publisher);
            message.headers.insert(NUMBER, number);
        }
        let (ids, frames) = frame(&mut batch, Some(now));
        let mut dedupe_keys = Vec::new();
        let mut args = Args::with_capacity(2 + 2 * batch.len())
            .arg(command)
            .arg(config.dedupe_window.as_millis().max(1).to_string());
        for (message, frame) in batch.iter().zip(frames) {
            let key = message
                .dedupe_key
                .as_ref()
                .map(|key| keys.key(format_args!("dedupe:{key}")));
            // The channel is the first key.
            let index = key.as_ref().map_or(0, |_| dedupe_keys.len() + 2);
            dedupe_keys.extend(key);
            args = args.arg(index.to_string()).arg(frame);
        }
        let all_keys: Vec<&ByteString> = std::iter::once(&keys.ready).chain(&dedupe_keys).collect();
        let sent = broker
            .0
            .redis
            .publisher()
            .eval(&PUBLISH, &all_keys, args)
            .await;
        let answers = sent.and_then(|reply| reply.into_array());
        let answers = answers.map_err(|error| error.during(ATTEMPT, queue))?;
        if answers.len() != ids.len() {
            let error = RedisError::unexpected("an answer for each message", "of another length");
            return Err(error.during(ATTEMPT, queue));
        }
        for (id, answer) in ids.into_iter().zip(answers) {
            let receivers = answer
                .as_integer()
                .map_err(|error| error.during(ATTEMPT, queue))?;
            unheard += u64::from(receivers == 0);
            published.push(match receivers {
                -1 => Published::Deduplicated,
                _ => Published::Published(id),
            });
        }
        batch = later;
    }
    if unheard > 0 {
        // On a cluster the count is of one node, so nobody there may still be somebody elsewhere.
        let cause = GapCause::NoReceiver;
        broker.0.redis.report(&Event::Gap {
            queue,
            cause,
            lost: Some(unheard),
            lasted: None,
        });
    }
    Ok(published)
}

fn check_here(message: &Message, limit: usize) -> Result<(), BrokerError> {
    let reason = if message.deliver != Deliver::Now {
        "a channel holds nothing back: publish delayed messages to a list or a stream"
    } else if message.payload.as_bytes().is_none() {
        "a channel carries bytes, not fields: publish them to a stream"
    } else {
        return check(message, limit);
    };
    Err(failed(BrokerErrorKind::Unsupported, reason.to_owned()))
}

static PUBLISH: Script = Script::new(
    "pubsub/publish",
    include_str!("../scripts/pubsub/publish.lua"),
);

/// How many messages one script publishes.
const AT_ONCE: usize = 500;
