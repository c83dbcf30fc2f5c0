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

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(prefix: &str, queue: &str) -> Keys {
        let prefix = KeyPrefix::try_from(prefix.to_owned()).expect("a good prefix");
        Keys::new(&prefix, &QueueName::new(queue).expect("a good name"))
    }

    #[test]
    fn the_ready_key_is_the_bare_name() {
        assert_eq!(keys("", "orders").ready, "orders");
        assert_eq!(keys("", "{shop}:orders").ready, "{shop}:orders");
        assert_eq!(keys("shop:", "orders").ready, "shop:orders");
    }

    #[test]
    fn the_other_keys_are_spelt_as_documented() {
        let plain = keys("", "orders");
        assert_eq!(plain.inbox, "pythia:{orders}:inbox");
        assert_eq!(plain.key("batch:c1:7"), "pythia:{orders}:batch:c1:7");
        assert_eq!(
            plain.key(format_args!("held:{}", "c1")),
            "pythia:{orders}:held:c1"
        );
        assert_eq!(plain.base(), "pythia:{orders}");
        assert_eq!(plain.group("g").retry, "pythia:{orders}:retry:g");
        assert_eq!(
            keys("", "{shop}:orders").dead,
            "pythia:{shop}@{shop}:orders:dead"
        );
        assert_eq!(
            keys("app:", "orders").delayed,
            "app:pythia:{app:orders}:delayed"
        );
        assert_eq!(
            keys("{app}:", "orders").clock,
            "{app}:pythia:{app}@{app}:orders:clock"
        );
    }

    #[test]
    fn all_keys_of_a_queue_hash_alike() {
        for prefix in ["", "app:", "{app}:", "a{b}c"] {
            for queue in ["orders", "{shop}:orders", "a{b}", "{a}", "a:b@c"] {
                let keys = keys(prefix, queue);
                let hashed = hash_tag(&keys.ready).unwrap_or(&keys.ready);
                let group = keys.group("{g}");
                for key in [
                    &keys.inbox,
                    &keys.control,
                    &keys.key("result:{x}"),
                    &group.floor,
                ] {
                    assert_eq!(hash_tag(key), Some(hashed), "{prefix} {queue}: {key}");
                }
            }
        }
    }

    #[test]
    fn two_queues_share_no_key() {
        let names = [
            "a",
            "{a}",
            "{a}b",
            "b{a}",
            "{a}:a",
            "a:inbox",
            "pythia:{a}:inbox",
        ];
        let mut inboxes: Vec<_> = names.iter().map(|name| keys("", name).inbox).collect();
        inboxes.extend(names.iter().map(|name| keys("", name).ready));
        let all = inboxes.len();
        inboxes.sort();
        inboxes.dedup();
        // One queue is named like an internal key of another on purpose: nothing can tell those two apart.
        assert_eq!(inboxes.len(), all - 1);
    }

    #[test]
    fn a_hash_tag_is_what_redis_cluster_takes_for_one() {
        for (key, tag) in [
            ("orders", None),
            ("{a}b", Some("a")),
            ("x{a}b", Some("a")),
            ("{}b{c}", None),
            ("{{a}}", Some("{a")),
            ("{a}{b}", Some("a")),
            ("}{a", None),
        ] {
            assert_eq!(hash_tag(key), tag, "{key}");
        }
    }
}
