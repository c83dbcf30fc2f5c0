//! Messages into a channel, a batch in one round trip.

use std::time::SystemTime;

use bytestring::ByteString;
use pythia_core::broker::Published;
use pythia_core::envelope::Frame;
use pythia_core::observe::{Event, GapCause};
use pythia_core::{BrokerError, BrokerErrorKind, Deliver, Message, MessageId, Payload, QueueName};

use super::PubSubBroker;
use super::numbers::NUMBER;
use crate::config::PubSubMode;
use crate::connection::Args;
use crate::error::RedisError;
use crate::keys::Keys;
use crate::script::Script;

pub(super) async fn publish(
    broker: &PubSubBroker,
    queue: &QueueName,
    batch: Vec<Message>,
) -> Result<Vec<Published>, BrokerError> {
    let config = broker.0.redis.config();
    let command = match config.pubsub.mode {
        PubSubMode::Channel | PubSubMode::Pattern => "PUBLISH",
        PubSubMode::Sharded => "SPUBLISH",
    };
    // Everything is checked before anything is sent.
    for message in &batch {
        check(message, config.max_message_bytes).map_err(|error| error.queue(queue))?;
    }
    let keys = Keys::new(&config.key_prefix, queue);
    let now = SystemTime::now();
    let mut published = Vec::with_capacity(batch.len());
    let mut unheard = 0;
    let mut rest = batch.into_iter();
    while rest.len() > 0 {
        let count = rest.len().min(AT_ONCE);
        let first = broker.numbers(queue, count);
        let mut dedupe_keys = Vec::new();
        let mut args = Args::with_capacity(2 + 2 * count)
            .arg(command)
            .arg(config.dedupe_window.as_millis().max(1).to_string());
        let mut ids = Vec::with_capacity(count);
        for (number, message) in (first..).zip(rest.by_ref().take(count)) {
            let id = message.id.clone().unwrap_or_else(MessageId::random);
            let key = message
                .dedupe_key
                .as_ref()
                .map(|key| keys.key(format_args!("dedupe:{key}")));
            // The channel is the first key.
            let index = key.as_ref().map_or(0, |_| dedupe_keys.len() + 2);
            dedupe_keys.extend(key);
            let number = format!("{}:{number}", broker.0.publisher);
            args = args
                .arg(index.to_string())
                .arg(framed(message, &id, now, number.into()));
            ids.push(id);
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

fn check(message: &Message, limit: usize) -> Result<(), BrokerError> {
    let refused = |kind, reason: String| Err(BrokerError::new(kind, ATTEMPT).because(reason));
    if message.deliver != Deliver::Now {
        let reason = "a channel holds nothing back: publish delayed messages to a list or a stream";
        return refused(BrokerErrorKind::Unsupported, reason.into());
    }
    let Payload::Bytes(payload) = &message.payload else {
        let reason = "a channel carries bytes, not fields: publish them to a stream";
        return refused(BrokerErrorKind::Unsupported, reason.into());
    };
    let headers: usize = message
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    let bytes = payload.len() + headers;
    if bytes > limit {
        let reason = format!(
            "a message of {bytes} bytes, headers included, is above the limit of {limit} bytes (`redis.max_message_bytes`)"
        );
        return refused(BrokerErrorKind::TooLarge, reason);
    }
    if let Some((name, _)) = message
        .headers
        .iter()
        .find(|(name, _)| name.len() > usize::from(u16::MAX))
    {
        let reason = format!(
            "the name of a header has {} bytes, {} are allowed",
            name.len(),
            u16::MAX
        );
        return refused(BrokerErrorKind::TooLarge, reason);
    }
    Ok(())
}

fn framed(message: Message, id: &MessageId, now: SystemTime, number: ByteString) -> bytes::Bytes {
    let Message {
        payload: Payload::Bytes(payload),
        mut headers,
        ..
    } = message
    else {
        unreachable!("checked before anything was sent")
    };
    headers.insert(NUMBER, number);
    let mut frame = Frame::new(payload);
    frame.id = Some(id.clone());
    frame.enqueued_at = Some(now);
    frame.headers = headers;
    frame.encode()
}

static PUBLISH: Script = Script::new(
    "pubsub/publish",
    include_str!("../scripts/pubsub/publish.lua"),
);

const ATTEMPT: &str = "publish messages";
/// How many messages one script publishes.
const AT_ONCE: usize = 500;
