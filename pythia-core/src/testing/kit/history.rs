//! What happened to one message, and assertions about it that tell all of it when they fail.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::WorkErrorKind;
use crate::message::{Headers, MessageId, Payload, QueueName};
use crate::settlement::{DeadKind, DeadReason};

/// What happened to one message, attempt by attempt: [`TestWorker::message`](super::TestWorker::message).
#[derive(Clone, Debug)]
pub struct History {
    pub(super) queue: QueueName,
    pub(super) id: MessageId,
    pub(super) payload: Payload,
    pub(super) headers: Headers,
    pub(super) attempts: Vec<Attempt>,
    /// A worker has it, and it is not settled.
    pub(super) in_hand: bool,
    /// How many of the attempts were made before it was handed out for the last time.
    pub(super) earlier: usize,
    /// When the test sent it.
    pub(super) sent: Option<Instant>,
    /// When it is due, if it is delayed and that is known.
    pub(super) due: Option<Instant>,
}

/// One attempt at a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Which one, from 1: what [`Job::attempt`](crate::Job::attempt) said. A snooze does not count, so that the next attempt
    /// has the same number.
    pub number: u32,
    /// When it ended, since the test's first look at its worker; by tokio's clock.
    pub ended: Duration,
    /// What became of the message.
    pub outcome: Outcome,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It succeeded.
    Acked,
    /// The message went to the dead letters.
    DeadLettered(DeadReason),
    /// It went back as it was, with no attempt burnt: the breaker was open, the runner stopped, or its lease was lost.
    Released,
    /// It failed, and another attempt follows.
    Retried {
        /// What kind of failure it was.
        kind: WorkErrorKind,
        /// The error's text.
        error: String,
        /// How long the message waits.
        after: Duration,
    },
    /// The worker snoozed it.
    Snoozed {
        /// How long the message waits.
        after: Duration,
    },
}

impl History {
    pub(super) const fn new(
        queue: QueueName,
        id: MessageId,
        payload: Payload,
        headers: Headers,
    ) -> Self {
        Self {
            queue,
            id,
            payload,
            headers,
            attempts: Vec::new(),
            in_hand: false,
            earlier: 0,
            sent: None,
            due: None,
        }
    }

    /// The latest attempt since the message was handed out for the last time: on an at-most-once broker, one of several.
    pub(super) fn latest_in_hand(&self) -> Option<&Attempt> {
        self.attempts[self.earlier..].last()
    }

    /// The message's id.
    pub const fn id(&self) -> &MessageId {
        &self.id
    }

    /// Its body.
    pub const fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Its headers.
    pub const fn headers(&self) -> &Headers {
        &self.headers
    }

    /// All attempts so far, releases and snoozes among them.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// How the latest attempt ended; `None` before the first one has.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.attempts.last().map(|attempt| &attempt.outcome)
    }

    /// How long the message had to wait after each attempt that did not end it, in their order: retries and snoozes.
    pub fn delays(&self) -> Vec<Duration> {
        let outcomes = self.attempts.iter().map(|attempt| &attempt.outcome);
        outcomes
            .filter_map(|outcome| match outcome {
                Outcome::Retried { after, .. } | Outcome::Snoozed { after } => Some(*after),
                _ => None,
            })
            .collect()
    }

    /// Whether it was processed.
    pub fn is_acked(&self) -> bool {
        self.outcome() == Some(&Outcome::Acked)
    }

    /// Why it is dead, if it is.
    pub fn dead(&self) -> Option<&DeadReason> {
        match self.outcome()? {
            Outcome::DeadLettered(reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether nothing will happen to it any more.
    pub(super) fn has_ended(&self) -> bool {
        self.is_acked() || self.dead().is_some()
    }

    /// Asserts that it was processed.
    ///
    /// # Panics
    /// If it was not; the text tells its history.
    #[track_caller]
    pub fn assert_acked(&self) -> &Self {
        self.assert(self.is_acked(), "to be acknowledged")
    }

    /// Asserts that it is among the dead letters for this kind of reason.
    ///
    /// # Panics
    /// If it is not; the text tells its history.
    #[track_caller]
    pub fn assert_dead(&self, kind: DeadKind) -> &Self {
        let is_so = self.dead().is_some_and(|reason| reason.kind == kind);
        self.assert(is_so, format_args!("to be dead ({})", kind.name()))
    }

    /// Asserts that it waits for another attempt, for so long from the end of the last one.
    ///
    /// # Panics
    /// If it does not; the text tells its history.
    #[track_caller]
    pub fn assert_delayed(&self, delay: Duration) -> &Self {
        let is_so = match self.outcome() {
            Some(Outcome::Retried { after, .. } | Outcome::Snoozed { after }) => *after == delay,
            _ => false,
        };
        self.assert(is_so, format_args!("to wait for {delay:?}"))
    }

    /// Asserts how many attempts were made, or burnt: snoozes and releases don't count.
    ///
    /// # Panics
    /// If there were more or fewer; the text tells its history.
    #[track_caller]
    pub fn assert_attempts(&self, count: usize) -> &Self {
        let made = self.attempts.iter().filter(|attempt| {
            !matches!(attempt.outcome, Outcome::Released | Outcome::Snoozed { .. })
        });
        self.assert(made.count() == count, format_args!("{count} attempts"))
    }

    #[track_caller]
    fn assert(&self, is_so: bool, expected: impl fmt::Display) -> &Self {
        assert!(
            is_so,
            "expected {expected}, but it {}\n{self}",
            self.state()
        );
        self
    }

    fn state(&self) -> String {
        match self.outcome() {
            _ if self.in_hand => "is in a worker's hands".to_owned(),
            None => "was handed to no worker so far".to_owned(),
            Some(Outcome::Acked) => format!("is acknowledged, by attempt {}", self.burnt()),
            Some(Outcome::DeadLettered(reason)) => format!("is dead: {reason}"),
            Some(Outcome::Released) => "was handed back".to_owned(),
            Some(Outcome::Retried { after, .. }) => {
                format!("waits for {after:?} after attempt {}", self.burnt())
            }
            Some(Outcome::Snoozed { after }) => format!("is snoozed for {after:?}"),
        }
    }

    fn burnt(&self) -> u32 {
        self.attempts.last().map_or(0, |attempt| attempt.number)
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, id, .. } = self;
        write!(f, "message {id:?} of queue {queue:?}, ")?;
        let text = self.payload.text_lossy();
        let shown: String = text.chars().take(SHOWN).collect();
        let more = if shown.len() < text.len() { " .." } else { "" };
        writeln!(f, "{} bytes: {shown}{more}", self.payload.len())?;
        for attempt in &self.attempts {
            writeln!(f, "  {attempt}")?;
        }
        if self.in_hand || self.attempts.is_empty() {
            writeln!(f, "  it {}", self.state())?;
        }
        Ok(())
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = rounded(self.ended);
        write!(f, "+{ended:<8?} attempt {}: ", self.number)?;
        match &self.outcome {
            Outcome::Acked => write!(f, "acknowledged"),
            Outcome::DeadLettered(DeadReason { kind, error }) => {
                write!(f, "dead letter ({}): {error}", kind.name())
            }
            Outcome::Released => write!(f, "handed back"),
            Outcome::Retried { kind, error, after } => {
                let after = rounded(*after);
                write!(
                    f,
                    "failed ({}): {error}; again after {after:?}",
                    kind.name()
                )
            }
            Outcome::Snoozed { after } => write!(f, "snoozed for {after:?}"),
        }
    }
}

/// Jitter makes delays that nobody wants to read to the nanosecond.
const fn rounded(time: Duration) -> Duration {
    Duration::from_millis(time.as_millis() as u64)
}

/// How much of a body is shown, in characters.
const SHOWN: usize = 200;
