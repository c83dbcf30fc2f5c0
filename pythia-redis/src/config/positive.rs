//! Durations that must not be zero: `#[serde(with = "positive")]`.

use std::time::Duration;

pub(super) use humantime_serde::serialize;
use serde::Deserializer;
use serde::de::Error as _;

/// A duration of zero would stop what it times, not switch it off.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    let duration = humantime_serde::deserialize(deserializer)?;
    if duration == Duration::ZERO {
        return Err(D::Error::custom("must be longer than 0s"));
    }
    Ok(duration)
}
