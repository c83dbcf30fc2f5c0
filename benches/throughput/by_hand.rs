//! The ceiling: consumers and publishers as one would write them by hand for nothing but speed, with the same guarantee, in
//! batches of the same size, and nothing around them. Acknowledgements travel with the next read.

use fred::prelude::*;
use fred::types::config::PerformanceConfig;
use fred::types::{CustomCommand, MultipleKeys, Value};
use futures_util::future::{try_join, try_join_all};
use tokio::task::JoinSet;

use crate::Failure;
use crate::part::{Measured, Meter, Part};
use crate::payment::Payment;
use crate::progress::Progress;
use crate::pythia::payloads;
use crate::redis::{ADD, QUEUE, add_one, connect};
use crate::settings::{Delivery, Pattern, Settings, What};

/// Consumers, until they are dropped.
pub(crate) struct Consumers(JoinSet<Result<(), Error>>);

impl Consumers {
    /// Why one of them has ended.
    pub(crate) async fn failed(mut self) -> Failure {
        loop {
            match self.0.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return error.into(),
                Some(Err(error)) => return error.into(),
                // All are done; the one who waits for that will see it.
                None => std::future::pending().await,
            }
        }
    }
}

/// One reader: its connection, and what it needs to know.
struct Reader {
    client: Client,
    name: String,
    batch: usize,
    /// The queue is empty at first, and between two messages.
    waits: bool,
    progress: Progress,
}

/// Starts the readers, when all of them are connected.
pub(crate) async fn consume(part: &Part, progress: &Progress) -> Result<Consumers, Failure> {
    let settings = &part.settings;
    let mut consumers = JoinSet::new();
    if settings.pattern == Pattern::Pubsub {
        consumers.spawn(subscriber(&part.url, progress.clone()).await?);
        return Ok(Consumers(consumers));
    }
    if settings.pattern == Pattern::Stream {
        let setup = connect(&part.url).await?;
        let _: Value = setup.xgroup_create(QUEUE, GROUP, "0", true).await?;
    }
    let readers = (0..settings.lanes).map(|lane| async move {
        Ok::<_, Error>(Reader {
            client: connect(&part.url).await?,
            name: format!("by-hand-{lane}"),
            batch: settings.batch,
            waits: part.what == What::Latency || settings.waiting.is_some(),
            progress: progress.clone(),
        })
    });
    for reader in try_join_all(readers).await? {
        match (settings.pattern, settings.delivery) {
            (Pattern::Stream, _) => consumers.spawn(stream(reader)),
            (_, Delivery::AtLeastOnce) => consumers.spawn(list(reader)),
            (_, Delivery::AtMostOnce) => consumers.spawn(list_at_most_once(reader)),
        };
    }
    Ok(Consumers(consumers))
}

/// At least once: what is in hand is a list of the reader's own, which the next claim empties.
async fn list(reader: Reader) -> Result<(), Error> {
    let claim = Script::load(&reader.client, CLAIM).await?;
    let own = format!("{QUEUE}:{}", reader.name);
    let mut in_hand = 0;
    while in_hand > 0 || !reader.progress.is_over() {
        if reader.waits && in_hand == 0 {
            let args = [QUEUE, INBOX, "RIGHT", "LEFT", "1"].map(Value::from);
            let wait = CustomCommand::new_static("BLMOVE", None, true);
            let _moved: Value = reader.client.custom(wait, args.to_vec()).await?;
        }
        let args = [in_hand.into(), (reader.batch as i64).into()];
        let claimed = claim
            .call(&reader.client, &[QUEUE, INBOX, &own], args)
            .await?;
        reader.progress.settled(in_hand as u64);
        in_hand = reader.work(claimed.into_array()) as i64;
    }
    Ok(())
}

async fn list_at_most_once(reader: Reader) -> Result<(), Error> {
    while !reader.progress.is_over() {
        let messages = if reader.waits {
            let args: [Value; 6] = [
                1.into(),
                1.into(),
                QUEUE.into(),
                "RIGHT".into(),
                "COUNT".into(),
                (reader.batch as i64).into(),
            ];
            let pop = CustomCommand::new_static("BLMPOP", None, true);
            let popped: Value = reader.client.custom(pop, args.to_vec()).await?;
            popped
                .into_array()
                .pop()
                .map_or(Vec::new(), Value::into_array)
        } else {
            let popped: Value = reader.client.rpop(QUEUE, Some(reader.batch)).await?;
            match popped {
                Value::Null => Vec::new(),
                popped => popped.into_array(),
            }
        };
        reader.progress.settled(reader.work(messages) as u64);
    }
    Ok(())
}

/// At least once, with the fence that keeps those from acknowledging who have lost what they had.
async fn stream(reader: Reader) -> Result<(), Error> {
    let Reader { client, name, .. } = &reader;
    let ack = Script::load(client, ACK).await?;
    let leases = format!("{QUEUE}:leases");
    // A worker would renew it.
    let _: Value = client
        .zadd(&leases, None, None, false, false, (1e15, name.as_str()))
        .await?;
    let mut in_hand: Vec<Value> = Vec::new();
    while !in_hand.is_empty() || !reader.progress.is_over() {
        let count = in_hand.len() as u64;
        let read = client.xreadgroup::<Value, _, _, MultipleKeys, _>(
            GROUP,
            name.as_str(),
            Some(reader.batch as u64),
            (reader.waits && count == 0).then_some(1_000),
            false,
            QUEUE.into(),
            ">",
        );
        let entries = if count == 0 {
            read.await?
        } else {
            let args = [GROUP.into(), name.as_str().into()]
                .into_iter()
                .chain(std::mem::take(&mut in_hand));
            let keys = [QUEUE, &leases];
            let ack = ack.call(client, &keys, args);
            let (_, entries) = try_join(ack, read).await?;
            reader.progress.settled(count);
            entries
        };
        if entries.is_null() {
            continue;
        }
        let stream = entries
            .into_array()
            .pop()
            .map_or(Vec::new(), Value::into_array);
        let entries = stream
            .into_iter()
            .nth(1)
            .map_or(Vec::new(), Value::into_array);
        for entry in entries {
            if let [id, fields] = &mut entry.into_array()[..] {
                let body = fields.take().into_array().into_iter().nth(1);
                reader.work(body.into_iter().collect());
                in_hand.push(id.take());
            }
        }
    }
    Ok(())
}

impl Reader {
    /// The job.
    fn work(&self, bodies: Vec<Value>) -> usize {
        let count = bodies.len();
        for body in bodies {
            let payment = body.as_bytes().and_then(Payment::from_json);
            self.progress
                .begin(&payment.expect("the filler writes payments"));
        }
        count
    }
}

/// Subscribes; answers what goes on from there.
async fn subscriber(
    url: &str,
    progress: Progress,
) -> Result<impl Future<Output = Result<(), Error>> + Send + 'static, Failure> {
    let config = PerformanceConfig {
        broadcast_channel_capacity: 1 << 20,
        ..PerformanceConfig::default()
    };
    let mut builder = Builder::from_config(Config::from_url(url)?);
    let client = builder.set_performance_config(config).build()?;
    client.init().await?;
    let mut messages = client.message_rx();
    client.subscribe(QUEUE).await?;
    Ok(async move {
        let _client = client;
        while let Ok(message) = messages.recv().await {
            let mut count = 0;
            let mut next = Some(message);
            while let Some(message) = next {
                let payment = message.value.as_bytes().and_then(Payment::from_json);
                progress.begin(&payment.expect("the publisher writes payments"));
                count += 1;
                next = (count < 500).then(|| messages.try_recv().ok()).flatten();
            }
            progress.settled(count);
        }
        Ok(())
    })
}

/// Publishes one batch after the other, on one connection.
pub(crate) async fn enqueue(
    part: &Part,
    progress: &Progress,
    meter: &mut Meter,
) -> Result<Measured, Failure> {
    let Settings {
        pattern,
        batch,
        payload,
        ..
    } = part.settings;
    let client = connect(&part.url).await?;
    let bodies = payloads(batch, payload);
    let add = Script::load(&client, ADD).await?;
    meter.begin().await?;
    while !progress.is_over() {
        let values = || bodies.iter().cloned().map(Value::Bytes);
        match (pattern, &bodies[..]) {
            (pattern, [body]) => add_one(&client, pattern, body.clone()).await?,
            (Pattern::List, _) => {
                client
                    .lpush::<(), _, _>(QUEUE, values().collect::<Vec<_>>())
                    .await?
            }
            (Pattern::Stream, _) => drop(add.call(&client, &[QUEUE], values()).await?),
            _ => return Err("there is no bulk publish of channels by hand".into()),
        }
        progress.settled(bodies.len() as u64);
    }
    meter.end(progress).await
}

/// A script that Redis knows.
struct Script(String);

impl Script {
    async fn load(client: &Client, source: &str) -> Result<Self, Error> {
        client.script_load(source).await.map(Self)
    }

    async fn call(
        &self,
        client: &Client,
        keys: &[&str],
        args: impl IntoIterator<Item = Value>,
    ) -> Result<Value, Error> {
        let mut values: Vec<Value> = vec![self.0.as_str().into(), (keys.len() as i64).into()];
        values.extend(keys.iter().map(|&key| Value::from(key)));
        values.extend(args);
        client
            .custom(CustomCommand::new_static("EVALSHA", None, false), values)
            .await
    }
}

const GROUP: &str = "by-hand";
const INBOX: &str = "pythia-throughput:inbox";
const CLAIM: &str = "\
if ARGV[1] ~= '0' then redis.call('LTRIM', KEYS[3], ARGV[1], -1) end \
local messages = redis.call('RPOP', KEYS[2], ARGV[2]) or redis.call('RPOP', KEYS[1], ARGV[2]) or {} \
if #messages > 0 then redis.call('RPUSH', KEYS[3], unpack(messages)) end \
return messages";
const ACK: &str = "\
local now = redis.call('TIME') \
local lease = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[2]) or 0) \
if lease <= now[1] * 1000 + now[2] / 1000 then return redis.error_reply('LEASE the lease is over') end \
return redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 3))";
