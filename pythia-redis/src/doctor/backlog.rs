//! What lies in the queues: another type than is expected, and messages that nobody looks after.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytestring::ByteString;
use pythia_core::QueueName;

use super::duration;
use super::finding::{Code, Finding, Severity};
use super::node::{Findings, quoted};
use crate::acl::Pattern;
use crate::config::RedisConfig;
use crate::connection::{Args, Connection, Reply};
use crate::error::{Kind, RedisError};
use crate::keys::Keys;

/// What the queues are looked into by.
#[derive(Debug)]
pub(super) struct Backlog<'a> {
    pub(super) connection: &'a Connection,
    pub(super) config: &'a RedisConfig,
    /// By how many milliseconds the server's clock is ahead of ours.
    pub(super) clock_skew: i64,
}

/// What a consumer holds.
#[derive(Debug, Default)]
struct Held {
    messages: u64,
    longest: Duration,
}

impl Backlog<'_> {
    pub(super) async fn examine(&self, pattern: Pattern, queue: &QueueName, found: &mut Findings) {
        let outcome = match self.is_of_type(pattern, queue, found).await {
            Ok(true) if pattern == Pattern::Stream => self.stream(queue, found).await,
            Ok(true) => self.list(queue, found).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            let what = format!("could not be examined: {}", error.detail());
            let note = about(queue, Severity::Note, Code::NotExamined, what)
                .means("whether messages are held by workers that are gone is not known")
                .advice_is("give the user the rights that docs/deploy.md has");
            found.add(note);
        }
    }

    async fn is_of_type(
        &self,
        pattern: Pattern,
        queue: &QueueName,
        found: &mut Findings,
    ) -> Result<bool, RedisError> {
        let ready = Keys::new(&self.config.key_prefix, queue).ready;
        let wanted = match pattern {
            Pattern::Stream => "stream",
            Pattern::List | Pattern::PubSub => "list",
        };
        let is = self
            .connection
            .command("TYPE", Args::new().key(&ready))
            .await?
            .into_text()?;
        if is == wanted || is == "none" {
            return Ok(true);
        }
        let elsewhere = match ready.contains('{') {
            true => format!("{ready}:{is}"),
            false => format!("{{{ready}}}:{is}"),
        };
        let what = format!("the key {ready:?} is a {is}, not a {wanted}");
        let finding = about(queue, Severity::Critical, Code::WrongType, what)
            .means("another program, or another pattern, uses the name: every command fails with WRONGTYPE")
            .mended_by(format!("RENAMENX {} {}", quoted(&ready), quoted(&elsewhere)))
            .advice_is(
                "if nobody needs it under this name; otherwise give the queue another name (broker.queue), or a redis.key_prefix",
            );
        found.add(finding);
        Ok(false)
    }

    async fn list(&self, queue: &QueueName, found: &mut Findings) -> Result<(), RedisError> {
        let keys = Keys::new(&self.config.key_prefix, queue);
        let patience = self.config.lease * ORPHAN_LEASES;
        let now = self.server_now();
        let before = now.saturating_sub(patience).as_millis();
        let args = Args::new()
            .key(&keys.consumers)
            .arg("-inf")
            .arg(before.to_string())
            .arg("WITHSCORES")
            .arg("LIMIT")
            .arg(0)
            .arg(MAX_CONSUMERS);
        let silent = self
            .connection
            .command("ZRANGEBYSCORE", args)
            .await?
            .into_array()?;
        let mut orphans = BTreeMap::new();
        for pair in silent.chunks_exact(2) {
            let consumer = pair[0].clone().into_text()?;
            let expired: f64 = pair[1].clone().into_text()?.parse().unwrap_or_default();
            let messages = self.held(&keys, &consumer).await?;
            if messages > 0 {
                let longest = now.saturating_sub(Duration::from_millis(expired as u64));
                orphans.insert(consumer, Held { messages, longest });
            }
        }
        orphan(queue, &orphans, found);
        Ok(())
    }

    /// How many messages of a list its claims hold.
    pub(super) async fn held(&self, keys: &Keys, consumer: &str) -> Result<u64, RedisError> {
        let key = keys.key(format_args!("held:{consumer}"));
        let claims = self
            .connection
            .command("HGETALL", Args::new().key(&key))
            .await?
            .into_array()?;
        let mut messages = 0;
        for pair in claims.chunks_exact(2) {
            // Other fields say which claim was the last.
            if pair[0].as_integer().is_ok() {
                messages += pair[1].as_count()?;
            }
        }
        Ok(messages)
    }

    async fn stream(&self, queue: &QueueName, found: &mut Findings) -> Result<(), RedisError> {
        let keys = Keys::new(&self.config.key_prefix, queue);
        let group = &self.config.stream.group;
        let own = keys.group(group);
        let suspect = keys.key(format_args!("suspect:{group}"));
        let mut orphans: BTreeMap<ByteString, Held> = BTreeMap::new();
        let mut old = Held::default();
        for stream in [&keys.ready, &own.retry, &suspect] {
            for [_, consumer, idle, _] in self.pending(stream).await? {
                let consumer = consumer.into_text()?;
                let idle = Duration::from_millis(idle.as_count()?);
                let holder = if !self.has_lease(&own.consumers, &consumer).await? {
                    orphans.entry(consumer).or_default()
                } else if idle >= self.config.lease * OLD_LEASES {
                    &mut old
                } else {
                    continue;
                };
                holder.messages += 1;
                holder.longest = holder.longest.max(idle);
            }
        }
        orphan(queue, &orphans, found);
        if old.messages > 0 {
            let what = format!(
                "{} messages were handed out to living workers up to {} ago, and nobody has renewed or settled them",
                up_to_max(old.messages),
                duration(old.longest)
            );
            let finding = about(queue, Severity::Warning, Code::OldPending, what)
                .means("they are late, and stay so: upkeep, which takes back what is silent for a lease, does not come round")
                .advice_is(UPKEEP);
            found.add(finding);
        }
        Ok(())
    }

    /// What the group has not settled and nobody has renewed for several leases.
    async fn pending(&self, stream: &ByteString) -> Result<Vec<[Reply; 4]>, RedisError> {
        let idle = self.config.lease * ORPHAN_LEASES;
        let args = Args::new()
            .key(stream)
            .arg(self.config.stream.group.clone())
            .arg("IDLE")
            .arg(idle.as_millis().to_string())
            .arg("-")
            .arg("+")
            .arg(MAX_PENDING);
        match self.connection.command("XPENDING", args).await {
            Ok(rows) => rows
                .into_array()?
                .into_iter()
                .map(Reply::into_tuple)
                .collect(),
            Err(error) if error.kind() == Kind::NoGroup => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn has_lease(
        &self,
        consumers: &ByteString,
        consumer: &ByteString,
    ) -> Result<bool, RedisError> {
        let args = Args::new().key(consumers).arg(consumer);
        let score = self.connection.command("ZSCORE", args).await?;
        if score.is_nil() {
            return Ok(false);
        }
        let expiry: f64 = score.into_text()?.parse().unwrap_or_default();
        Ok(expiry > self.server_now().as_millis() as f64)
    }

    fn server_now(&self) -> Duration {
        let ours = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let skew = Duration::from_millis(self.clock_skew.unsigned_abs());
        match self.clock_skew < 0 {
            true => ours.saturating_sub(skew),
            false => ours + skew,
        }
    }
}

fn orphan(queue: &QueueName, orphans: &BTreeMap<ByteString, Held>, found: &mut Findings) {
    let messages: u64 = orphans.values().map(|held| held.messages).sum();
    let Some(longest) = orphans.values().map(|held| held.longest).max() else {
        return;
    };
    let consumers: Vec<&str> = orphans.keys().take(MAX_NAMED).map(|name| &**name).collect();
    let more = match orphans.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let what = format!(
        "{} messages are held by workers that are gone, for {}: {}{more}",
        up_to_max(messages),
        duration(longest),
        consumers.join(", ")
    );
    let finding = about(queue, Severity::Warning, Code::OrphanConsumer, what)
        .means("nobody works on them; the upkeep of any worker of the queue takes them back within a lease, so none has run")
        .advice_is(UPKEEP);
    found.add(finding);
}

pub(super) fn about(
    queue: &QueueName,
    severity: Severity,
    code: Code,
    what: impl Into<String>,
) -> Finding {
    Finding::new(severity, code, format!("queue {queue}"), what)
}

/// A count that was cut off says so.
fn up_to_max(messages: u64) -> String {
    match messages >= MAX_PENDING {
        true => format!("{messages} or more"),
        false => messages.to_string(),
    }
}

const UPKEEP: &str = "start a worker of the queue (of a stream: of the same group); if one runs, its log says why its upkeep \
                      fails";
/// A worker that is silent for so many leases is gone: its messages should have been taken back after one.
const ORPHAN_LEASES: u32 = 3;
/// A living worker renews what it holds each third of a lease.
const OLD_LEASES: u32 = 10;
const MAX_CONSUMERS: u64 = 100;
const MAX_NAMED: usize = 5;
const MAX_PENDING: u64 = 100;
