//! What the user of a worker has to be allowed: as rules to give to one, and as the single commands that it sends.

use std::borrow::Cow;

use pythia_core::QueueName;

use crate::config::{Delivery, KeyPrefix, PubSubMode, RedisConfig};
use crate::keys::Keys;
use crate::store;
use crate::url::Place;

/// By what a worker is reached: which commands it needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pattern {
    List,
    PubSub,
    Stream,
}

/// The commands of every pattern, by Redis' categories.
pub(crate) const COMMANDS: &[&str] = &[
    "-@all",
    "+@read",
    "+@write",
    "+@blocking",
    "+@scripting",
    "+@pubsub",
    "+@connection",
    "+time",
    // FLUSHALL and KEYS are among what reads and writes.
    "-@dangerous",
    "+info",
];

/// What connecting to such a place takes besides.
pub(crate) fn commands_to_connect(place: &Place) -> &'static [&'static str] {
    match place {
        Place::Cluster(_) => &["+cluster|slots", "+cluster|info"],
        Place::Sentinel { .. } => &["+role"],
        Place::Server(_) | Place::Socket(_) => &[],
    }
}

/// The keys of a queue.
pub(crate) fn keys(prefix: &KeyPrefix, queue: &QueueName) -> [String; 2] {
    let keys = Keys::new(prefix, queue);
    let [ready, base] = [&*keys.ready, keys.base()].map(literal);
    [format!("~{ready}"), format!("~{base}:*")]
}

/// The keys of the store.
pub(crate) fn store_keys(prefix: &KeyPrefix) -> String {
    format!("~{}", store::key(&literal(&prefix.to_string()), "*"))
}

/// The channels of a queue. A subscription by a pattern has to be allowed in just these words.
pub(crate) fn channels(prefix: &KeyPrefix, queue: &QueueName) -> [String; 2] {
    let keys = Keys::new(prefix, queue);
    [format!("&{}", keys.ready), format!("&{}", keys.control)]
}

/// What the claims of consumers are under, for `SCAN`: of every queue behind the prefix.
pub(crate) fn held_keys(prefix: &KeyPrefix) -> String {
    format!("{}pythia:{{*:held:*", literal(&prefix.to_string()))
}

/// All rules for a user that serves these queues and nothing else.
pub(crate) fn rules(config: &RedisConfig, queues: &[QueueName]) -> Vec<String> {
    let prefix = &config.key_prefix;
    let mut rules = vec!["resetkeys".to_owned()];
    rules.extend(queues.iter().flat_map(|queue| keys(prefix, queue)));
    rules.push(store_keys(prefix));
    rules.push("resetchannels".to_owned());
    rules.extend(queues.iter().flat_map(|queue| channels(prefix, queue)));
    let connect = commands_to_connect(&config.server().place);
    rules.extend(COMMANDS.iter().chain(connect).map(ToString::to_string));
    rules
}

/// Every command that a worker of a pattern sends, or that its scripts call, each with arguments that Redis takes. `K` and
/// `O` stand for keys of the queue, `C` and `N` for its channels.
pub(crate) fn needed(pattern: Pattern, config: &RedisConfig) -> impl Iterator<Item = &'static str> {
    let own: &[&[&str]] = match (pattern, config.list.delivery, config.pubsub.mode) {
        (Pattern::List, Delivery::AtLeastOnce, _) => &[LIST, CLAIMED],
        (Pattern::List, Delivery::AtMostOnce, _) => &[LIST, POPPED],
        (Pattern::PubSub, _, PubSubMode::Channel) => &[PUBSUB, &["SUBSCRIBE C", "PUBLISH C v"]],
        (Pattern::PubSub, _, PubSubMode::Pattern) => &[PUBSUB, &["PSUBSCRIBE C", "PUBLISH C v"]],
        (Pattern::PubSub, _, PubSubMode::Sharded) => &[PUBSUB, &["SSUBSCRIBE C", "SPUBLISH C v"]],
        (Pattern::Stream, ..) => &[STREAM],
    };
    own.iter().copied().flatten().copied()
}

/// The commands of the key-value store, for its keys.
pub(crate) const STORE: &[&str] = &["GET K", "SET K v", "DEL K"];

const LIST: &[&str] = &[
    "PING",
    "INFO memory",
    "EVAL s 2 K O",
    "EVALSHA s 2 K O",
    "SUBSCRIBE N",
    "PUBLISH N v",
    "DEL O",
    "EXISTS O",
    "GET O",
    "HDEL O f",
    "HGET O f",
    "HGETALL O",
    "HINCRBY O f 1",
    "HKEYS O",
    "HMGET O f",
    "HSET O f v",
    "LINDEX O 0",
    "LLEN K",
    "LMOVE O K LEFT RIGHT",
    "LPUSH K v",
    "LRANGE O 0 1",
    "LSET O 0 v",
    "LTRIM O 0 1",
    "RPOP K 1",
    "RPUSH K v",
    "SET O v",
    "TIME",
    "TYPE K",
    "UNLINK K",
    "ZADD O 1 v",
    "ZCARD O",
    "ZRANGE O 0 0",
    "ZRANGEBYSCORE O 0 1",
    "ZREM O v",
    "ZREVRANGE O 0 0",
];

const CLAIMED: &[&str] = &["BLMOVE K O RIGHT LEFT 1"];

const POPPED: &[&str] = &["BLMPOP 1 1 K RIGHT", "BRPOP K 1"];

const STREAM: &[&str] = &[
    "PING",
    "INFO memory",
    "EVAL s 2 K O",
    "EVALSHA s 2 K O",
    "DEL O",
    "EXISTS K",
    "GET O",
    "HDEL O f",
    "HGET O f",
    "HSET O f v",
    "SET O v",
    "TIME",
    "TYPE K",
    "UNLINK K",
    "XACK K g 1-1",
    "XADD K * f v",
    "XCLAIM K g c 0 1-1",
    "XDEL O 1-1",
    "XGROUP CREATE K g 0",
    "XGROUP DELCONSUMER K g c",
    "XGROUP SETID K g 0",
    "XINFO GROUPS K",
    "XINFO STREAM K",
    "XLEN K",
    "XPENDING K g",
    "XRANGE K - +",
    "XREADGROUP GROUP g c STREAMS K >",
    "XREVRANGE O + -",
    "XTRIM K MINID 1",
    "ZADD O 1 v",
    "ZCARD O",
    "ZRANGE O 0 0",
    "ZRANGEBYSCORE O 0 1",
    "ZREM O v",
    "ZSCORE O v",
];

const PUBSUB: &[&str] = &[
    "PING",
    "INFO memory",
    "EVAL s 1 O",
    "EVALSHA s 1 O",
    "SET O v",
];

/// A name as a rule takes it: Redis' patterns have signs of their own.
fn literal(name: &str) -> String {
    let escaped = |sign: char| match sign {
        '*' | '?' | '[' | ']' | '\\' => Cow::from(format!("\\{sign}")),
        other => other.to_string().into(),
    };
    name.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The commands in the scripts of a folder, as `GET` and `XGROUP CREATE`.
    fn called_in(folder: &str) -> BTreeSet<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/scripts")
            .join(folder);
        let mut called = BTreeSet::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for call in text.split("call('").skip(1) {
                let mut words = call.split('\'');
                let command = words.next().unwrap().to_owned();
                let second = words.nth(1).unwrap_or_default();
                called.insert(match command.as_str() {
                    "XGROUP" | "XINFO" => format!("{command} {second}"),
                    _ => command,
                });
            }
        }
        called
    }

    fn commands(pattern: Pattern) -> BTreeSet<String> {
        let name = |line: &str| {
            let mut words = line.split(' ');
            let command = words.next().unwrap();
            match (command, words.next()) {
                ("XGROUP" | "XINFO", Some(second)) => format!("{command} {second}"),
                _ => command.to_owned(),
            }
        };
        needed(pattern, &RedisConfig::default()).map(name).collect()
    }

    #[test]
    fn what_the_scripts_call_is_among_what_is_needed() {
        for (folder, pattern) in [
            ("list", Pattern::List),
            ("delay", Pattern::List),
            ("stream", Pattern::Stream),
            ("pubsub", Pattern::PubSub),
        ] {
            let called = called_in(folder);
            assert!(!called.is_empty());
            let needed = commands(pattern);
            let missing: Vec<_> = called.difference(&needed).collect();
            assert!(missing.is_empty(), "{folder}: {missing:?}");
        }
    }

    #[test]
    fn the_rules_of_a_queue_are_its_own_keys_and_channels() {
        let config = RedisConfig::default();
        let rules_of = |name| rules(&config, &[QueueName::new(name).unwrap()]).join(" ");
        let rules = rules_of("orders");
        let own = "resetkeys ~orders ~pythia:{orders}:* ~pythia:store:* resetchannels &orders &pythia:{orders}:control -@all ";
        assert!(rules.starts_with(own), "{rules}");
        assert!(rules_of("{eu}:orders").contains(" ~pythia:{eu}@{eu}:orders:* "));
        assert!(rules_of("a*").contains("~a\\* ~pythia:{a\\*}:* "));
        assert!(rules_of("a*").contains("&a* "));
    }

    #[test]
    fn a_cluster_and_sentinels_take_more() {
        for (url, more) in [
            ("redis-cluster://h", "+info +cluster|slots +cluster|info"),
            ("redis-sentinel://h/m", "+info +role"),
            ("redis://h", "+info"),
        ] {
            let rules = rules(&RedisConfig::from_url(url).unwrap(), &[]).join(" ");
            assert!(rules.ends_with(more), "{rules}");
        }
    }
}
