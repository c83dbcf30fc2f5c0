//! The settings of the runner and of its routes. Each key is documented, with its default, where it is declared.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::message::QueueName;
use crate::resilience::{BreakerConfig, RateLimit, RetryConfig, TimeoutConfig};

/// Settings of a runner: section `[runner]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RunnerConfig {
    /// How long running jobs may take to finish after a shutdown has begun; then they are cancelled and handed back.
    /// Default: 25 s, below the 30 s after which Kubernetes kills.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// How often each queue is looked after: delayed messages, messages of dead workers, trimming. Default: 1 s,
    /// jittered by a quarter.
    #[serde(with = "humantime_serde")]
    pub maintain_interval: Duration,
    /// How often the depth of each queue and the state of the broker's server are read for metrics, and once more after
    /// the drain. Default: 5 s, jittered by a quarter; zero: never.
    #[serde(with = "humantime_serde")]
    pub sample_interval: Duration,
    /// A lane that completes no read for so long gets a new subscription; after twice that time the process is
    /// reported as not live. At least 12 s, because an idle read of some brokers takes ten. Default: 15 s.
    #[serde(with = "humantime_serde")]
    pub stall_after: Duration,
}

impl Default for RunnerConfig {
    fn default() -> Self {
        Self {
            drain_timeout: Duration::from_secs(25),
            maintain_interval: Duration::from_secs(1),
            sample_interval: Duration::from_secs(5),
            stall_after: Duration::from_secs(15),
        }
    }
}

impl RunnerConfig {
    /// Refuses what would keep the runner from working.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for (key, value, least) in [
            // Less would be a busy loop of round trips.
            (
                "maintain_interval",
                self.maintain_interval,
                SHORTEST_INTERVAL,
            ),
            // An idle read takes up to ten seconds: less would take idle lanes for stalled ones.
            ("stall_after", self.stall_after, Duration::from_secs(12)),
        ] {
            if value < least {
                return Err(ConfigError::new(format!(
                    "runner.{key} is {value:?}, it must be at least {least:?}"
                )));
            }
        }
        // Zero is never; but less than this is the same busy loop.
        if !self.sample_interval.is_zero() && self.sample_interval < SHORTEST_INTERVAL {
            return Err(ConfigError::new(format!(
                "runner.sample_interval is {:?}, it must be at least {SHORTEST_INTERVAL:?}, or zero",
                self.sample_interval
            )));
        }
        Ok(())
    }
}

/// Settings of a route: section `[worker]` for all routes, `[routes.NAME]` for one, with the sections `[retry]`,
/// `[breaker]` and `[timeout]` as parts of it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RouteConfig {
    /// The queue, if it is to be another than the route's name. Default: the route's name.
    pub queue: Option<String>,
    /// How many messages one fetch takes at most; for a batch worker, also how many one call gets. Default: 100.
    pub batch: NonZeroUsize,
    /// How many bytes of payloads one fetch aims at, at most: with large messages fewer are fetched at once, judged by
    /// the sizes seen so far. Default: 8 MiB.
    pub batch_bytes: NonZeroUsize,
    /// How long a batch worker waits for its batch to fill. Default: 10 ms.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// How many readers work on the queue side by side, each with a connection and tasks of its own; on a fan-out broker
    /// always one. Default: 2.
    pub lanes: NonZeroUsize,
    /// How many jobs may be running at once, in all lanes together; there are never more lanes than that. A call of a
    /// batch worker gets a whole batch all the same; what it bounds is how many calls run side by side. Default: 100.
    pub concurrency: NonZeroUsize,
    /// How many messages are started in a given time, such as "100/s" or "10/min". Default: none, no limit.
    pub rate: Option<RateLimit>,
    /// What becomes of dead messages. Default: "auto".
    pub dead_letters: DeadLetters,
    /// Whether to refuse to start on a broker that can't hand a message out again. Default: false.
    pub at_least_once: bool,
    /// Whether a panic of the worker counts as a failure of its message, rather than ending the runner. Default: true.
    pub isolate_panics: bool,
    /// The schedule of retries.
    pub retry: RetryConfig,
    /// The circuit breaker.
    pub breaker: BreakerConfig,
    /// The time limits.
    pub timeout: TimeoutConfig,
}

impl Default for RouteConfig {
    fn default() -> Self {
        Self {
            queue: None,
            batch: NonZeroUsize::new(100).unwrap_or(NonZeroUsize::MIN),
            batch_bytes: NonZeroUsize::new(8 << 20).unwrap_or(NonZeroUsize::MIN),
            linger: Duration::from_millis(10),
            lanes: NonZeroUsize::new(2).unwrap_or(NonZeroUsize::MIN),
            concurrency: NonZeroUsize::new(100).unwrap_or(NonZeroUsize::MIN),
            rate: None,
            dead_letters: DeadLetters::Auto,
            at_least_once: false,
            isolate_panics: true,
            retry: RetryConfig::default(),
            breaker: BreakerConfig::default(),
            timeout: TimeoutConfig::default(),
        }
    }
}

impl RouteConfig {
    /// Refuses what makes no sense, whatever the broker.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if let Some(queue) = &self.queue {
            QueueName::new(queue)?;
        }
        self.retry.checked()?;
        self.breaker.checked()?;
        self.timeout.checked()?;
        Ok(())
    }
}

/// What becomes of messages that can't be processed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DeadLetters {
    /// Kept where the broker can keep them, otherwise discarded and reported.
    #[default]
    Auto,
    /// Discarded and reported.
    Discard,
    /// Kept; on a broker that can't keep them the runner is not built.
    Keep,
}

/// Between two looks at a broker.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
