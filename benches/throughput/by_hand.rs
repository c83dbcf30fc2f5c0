//! The ceiling: consumers as one would write them by hand for this one purpose, with two connections, batches of the same
//! size, and nothing around them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fred::prelude::*;
use fred::types::{CustomCommand, Value};

use crate::Payment;

pub(crate) async fn connect(url: &str) -> Result<Client, Error> {
    let client = Builder::from_config(Config::from_url(url)?).build()?;
    client.init().await?;
    Ok(client)
}

/// Fills a list or a stream as a plain client would.
pub(crate) async fn fill(client: &Client, pattern: &str, messages: usize) -> Result<(), Error> {
    let all: Vec<u64> = (0..messages as u64).collect();
    for chunk in all.chunks(500) {
        let bodies: Vec<Value> = chunk
            .iter()
            .map(|&id| Value::Bytes(Payment::number(id).into()))
            .collect();
        if pattern == "stream" {
            let mut args: Vec<Value> = vec![ADD.into(), 1.into(), "payments".into()];
            args.extend(bodies);
            let _: Value = client
                .custom(CustomCommand::new_static("EVAL", None, false), args)
                .await?;
        } else {
            let _: i64 = client.lpush("payments", bodies).await?;
        }
    }
    Ok(())
}

/// At least once: a batch moves into a list of the consumer's own, and that list is deleted when all of it is done.
pub(crate) async fn list(url: &str, messages: usize, batch: usize) -> Result<(), Error> {
    let done = Arc::new(AtomicUsize::new(0));
    let consume = |own: &'static str| {
        let done = Arc::clone(&done);
        async move {
            let client = connect(url).await?;
            while done.load(Ordering::Relaxed) < messages {
                let args: Vec<Value> = vec![
                    CLAIM.into(),
                    2.into(),
                    "payments".into(),
                    own.into(),
                    (batch as i64).into(),
                ];
                let claimed: Value = client
                    .custom(CustomCommand::new_static("EVAL", None, false), args)
                    .await?;
                let count = decode(
                    claimed
                        .into_array()
                        .into_iter()
                        .last()
                        .unwrap_or(Value::Null)
                        .into_array(),
                );
                done.fetch_add(count, Ordering::Relaxed);
                let _: i64 = client.del(own).await?;
            }
            Ok::<_, Error>(())
        }
    };
    tokio::try_join!(consume("own-1"), consume("own-2")).map(drop)
}

/// A consumer group: read, acknowledge.
pub(crate) async fn stream(url: &str, messages: usize, batch: usize) -> Result<(), Error> {
    let setup = connect(url).await?;
    let _: Value = setup
        .xgroup_create("payments", "by-hand", "0", true)
        .await?;
    let done = Arc::new(AtomicUsize::new(0));
    let consume = |name: &'static str| {
        let done = Arc::clone(&done);
        async move {
            let client = connect(url).await?;
            while done.load(Ordering::Relaxed) < messages {
                let read: Value = client
                    .xreadgroup(
                        "by-hand",
                        name,
                        Some(batch as u64),
                        None,
                        false,
                        "payments",
                        ">",
                    )
                    .await?;
                let Some(Value::Array(entries)) = read
                    .into_array()
                    .pop()
                    .and_then(|stream| stream.into_array().pop())
                else {
                    continue;
                };
                let mut ids = Vec::with_capacity(entries.len());
                let mut bodies = Vec::with_capacity(entries.len());
                for entry in entries {
                    if let [id, fields] = &mut entry.into_array()[..] {
                        ids.push(id.take());
                        bodies.extend(fields.take().into_array().into_iter().nth(1));
                    }
                }
                let count = decode(bodies);
                let mut args: Vec<Value> = vec!["payments".into(), "by-hand".into()];
                args.extend(ids);
                let _: i64 = client
                    .custom(CustomCommand::new_static("XACK", None, false), args)
                    .await?;
                done.fetch_add(count, Ordering::Relaxed);
            }
            Ok::<_, Error>(())
        }
    };
    tokio::try_join!(consume("one"), consume("two")).map(drop)
}

fn decode(bodies: Vec<Value>) -> usize {
    bodies
        .into_iter()
        .filter(|body| {
            let payment = body
                .as_bytes()
                .and_then(|bytes| serde_json::from_slice::<Payment>(bytes).ok());
            std::hint::black_box(payment).is_some()
        })
        .count()
}

const ADD: &str = "for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'data', ARGV[i]) end";
const CLAIM: &str = "local m = redis.call('RPOP', KEYS[1], ARGV[1]); \
    if not m then return {0, {}} end; redis.call('RPUSH', KEYS[2], unpack(m)); return {#m, m}";
