//! One server while it is examined, and what it says of itself.

use std::collections::BTreeMap;

use bytestring::ByteString;

use super::finding::{Code, Finding, Severity};
use super::report::Server;
use crate::acl::Pattern;
use crate::config::RedisConfig;
use crate::connection::{Args, Connection, Master, Redis, Reply};
use crate::error::{Kind, RedisError};

/// What a server is there for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    Queues,
    QueuesAndStore,
    Store,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

/// A server under examination.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) name: String,
    pub(super) redis: &'a Redis,
    pub(super) purpose: Purpose,
    pub(super) pattern: Pattern,
    pub(super) server: Server,
    connection: Connection,
    master: Master,
    info: ByteString,
    settings: BTreeMap<&'static str, String>,
    /// What was refused, and why.
    refused: BTreeMap<&'static str, String>,
}

impl<'a> Node<'a> {
    /// Every master of a cluster, or the one server that there is.
    pub(super) async fn all(
        redis: &'a Redis,
        connection: &Connection,
        purpose: Purpose,
        pattern: Pattern,
    ) -> Result<Vec<Self>, RedisError> {
        let masters = connection.masters().await?;
        let nodes = masters.into_iter().map(|master| {
            let name = match master.to_string() {
                name if name.is_empty() => redis.server().name(),
                name => name,
            };
            Self {
                server: Server {
                    name: name.clone(),
                    purpose: purpose.name(),
                    ..Server::default()
                },
                name,
                redis,
                purpose,
                pattern,
                connection: connection.clone(),
                master,
                info: ByteString::new(),
                settings: BTreeMap::new(),
                refused: BTreeMap::new(),
            }
        });
        Ok(nodes.collect())
    }

    /// Asks for all that it says of itself. What it does not say is noted.
    ///
    /// # Errors
    /// If it does not answer.
    pub(super) async fn ask(&mut self) -> Result<(), RedisError> {
        let info = self.command("INFO", Args::new()).await;
        match info.and_then(Reply::into_text) {
            Ok(info) => self.info = info,
            Err(error) => self.refuse("INFO", error)?,
        }
        for name in SETTINGS {
            let args = Args::new().arg("GET").arg(*name);
            let answer = self.command("CONFIG", args).await;
            match answer.and_then(Reply::into_tuple) {
                Ok([_, value]) => {
                    self.settings.insert(name, value.into_text()?.to_string());
                }
                Err(error) if error.kind() == Kind::Protocol => {}
                Err(error) => {
                    self.refuse("CONFIG GET", error)?;
                    break;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn command(
        &self,
        name: &'static str,
        args: Args,
    ) -> Result<Reply, RedisError> {
        self.connection.command_at(&self.master, name, args).await
    }

    /// A line of `INFO`.
    pub(super) fn info(&self, name: &str) -> Option<&str> {
        let value = |line: &'_ str| -> Option<usize> {
            let rest = line.strip_prefix(name)?.strip_prefix(':')?;
            Some(line.len() - rest.len())
        };
        self.info
            .lines()
            .find_map(|line| Some(line[value(line)?..].trim()))
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.info(name)?.parse().ok()
    }

    /// What `CONFIG GET` says.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    pub(super) fn config(&self) -> &RedisConfig {
        self.redis.config()
    }

    /// Whether messages lie in it. Channels hold none.
    pub(super) fn holds_messages(&self) -> bool {
        self.purpose != Purpose::Store && self.pattern != Pattern::PubSub
    }

    /// The version as numbers; none of what it does not name.
    pub(super) fn version(&self) -> Option<(u64, u64)> {
        let mut parts = self.info("redis_version")?.split('.');
        let mut next = || parts.next()?.parse().ok();
        Some((next()?, next()?))
    }

    pub(super) fn finding(
        &self,
        severity: Severity,
        code: Code,
        what: impl Into<String>,
    ) -> Finding {
        Finding::new(severity, code, &*self.name, what)
    }

    /// Keeps in mind that something was refused.
    ///
    /// # Errors
    /// The same error, if it was none that the server gave as an answer.
    pub(super) fn refuse(
        &mut self,
        what: &'static str,
        error: RedisError,
    ) -> Result<(), RedisError> {
        match error.kind() {
            Kind::TimedOut | Kind::Unavailable => Err(error),
            _ => {
                self.refused.insert(what, error.detail().to_owned());
                Ok(())
            }
        }
    }

    pub(super) fn not_examined(&self, found: &mut Findings) {
        for (what, why) in &self.refused {
            let user = &self.redis.server().username;
            let user = user.as_deref().unwrap_or("default");
            let (seen_by, rule) = match *what {
                "INFO" => ("nothing of the server is known", "+info"),
                "CONFIG GET" => (
                    "when the disk is written to, and how many replicas writes wait for, is not known",
                    "'+config|get'",
                ),
                _ => ("how far its clock is off is not known", "+time"),
            };
            let note = self
                .finding(Severity::Note, Code::NotExamined, format!("could not be examined: {what}: {why}"))
                .means(seen_by)
                .mended_by(format!("ACL SETUSER {user} {rule}"))
                .advice_is("or not at all: workers do without, and a managed Redis may have no such command");
            found.add(note);
        }
    }
}

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        self.0.push(finding);
    }
}

impl Purpose {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Queues => "queues",
            Self::QueuesAndStore => "queues and store",
            Self::Store => "store",
        }
    }
}

/// A server that the others, or the settings, name.
pub(super) fn unreachable(name: String, error: &RedisError) -> Finding {
    let what = format!("could not be reached: {}", error.detail());
    Finding::new(Severity::Critical, Code::Unreachable, name, what)
        .means("the queues of a cluster's slots that are there, or the values of the store, can't be had")
        .advice_is("start it, or correct redis.url and redis.store_url")
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "+-_:./@".contains(c);
    match word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

const SETTINGS: &[&str] = &[
    "appendfsync",
    "min-replicas-to-write",
    "no-appendfsync-on-rewrite",
    "save",
];
