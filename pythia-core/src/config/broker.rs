//! `[broker]`: where messages come from.

use serde::{Deserialize, Serialize};

/// `[broker]`: where messages come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct BrokerConfig {
    #[serde(rename = "type")]
    pub(super) kind: BrokerType,
    /// The queue of a program that has one route only, if it is to be another than the route's name.
    pub(super) queue: Option<String>,
}

/// The brokers that settings can ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BrokerType {
    /// Redis lists.
    List,
    /// The in-memory broker of this process.
    #[default]
    Memory,
    /// Redis pub/sub.
    Pubsub,
    /// Whichever of lists, streams and pub/sub has a section: `[redis.list]`, `[redis.stream]` or `[redis.pubsub]`.
    Redis,
    /// Redis streams with consumer groups.
    Stream,
}
