//! The settings: section `[metrics]`.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use pythia_core::ConfigError;
use serde::{Deserialize, Deserializer, Serialize};

use crate::names;

/// Settings of the metrics: section `[metrics]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MetricsConfig {
    /// Whether there are metrics at all. If not, the observer counts nothing and the server does not listen. Default:
    /// true.
    pub enabled: bool,
    /// Where the server listens: an IP address and a port; port 0 takes any that is free. It knows neither passwords nor
    /// TLS, so it is reachable from this machine only by default: 127.0.0.1:9898.
    #[serde(deserialize_with = "address")]
    pub address: SocketAddr,
    /// How long a broker may take to answer `/health`, and each [`Check`](crate::Check) that names no other time; then it
    /// has failed. Less than a probe waits for its answer. Default: 2 s.
    #[serde(
        serialize_with = "humantime_serde::serialize",
        deserialize_with = "positive"
    )]
    pub check_timeout: Duration,
    /// Buckets of the time that attempts take, in seconds. Default: from 100 us to 1 h.
    pub processing_buckets: BucketBounds,
    /// Buckets of the time from publishing to the start of an attempt, in seconds. Default: from 500 us to 1 h.
    pub wait_buckets: BucketBounds,
    /// Buckets of the time that the broker and its server take to answer, in seconds. Default: from 100 us to 10 s.
    pub round_trip_buckets: BucketBounds,
    /// Families that are left out: by name, such as "pythia_job_wait_seconds", or by [group](names::GROUPS), such as
    /// "histograms". Default: none.
    pub disabled_families: BTreeSet<FamilyOrGroup>,
    /// How many queues have series of their own; all others are counted together, under the queue
    /// [`OTHER_QUEUES`](names::OTHER_QUEUES). Default: 1,000.
    pub max_queues: NonZeroUsize,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            address: (Ipv4Addr::LOCALHOST, 9898).into(),
            check_timeout: Duration::from_secs(2),
            processing_buckets: BucketBounds(PROCESSING.to_vec()),
            wait_buckets: BucketBounds(WAIT.to_vec()),
            round_trip_buckets: BucketBounds(ROUND_TRIP.to_vec()),
            disabled_families: BTreeSet::new(),
            max_queues: const { NonZeroUsize::new(1_000).unwrap() },
        }
    }
}

impl MetricsConfig {
    pub(crate) fn exports(&self, family: &names::Family) -> bool {
        let is_off = |name| self.disabled_families.contains(name);
        let mut groups = names::GROUPS
            .iter()
            .filter(|group| group.families.contains(&family.name));
        self.enabled && !is_off(family.name) && !groups.any(|group| is_off(group.name))
    }

    pub(crate) const fn buckets(&self, buckets: names::Buckets) -> &BucketBounds {
        match buckets {
            names::Buckets::Processing => &self.processing_buckets,
            names::Buckets::RoundTrip => &self.round_trip_buckets,
            names::Buckets::Wait => &self.wait_buckets,
        }
    }
}

/// Upper bounds of a histogram's buckets, in seconds: 1 to 100 of them, positive, finite, and rising. The bucket that has
/// no bound is always there.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "Vec<f64>", into = "Vec<f64>")]
pub struct BucketBounds(Vec<f64>);

impl BucketBounds {
    /// Checks them.
    ///
    /// # Errors
    /// Says what is wrong with them.
    pub fn new(seconds: impl Into<Vec<f64>>) -> Result<Self, ConfigError> {
        let seconds = seconds.into();
        let problem = if seconds.is_empty() || seconds.len() > MAX_BUCKETS {
            format!("has {} of them", seconds.len())
        } else if let Some(bad) = seconds
            .iter()
            .find(|bound| !bound.is_finite() || **bound <= 0.0)
        {
            format!("has {bad}")
        } else if let Some(pair) = seconds.windows(2).find(|pair| pair[0] >= pair[1]) {
            format!("has {} before {}", pair[0], pair[1])
        } else {
            return Ok(Self(seconds));
        };
        Err(ConfigError::new(format!(
            "a list of buckets is made of 1 to {MAX_BUCKETS} positive, rising numbers of seconds, such as \
             [0.001, 0.1, 10]; this one {problem}"
        )))
    }

    /// The bounds, in seconds.
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }
}

impl TryFrom<Vec<f64>> for BucketBounds {
    type Error = ConfigError;

    fn try_from(seconds: Vec<f64>) -> Result<Self, ConfigError> {
        Self::new(seconds)
    }
}

impl From<BucketBounds> for Vec<f64> {
    fn from(bounds: BucketBounds) -> Self {
        bounds.0
    }
}

/// The name of a family, or of a group of families, that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct FamilyOrGroup(&'static str);

impl FamilyOrGroup {
    /// Finds it.
    ///
    /// # Errors
    /// Names what is spelt most like it.
    pub fn new(name: &str) -> Result<Self, ConfigError> {
        let families = names::ALL.iter().map(|family| family.name);
        let known = families.chain(names::GROUPS.iter().map(|group| group.name));
        if let Some(found) = known.clone().find(|known| *known == name) {
            return Ok(Self(found));
        }
        let distance = |known: &&str| strsim::damerau_levenshtein(known, name);
        let closest = known.min_by_key(distance).unwrap_or_default();
        Err(ConfigError::new(format!(
            "no family of metrics, and no group of them, is called {name:?}; the closest one is {closest:?}"
        )))
    }
}

impl std::borrow::Borrow<str> for FamilyOrGroup {
    fn borrow(&self) -> &str {
        self.0
    }
}

impl<'de> Deserialize<'de> for FamilyOrGroup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format_args!(
            "{text:?} is no address to listen on; write an IP address and a port, such as \"127.0.0.1:9898\""
        ))
    })
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration: Duration = humantime_serde::deserialize(deserializer)?;
    if duration.is_zero() {
        return Err(serde::de::Error::custom(
            "it must be more than zero, such as \"2s\"",
        ));
    }
    Ok(duration)
}

const MAX_BUCKETS: usize = 100;

const PROCESSING: &[f64] = &[
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0,
];
const WAIT: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0, 900.0, 3_600.0,
];
const ROUND_TRIP: &[f64] = &[
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn refusal(section: serde_json::Value) -> String {
        from_value::<MetricsConfig>(section)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_empty_section_is_the_default() {
        assert_eq!(
            from_value::<MetricsConfig>(json!({})).unwrap(),
            MetricsConfig::default()
        );
        for list in [PROCESSING, WAIT, ROUND_TRIP] {
            BucketBounds::new(list).unwrap();
        }
    }

    #[test]
    fn the_section_reads_back_what_it_writes() {
        let config = MetricsConfig {
            enabled: false,
            address: "[::1]:0".parse().unwrap(),
            check_timeout: Duration::from_millis(700),
            processing_buckets: BucketBounds::new([1.0, 2.0]).unwrap(),
            wait_buckets: BucketBounds::new([3.0]).unwrap(),
            round_trip_buckets: BucketBounds::new([4.0]).unwrap(),
            disabled_families: ["pythia_gaps_total", "pool"]
                .map(|name| FamilyOrGroup::new(name).unwrap())
                .into(),
            max_queues: NonZeroUsize::MIN,
        };
        let written = serde_json::to_value(&config).unwrap();
        assert_eq!(from_value::<MetricsConfig>(written).unwrap(), config);
    }

    #[test]
    fn whole_numbers_are_seconds_too() {
        let config: MetricsConfig = from_value(json!({"wait_buckets": [1, 2.5, 60]})).unwrap();
        assert_eq!(config.wait_buckets.as_slice(), [1.0, 2.5, 60.0]);
    }

    #[test]
    fn what_can_not_be_meant_is_refused_with_the_reason() {
        for (section, says) in [
            (json!({"adress": "127.0.0.1:1"}), "unknown field `adress`"),
            (
                json!({"address": "localhost:1"}),
                "\"localhost:1\" is no address to listen on",
            ),
            (json!({"address": "127.0.0.1"}), "an IP address and a port"),
            (json!({"address": 9898}), "invalid type"),
            (json!({"enabled": "yes"}), "invalid type"),
            (json!({"check_timeout": "0s"}), "must be more than zero"),
            (json!({"check_timeout": 2}), "expected a duration"),
            (json!({"max_queues": 0}), "nonzero"),
            (json!({"max_queues": -1}), "nonzero"),
            (json!({"wait_buckets": []}), "this one has 0 of them"),
            (json!({"wait_buckets": [1, -1]}), "this one has -1"),
            (json!({"wait_buckets": [0]}), "this one has 0"),
            (
                json!({"wait_buckets": [1, 5, 5]}),
                "this one has 5 before 5",
            ),
            (
                json!({"wait_buckets": vec![1; 101]}),
                "this one has 101 of them",
            ),
            (
                json!({"disabled_families": ["pythia_queue_dept"]}),
                "\"pythia_queue_dept\"; the closest one is \"pythia_queue_depth\"",
            ),
            (
                json!({"disabled_families": ["histogram"]}),
                "\"histogram\"; the closest one is \"histograms\"",
            ),
        ] {
            let error = refusal(section);
            assert!(error.contains(says), "{error}");
        }
        assert!(BucketBounds::new([f64::NAN]).is_err());
        assert!(BucketBounds::new([1.0, f64::INFINITY]).is_err());
    }
}
