//! The server: what it is filled with, and what it has done.

use std::collections::BTreeMap;
use std::time::Duration;

use fred::prelude::*;
use fred::types::{CustomCommand, InfoKind, Value};

use crate::Failure;
use crate::payment::Payment;
use crate::settings::{Pattern, Settings};

/// The queue.
pub(crate) const QUEUE: &str = "pythia-throughput";

/// What fills it again and again: a list.
const KEPT: &str = "pythia-throughput:kept";

/// What the server has done until now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used {
    pub(crate) cpu: Duration,
    /// How often each command was called.
    pub(crate) calls: BTreeMap<String, u64>,
}

pub(crate) async fn connect(url: &str) -> Result<Client, Error> {
    let client = Builder::from_config(Config::from_url(url)?).build()?;
    client.init().await?;
    Ok(client)
}

pub(crate) async fn used(client: &Client) -> Result<Used, Error> {
    let cpu: String = client.info(Some(InfoKind::Cpu)).await?;
    let calls: String = client.info(Some(InfoKind::CommandStats)).await?;
    let seconds = |name: &str| -> f64 {
        let value = cpu.lines().find_map(|line| line.strip_prefix(name));
        value
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(0.0)
    };
    let calls = calls.lines().filter_map(|line| {
        let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = figures.split(',').next()?.parse().ok()?;
        Some((name.to_owned(), calls))
    });
    let cpu = seconds("used_cpu_user:") + seconds("used_cpu_sys:");
    Ok(Used {
        cpu: Duration::from_secs_f64(cpu),
        calls: calls.collect(),
    })
}

pub(crate) async fn version(client: &Client) -> Result<String, Error> {
    let server: String = client.info(Some(InfoKind::Server)).await?;
    let of = |name: &str| {
        let value = server.lines().find_map(|line| line.strip_prefix(name));
        value.map(|value| value.trim().to_owned())
    };
    Ok(match (of("valkey_version:"), of("redis_version:")) {
        (Some(version), _) => format!("Valkey {version}"),
        (None, version) => format!("Redis {}", version.unwrap_or_default()),
    })
}

/// A server that somebody else uses keeps what it has: where any key could be taken for ours, nothing is begun.
pub(crate) async fn refuse_in_use(client: &Client) -> Result<(), Failure> {
    match keys(client).await?.first() {
        None => Ok(()),
        Some(key) => {
            Err(format!("this Redis has a key {key:?}: remove it first, if nobody needs it").into())
        }
    }
}

/// Removes what was made since the server was found not to be in use.
pub(crate) async fn empty(client: &Client) -> Result<(), Error> {
    match keys(client).await? {
        keys if keys.is_empty() => Ok(()),
        keys => client.unlink(keys).await,
    }
}

/// All keys that belong to the queue.
async fn keys(client: &Client) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    let mut cursor = "0".to_owned();
    let pattern = format!("*{QUEUE}*");
    loop {
        let args = [cursor.as_str(), "MATCH", &pattern, "COUNT", "1000"].map(Value::from);
        let scan = CustomCommand::new_static("SCAN", None, false);
        let (next, keys): (String, Vec<String>) = client.custom(scan, args.to_vec()).await?;
        all.extend(keys);
        if next == "0" {
            return Ok(all);
        }
        cursor = next;
    }
}

/// Fills the queue as a plain client would.
pub(crate) async fn fill(client: &Client, settings: &Settings) -> Result<(), Error> {
    if settings.waiting.is_none() {
        return fill_with(client, settings.messages, settings, settings.pattern, QUEUE).await;
    }
    fill_with(client, settings.filling(), settings, Pattern::List, KEPT).await?;
    refill(client, settings.pattern).await
}

/// Fills the queue with as many messages as the first time, all at once. Redis does it by itself: a client that sent them
/// would take processor time from those who are measured, and longer than the call takes.
pub(crate) async fn refill(client: &Client, pattern: Pattern) -> Result<(), Error> {
    let add = match pattern {
        Pattern::Stream => {
            "for _, body in ipairs(part) do redis.call('XADD', KEYS[2], '*', 'data', body) end"
        }
        _ => "redis.call('LPUSH', KEYS[2], unpack(part))",
    };
    let check = match pattern {
        Pattern::List => {
            "\
            if redis.call('LLEN', KEYS[2]) > 0 then return redis.error_reply('ERR it is not drained') end"
        }
        // What a group has read stays in the stream.
        _ => "",
    };
    // What this leaves to be collected must not be collected during a contender's scripts.
    let script = format!(
        "{check} \
         for from = redis.call('LLEN', KEYS[1]), 1, -500 do \
         local part = redis.call('LRANGE', KEYS[1], math.max(from - 500, 0), from - 1) \
         {add} end \
         collectgarbage()"
    );
    let args: [Value; 4] = [script.into(), 2.into(), KEPT.into(), QUEUE.into()];
    let eval = CustomCommand::new_static("EVAL", None, false);
    client.custom(eval, args.to_vec()).await
}

async fn fill_with(
    client: &Client,
    count: u64,
    settings: &Settings,
    pattern: Pattern,
    key: &str,
) -> Result<(), Error> {
    let mut id = 0;
    while id < count {
        let last = (id + 500).min(count);
        let bodies = (id..last).map(|id| Payment::number(id, settings.payload).to_json());
        add(client, key, pattern, bodies.collect()).await?;
        id = last;
    }
    Ok(())
}

/// Adds messages with one command; of streams and channels, with one script.
pub(crate) async fn add(
    client: &Client,
    key: &str,
    pattern: Pattern,
    bodies: Vec<Vec<u8>>,
) -> Result<(), Error> {
    let bodies = bodies.into_iter().map(|body| Value::Bytes(body.into()));
    let script = match pattern {
        Pattern::Stream => ADD,
        Pattern::Pubsub => "for i = 1, #ARGV do redis.call('PUBLISH', KEYS[1], ARGV[i]) end",
        Pattern::List | Pattern::Memory => {
            return client.lpush(key, bodies.collect::<Vec<_>>()).await;
        }
    };
    let args = [script.into(), 1.into(), key.into()]
        .into_iter()
        .chain(bodies);
    let eval = CustomCommand::new_static("EVAL", None, false);
    client.custom(eval, args.collect::<Vec<Value>>()).await
}

/// Adds one message, with the command that is made for it.
pub(crate) async fn add_one(
    client: &Client,
    pattern: Pattern,
    body: impl Into<bytes::Bytes> + Send,
) -> Result<(), Error> {
    let body = Value::Bytes(body.into());
    match pattern {
        Pattern::Stream => client.xadd(QUEUE, false, None, "*", ("data", body)).await,
        Pattern::Pubsub => client.publish(QUEUE, body).await,
        Pattern::List | Pattern::Memory => client.lpush(QUEUE, body).await,
    }
}

/// Adds entries to a stream, each with the one field that a worker reads JSON from.
pub(crate) const ADD: &str =
    "for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'data', ARGV[i]) end";
