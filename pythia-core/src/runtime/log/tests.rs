use std::io::{self, Write};
use std::sync::Arc;

use tokio::time::advance;
use tracing::subscriber::DefaultGuard;

use super::*;
use crate::error::{BrokerErrorKind, WorkError};
use crate::message::MessageId;

const SECOND: Duration = Duration::from_secs(1);

/// A log, and what this thread writes to it at info level and above.
struct Written {
    log: Log,
    queue: QueueName,
    text: Text,
    _subscriber: DefaultGuard,
}

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn new(most: Level) -> Self {
        let text = Text::default();
        let writer = text.clone();
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .with_max_level(most)
            .with_writer(move || writer.clone())
            .finish();
        Self {
            log: Log::default(),
            queue: QueueName::new("orders").unwrap(),
            text,
            _subscriber: tracing::subscriber::set_default(subscriber),
        }
    }

    /// The lines since the last look.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.text.0.lock().unwrap())).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn attempt_failed(&self, error: &WorkError) {
        self.log.on_event(&Event::AttemptFailed {
            queue: &self.queue,
            id: &MessageId::from("7"),
            attempt: 1,
            max_attempts: 5,
            error,
            retry_in: Duration::from_micros(2_000_700),
        });
    }

    fn fetch_failed(&self) {
        self.fetch_failed_by(BrokerErrorKind::Unavailable);
    }

    fn fetch_failed_by(&self, kind: BrokerErrorKind) {
        self.log.on_event(&Event::FetchFailed {
            queue: &self.queue,
            error: &BrokerError::new(kind, "claim messages"),
            retry_in: SECOND,
        });
    }

    fn maintain_failed(&self) {
        self.log.on_event(&Event::MaintainFailed {
            queue: &self.queue,
            error: &BrokerError::new(BrokerErrorKind::Unavailable, "maintain"),
        });
    }

    fn maintained(&self, change: impl FnOnce(&mut Maintained)) {
        let mut maintained = Maintained::default();
        change(&mut maintained);
        self.log.on_event(&Event::Maintained {
            queue: &self.queue,
            maintained: &maintained,
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_says_which_and_why_and_when_the_next_one_comes() {
    let written = Written::new(Level::INFO);
    written.attempt_failed(&WorkError::retryable("gateway says 429"));
    assert_eq!(
        written.lines(),
        ["INFO attempt 1 of 5 failed, again in 2s: gateway says 429 queue=orders id=7"]
    );
    written.attempt_failed(&WorkError::snooze(SECOND));
    assert!(written.lines().is_empty());
}

/// An outage ends by itself, a wrong password does not.
#[tokio::test(start_paused = true)]
async fn what_needs_a_human_is_an_error() {
    for (kind, level) in [
        (BrokerErrorKind::Authentication, "ERROR"),
        (BrokerErrorKind::Permission, "ERROR"),
        (BrokerErrorKind::WrongType, "ERROR"),
        (BrokerErrorKind::OutOfMemory, "WARN"),
        (BrokerErrorKind::Unavailable, "WARN"),
    ] {
        let written = Written::new(Level::INFO);
        written.fetch_failed_by(kind);
        let lines = written.lines();
        assert!(lines[0].starts_with(level), "{lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_failures_makes_ten_lines_a_second_and_their_number() {
    let written = Written::new(Level::INFO);
    let error = WorkError::retryable("no");
    for _ in 0..1_000 {
        written.attempt_failed(&error);
    }
    assert_eq!(written.lines().len(), 10);
    written.maintained(|_| ());
    assert!(written.lines().is_empty(), "the second is not over");
    advance(SECOND).await;
    written.maintained(|_| ());
    let left_out =
        "INFO more attempts failed; at debug level each has its line queue=orders count=990";
    assert_eq!(written.lines(), [left_out]);
    // Told by the next failure too, where that comes first.
    for _ in 0..1_000 {
        written.attempt_failed(&error);
    }
    advance(SECOND).await;
    written.attempt_failed(&error);
    let lines = written.lines();
    assert_eq!((lines.len(), &*lines[10]), (12, left_out));
}

#[tokio::test(start_paused = true)]
async fn at_debug_level_no_failed_attempt_is_left_out() {
    let written = Written::new(Level::DEBUG);
    let error = WorkError::retryable("no");
    for _ in 0..100 {
        written.attempt_failed(&error);
    }
    written.attempt_failed(&WorkError::snooze(SECOND));
    let lines = written.lines();
    let of = |level: &str| lines.iter().filter(|line| line.starts_with(level)).count();
    assert_eq!((of("INFO"), of("DEBUG")), (10, 91));
    assert!(
        lines[100].contains("attempt 1 of 5 snoozed, again in 2s"),
        "{lines:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_is_said_now_and_then_and_when_it_is_back() {
    let written = Written::new(Level::INFO);
    let (mut lines, mut seconds) = (Vec::new(), 0);
    while seconds < 42 {
        for _lane in 0..2 {
            written.fetch_failed();
        }
        written.maintain_failed();
        advance(SECOND).await;
        seconds += 1;
        lines.extend(written.lines());
    }
    written.maintained(|_| ());
    written.maintained(|_| ());
    lines.extend(written.lines());
    let starts = [
        "WARN reading fails queue=orders",
        "WARN reading fails: still, for 30s queue=orders",
        "INFO the broker answers again, after 42s queue=orders",
    ];
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
    // And the next outage is news again.
    advance(30 * SECOND).await;
    written.fetch_failed();
    assert!(written.lines()[0].starts_with(starts[0]));
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_is_over_is_the_end_of_an_outage() {
    let written = Written::new(Level::INFO);
    written.fetch_failed();
    advance(3 * SECOND).await;
    // The upkeep of a channel does nothing, and so never fails.
    written.maintained(|_| ());
    assert_eq!(written.lines().len(), 1);
    written.log.on_event(&Event::Gap {
        queue: &written.queue,
        cause: crate::observe::GapCause::Disconnected,
        lost: None,
        lasted: Some(3 * SECOND),
    });
    let lines = written.lines();
    assert_eq!(
        lines[1..],
        ["INFO the broker answers again, after 3s queue=orders"]
    );
}

#[tokio::test(start_paused = true)]
async fn deaths_are_errors_and_recoveries_are_warnings() {
    let written = Written::new(Level::INFO);
    written.maintained(|maintained| maintained.promoted = 3);
    assert!(written.lines().is_empty());
    written.maintained(|maintained| {
        maintained.recovered = 12;
        maintained.dead = 1;
    });
    assert_eq!(
        written.lines(),
        [
            "ERROR dead letters: held in too many crashes queue=orders dead=1",
            "WARN messages of dead workers, or of silent ones, came back queue=orders count=12",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_cant_be_trimmed_is_said_every_half_a_minute() {
    let written = Written::new(Level::INFO);
    for _ in 0..61 {
        written.maintained(|maintained| {
            maintained.over_limit = Some(crate::broker::OverLimit {
                entries: 9,
                group: "slow".into(),
            });
        });
        advance(SECOND).await;
    }
    let lines = written.lines();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(
        lines[0]
            .starts_with("WARN the stream can't be trimmed queue=orders entries=9 group=\"slow\"")
    );
}
