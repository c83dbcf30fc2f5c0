//! The retry schedule: not a layer, but what [`decide`](crate::settlement::decide) asks.

use std::time::Duration;

/// How often, and after which delays, a failed message is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    max_attempts: u32,
    delay: Duration,
}

impl Retry {
    /// So many attempts in all, with the same delay between them.
    pub const fn fixed(max_attempts: u32, delay: Duration) -> Self {
        Self {
            max_attempts,
            delay,
        }
    }

    /// How many attempts are made in all, the first one and crashes included.
    pub const fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// How long to wait after the failure of that attempt, counted from 1.
    pub fn delay(&self, attempt: u32) -> Duration {
        let _ = attempt;
        self.delay
    }
}
