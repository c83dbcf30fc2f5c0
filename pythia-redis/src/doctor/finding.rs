//! One thing that the doctor has found, and what mends it.

use std::borrow::Cow;
use std::fmt;

use serde::{Serialize, Serializer};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Messages may be lost or late under conditions that do come about.
    Warning,
    /// Messages are being lost or refused, or are going to be.
    Critical,
}

/// What kind of thing was found. Its text is stable, for scripts and alerts.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Code {
    /// The server's clock and ours differ.
    ClockSkew,
    /// Redis may delete what is not to be deleted.
    EvictionPolicy,
    /// The loss window is minutes, or unknown.
    LossWindow,
    /// Memory is nearly used up.
    MemoryHeadroom,
    /// The user may not do what a worker does.
    MissingPermission,
    /// Nothing is written to disk.
    NoPersistence,
    /// Something could not be looked at.
    NotExamined,
    /// Messages were handed out long ago, and neither settled nor taken back.
    OldPending,
    /// Messages are held by workers that are gone.
    OrphanConsumer,
    /// Redis fails to write to its disk.
    PersistenceFailing,
    /// This is not the primary.
    Replica,
    /// Queues and stored values are on an instance that evicts.
    SharedEviction,
    /// The primary refuses writes, for lack of replicas.
    TooFewReplicas,
    /// A server of several can't be reached.
    Unreachable,
    /// This version of Redis lacks what is configured.
    UnsupportedVersion,
    /// Something else is stored under a queue's name.
    WrongType,
}

/// One thing that was found: how bad it is, what it means, and what mends it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    severity: Severity,
    code: Code,
    about: String,
    what: String,
    meaning: Cow<'static, str>,
    command: Option<String>,
    advice: Cow<'static, str>,
}

impl Code {
    /// Every code.
    pub const ALL: &'static [Self] = &[
        Self::ClockSkew,
        Self::EvictionPolicy,
        Self::LossWindow,
        Self::MemoryHeadroom,
        Self::MissingPermission,
        Self::NoPersistence,
        Self::NotExamined,
        Self::OldPending,
        Self::OrphanConsumer,
        Self::PersistenceFailing,
        Self::Replica,
        Self::SharedEviction,
        Self::TooFewReplicas,
        Self::Unreachable,
        Self::UnsupportedVersion,
        Self::WrongType,
    ];

    /// Its text, such as `eviction-policy`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClockSkew => "clock-skew",
            Self::EvictionPolicy => "eviction-policy",
            Self::LossWindow => "loss-window",
            Self::MemoryHeadroom => "memory-headroom",
            Self::MissingPermission => "missing-permission",
            Self::NoPersistence => "no-persistence",
            Self::NotExamined => "not-examined",
            Self::OldPending => "old-pending",
            Self::OrphanConsumer => "orphan-consumer",
            Self::PersistenceFailing => "persistence-failing",
            Self::Replica => "replica",
            Self::SharedEviction => "shared-eviction",
            Self::TooFewReplicas => "too-few-replicas",
            Self::Unreachable => "unreachable",
            Self::UnsupportedVersion => "unsupported-version",
            Self::WrongType => "wrong-type",
        }
    }
}

impl Finding {
    /// About a server or a queue: what was found there.
    pub(super) fn new(
        severity: Severity,
        code: Code,
        about: impl Into<String>,
        what: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code,
            about: about.into(),
            what: what.into(),
            meaning: Cow::Borrowed(""),
            command: None,
            advice: Cow::Borrowed(""),
        }
    }

    pub(super) fn means(self, meaning: impl Into<Cow<'static, str>>) -> Self {
        Self {
            meaning: meaning.into(),
            ..self
        }
    }

    pub(super) fn mended_by(self, command: impl Into<String>) -> Self {
        Self {
            command: Some(command.into()),
            ..self
        }
    }

    pub(super) fn advice_is(self, advice: impl Into<Cow<'static, str>>) -> Self {
        Self {
            advice: advice.into(),
            ..self
        }
    }

    /// How much it matters.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What kind of thing it is.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The server (`127.0.0.1:6379/0`) or the queue (`queue orders`) that it is about.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// What was found.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What comes of it.
    pub fn meaning(&self) -> &str {
        &self.meaning
    }

    /// The command that mends it, as a shell takes it behind `redis-cli`. None where no single command does.
    pub fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }

    /// What mends it, in words: instead of a command, or beside it.
    pub fn advice(&self) -> &str {
        &self.advice
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A block of lines.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            severity,
            code,
            about,
            what,
            ..
        } = self;
        writeln!(f, "{severity} [{code}] {about}: {what}")?;
        if !self.meaning.is_empty() {
            writeln!(f, "    means: {}", self.meaning)?;
        }
        if let Some(command) = &self.command {
            writeln!(f, "    mend:  redis-cli {command}")?;
        }
        match (&self.command, &*self.advice) {
            (_, "") => Ok(()),
            (Some(_), advice) => writeln!(f, "           {advice}"),
            (None, advice) => writeln!(f, "    mend:  {advice}"),
        }
    }
}
