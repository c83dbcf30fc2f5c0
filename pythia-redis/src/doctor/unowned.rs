//! Claims on lists whose consumer is not among the queue's consumers: no upkeep finds them.

use pythia_core::QueueName;

use super::backlog::{Backlog, about};
use super::finding::{Code, Severity};
use super::node::{Findings, quoted};
use crate::acl;
use crate::connection::{Args, Connection, Reply};
use crate::error::{Kind, RedisError};
use crate::keys::Keys;

/// Looks at a bounded number of keys of each server: what claims hold is under no other name that could be asked for.
pub(super) async fn examine(
    backlog: &Backlog<'_>,
    queues: &[QueueName],
    found: &mut Findings,
) -> Result<(), RedisError> {
    let prefix = &backlog.config.key_prefix;
    let named = match held(backlog.connection, &acl::held_keys(prefix)).await {
        Ok(named) => named,
        Err(error) if matches!(error.kind(), Kind::TimedOut | Kind::Unavailable) => {
            return Err(error);
        }
        // The rest of the report has said what is refused.
        Err(_) => return Ok(()),
    };
    for queue in queues {
        let keys = Keys::new(prefix, queue);
        let begins = keys.key("held:");
        let consumers = named.iter().filter_map(|key| key.strip_prefix(&*begins));
        for consumer in consumers {
            let args = Args::new().key(&keys.consumers).arg(consumer.to_owned());
            if !backlog.connection.command("ZSCORE", args).await?.is_nil() {
                continue;
            }
            let messages = backlog.held(&keys, consumer).await?;
            if messages == 0 {
                continue;
            }
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
    Ok(())
}

/// The names of the keys like this, among the first that each server goes through.
async fn held(connection: &Connection, like: &str) -> Result<Vec<String>, RedisError> {
    let mut named = Vec::new();
    for master in connection.masters().await? {
        let mut cursor = "0".to_owned();
        for _ in 0..ROUNDS {
            let args = Args::new()
                .arg(cursor)
                .arg("MATCH")
                .arg(like.to_owned())
                .arg("COUNT")
                .arg(KEYS_A_ROUND);
            let answer = connection.command_at(&master, "SCAN", args).await?;
            let [next, keys] = answer.into_tuple()?;
            let keys = keys.into_array()?.into_iter().map(Reply::into_text);
            for key in keys {
                named.push(key?.to_string());
            }
            cursor = next.into_text()?.to_string();
            if cursor == "0" {
                break;
            }
        }
    }
    Ok(named)
}

/// Each keeps Redis busy for less than a millisecond.
const KEYS_A_ROUND: u64 = 500;
const ROUNDS: usize = 20;
