//! The three errors of this crate: [`WorkError`] (what a worker returns), [`BrokerError`] (what a broker reports) and
//! [`ConfigError`] (what can't be started).
//!
//! Each is an opaque struct with a kind, so that kinds and details can be added without breaking those who match.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::message::QueueName;

type Source = Box<dyn Error + Send + Sync>;

/// Why a job did not succeed, and so what becomes of its message.
///
/// It is not itself a [`std::error::Error`], which lets `?` turn any error into a retryable one: that is the rule, and
/// everything else is said explicitly.
///
/// ```
/// # use pythia_core::WorkError;
/// fn parse(text: &str) -> Result<u32, WorkError> {
///     let number: u32 = text.parse().map_err(WorkError::permanent)?;  // no retry will mend it: to the dead letters
///     if number == 0 {
///         return Err(WorkError::retryable("the stock is empty"));     // tried again by the route's schedule
///     }
///     Ok(number)
/// }
/// assert!(parse("x").unwrap_err().is_permanent());
/// ```
pub struct WorkError {
    kind: WorkErrorKind,
    source: Source,
}

/// What an error means for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkErrorKind {
    /// The circuit breaker is open: the message goes back and burns no attempt.
    BreakerOpen,
    /// The payload is not what the codec expects: to the dead letters.
    Decode,
    /// The worker panicked: retried by the schedule.
    Panic,
    /// Trying again can't help: to the dead letters.
    Permanent,
    /// Tried again by the schedule, or after the time that the worker names.
    Retryable {
        /// Wins over the schedule.
        after: Option<Duration>,
    },
    /// Not now: tried again after that time, with no attempt burnt.
    Snooze {
        /// How long to wait.
        delay: Duration,
    },
    /// The hard time limit ended the attempt: retried by the schedule.
    Timeout,
}

impl WorkErrorKind {
    /// A short fixed name, fit for a metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker_open",
            Self::Decode => "decode",
            Self::Panic => "panic",
            Self::Permanent => "permanent",
            Self::Retryable { .. } => "retryable",
            Self::Snooze { .. } => "snooze",
            Self::Timeout => "timeout",
        }
    }

    /// Every name that [`name`](Self::name) can give.
    pub const NAMES: [&'static str; 7] = [
        "breaker_open",
        "decode",
        "panic",
        "permanent",
        "retryable",
        "snooze",
        "timeout",
    ];
}

impl WorkError {
    /// An error of that kind.
    pub fn new(kind: WorkErrorKind, source: impl Into<Source>) -> Self {
        Self {
            kind,
            source: source.into(),
        }
    }

    /// Worth another try, by the route's schedule. What `?` makes of any error.
    pub fn retryable(source: impl Into<Source>) -> Self {
        Self::new(WorkErrorKind::Retryable { after: None }, source)
    }

    /// Worth another try after that time, as when a service answers `Retry-After`. It counts as an attempt.
    pub fn retry_after(after: Duration, source: impl Into<Source>) -> Self {
        Self::new(WorkErrorKind::Retryable { after: Some(after) }, source)
    }

    /// No further try can help: the message goes to the dead letters.
    pub fn permanent(source: impl Into<Source>) -> Self {
        Self::new(WorkErrorKind::Permanent, source)
    }

    /// Not now: the message comes back after that time and no attempt is burnt.
    pub fn snooze(delay: Duration) -> Self {
        Self::new(WorkErrorKind::Snooze { delay }, "snoozed by the worker")
    }

    /// What the error means.
    pub const fn kind(&self) -> WorkErrorKind {
        self.kind
    }

    /// Whether it goes straight to the dead letters.
    pub const fn is_permanent(&self) -> bool {
        matches!(self.kind, WorkErrorKind::Permanent | WorkErrorKind::Decode)
    }

    /// The same error, now permanent.
    #[must_use]
    pub fn into_permanent(self) -> Self {
        Self {
            kind: WorkErrorKind::Permanent,
            ..self
        }
    }

    /// The error behind it.
    pub fn source(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.source
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for WorkError {
    fn from(error: E) -> Self {
        Self::retryable(error)
    }
}

impl fmt::Display for WorkError {
    /// The error and its causes, in one line of at most 1 KiB: this text is kept with dead letters and in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The source is the user's, and so is what makes its text. It must not end the runner, which only wants to note it.
        match catch_unwind(AssertUnwindSafe(|| one_line(&*self.source))) {
            Ok(text) => f.write_str(&text),
            Err(_) => f.write_str("an error that panicked when it was asked for its text"),
        }
    }
}

impl fmt::Debug for WorkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkError")
            .field("kind", &self.kind)
            .field("error", &self.to_string())
            .finish()
    }
}

/// What went wrong between the runtime and a broker. Cheap to clone.
#[derive(Clone)]
pub struct BrokerError(Arc<BrokerErrorInner>);

struct BrokerErrorInner {
    kind: BrokerErrorKind,
    attempted: String,
    queue: Option<QueueName>,
    source: Option<Source>,
}

/// What a broker's error means for who meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BrokerErrorKind {
    /// Wrong or missing credentials.
    Authentication,
    /// Something else; the source says what.
    Other,
    /// The broker has no memory left for what was written.
    OutOfMemory,
    /// The user may not do this; the source names the rule.
    Permission,
    /// The broker speaks, but not the protocol that was expected.
    Protocol,
    /// This broker only answers reads.
    ReadOnly,
    /// The subscription is gone (its group or its stream was removed) and has to be made again.
    SubscriptionLost,
    /// A message is larger than allowed; nothing was published.
    TooLarge,
    /// Not reachable at the moment: refused, cut off, restarting, timed out.
    Unavailable,
    /// This broker can't do what was asked of it.
    Unsupported,
    /// What is stored under the queue's name is something else.
    WrongType,
}

impl BrokerErrorKind {
    /// A short fixed name, fit for a metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Other => "other",
            Self::OutOfMemory => "out_of_memory",
            Self::Permission => "permission",
            Self::Protocol => "protocol",
            Self::ReadOnly => "read_only",
            Self::SubscriptionLost => "subscription_lost",
            Self::TooLarge => "too_large",
            Self::Unavailable => "unavailable",
            Self::Unsupported => "unsupported",
            Self::WrongType => "wrong_type",
        }
    }

    /// Every name that [`name`](Self::name) can give.
    pub const NAMES: [&'static str; 11] = [
        Self::Authentication.name(),
        Self::Other.name(),
        Self::OutOfMemory.name(),
        Self::Permission.name(),
        Self::Protocol.name(),
        Self::ReadOnly.name(),
        Self::SubscriptionLost.name(),
        Self::TooLarge.name(),
        Self::Unavailable.name(),
        Self::Unsupported.name(),
        Self::WrongType.name(),
    ];
}

impl BrokerError {
    /// An error of that kind, met while `attempted`: a lowercase phrase without a trailing period, such as
    /// `claim messages`.
    pub fn new(kind: BrokerErrorKind, attempted: impl Into<String>) -> Self {
        Self(Arc::new(BrokerErrorInner {
            kind,
            attempted: attempted.into(),
            queue: None,
            source: None,
        }))
    }

    /// Names the queue.
    #[must_use]
    pub fn queue(self, queue: &QueueName) -> Self {
        self.with(|inner| inner.queue = Some(queue.clone()))
    }

    /// Names the cause.
    #[must_use]
    pub fn because(self, source: impl Into<Source>) -> Self {
        let source = source.into();
        self.with(|inner| inner.source = Some(source))
    }

    /// What the error means.
    pub fn kind(&self) -> BrokerErrorKind {
        self.0.kind
    }

    /// Whether waiting may be all that is needed.
    pub fn is_unavailable(&self) -> bool {
        self.0.kind == BrokerErrorKind::Unavailable
    }

    /// Whether the subscription has to be made again.
    pub fn is_subscription_lost(&self) -> bool {
        self.0.kind == BrokerErrorKind::SubscriptionLost
    }

    fn with(self, change: impl FnOnce(&mut BrokerErrorInner)) -> Self {
        let mut inner = Arc::try_unwrap(self.0).unwrap_or_else(|shared| BrokerErrorInner {
            kind: shared.kind,
            attempted: shared.attempted.clone(),
            queue: shared.queue.clone(),
            source: shared
                .source
                .as_ref()
                .map(|source| source.to_string().into()),
        });
        change(&mut inner);
        Self(Arc::new(inner))
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {}", self.0.attempted)?;
        if let Some(queue) = &self.0.queue {
            write!(f, " on queue {queue:?}")?;
        }
        match &self.0.source {
            Some(source) => write!(f, ": {}", one_line(&**source)),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for BrokerError {
    /// `main` prints errors by `Debug`, so it reads as text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerError: {self}")
    }
}

/// The cause is part of the text, so it is not offered as a source as well.
impl Error for BrokerError {}

/// Settings that can't be started with. The text names what, where, and what to do.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError(Box<str>);

impl ConfigError {
    /// An error with that text: lowercase, without a trailing period.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into().into_boxed_str())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ConfigError {
    /// `main` prints errors by `Debug`, so it reads as text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigError: {}", self.0)
    }
}

impl Error for ConfigError {}

/// An error with its causes, in one line of bounded length.
fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    if text.len() > MAX_ERROR {
        let cut = (0..=MAX_ERROR)
            .rev()
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(0);
        let whole = text.len();
        text.truncate(cut);
        text.push_str(&format!("… ({whole} bytes in all)"));
    }
    if text.contains(['\n', '\r']) {
        text.replace(['\n', '\r'], " ")
    } else {
        text
    }
}

/// What is kept of an error's text, in bytes.
const MAX_ERROR: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_becomes_retryable_by_question_mark() {
        fn work() -> Result<(), WorkError> {
            "x".parse::<u32>()?;
            Ok(())
        }
        let error = work().unwrap_err();
        assert_eq!(error.kind(), WorkErrorKind::Retryable { after: None });
        assert_eq!(error.to_string(), "invalid digit found in string");
    }

    #[test]
    fn a_huge_error_is_kept_short_and_on_one_line() {
        let error = WorkError::retryable("ä\n".repeat(40_000_000 / 3));
        let text = error.to_string();
        assert!(
            text.len() < 1_100 && !text.contains('\n'),
            "{} bytes",
            text.len()
        );
        assert!(text.ends_with("bytes in all)"), "{text}");
    }

    #[test]
    fn a_broker_error_names_what_and_where() {
        let queue = QueueName::new("orders").unwrap();
        let error = BrokerError::new(BrokerErrorKind::Unavailable, "claim messages")
            .because("connection refused");
        let shared = error.clone();
        assert_eq!(
            error.queue(&queue).to_string(),
            "could not claim messages on queue \"orders\": connection refused"
        );
        assert!(shared.is_unavailable());
        assert_eq!(
            format!("{shared:?}"),
            "BrokerError: could not claim messages: connection refused"
        );
    }
}
