//! What is published, and what is to become of it.

use serde::{Deserialize, Serialize};

/// A message's own number, unlike that of any other in a run.
pub(crate) type Number = u64;

/// Who has to process a message: the workers of one queue, or of one group of a stream.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Group {
    /// A list, at least once.
    List,
    /// A list with one lane, a concurrency of one, and one process.
    Ordered,
    /// A list, at most once.
    Fleeting,
    /// A stream's first group.
    Stream,
    /// Another group of the same stream.
    Second,
    /// A channel.
    News,
    /// The in-memory broker of each process.
    Memory,
}

impl Group {
    pub(crate) const ALL: [Self; 7] = [
        Self::List,
        Self::Ordered,
        Self::Fleeting,
        Self::Stream,
        Self::Second,
        Self::News,
        Self::Memory,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Ordered => "ordered",
            Self::Fleeting => "fleeting",
            Self::Stream => "stream",
            Self::Second => "second",
            Self::News => "news",
            Self::Memory => "memory",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.name() == name)
    }

    /// The queue, which two groups of a stream share.
    pub(crate) const fn queue(self) -> &'static str {
        match self {
            Self::Second => Self::Stream.name(),
            other => other.name(),
        }
    }

    /// Whether a message stays in the broker until it is settled.
    pub(crate) const fn is_at_least_once(self) -> bool {
        !matches!(self, Self::Fleeting | Self::News)
    }
}

/// What a message does to its worker.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// It succeeds.
    Plain,
    /// It succeeds, and is not handed out before its time.
    Delayed,
    /// Its first two attempts fail.
    Retry,
    /// It fails for good, and is to be a dead letter.
    Dead,
    /// It kills its process, every time, and is to be a dead letter.
    Poison,
    /// Its worker can't read it: it is to be a dead letter, without an attempt.
    Unreadable,
    /// It takes several leases.
    Slow,
    /// Its first attempt takes for ever.
    Stuck,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Plain,
        Self::Delayed,
        Self::Retry,
        Self::Dead,
        Self::Poison,
        Self::Unreadable,
        Self::Slow,
        Self::Stuck,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Delayed => "delayed",
            Self::Retry => "retry",
            Self::Dead => "dead",
            Self::Poison => "poison",
            Self::Unreadable => "unreadable",
            Self::Slow => "slow",
            Self::Stuck => "stuck",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it is to end among the dead letters.
    pub(crate) const fn is_to_die(self) -> bool {
        matches!(self, Self::Dead | Self::Poison | Self::Unreadable)
    }
}

/// The message.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Task {
    pub(crate) number: Number,
    pub(crate) kind: Kind,
    /// How long it takes.
    pub(crate) takes_ms: u64,
}

impl Task {
    pub(crate) fn body(&self) -> Vec<u8> {
        match self.kind {
            Kind::Unreadable => [&self.number.to_be_bytes()[..], NO_JSON].concat(),
            _ => serde_json::to_vec(self).expect("a task is JSON"),
        }
    }
}

/// The number of the message with this body, whether or not its worker can read it.
pub(crate) fn number_in(body: &[u8]) -> Option<Number> {
    if let Some(number) = body.strip_suffix(NO_JSON) {
        return Some(Number::from_be_bytes(number.try_into().ok()?));
    }
    let task: Task = serde_json::from_slice(body).ok()?;
    Some(task.number)
}

const NO_JSON: &[u8] = b"\xff\0{";
