//! Rate limit: at most so many messages in a period, with bursts up to a limit.
//!
//! The generic cell rate algorithm of ITU-T I.371, the virtual-scheduling form of a leaky bucket as a meter: the whole
//! state is the time at which the next message would be due if all came evenly. It needs no task that refills anything,
//! and waiting means to sleep until a time that is known.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use humantime_serde::re::humantime::{format_duration, parse_duration};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::error::ConfigError;

/// At most so many messages in a period.
///
/// As text, in configuration: `"100/s"`, `"6000/min"`, `"1/10s"`, and with a burst: `"100/s burst 20"`.
///
/// ```
/// # use std::time::Duration;
/// # use pythia_core::resilience::RateLimit;
/// let limit: RateLimit = "1/10s".parse()?;
/// assert_eq!(limit, RateLimit::new(1, Duration::from_secs(10))?);
/// # Ok::<(), pythia_core::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct RateLimit {
    count: NonZeroU32,
    period: Duration,
    burst: Option<NonZeroU32>,
}

impl RateLimit {
    /// So many messages in each period, evenly, but for a burst of a tenth of a second's worth.
    ///
    /// # Errors
    /// If the count is zero, or the period is not between 1 ms and 1 day.
    pub fn new(count: u32, period: Duration) -> Result<Self, ConfigError> {
        let Some(count) = NonZeroU32::new(count) else {
            return Err(ConfigError::new(
                "a rate of zero would never let anything through",
            ));
        };
        if !PERIODS.contains(&period) {
            return Err(ConfigError::new(format!(
                "the period of a rate is {period:?}, it must be between 1ms and 1 day"
            )));
        }
        Ok(Self {
            count,
            period,
            burst: None,
        })
    }

    /// So many messages each second.
    ///
    /// # Errors
    /// If the count is zero.
    pub fn per_second(count: u32) -> Result<Self, ConfigError> {
        Self::new(count, Duration::from_secs(1))
    }

    /// So many messages may come at once after a pause. Over any length of time there are at most as many messages as
    /// the rate allows, plus the burst. Default: what the rate allows in a tenth of a second, at least one.
    #[must_use]
    pub const fn burst(mut self, burst: NonZeroU32) -> Self {
        self.burst = Some(burst);
        self
    }
}

impl FromStr for RateLimit {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let unreadable = || {
            ConfigError::new(format!(
                "{text:?} is not a rate such as \"100/s\", \"6000/min\", \"1/10s\" or \"100/s burst 20\""
            ))
        };
        let mut words = text.split_whitespace();
        let (count, period) = words
            .next()
            .and_then(|rate| rate.split_once('/'))
            .ok_or_else(unreadable)?;
        let count = count.parse().map_err(|_| unreadable())?;
        let period = if period.starts_with(|c: char| c.is_ascii_digit()) {
            parse_duration(period)
        } else {
            parse_duration(&format!("1{period}"))
        };
        let limit = Self::new(count, period.map_err(|_| unreadable())?)?;
        match (words.next(), words.next(), words.next()) {
            (None, ..) => Ok(limit),
            (Some("burst"), Some(burst), None) => {
                Ok(limit.burst(burst.parse().map_err(|_| unreadable())?))
            }
            _ => Err(unreadable()),
        }
    }
}

impl TryFrom<String> for RateLimit {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Self, ConfigError> {
        text.parse()
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = format_duration(self.period).to_string().replace(' ', "");
        let period = match &*period {
            "1s" => "s",
            "1m" => "min",
            "1h" => "h",
            "1day" => "day",
            other => other,
        };
        write!(f, "{}/{period}", self.count)?;
        match self.burst {
            Some(burst) => write!(f, " burst {burst}"),
            None => Ok(()),
        }
    }
}

impl From<RateLimit> for String {
    fn from(limit: RateLimit) -> Self {
        limit.to_string()
    }
}

/// Keeps a route within its [`RateLimit`]. Shared by the route's lanes, asked once a fetch.
///
/// Times are in units of the period divided by the count, so that no rate is rounded.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    count: u128,
    /// One message's share of time.
    share: u128,
    burst: u128,
    epoch: Instant,
    /// When the next message would be due if all came evenly, since the epoch.
    due: Mutex<u128>,
    refunded: Notify,
}

impl RateLimiter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        let worth_of = |time: Duration| {
            u128::from(limit.count.get()) * time.as_nanos() / limit.period.as_nanos()
        };
        let burst = match limit.burst {
            Some(burst) => burst.get().into(),
            None => worth_of(BURST),
        };
        Self {
            count: u128::from(limit.count.get()),
            share: limit.period.as_nanos(),
            // With less than what comes between two ticks of tokio's timers, the rate would never be reached.
            burst: burst.max(worth_of(TIMER_TICKS)).max(1),
            epoch: Instant::now(),
            due: Mutex::new(0),
            refunded: Notify::new(),
        }
    }

    /// Waits until at least one message may be started, then takes as many as may be, at most `max`. Cancel safe.
    pub(crate) async fn reserve(&self, max: usize) -> usize {
        loop {
            // Made before the look: a refund between the look and the wait wakes it.
            let refunded = self.refunded.notified();
            let at = match self.try_reserve(Instant::now(), max.max(1)) {
                Ok(messages) => return messages,
                Err(at) => at,
            };
            // Cancel safety: neither of the two loses anything when dropped.
            tokio::select! {
                () = refunded => {}
                () = sleep_until(at) => {}
            }
        }
    }

    /// Gives back what was reserved and not used.
    pub(crate) fn refund(&self, messages: usize) {
        if messages > 0 {
            let mut due = self.lock();
            *due = due.saturating_sub(messages as u128 * self.share);
            drop(due);
            self.refunded.notify_waiters();
        }
    }

    /// How many may be started now, or when the next one may.
    fn try_reserve(&self, now: Instant, max: usize) -> Result<usize, Instant> {
        let now = now.saturating_duration_since(self.epoch).as_nanos() * self.count;
        let mut due = self.lock();
        let start = now.max(*due);
        let room = (now + self.burst * self.share).saturating_sub(start) / self.share;
        if room == 0 {
            let at = start + self.share - self.burst * self.share;
            let nanos = at.div_ceil(self.count).min(u64::MAX.into()) as u64;
            return Err(self.epoch + Duration::from_nanos(nanos));
        }
        let messages = room.min(max as u128);
        *due = start + messages * self.share;
        Ok(messages as usize)
    }

    fn lock(&self) -> MutexGuard<'_, u128> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const PERIODS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_hours(24);
/// The burst of a rate that names none.
const BURST: Duration = Duration::from_millis(100);
/// Tokio's timers tick once a millisecond, and a task may be late for one.
const TIMER_TICKS: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;
    use tokio::time::{advance, timeout};

    use super::*;

    fn limit(text: &str) -> RateLimit {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_burst_messages_come_evenly() {
        let rate = RateLimiter::new(limit("10/s burst 3"));
        let began = Instant::now();
        let mut at = Vec::new();
        for _ in 0..6 {
            assert_eq!(rate.reserve(1).await, 1);
            at.push((Instant::now() - began).as_millis());
        }
        assert_eq!(at, [0, 0, 0, 100, 200, 300]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_what_there_is_at_most_what_is_asked_for() {
        let rate = RateLimiter::new(limit("10/s burst 5"));
        assert_eq!(rate.reserve(2).await, 2);
        assert_eq!(rate.reserve(9).await, 3);
        assert!(rate.reserve(9).now_or_never().is_none());
        advance(Duration::from_millis(250)).await;
        assert_eq!(rate.reserve(9).now_or_never(), Some(2));
        advance(Duration::from_hours(1)).await;
        assert_eq!(rate.reserve(9).now_or_never(), Some(5));
        assert_eq!(rate.reserve(9).now_or_never(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refunded_may_be_used_at_once_by_one_who_waits() {
        let rate = RateLimiter::new(limit("1/h burst 4"));
        assert_eq!(rate.reserve(4).await, 4);
        let waiting = timeout(Duration::from_secs(1), rate.reserve(9));
        let refunding = async {
            tokio::task::yield_now().await;
            rate.refund(3);
        };
        assert_eq!(tokio::join!(waiting, refunding).0, Ok(3));
        rate.refund(0);
        assert_eq!(rate.reserve(1).now_or_never(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_dropped_takes_nothing_along() {
        let rate = RateLimiter::new(limit("1/10s"));
        assert_eq!(rate.reserve(9).await, 1);
        let began = Instant::now();
        for _ in 0..9 {
            assert!(
                timeout(Duration::from_secs(1), rate.reserve(9))
                    .await
                    .is_err()
            );
        }
        assert_eq!(rate.reserve(9).await, 1);
        assert_eq!(Instant::now() - began, Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_high_rate_is_reached_in_spite_of_timers_of_a_millisecond() {
        for text in ["50000/s", "50000/s burst 1"] {
            let rate = RateLimiter::new(limit(text));
            let began = Instant::now();
            let mut messages = 0;
            while messages < 100_000 {
                messages += rate.reserve(1_000).await;
            }
            let took = Instant::now() - began;
            assert!(
                (Duration::from_millis(1_850)..Duration::from_millis(2_050)).contains(&took),
                "{text}: {took:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_has_more_than_its_share_and_the_burst(
            count in 1u32..5_000,
            period_millis in 1u64..100_000,
            burst in 1u32..100,
            waits in proptest::collection::vec((0u64..5_000, 1usize..200), 1..100),
        ) {
            let period = Duration::from_millis(period_millis);
            let limit = RateLimit::new(count, period).unwrap().burst(burst.try_into().unwrap());
            let rate = RateLimiter::new(limit);
            let mut now = rate.epoch;
            let mut given: Vec<(Instant, u128)> = Vec::new();
            for (wait, max) in waits {
                now += Duration::from_millis(wait);
                match rate.try_reserve(now, max) {
                    Ok(messages) => {
                        prop_assert!((1..=max).contains(&messages));
                        given.push((now, messages as u128));
                    }
                    Err(at) => {
                        prop_assert!(at > now);
                        let just_before = at - Duration::from_nanos(1);
                        prop_assert!(rate.try_reserve(just_before, max).is_err());
                    }
                }
                let mut messages = 0;
                for (since, more) in given.iter().rev() {
                    messages += more;
                    let share = (now - *since).as_nanos() * u128::from(count) / period.as_nanos();
                    prop_assert!(messages <= share + rate.burst, "{messages} since {:?}", now - *since);
                }
            }
        }

        #[test]
        fn its_text_reads_back(count in 1u32.., period in 1u64..86_400_000, burst in proptest::option::of(1u32..)) {
            let mut limit = RateLimit::new(count, Duration::from_millis(period)).unwrap();
            limit.burst = burst.and_then(NonZeroU32::new);
            prop_assert_eq!(limit.to_string().parse::<RateLimit>().unwrap(), limit);
        }
    }

    #[test]
    fn it_is_read_from_text_and_written_as_text() {
        for (text, count, secs) in [("100/s", 100, 1), ("6000/min", 6_000, 60), ("1/10s", 1, 10)] {
            assert_eq!(
                limit(text),
                RateLimit::new(count, Duration::from_secs(secs)).unwrap()
            );
            assert_eq!(limit(text).to_string(), text);
        }
        let with_burst: RateLimit = serde_json::from_str("\"100/s burst 20\"").unwrap();
        assert_eq!(
            with_burst,
            RateLimit::per_second(100)
                .unwrap()
                .burst(20.try_into().unwrap())
        );
        assert_eq!(
            serde_json::to_string(&with_burst).unwrap(),
            "\"100/s burst 20\""
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "",
            "100",
            "/s",
            "100/",
            "s/100",
            "-1/s",
            "1.5/s",
            "100/s burst",
            "100/s burst 0",
            "100/s burst 5 6",
            "100/s brust 5",
            "100/parsec",
            "99999999999/s",
        ] {
            let error = text.parse::<RateLimit>().unwrap_err().to_string();
            assert!(error.contains("is not a rate such as"), "{text}: {error}");
        }
        for (text, why) in [
            ("0/s", "rate of zero"),
            ("1/0s", "between 1ms"),
            ("1/2days", "1 day"),
        ] {
            let error = text.parse::<RateLimit>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
