//! Where a setting comes from, and which of two sources wins.

use std::fmt;
use std::path::{Path, PathBuf};

use super::preset::Preset;

/// Where the value of a setting was written: what [`Config::source`](super::Config::source) answers.
///
/// Its text is meant for people: `line 3 of pythia.toml`, `environment variable REDIS_URL`, `preset "throughput"`. A
/// source is less than another one that it gives way to; of two in the same [`Layer`] the order means nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    layer: Layer,
    place: Place,
}

/// The sources of settings, from the one that gives way to all others to the one that wins over all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Layer {
    /// A preset, which stands in for the defaults of some settings.
    Preset,
    /// The TOML file.
    File,
    /// `REDIS_HOST` and its like: parts of what `REDIS_URL` says as a whole.
    RedisPart,
    /// `REDIS_URL`.
    RedisUrl,
    /// A short name, such as `PYTHIA_BROKER_TYPE`.
    ShortVariable,
    /// A full name: `PYTHIA_SECTION__KEY`.
    Variable,
    /// A method of [`Config`](super::Config).
    Code,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Code,
    Line { line: usize, file: Option<PathBuf> },
    Preset(Preset),
    Variable(String),
}

impl Source {
    /// Which of the layers it belongs to. A value in a greater layer wins over one in a lesser.
    pub fn layer(&self) -> Layer {
        self.layer
    }

    pub(super) fn line(line: usize, file: Option<&Path>) -> Self {
        let file = file.map(Path::to_owned);
        Self {
            layer: Layer::File,
            place: Place::Line { line, file },
        }
    }

    pub(super) fn preset(preset: Preset) -> Self {
        Self {
            layer: Layer::Preset,
            place: Place::Preset(preset),
        }
    }

    pub(super) fn code() -> Self {
        Self {
            layer: Layer::Code,
            place: Place::Code,
        }
    }

    pub(super) fn variable(layer: Layer, name: impl Into<String>) -> Self {
        Self {
            layer,
            place: Place::Variable(name.into()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Code => f.write_str("code"),
            Place::Line { line, file: None } => write!(f, "line {line}"),
            Place::Line {
                line,
                file: Some(file),
            } => write!(f, "line {line} of {}", file.display()),
            Place::Preset(preset) => write!(f, "preset \"{preset}\""),
            Place::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

impl Layer {
    /// Whether it may be a platform that speaks there, to all of its programs, and nobody who knows this one.
    pub(super) fn is_platform(self) -> bool {
        matches!(self, Self::RedisPart | Self::RedisUrl)
    }

    /// Whether values are texts there, to be parsed as the type of their setting. Those of a file have types of their own.
    pub(super) fn is_text(self) -> bool {
        self != Self::File
    }
}
