//! The circuit breaker: a pure state machine, told the time and what happened, that answers who may go on.
//!
//! ```text
//!             enough calls in the window failed
//!   Closed ───────────────────────────────────────> Open <────────────┐
//!     ^                                              | `open_for`,    |
//!     |        `probes` calls succeeded              v  then longer   | one failed
//!     └─────────────────────────────────────────  HalfOpen ───────────┘
//! ```
//!
//! Failures are errors that another try may mend: retryable ones, time-outs and panics. Permanent errors, snoozes and
//! payloads that can't be decoded say nothing about whether the worker and what it depends on are well: they count
//! neither way. Results of calls that began before the latest change of state are not looked at: what was slow to fail
//! must not open a breaker again that has since closed.

use std::num::NonZeroU32;
use std::time::Duration;

use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::backoff::{Backoff, Jitter};
use super::window::Tally;
use crate::error::ConfigError;

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Messages flow.
    Closed,
    /// A few probes are let through to see whether the trouble is over.
    HalfOpen,
    /// Messages wait in the broker.
    Open,
}

impl BreakerState {
    /// A short fixed name, fit for a metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }

    /// Every name that [`name`](Self::name) can give.
    pub const NAMES: [&'static str; 3] = [
        Self::Closed.name(),
        Self::HalfOpen.name(),
        Self::Open.name(),
    ];
}

/// Settings of the circuit breaker: section `[breaker]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BreakerConfig {
    /// Whether there is one. Default: true.
    pub enabled: bool,
    /// It opens when this share of the calls in the window failed: above 0, up to 1. Default: 0.5.
    pub failure_ratio: f64,
    /// It opens only when the window has so many calls or more: a few failures at a quiet hour are no outage.
    /// Default: 20.
    pub min_calls: NonZeroU32,
    /// How far back calls are looked at: from 10 ms to 1 day. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// How long it stays open the first time. While probes fail, this doubles each time. Default: 5 s.
    #[serde(with = "humantime_serde")]
    pub open_for: Duration,
    /// How long it stays open at most. Default: 1 min.
    #[serde(with = "humantime_serde")]
    pub max_open_for: Duration,
    /// How the time that it stays open is randomized, so that the processes of a service don't all probe at once:
    /// "equal", "full" or "none". Default: "equal".
    pub jitter: Jitter,
    /// How many calls it lets through when it is half open; when all of them have succeeded, it closes. A probe that
    /// never ends holds its place: a worker that may hang needs a hard time limit. Default: 3.
    pub probes: NonZeroU32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            failure_ratio: 0.5,
            min_calls: NonZeroU32::new(20).unwrap_or(NonZeroU32::MIN),
            window: Duration::from_secs(10),
            open_for: Duration::from_secs(5),
            max_open_for: Duration::from_mins(1),
            jitter: Jitter::Equal,
            probes: NonZeroU32::new(3).unwrap_or(NonZeroU32::MIN),
        }
    }
}

impl BreakerConfig {
    /// No breaker.
    pub fn off() -> Self {
        Self {
            enabled: false,
            ..Self::default()
        }
    }

    /// The policy, or `None` if it is switched off.
    pub(crate) fn checked(&self) -> Result<Option<BreakerPolicy>, ConfigError> {
        if !(self.failure_ratio > 0.0 && self.failure_ratio <= 1.0) {
            return Err(ConfigError::new(format!(
                "breaker.failure_ratio is {}, it must be above 0 and at most 1",
                self.failure_ratio
            )));
        }
        if !WINDOWS.contains(&self.window) {
            return Err(ConfigError::new(format!(
                "breaker.window is {:?}, it must be between 10ms and 1 day",
                self.window
            )));
        }
        let policy = BreakerPolicy {
            failure_ratio: self.failure_ratio,
            min_calls: self.min_calls.get().into(),
            window: self.window,
            open_for: Backoff::named(
                ["breaker.open_for", "breaker.max_open_for", "the factor"],
                self.open_for,
                self.max_open_for,
                2.0,
                self.jitter,
            )?,
            probes: self.probes.get() as usize,
        };
        Ok(self.enabled.then_some(policy))
    }
}

/// When a breaker opens, for how long, and what closes it.
#[derive(Clone, Debug)]
pub(crate) struct BreakerPolicy {
    failure_ratio: f64,
    min_calls: u64,
    pub(super) window: Duration,
    open_for: Backoff,
    probes: usize,
}

impl BreakerPolicy {
    /// Whether these calls are reason to open. Asked after failures only: a success is never the reason.
    pub(super) fn trips(&self, tally: Tally) -> bool {
        tally.calls() >= self.min_calls && self.is_failure(tally)
    }

    fn is_failure(&self, tally: Tally) -> bool {
        tally.failures > 0 && tally.failures as f64 >= tally.calls() as f64 * self.failure_ratio
    }
}

/// One breaker. The time always comes in, and never goes back.
#[derive(Debug)]
pub(super) struct Breaker {
    policy: BreakerPolicy,
    phase: Phase,
    /// Counts changes of state, so that calls know whether they began in the present one.
    generation: u64,
    /// How often it has opened since it was last closed.
    openings: u32,
    rng: StdRng,
}

#[derive(Debug)]
enum Phase {
    Closed,
    HalfOpen(Probation),
    Open { until: Instant },
}

/// The places of the half-open state. Calls in flight and calls that have succeeded are never more than the probes.
#[derive(Debug, Default)]
struct Probation {
    in_flight: usize,
    /// Fetches that may bring so many calls.
    reserved: usize,
    succeeded: usize,
}

/// A call that was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admission {
    pub(super) generation: u64,
    pub(super) probe: bool,
}

/// Who may go on at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// So many calls.
    Limited(usize),
    /// All calls.
    Open,
    /// None, until then.
    Shut(Instant),
}

impl Breaker {
    pub(super) const fn new(policy: BreakerPolicy, rng: StdRng) -> Self {
        Self {
            policy,
            phase: Phase::Closed,
            generation: 0,
            openings: 0,
            rng,
        }
    }

    pub(super) const fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::HalfOpen(_) => BreakerState::HalfOpen,
            Phase::Open { .. } => BreakerState::Open,
        }
    }

    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn position(&self) -> Position {
        match &self.phase {
            Phase::Closed => Position::Open,
            Phase::HalfOpen(probation) => Position::Limited(probation.free(self.policy.probes)),
            Phase::Open { until } => Position::Shut(*until),
        }
    }

    /// Becomes half open when it has been open for long enough. Every question asks this first, so that no timer has to.
    pub(super) fn pass_time(&mut self, now: Instant) {
        if let Phase::Open { until } = self.phase
            && until <= now
        {
            self.enter(Phase::HalfOpen(Probation::default()));
        }
    }

    /// Lets a call in, or not.
    pub(super) fn admit(&mut self, now: Instant) -> Option<Admission> {
        self.pass_time(now);
        let probe = match &mut self.phase {
            Phase::Closed => false,
            Phase::Open { .. } => return None,
            Phase::HalfOpen(probation) => {
                // Reserved places don't count: they are for calls such as this one.
                if probation.in_flight + probation.succeeded >= self.policy.probes {
                    return None;
                }
                probation.in_flight += 1;
                true
            }
        };
        Some(Admission {
            generation: self.generation,
            probe,
        })
    }

    /// Reserves up to `max` places of the half-open state for a fetch.
    pub(super) fn reserve(&mut self, max: usize) -> usize {
        let Phase::HalfOpen(probation) = &mut self.phase else {
            return 0;
        };
        let reserved = probation.free(self.policy.probes).min(max);
        probation.reserved += reserved;
        reserved
    }

    /// Gives reserved places back, if the state in which they were reserved still lasts.
    pub(super) fn give_back(&mut self, generation: u64, places: usize) {
        if let Phase::HalfOpen(probation) = &mut self.phase
            && generation == self.generation
        {
            probation.reserved = probation.reserved.saturating_sub(places);
        }
    }

    /// A call of that generation failed, and with it the window is what it is: opens, if that is too much.
    pub(super) fn trip(&mut self, now: Instant, generation: u64, tally: Tally) {
        let closed = matches!(self.phase, Phase::Closed) && generation == self.generation;
        if closed && self.policy.trips(tally) {
            self.open(now);
        }
    }

    /// A probe has ended. One that tells nothing gives its place to another.
    pub(super) fn probe_ended(&mut self, now: Instant, generation: u64, tally: Tally) {
        let Phase::HalfOpen(probation) = &mut self.phase else {
            return;
        };
        if generation != self.generation {
            return;
        }
        probation.in_flight -= 1;
        if self.policy.is_failure(tally) {
            return self.open(now);
        }
        if tally.successes > 0 {
            probation.succeeded += 1;
            if probation.succeeded == self.policy.probes {
                self.openings = 0;
                self.enter(Phase::Closed);
            }
        }
    }

    fn open(&mut self, now: Instant) {
        self.openings = self.openings.saturating_add(1);
        let open_for = self
            .policy
            .open_for
            .delay_with(self.openings, &mut self.rng);
        self.enter(Phase::Open {
            until: now + open_for,
        });
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }
}

impl Probation {
    const fn free(&self, probes: usize) -> usize {
        probes.saturating_sub(self.in_flight + self.succeeded + self.reserved)
    }
}

const WINDOWS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_hours(24);

#[cfg(test)]
mod tests;
