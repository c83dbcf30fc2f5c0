//! Wall time that follows tokio's clock.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Wall time as a fixed start plus what tokio's clock has counted since.
///
/// Under `tokio::time::pause` it stands still and jumps with the timers, so a week of delay passes in a test's
/// milliseconds. It never goes back, and does not see the system's clock being set.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall_start: SystemTime,
    start: Instant,
}

impl Clock {
    /// A clock that shows the system's time, now.
    pub fn new() -> Self {
        Self {
            wall_start: SystemTime::now(),
            start: Instant::now(),
        }
    }

    /// The wall time.
    pub fn now(&self) -> SystemTime {
        self.wall(self.elapsed())
    }

    /// How much time has passed since the clock was made: what the broker computes with, because it can't overflow by
    /// saturating arithmetic.
    pub fn elapsed(&self) -> Duration {
        Instant::now().saturating_duration_since(self.start)
    }

    /// The wall time at that distance from the start.
    pub(super) fn wall(&self, elapsed: Duration) -> SystemTime {
        self.wall_start
            .checked_add(elapsed)
            .unwrap_or(self.wall_start + FAR)
    }

    /// The distance of that wall time from the start; zero for what lies before it.
    pub(super) fn since_start(&self, at: SystemTime) -> Duration {
        at.duration_since(self.wall_start).unwrap_or_default()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// A thousand years, for what lies beyond the calendar.
const FAR: Duration = Duration::from_secs(1_000 * 365 * 24 * 3_600);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_moves_with_virtual_time_only() {
        let clock = Clock::new();
        let before = clock.now();
        assert_eq!(clock.now(), before);
        let week = Duration::from_secs(7 * 24 * 3_600);
        tokio::time::advance(week).await;
        assert_eq!(clock.now().duration_since(before).unwrap(), week);
        assert_eq!(clock.since_start(clock.now()), week);
        assert_eq!(
            clock.since_start(before - Duration::from_secs(1)),
            Duration::ZERO
        );
    }

    #[test]
    fn the_end_of_time_is_far_but_there() {
        let clock = Clock::new();
        assert!(clock.wall(Duration::MAX) > clock.now());
    }
}
