//! The names of the keys that belong to one queue.

use bytestring::ByteString;

use pythia_core::QueueName;

use crate::config::KeyPrefix;

/// The keys of one queue, all in the cluster slot of its ready key.
///
/// The ready key is the queue's bare name (after the configured prefix), so that plain clients reach it. Every
/// other key is `pythia:{name}:...`: the braces make Redis Cluster hash the name alone. A name that holds a
/// `{tag}` of its own is hashed by that tag, and its keys are `pythia:{tag}@name:...`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Keys {
    /// The list, stream or channel that plain clients use.
    pub(crate) ready: ByteString,
    base: String,
    pub(crate) consumers: ByteString,
    pub(crate) delayed: ByteString,
    pub(crate) dead: ByteString,
    pub(crate) inbox: ByteString,
    pub(crate) clock: ByteString,
    pub(crate) promoter: ByteString,
    /// The channel on which the workers of the queue are told of what cannot wait.
    pub(crate) control: ByteString,
}

/// The keys of one consumer group of a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct GroupKeys {
    pub(crate) retry: ByteString,
    pub(crate) delayed: ByteString,
    pub(crate) dead: ByteString,
    pub(crate) consumers: ByteString,
    pub(crate) floor: ByteString,
    pub(crate) clock: ByteString,
}

impl Keys {
    pub(crate) fn new(prefix: &KeyPrefix, queue: &QueueName) -> Self {
        let ready = format!("{prefix}{queue}");
        // Neither part has a brace out of place, so the tag of the one is the tag of the other.
        let base = match hash_tag(&ready) {
            Some(tag) => format!("{prefix}pythia:{{{tag}}}@{ready}"),
            None => format!("{prefix}pythia:{{{ready}}}"),
        };
        let key = |suffix: &str| ByteString::from(format!("{base}:{suffix}"));
        Self {
            consumers: key("consumers"),
            delayed: key("delayed"),
            dead: key("dead"),
            inbox: key("inbox"),
            clock: key("clock"),
            promoter: key("promoter"),
            control: key("control"),
            ready: ready.into(),
            base,
        }
    }

    /// `pythia:{name}:suffix`, for keys made per claim, consumer, result or schedule.
    pub(crate) fn key(&self, suffix: impl std::fmt::Display) -> ByteString {
        ByteString::from(format!("{}:{suffix}", self.base))
    }

    /// `pythia:{name}`, for scripts that append the rest themselves.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The keys of a consumer group.
    pub(crate) fn group(&self, group: &str) -> GroupKeys {
        let key = |suffix: &str| ByteString::from(format!("{}:{suffix}:{group}", self.base));
        GroupKeys {
            retry: key("retry"),
            delayed: key("delayed"),
            dead: key("dead"),
            consumers: key("consumers"),
            floor: key("floor"),
            clock: key("clock"),
        }
    }
}

/// What Redis Cluster hashes in place of the whole key: what stands between the first `{` and the next `}`,
/// unless that is nothing.
fn hash_tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}
