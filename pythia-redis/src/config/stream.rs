//! The section `[redis.stream]`.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pythia_core::ConfigError;
use serde::{Deserialize, Serialize, Serializer};

/// Streams: the section `[redis.stream]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct StreamConfig {
    /// The consumer group. Each group sees every entry once. Default: `pythia`.
    pub group: String,
    /// Where a new group begins. Default: `0`.
    pub start: StreamStart,
    /// Moves the group back to this point once, when the worker starts. Default: none.
    pub replay_from: Option<StreamStart>,
    /// The wished-for length of the stream. Default: none, what every group has processed is removed.
    ///
    /// An entry that some group has not been given or not acknowledged is never removed.
    pub max_length: Option<NonZeroUsize>,
    /// Default: `maxlen`. Where only the limit of the other strategy is set, no broker is made.
    pub trim_strategy: TrimStrategy,
    /// Whether trimming removes whole nodes of the stream only, which is cheaper. Default: `true`.
    pub trim_approximate: bool,
    /// How long an entry is kept after it was added, with the strategy `minid`. Default: none.
    #[serde(with = "humantime_serde")]
    pub retention: Option<Duration>,
}

/// A point in a stream: `0` (its beginning), `$` (its end), an entry's id, or a time (RFC 3339).
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(try_from = "String")]
#[non_exhaustive]
pub enum StreamStart {
    /// Every entry that the stream still holds.
    #[default]
    Beginning,
    /// Only what is added from now on.
    End,
    /// What was added after the entry with this id, written `ms-seq`.
    Id(String),
    /// What was added at that time, by the server's clock, or later.
    Time(SystemTime),
}

/// By what a stream is trimmed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TrimStrategy {
    /// By length: `max_length`.
    #[default]
    Maxlen,
    /// By age: `retention`.
    Minid,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            group: "pythia".to_owned(),
            start: StreamStart::Beginning,
            replay_from: None,
            max_length: None,
            trim_strategy: TrimStrategy::Maxlen,
            trim_approximate: true,
            retention: None,
        }
    }
}

impl StreamStart {
    /// The id behind which a group begins, as Redis takes it.
    pub(crate) fn redis_id(&self) -> String {
        match self {
            Self::Beginning => "0".to_owned(),
            Self::End => "$".to_owned(),
            Self::Id(id) => id.clone(),
            Self::Time(time) => {
                let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
                match since_epoch.as_millis().checked_sub(1) {
                    // The last id that the millisecond before can have.
                    Some(before) => format!("{before}-{}", u64::MAX),
                    None => "0".to_owned(),
                }
            }
        }
    }
}

/// As [`StreamStart`] is read.
impl fmt::Display for StreamStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beginning => f.write_str("0"),
            Self::End => f.write_str("$"),
            Self::Id(id) => f.write_str(id),
            Self::Time(time) => humantime_serde::re::humantime::format_rfc3339(*time).fmt(f),
        }
    }
}

impl Serialize for StreamStart {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl TryFrom<String> for StreamStart {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Self, ConfigError> {
        if text == "$" {
            return Ok(Self::End);
        }
        let (ms, seq) = text.split_once('-').unwrap_or((&text, "0"));
        if let (Ok(ms), Ok(seq)) = (ms.parse::<u64>(), seq.parse::<u64>()) {
            return Ok(match (ms, seq) {
                (0, 0) => Self::Beginning,
                _ => Self::Id(format!("{ms}-{seq}")),
            });
        }
        match humantime_serde::re::humantime::parse_rfc3339(&text) {
            Ok(time) => Ok(Self::Time(time)),
            Err(_) => Err(ConfigError::new(format!(
                "{text:?} is no point in a stream: use 0, $, an entry's id such as 1718000000000-0, or a time such as \
                 2025-06-10T06:13:20Z"
            ))),
        }
    }
}
