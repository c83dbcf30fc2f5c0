//! What is measured, and how: echoed beside every figure.

use std::fmt;

use clap::ValueEnum;
use pythia_core::Config;
use serde::{Deserialize, Serialize};

use crate::Failure;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    Drain,
    Enqueue,
    Latency,
    Idle,
}

#[derive(Clone, Debug, clap::Args, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// What carries the messages.
    #[arg(long, value_enum, default_value_t = Pattern::List)]
    pub(crate) pattern: Pattern,
    /// Of lists: pub/sub is at most once in any case, streams and the memory at least once.
    #[arg(long, value_enum, default_value_t = Delivery::AtLeastOnce)]
    pub(crate) delivery: Delivery,
    /// How many, of drain and enqueue.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) messages: u64,
    /// Of drain: so many wait, and as many come at once when they are settled. Messages per second then are those from the
    /// first job of each filling to its last settle; Redis' own time, in which it fills the queue too, is not shown.
    /// 1000000 at most. Without it all are there from the beginning.
    #[arg(long)]
    pub(crate) waiting: Option<u64>,
    /// Bytes of each message, a JSON object that is decoded; 100 at least.
    #[arg(long, default_value_t = 110)]
    pub(crate) payload: usize,
    /// The most that one fetch takes; how many one publish takes, of enqueue.
    #[arg(long, default_value_t = 500)]
    pub(crate) batch: usize,
    /// Readers, each with a connection.
    #[arg(long, default_value_t = 2)]
    pub(crate) lanes: usize,
    /// Jobs that run at once; without it, enough for two batches in each lane.
    #[arg(long)]
    pub(crate) concurrency: Option<usize>,
    /// How long each job takes, ms: it sleeps. Not with a consumer written by hand.
    #[arg(long, default_value_t = 0)]
    pub(crate) sleep: u64,
    /// Messages per second, of latency.
    #[arg(long, default_value_t = 500)]
    pub(crate) rate: u64,
    /// For how long, of latency and idle, s.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// A URL of a Redis whose queue `pythia-throughput` is not in use; or `spawn`: a redis-server is started, and ended.
    #[arg(long, default_value = SPAWN)]
    pub(crate) redis: String,
    /// The started redis-server keeps an append-only file, flushed as this says.
    #[arg(long, value_enum)]
    pub(crate) aof: Option<Fsync>,
    /// A round trip takes this much longer, ms: half of it in each direction.
    #[arg(long)]
    pub(crate) rtt: Option<f64>,
    /// Measures a consumer (or publisher) written by hand for this one purpose, too.
    #[arg(long, value_enum)]
    pub(crate) compare: Option<Compare>,
    /// How often each is measured; the median counts.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Threads of the measured process. With Redis on the same two cores, one leaves it the other.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Prints JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pattern {
    List,
    Stream,
    Pubsub,
    Memory,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Delivery {
    AtLeastOnce,
    AtMostOnce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fsync {
    Always,
    Everysec,
    No,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Compare {
    Raw,
}

impl Settings {
    /// Refuses what can't be measured, before anything is started.
    pub(crate) fn check(&self, what: What) -> Result<(), Failure> {
        let at_most_once = self.delivery == Delivery::AtMostOnce;
        if at_most_once && matches!(self.pattern, Pattern::Stream | Pattern::Memory) {
            return Err(format!("{} has no delivery at most once", self.pattern).into());
        }
        if self.compare.is_some() && self.pattern == Pattern::Memory {
            return Err("there is nothing to compare the broker in memory with".into());
        }
        if self.compare.is_some() && what == What::Idle {
            return Err("a consumer written by hand is not measured when idle".into());
        }
        if self.compare.is_some() && self.sleep > 0 {
            return Err("a consumer written by hand does one job after the other: leave out --sleep or --compare".into());
        }
        if what == What::Enqueue && self.pattern == Pattern::Memory {
            return Err("there is no way to the broker in memory that could be measured".into());
        }
        if what == What::Enqueue
            && self.compare.is_some()
            && self.pattern == Pattern::Pubsub
            && self.batch > 1
        {
            return Err("no bulk publish of channels is written by hand: --batch 1".into());
        }
        if self.waiting.is_some() && what != What::Drain {
            return Err("--waiting is for a drain".into());
        }
        if self.waiting.is_some() && matches!(self.pattern, Pattern::Pubsub | Pattern::Memory) {
            return Err(
                format!("nothing waits in a Redis for a worker of {}", self.pattern).into(),
            );
        }
        if self.waiting.is_some_and(|waiting| waiting > 1_000_000) {
            return Err("--waiting is 1000000 at most, because Redis fills the queue with one script: without it all --messages wait".into());
        }
        if !self.messages.is_multiple_of(self.filling().max(1)) {
            return Err("--messages are a multiple of --waiting".into());
        }
        if self.aof.is_some() && (self.redis != SPAWN || self.pattern == Pattern::Memory) {
            return Err("--aof is for a redis-server that is started here".into());
        }
        if self.rtt.is_some() && self.pattern == Pattern::Memory {
            return Err("there is no way to the broker in memory that could be longer".into());
        }
        if self.rtt.is_some_and(|ms| !(0.0..=60_000.0).contains(&ms)) {
            return Err("--rtt is from 0 to 60000 ms".into());
        }
        if self.rate > 1_000_000 {
            return Err("--rate is 1000000 at most: messages are published one by one".into());
        }
        let counts = [
            ("rounds", self.rounds as u64),
            ("messages", self.messages),
            ("waiting", self.filling()),
            ("batch", self.batch as u64),
            ("lanes", self.lanes as u64),
            ("threads", self.threads as u64),
            ("rate", self.rate),
            ("seconds", self.seconds),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(format!("--{name} is 1 at least").into());
        }
        Ok(())
    }

    /// How many wait at a time, at most.
    pub(crate) fn filling(&self) -> u64 {
        self.waiting.unwrap_or(self.messages)
    }

    /// A worker's configuration with every guard on.
    pub(crate) fn config(&self, url: &str) -> Result<Config, pythia_core::ConfigError> {
        let Self {
            pattern,
            batch,
            lanes,
            ..
        } = self;
        let concurrency = self.concurrency.unwrap_or(batch * lanes * 2);
        let redis = match (pattern, self.delivery) {
            (Pattern::Memory, _) => String::new(),
            (Pattern::List, Delivery::AtMostOnce) => {
                format!("[redis]\nurl = \"{url}\"\n[redis.list]\ndelivery = \"at-most-once\"\n")
            }
            (Pattern::Pubsub, _) => {
                format!("[redis]\nurl = \"{url}\"\n[redis.pubsub]\nbuffer = {WINDOW}\n")
            }
            _ => format!("[redis]\nurl = \"{url}\"\n"),
        };
        let lanes = match pattern {
            Pattern::Pubsub => 1,
            _ => *lanes,
        };
        Config::from_toml(&format!(
            "[broker]\ntype = \"{pattern}\"\n{redis}\
             [worker]\nbatch = {batch}\nconcurrency = {concurrency}\nlanes = {lanes}\n[timeout]\nhard = \"30s\"\n"
        ))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::List => "list",
            Self::Stream => "stream",
            Self::Pubsub => "pubsub",
            Self::Memory => "memory",
        })
    }
}

/// What `--redis` says for a server of this program's own.
pub(crate) const SPAWN: &str = "spawn";
/// Messages of a channel that are published and not yet processed, at most: what is more would be dropped.
pub(crate) const WINDOW: u64 = 65_536;
