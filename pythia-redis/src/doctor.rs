//! An examination of the Redis that a configuration leads to: what is wrong with it for queues, and what mends that.
//!
//! ```no_run
//! use pythia_core::{Config, QueueName};
//! use pythia_redis::doctor::{self, Severity};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let report = doctor::examine(&Config::load()?, &[QueueName::new("orders")?]).await?;
//! println!("{report}"); // the servers, then a block for each finding; by serde as JSON
//! for finding in report.findings() {
//!     if finding.severity() >= Severity::Warning {
//!         println!("{}: {}", finding.code(), finding.command().unwrap_or(finding.advice()));
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! It changes nothing, and its work is bounded: some sixty commands to each server, a few for each queue, and a look at no more
//! than 10,000 names of keys.
//! What the user may not ask, or a managed Redis does not tell, is a finding of its own, [`Code::NotExamined`].
//!
//! # At the start of a worker
//! When a broker of this crate is subscribed to for the first time, the same examination runs beside it, on a connection of its
//! own, and ends with the broker. What is critical is logged as an error, a warning as a warning, the rest at `debug`. What dead
//! workers have left behind is looked at some leases later: until then the upkeep may have cleared it up.
//! [`doctor = false`](crate::config::RedisConfig::doctor) in `[redis]` switches it off.

mod backlog;
mod checkup;
mod clock;
mod finding;
mod memory;
mod node;
mod permissions;
mod persistence;
mod replication;
mod report;
mod rules;
mod unowned;
mod version;

use std::time::Duration;

use pythia_core::{BrokerError, BrokerErrorKind, Config, ConfigError, QueueName};

use self::backlog::Backlog;
use self::node::{Findings, Node, Purpose};
use crate::acl::{self, Pattern};
use crate::config::RedisConfig;
use crate::connection::{Connection, Redis};
use crate::error::RedisError;
use crate::from_config::pattern;

pub use self::finding::{Code, Finding, Severity};
pub use self::memory::{HEADROOM_CRITICAL, HEADROOM_WARNING};
pub use self::report::{Persistence, Report, Server};

pub(crate) use self::checkup::Checkup;

/// Examines the Redis that a configuration leads to, its store if that is elsewhere, and what it holds of these queues.
///
/// Of a cluster every master is examined; by way of sentinels the primary.
///
/// # Errors
/// If Redis can't be reached, the settings can't be used, or they lead to no Redis: `broker.type` is `"memory"`. Whatever is
/// refused or gone later is among the findings.
pub async fn examine(config: &Config, queues: &[QueueName]) -> Result<Report, BrokerError> {
    let (pattern, config) = read(config).map_err(refused)?;
    let redis = Redis::new(config).map_err(refused)?;
    let examination = Examination::new(redis, pattern, queues.to_vec());
    let report = examination.whole().await;
    report.map_err(|error| error.while_attempting(ATTEMPTED))
}

/// The rules for a user who may do what these queues need, and nothing else: `ACL SETUSER worker reset on '>SECRET'` and
/// then these. They hold for every pattern.
///
/// # Errors
/// If the settings can't be used.
pub fn rights(config: &Config, queues: &[QueueName]) -> Result<Vec<String>, ConfigError> {
    Ok(acl::rules(&RedisConfig::from_config(config)?, queues))
}

fn read(config: &Config) -> Result<(Pattern, RedisConfig), ConfigError> {
    match pattern(config)? {
        Some(pattern) => Ok((pattern, RedisConfig::from_config(config)?)),
        None => Err(ConfigError::new(
            "broker.type is \"memory\", so there is no redis to examine: set it (or PYTHIA_BROKER_TYPE) to \"list\", \
             \"stream\" or \"pubsub\"",
        )),
    }
}

fn refused(error: ConfigError) -> BrokerError {
    BrokerError::new(BrokerErrorKind::Other, ATTEMPTED).because(error)
}

/// One examination, on a connection of its own.
#[derive(Debug)]
struct Examination {
    redis: Redis,
    connection: Connection,
    pattern: Pattern,
    queues: Vec<QueueName>,
}

impl Examination {
    fn new(redis: Redis, pattern: Pattern, queues: Vec<QueueName>) -> Self {
        Self {
            connection: redis.dedicated(),
            redis,
            pattern,
            queues,
        }
    }

    /// The servers and the queues.
    async fn whole(&self) -> Result<Report, RedisError> {
        let mut report = Report::default();
        if let Some(clock_skew) = self.servers(&mut report).await? {
            self.backlog(clock_skew, &mut report).await;
        }
        report.sort();
        Ok(report)
    }

    /// Every server, and what its user may do. Answers by how much a server's clock is ahead of ours, in ms; nothing if Redis
    /// refuses every command.
    async fn servers(&self, report: &mut Report) -> Result<Option<i64>, RedisError> {
        let mut clock_skew = 0;
        let other_store = self.redis.other_store();
        let purpose = match other_store {
            Some(_) => Purpose::Queues,
            None => Purpose::QueuesAndStore,
        };
        let nodes = Node::all(&self.redis, &self.connection, purpose, self.pattern).await;
        let nodes = match nodes {
            Err(error) if error.is_of_the_disk() => {
                report.add(persistence::refuses_everything(&self.redis, &error));
                return Ok(None);
            }
            nodes => nodes?,
        };
        for node in nodes {
            clock_skew = self.server(node, report).await.unwrap_or(clock_skew);
        }
        if let Some(store) = other_store {
            match Node::all(store, &store.dedicated(), Purpose::Store, self.pattern).await {
                Ok(nodes) => {
                    for node in nodes {
                        self.server(node, report).await;
                    }
                }
                Err(error) => report.add(node::unreachable(store.server().name(), &error)),
            }
        }
        if self.pattern != Pattern::PubSub {
            memory::shared_with_a_store(report);
        }
        Ok(Some(clock_skew))
    }

    async fn server(&self, mut node: Node<'_>, report: &mut Report) -> Option<i64> {
        let mut found = Findings::default();
        if let Err(error) = node.ask().await {
            report.add(node::unreachable(node.name, &error));
            return None;
        }
        version::examine(&mut node, &mut found);
        replication::examine(&mut node, &mut found);
        persistence::examine(&mut node, &mut found);
        memory::examine(&mut node, &mut found);
        let skew = clock::examine(&mut node, &mut found).await;
        permissions::examine(&node, &self.queues, &mut found).await;
        node.not_examined(&mut found);
        report.extend(node.server, found);
        skew
    }

    /// What lies in the queues.
    async fn backlog(&self, clock_skew: i64, report: &mut Report) {
        if self.pattern == Pattern::PubSub {
            return;
        }
        let mut found = Findings::default();
        let backlog = Backlog {
            connection: &self.connection,
            config: self.redis.config(),
            clock_skew,
        };
        for queue in self.queues.iter().take(MAX_QUEUES) {
            backlog.examine(self.pattern, queue, &mut found).await;
        }
        if self.pattern == Pattern::List {
            unowned::examine(&backlog, &self.queues, &mut found).await;
        }
        report.add_all(found);
    }
}

/// For people: `1h 30m`.
fn duration(duration: Duration) -> String {
    let whole = Duration::from_secs(duration.as_secs());
    let shown = if whole.is_zero() { duration } else { whole };
    humantime_serde::re::humantime::format_duration(shown).to_string()
}

const ATTEMPTED: &str = "examine redis";
/// How many queues are looked into.
const MAX_QUEUES: usize = 100;
