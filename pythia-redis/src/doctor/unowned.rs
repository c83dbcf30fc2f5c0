//! Claims on lists whose consumer is not among the queue's consumers: no upkeep finds them.

use pythia_core::QueueName;

use super::backlog::{Backlog, about};
use super::finding::{Code, Severity};
use super::node::{Findings, quoted};
use crate::acl;
use crate::connection::{Args, Connection, Master};
use crate::error::RedisError;
use crate::keys::Keys;

/// Looks at a bounded number of keys of each server: what claims hold is under no other name that could be asked for. Where
/// that is refused, or a server is gone, the rest of the report has said so.
pub(super) async fn examine(backlog: &Backlog<'_>, queues: &[QueueName], found: &mut Findings) {
    let prefix = &backlog.config.key_prefix;
    let named = held(backlog.connection, &acl::held_keys(prefix)).await;
    for queue in queues {
        let keys = Keys::new(prefix, queue);
        let begins = keys.key("held:");
        let consumers = named.iter().filter_map(|key| key.strip_prefix(&*begins));
        for consumer in consumers {
            let Ok(messages @ 1..) = unowned(backlog, &keys, consumer).await else {
                continue;
            };
            let what = format!(
                "{messages} messages are held by {consumer}, which is not among the queue's consumers"
            );
            let finding = about(queue, Severity::Warning, Code::OrphanConsumer, what)
                .means("somebody has changed keys by hand; upkeep knows nothing of these messages, so they never come back")
                .mended_by(format!("ZADD {} 0 {}", quoted(&keys.consumers), quoted(consumer)))
                .advice_is("makes its lease an expired one: the next upkeep of any worker takes the messages back");
            found.add(finding);
        }
    }
}

/// How many messages this one holds; none if it is one of the consumers.
async fn unowned(backlog: &Backlog<'_>, keys: &Keys, consumer: &str) -> Result<u64, RedisError> {
    let args = Args::new().key(&keys.consumers).arg(consumer.to_owned());
    let lease = backlog.connection.command("ZSCORE", args).await?;
    match lease.is_nil() {
        true => backlog.held(keys, consumer).await,
        false => Ok(0),
    }
}

/// The names of the keys like this, among the first that each server goes through.
async fn held(connection: &Connection, like: &str) -> Vec<String> {
    let mut named = Vec::new();
    for master in connection.masters().await.unwrap_or_default() {
        let mut cursor = "0".to_owned();
        for _ in 0..ROUNDS {
            let Ok((next, keys)) = scan(connection, &master, cursor, like).await else {
                break;
            };
            named.extend(keys);
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
    }
    named
}

async fn scan(
    connection: &Connection,
    master: &Master,
    cursor: String,
    like: &str,
) -> Result<(String, Vec<String>), RedisError> {
    let args = Args::new()
        .arg(cursor)
        .arg("MATCH")
        .arg(like.to_owned())
        .arg("COUNT")
        .arg(KEYS_A_ROUND);
    let [next, keys] = connection
        .command_at(master, "SCAN", args)
        .await?
        .into_tuple()?;
    let keys = keys.into_array()?.into_iter();
    let keys = keys.map(|key| Ok(key.into_text()?.to_string()));
    Ok((
        next.into_text()?.to_string(),
        keys.collect::<Result<_, RedisError>>()?,
    ))
}

/// Each keeps Redis busy for less than a millisecond.
const KEYS_A_ROUND: u64 = 500;
const ROUNDS: usize = 20;
