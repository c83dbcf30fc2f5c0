//! The retry schedule: not a layer, but what [`decide`](crate::settlement::decide) asks.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backoff::{Backoff, Jitter};
use crate::error::ConfigError;

/// How often, and after which delays, a failed message is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    max_attempts: u32,
    backoff: Backoff,
}

impl Retry {
    /// So many attempts in all, with delays that grow. Zero means one: a message that was received is tried.
    pub fn new(max_attempts: u32, backoff: Backoff) -> Self {
        Self {
            max_attempts: max_attempts.max(1),
            backoff,
        }
    }

    /// So many attempts in all, with the same delay between them.
    pub fn fixed(max_attempts: u32, delay: Duration) -> Self {
        Self::new(max_attempts, Backoff::fixed(delay))
    }

    /// So many attempts in all, with delays that double from `initial` to `max`, with full jitter.
    ///
    /// # Errors
    /// As [`Backoff::exponential`].
    pub fn exponential(
        max_attempts: u32,
        initial: Duration,
        max: Duration,
    ) -> Result<Self, ConfigError> {
        let backoff = Backoff::exponential(initial, max, DOUBLE, Jitter::Full)?;
        Ok(Self::new(max_attempts, backoff))
    }

    /// How many attempts are made in all, the first one and crashes included.
    pub const fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// How long to wait after the failure of that attempt, counted from 1.
    pub fn delay(&self, attempt: u32) -> Duration {
        self.backoff.delay(attempt)
    }
}

/// Settings of the retry schedule: section `[retry]`.
///
/// By default a message is tried five times: it waits up to 1, 2, 4 and 8 seconds between, so that a stumble is over
/// within seconds and a message that can't succeed is among the dead letters, where someone sees it, within about 15.
/// A service that must outlive longer outages raises `max_attempts`: from the tenth attempt on the delay stays at up to
/// five minutes, short enough that work resumes soon after an outage of hours, long enough that waiting costs nothing.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RetryConfig {
    /// Whether failed messages are tried again. Default: true. Without, the first failure is the last.
    pub enabled: bool,
    /// How many attempts are made in all, the first one and crashes included. Default: 5.
    pub max_attempts: NonZeroU32,
    /// The delay after the first failure, before jitter; at least 1 ms. Default: 1 s.
    #[serde(with = "humantime_serde")]
    pub initial_delay: Duration,
    /// The longest delay, at most 365 days. Default: 5 min.
    #[serde(with = "humantime_serde")]
    pub max_delay: Duration,
    /// By how much each delay exceeds the one before: 1 (all the same), or from 1.1 to 1000. Default: 2.
    pub factor: f64,
    /// How delays are randomized: "full", "equal" or "none". Default: "full".
    pub jitter: Jitter,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            max_attempts: NonZeroU32::new(5).unwrap_or(NonZeroU32::MIN),
            initial_delay: Duration::from_secs(1),
            max_delay: Duration::from_mins(5),
            factor: DOUBLE,
            jitter: Jitter::Full,
        }
    }
}

impl RetryConfig {
    /// No retries: the first failure is the last.
    pub fn off() -> Self {
        Self {
            enabled: false,
            ..Self::default()
        }
    }

    /// The schedule, or `None` if it is switched off.
    ///
    /// # Errors
    /// Names the key whose value makes no sense. Also when switched off: switching it on must not bring up an old error.
    pub fn checked(&self) -> Result<Option<Retry>, ConfigError> {
        let backoff = Backoff::named(
            ["retry.initial_delay", "retry.max_delay", "retry.factor"],
            self.initial_delay,
            self.max_delay,
            self.factor,
            self.jitter,
        )?;
        let retry = Retry::new(self.max_attempts.get(), backoff);
        Ok(self.enabled.then_some(retry))
    }
}

const DOUBLE: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_waits_longer_after_each_failure_but_never_too_long() {
        let config = RetryConfig {
            jitter: Jitter::None,
            ..RetryConfig::default()
        };
        let retry = config.checked().unwrap().unwrap();
        assert_eq!(retry.max_attempts(), 5);
        let secs = [1, 2, 3, 4, 9, 10, 11, u32::MAX].map(|attempt| retry.delay(attempt).as_secs());
        assert_eq!(secs, [1, 2, 4, 8, 256, 300, 300, 300]);
    }

    #[test]
    fn no_schedule_has_less_than_one_attempt() {
        assert_eq!(Retry::fixed(0, Duration::ZERO).max_attempts(), 1);
    }

    #[test]
    fn exponential_delays_are_jittered() {
        let hour = Duration::from_hours(1);
        let retry = Retry::exponential(9, hour, hour).unwrap();
        let [one, two] = [1, 2].map(|attempt| retry.delay(attempt));
        assert!(one < hour && two < hour && one != two, "{one:?} {two:?}");
        assert!(Retry::exponential(9, hour, Duration::ZERO).is_err());
    }

    #[test]
    fn it_is_read_by_name_and_refused_by_name() {
        let read = |text: &str| serde_json::from_str::<RetryConfig>(text);
        let config = read(r#"{"max_attempts": 3, "initial_delay": "250ms", "jitter": "equal"}"#);
        assert_eq!(
            config.unwrap(),
            RetryConfig {
                max_attempts: 3.try_into().unwrap(),
                initial_delay: Duration::from_millis(250),
                jitter: Jitter::Equal,
                ..RetryConfig::default()
            }
        );
        assert!(read(r#"{"max_attempts": 0}"#).is_err());
        assert!(read(r#"{"initial_delay": "-1s"}"#).is_err());
        assert!(read(r#"{"max_attemps": 3}"#).is_err());
        for (text, expected) in [
            (
                r#"{"initial_delay": "0s"}"#,
                "retry.initial_delay is 0ns, it must be at least 1ms",
            ),
            (
                r#"{"max_delay": "10ms"}"#,
                "retry.max_delay is 10ms, less than retry.initial_delay, which is 1s",
            ),
            (
                r#"{"factor": 0.5}"#,
                "retry.factor is 0.5, it must be 1 or between 1.1 and 1000",
            ),
        ] {
            assert_eq!(
                read(text).unwrap().checked().unwrap_err().to_string(),
                expected
            );
        }
        assert_eq!(RetryConfig::off().checked(), Ok(None));
    }
}
