//! So many lines in so long, and how many more there were.

use std::time::Duration;

use tokio::time::Instant;

/// Lets a few lines of a kind through in each span of time, and counts the others.
#[derive(Debug)]
pub(super) struct Pace {
    lines: u32,
    span: Duration,
    /// The beginning of the latest span, and how many lines it has had.
    latest: Option<(Instant, u32)>,
    left_out: u64,
}

impl Pace {
    pub(super) const fn new(lines: u32, span: Duration) -> Self {
        Self {
            lines,
            span,
            latest: None,
            left_out: 0,
        }
    }

    /// Whether one more line is to be seen.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        let began = self.began(now);
        let (began, lines) = began.unwrap_or((now, 0));
        let admitted = lines < self.lines;
        self.latest = Some((began, lines + u32::from(admitted)));
        self.left_out += u64::from(!admitted);
        admitted
    }

    /// How many lines were left out, once their span is over; each is answered once.
    pub(super) fn left_out(&mut self, now: Instant) -> Option<u64> {
        if self.left_out == 0 || self.began(now).is_some() {
            return None;
        }
        Some(std::mem::take(&mut self.left_out))
    }

    /// Whether there is something that [`left_out`](Self::left_out) has yet to answer.
    pub(super) const fn owes(&self) -> bool {
        self.left_out > 0
    }

    /// The latest span, if it still lasts.
    fn began(&self, now: Instant) -> Option<(Instant, u32)> {
        self.latest
            .filter(|(began, _)| now.saturating_duration_since(*began) < self.span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_few_lines_a_span_and_the_number_of_the_others() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(2, Duration::from_secs(1));
        assert!(pace.admits(at(0)) && pace.admits(at(900)));
        assert!(!pace.owes());
        assert!(!pace.admits(at(950)) && !pace.admits(at(999)));
        assert!(pace.owes());
        assert_eq!(pace.left_out(at(999)), None, "there may be more to come");
        assert_eq!(pace.left_out(at(1_000)), Some(2));
        assert_eq!(pace.left_out(at(5_000)), None, "said once");
        assert!(pace.admits(at(1_000)) && pace.admits(at(1_999)));
        assert!(!pace.admits(at(1_999)) && pace.admits(at(2_000)));
    }
}
