//! Presets: settings that belong together, under one name.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::leaf::Leaf;
use super::source::Source;

/// Several settings under one name, for what most matters in a service: `preset = "throughput"` at the top of the file,
/// `PYTHIA_PRESET`, or [`Config::with_preset`](super::Config::with_preset).
///
/// A preset stands in for defaults: whatever is set anywhere wins over it. [`settings`](Self::settings) lists what it sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Preset {
    /// Nothing is lost that could be kept, and long outages are outlived: for payments rather than for page views.
    Durable,
    /// Each message is done soon after it was published, at the cost of more round trips.
    LowLatency,
    /// As many messages a second as possible, at the cost of memory, and of what a crash repeats.
    Throughput,
}

/// One of the settings of a [`Preset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresetSetting {
    /// The setting, such as `worker.batch`.
    pub name: &'static str,
    /// Its value, as a variable would say it.
    pub value: &'static str,
    /// Why the preset sets it.
    pub reason: &'static str,
}

impl Preset {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Durable, Self::LowLatency, Self::Throughput];

    /// What it sets, and why.
    pub const fn settings(self) -> &'static [PresetSetting] {
        match self {
            Self::Durable => DURABLE,
            Self::LowLatency => LOW_LATENCY,
            Self::Throughput => THROUGHPUT,
        }
    }

    /// Its name in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::LowLatency => "low_latency",
            Self::Throughput => "throughput",
        }
    }

    pub(super) fn leaves(self) -> impl Iterator<Item = Leaf> {
        self.settings().iter().map(move |setting| Leaf {
            path: setting.name.split('.').map(str::to_owned).collect(),
            value: setting.value.into(),
            source: Source::preset(self),
        })
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

const fn set(name: &'static str, value: &'static str, reason: &'static str) -> PresetSetting {
    PresetSetting {
        name,
        value,
        reason,
    }
}

const DURABLE: &[PresetSetting] = &[
    set(
        "worker.at_least_once",
        "true",
        "a broker that hands each message out only once is refused at the start",
    ),
    set(
        "worker.dead_letters",
        "keep",
        "what can't be processed waits for someone to look at it, and a broker that can't keep it is refused",
    ),
    set(
        "retry.max_attempts",
        "30",
        "an outage of an hour is outlived: thirty attempts take 1 h 50 min before jitter, half of that on average",
    ),
    set(
        "memory.dedupe_window",
        "1day",
        "as `redis.dedupe_window`, so that tests see what production does",
    ),
    set(
        "redis.dedupe_window",
        "1day",
        "a publisher that repeats itself after a night's outage still publishes once; each key takes memory for so long",
    ),
];

const LOW_LATENCY: &[PresetSetting] = &[
    set(
        "worker.batch",
        "10",
        "a message waits behind nine others at most; what is not fetched is there for any worker that is idle",
    ),
    set(
        "worker.linger",
        "0s",
        "a batch worker is called with what is there, rather than waiting for more",
    ),
    set(
        "retry.initial_delay",
        "100ms",
        "a failure that passes at once, such as a lost connection, costs no whole second",
    ),
    set(
        "breaker.open_for",
        "1s",
        "work resumes within about a second after a dependency has recovered from a short failure",
    ),
    set(
        "redis.reconnect_max_delay",
        "500ms",
        "work resumes half a second after Redis is back at the latest, for two attempts a second while it is away",
    ),
];

const THROUGHPUT: &[PresetSetting] = &[
    set(
        "worker.batch",
        "500",
        "a round trip for each 500 messages; a crash repeats up to twice as many for each lane",
    ),
    set(
        "worker.batch_bytes",
        "33554432",
        "32 MiB: batches of messages of up to 64 KiB are full as well",
    ),
    set(
        "worker.concurrency",
        "1000",
        "handlers that wait for something else fill the time of one another; ten times the connections they use",
    ),
    set(
        "worker.linger",
        "100ms",
        "a batch worker gets full batches also from a queue that fills slowly",
    ),
    set(
        "redis.maintain.promote",
        "1000",
        "many retries that are due together become ready in few round trips; each keeps Redis busy for a few milliseconds",
    ),
];
