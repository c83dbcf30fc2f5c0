//! Which faults of a broker are worth a line. While it is away each lane and the upkeep of a queue fail again and again,
//! for the same reason: that is one fault, said at its beginning, every half a minute as it goes on, and at its end.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::BrokerErrorKind;

/// The faults of one queue: at most one of each kind of error.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

/// What has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Fetch,
    Maintain,
    /// Also a renewal: no event tells of one that went well, and what it renewed is settled in the end.
    Settle,
}

/// What is to be said about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// It is news.
    First,
    /// The fault goes on, for so long by now.
    Still(Duration),
    /// Nothing: it was said just now.
    Nothing,
}

#[derive(Debug)]
struct Fault {
    kind: BrokerErrorKind,
    /// Those that have failed in it.
    operations: Vec<Operation>,
    since: Instant,
    latest: Instant,
    said: Instant,
    /// Its beginning was said, so its end is worth a line too. One that follows another closely is not.
    announced: bool,
    over: bool,
}

impl Faults {
    /// An operation has failed.
    pub(super) fn failed(
        &mut self,
        operation: Operation,
        kind: BrokerErrorKind,
        now: Instant,
    ) -> Worth {
        let Some(fault) = self.0.iter_mut().find(|fault| fault.kind == kind) else {
            self.0.push(Fault {
                kind,
                operations: vec![operation],
                since: now,
                latest: now,
                said: now,
                announced: true,
                over: false,
            });
            return Worth::First;
        };
        if fault.over {
            fault.over = false;
            fault.announced = false;
            fault.since = now;
            fault.operations.clear();
        }
        fault.latest = now;
        if !fault.operations.contains(&operation) {
            fault.operations.push(operation);
        }
        if now.saturating_duration_since(fault.said) < SAID_AGAIN_AFTER {
            return Worth::Nothing;
        }
        fault.said = now;
        if std::mem::replace(&mut fault.announced, true) {
            Worth::Still(now.saturating_duration_since(fault.since))
        } else {
            Worth::First
        }
    }

    /// An operation went well. Answers how long what ends with it has lasted, if that is worth a line.
    pub(super) fn went_well(&mut self, operation: Operation, now: Instant) -> Option<Duration> {
        let mut lasted = None;
        for fault in self.0.iter_mut().filter(|fault| !fault.over) {
            // A broker that was away is back with the first answer to what it did not answer. Other reasons may stand
            // while some calls succeed (without memory, those that write nothing), so these must have been gone a while.
            let answers =
                fault.kind == BrokerErrorKind::Unavailable && fault.operations.contains(&operation);
            let end = if answers { now } else { fault.latest };
            fault.over = answers || now.saturating_duration_since(fault.latest) >= OVER_AFTER;
            if fault.over && fault.announced {
                lasted = lasted.max(Some(end.saturating_duration_since(fault.since)));
            }
        }
        lasted
    }

    /// Whether one of them goes on.
    pub(super) fn any(&self) -> bool {
        self.0.iter().any(|fault| !fault.over)
    }
}

const SAID_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Longer than the pause before the next try of whatever operation, a renewal of the default lease included.
const OVER_AFTER: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;
    use BrokerErrorKind::{OutOfMemory, Unavailable};
    use Operation::{Fetch, Maintain, Settle};

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_said_at_its_beginning_now_and_then_and_at_its_end() {
        let start = Instant::now();
        let mut faults = Faults::default();
        assert_eq!(faults.failed(Fetch, Unavailable, start), Worth::First);
        for second in 1..30 {
            for operation in [Fetch, Fetch, Maintain] {
                let worth = faults.failed(operation, Unavailable, start + secs(second));
                assert_eq!(worth, Worth::Nothing);
            }
        }
        let worth = faults.failed(Maintain, Unavailable, start + secs(30));
        assert_eq!(worth, Worth::Still(secs(30)));
        let worth = faults.failed(Fetch, Unavailable, start + secs(59));
        assert_eq!(worth, Worth::Nothing);
        assert!(faults.any());
        assert_eq!(faults.went_well(Maintain, start + secs(60)), Some(secs(60)));
        assert!(!faults.any());
        assert_eq!(faults.went_well(Fetch, start + secs(60)), None, "said once");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_not_failed_proves_nothing_by_going_well() {
        let start = Instant::now();
        let mut faults = Faults::default();
        faults.failed(Fetch, Unavailable, start);
        faults.failed(Fetch, Unavailable, start + secs(5));
        // As the upkeep of a broker that has none.
        assert_eq!(faults.went_well(Maintain, start + secs(6)), None);
        assert_eq!(faults.went_well(Maintain, start + secs(19)), None);
        assert_eq!(faults.went_well(Maintain, start + secs(20)), Some(secs(5)));
    }

    #[tokio::test(start_paused = true)]
    async fn where_only_some_calls_fail_the_others_do_not_end_it() {
        let start = Instant::now();
        let mut faults = Faults::default();
        assert_eq!(faults.failed(Settle, OutOfMemory, start), Worth::First);
        faults.failed(Maintain, OutOfMemory, start + secs(1));
        assert_eq!(faults.went_well(Maintain, start + secs(2)), None);
        assert_eq!(faults.went_well(Settle, start + secs(16)), Some(secs(1)));
        // Another kind is another fault.
        let worth = faults.failed(Settle, Unavailable, start + secs(17));
        assert_eq!(worth, Worth::First);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_comes_and_goes_makes_two_lines_in_half_a_minute() {
        let start = Instant::now();
        let (mut faults, mut lines) = (Faults::default(), 0);
        for second in 0..300 {
            let now = start + secs(second);
            lines += u32::from(faults.failed(Fetch, Unavailable, now) != Worth::Nothing);
            lines += u32::from(faults.went_well(Fetch, now).is_some());
        }
        assert_eq!(lines, 2 * 10);
    }
}
