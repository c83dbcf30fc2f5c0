//! Capped exponential backoff with jitter.
//!
//! The only file that knows the crate `backoff`, which is the engine of the exponential, so that it can be replaced
//! here. Its own jitter is neither full nor seedable, so full jitter by a given source of randomness is ours.

use std::sync::Arc;
use std::time::Duration;

use ::backoff::ExponentialBackoff;
use ::backoff::backoff::Backoff as _;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;

/// How randomness is applied to a delay.
///
/// Those who fail together must not come back together, or they fail together again. After Marc Brooker, "Exponential
/// Backoff And Jitter", AWS Architecture Blog, 2015, which compares the kinds and names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Jitter {
    /// Between half of the delay and all of it: where coming back at once would be pointless.
    Equal,
    /// Between nothing and all of the delay: spreads best, and finishes soonest when many compete.
    #[default]
    Full,
    /// The delay itself.
    None,
}

/// A delay that grows by a factor from one attempt to the next, up to a cap.
///
/// ```
/// # use std::time::Duration;
/// # use pythia_core::resilience::{Backoff, Jitter};
/// let backoff = Backoff::exponential(Duration::from_secs(1), Duration::from_secs(60), 2.0, Jitter::None)?;
/// assert_eq!(backoff.delay(1), Duration::from_secs(1));
/// assert_eq!(backoff.delay(4), Duration::from_secs(8));
/// assert_eq!(backoff.delay(1_000_000), Duration::from_secs(60));
/// # Ok::<(), pythia_core::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The cap on each delay, up to the first that is the maximum: computed once, read at every failure.
    caps: Arc<[Duration]>,
    jitter: Jitter,
}

impl Backoff {
    /// Starts with `initial`, multiplies by `factor` each time, and never exceeds `max`.
    ///
    /// # Errors
    /// If `initial` is shorter than a millisecond, `max` is shorter than `initial` or longer than a year, or `factor` is
    /// neither 1 nor between 1.1 and 1000.
    pub fn exponential(
        initial: Duration,
        max: Duration,
        factor: f64,
        jitter: Jitter,
    ) -> Result<Self, ConfigError> {
        let names = ["the initial delay", "the maximum delay", "the factor"];
        Self::named(names, initial, max, factor, jitter)
    }

    /// As [`exponential`](Self::exponential), with the names of the settings for the error.
    pub(super) fn named(
        [initial_name, max_name, factor_name]: [&str; 3],
        initial: Duration,
        max: Duration,
        factor: f64,
        jitter: Jitter,
    ) -> Result<Self, ConfigError> {
        let problem = if initial < SHORTEST {
            format!("{initial_name} is {initial:?}, it must be at least 1ms")
        } else if max < initial {
            format!("{max_name} is {max:?}, less than {initial_name}, which is {initial:?}")
        } else if max > LONGEST {
            format!("{max_name} is {max:?}, it must be at most 365 days")
        } else if factor == 1.0 {
            return Ok(Self {
                caps: Arc::new([initial]),
                jitter,
            });
        } else if !FACTORS.contains(&factor) {
            format!("{factor_name} is {factor}, it must be 1 or between 1.1 and 1000")
        } else {
            return Ok(Self {
                caps: caps(initial, max, factor),
                jitter,
            });
        };
        Err(ConfigError::new(problem))
    }

    /// The same delay each time, without jitter.
    pub fn fixed(delay: Duration) -> Self {
        Self {
            caps: Arc::new([delay]),
            jitter: Jitter::None,
        }
    }

    /// What a delay after that attempt, counted from 1, is at most.
    pub fn cap(&self, attempt: u32) -> Duration {
        let step = attempt.saturating_sub(1) as usize;
        self.caps[step.min(self.caps.len() - 1)]
    }

    /// The delay after that attempt, counted from 1.
    pub fn delay(&self, attempt: u32) -> Duration {
        self.delay_with(attempt, &mut rand::rng())
    }

    /// The delay after that attempt, counted from 1, by that source of randomness.
    pub fn delay_with<R: Rng + ?Sized>(&self, attempt: u32, rng: &mut R) -> Duration {
        let cap = self.cap(attempt);
        match self.jitter {
            Jitter::Equal => cap / 2 + rng.random_range(Duration::ZERO..=cap - cap / 2),
            Jitter::Full => rng.random_range(Duration::ZERO..=cap),
            Jitter::None => cap,
        }
    }
}

/// The delays from the initial one to the maximum. The engine yields them through its public interval: what it returns
/// has the randomness of its own and nanoseconds of rounding in it.
fn caps(initial: Duration, max: Duration, factor: f64) -> Arc<[Duration]> {
    let mut engine = ExponentialBackoff {
        current_interval: initial,
        initial_interval: initial,
        max_interval: max,
        multiplier: factor,
        randomization_factor: 0.0,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    let mut caps = vec![initial];
    while engine.current_interval < max {
        let _undisturbed = engine.next_backoff();
        caps.push(engine.current_interval.min(max));
    }
    caps.into()
}

/// Below a millisecond tokio's timers do not tell delays apart.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Slower growth would not be felt within any number of attempts that makes sense, and would need a long table.
const FACTORS: std::ops::RangeInclusive<f64> = 1.1..=1_000.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn arbitrary() -> impl Strategy<Value = (Backoff, Duration, Duration)> {
        let jitter = prop_oneof![Just(Jitter::Equal), Just(Jitter::Full), Just(Jitter::None)];
        let factor = prop_oneof![Just(1.0), 1.1..=1_000.0];
        (1..=LONGEST.as_millis() as u64, 0.0..=1.0, factor, jitter).prop_map(
            |(max, share, factor, jitter)| {
                let initial = millis(((max as f64 * share) as u64).clamp(1, max));
                let max = millis(max);
                let backoff = Backoff::exponential(initial, max, factor, jitter).unwrap();
                (backoff, initial, max)
            },
        )
    }

    proptest! {
        #[test]
        fn a_delay_is_within_its_bounds((backoff, initial, max) in arbitrary(), attempt: u32, seed: u64) {
            let cap = backoff.cap(attempt);
            prop_assert!((initial..=max).contains(&cap), "{cap:?}");
            let delay = backoff.delay_with(attempt, &mut StdRng::seed_from_u64(seed));
            let least = match backoff.jitter {
                Jitter::Equal => cap / 2,
                Jitter::Full => Duration::ZERO,
                Jitter::None => cap,
            };
            prop_assert!((least..=cap).contains(&delay), "{delay:?} of {cap:?}");
        }

        #[test]
        fn caps_never_shrink((backoff, ..) in arbitrary(), attempt in 0..u32::MAX) {
            prop_assert!(backoff.cap(attempt) <= backoff.cap(attempt + 1));
        }

        #[test]
        fn the_table_is_short((backoff, ..) in arbitrary()) {
            prop_assert!(backoff.caps.len() < 300, "{}", backoff.caps.len());
        }
    }

    #[test]
    fn it_grows_by_the_factor_up_to_the_maximum() {
        let backoff = Backoff::exponential(millis(100), millis(1_000), 3.0, Jitter::None).unwrap();
        let delays: Vec<_> = (0..6).map(|attempt| backoff.delay(attempt)).collect();
        assert_eq!(delays, [100, 100, 300, 900, 1_000, 1_000].map(millis));
        assert_eq!(backoff.delay(u32::MAX), millis(1_000));
    }

    #[test]
    fn a_factor_of_one_repeats_the_initial_delay() {
        let backoff = Backoff::exponential(millis(100), millis(1_000), 1.0, Jitter::None).unwrap();
        assert_eq!(backoff.delay(9), millis(100));
    }

    #[test]
    fn full_jitter_reaches_from_nothing_to_the_cap() {
        let backoff = Backoff::exponential(millis(100), millis(100), 2.0, Jitter::Full).unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        let delays: Vec<_> = (0..1_000)
            .map(|_| backoff.delay_with(1, &mut rng))
            .collect();
        let mean = delays.iter().sum::<Duration>() / 1_000;
        assert!(*delays.iter().min().unwrap() < millis(2));
        assert!(*delays.iter().max().unwrap() > millis(98));
        assert!((millis(47)..millis(53)).contains(&mean), "{mean:?}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (initial, max, factor, why) in [
            (0, 1_000, 2.0, "at least 1ms"),
            (2_000, 1_000, 2.0, "less than the initial delay"),
            (1, u64::MAX, 2.0, "at most 365 days"),
            (1, 1_000, 0.5, "the factor is 0.5"),
            (1, 1_000, 1.000_001, "the factor is 1.000001"),
            (1, 1_000, f64::NAN, "the factor is NaN"),
            (1, 1_000, f64::INFINITY, "the factor is inf"),
        ] {
            let error = Backoff::exponential(millis(initial), millis(max), factor, Jitter::Full)
                .unwrap_err()
                .to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
