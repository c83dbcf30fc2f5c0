//! From a configuration to a broker.

use std::sync::Arc;

use pythia_core::broker::Broker;
use pythia_core::config::BrokerType;
use pythia_core::{Config, ConfigError, MemoryBroker};

use crate::acl::Pattern;
use crate::config::RedisConfig;
use crate::{ListBroker, PubSubBroker, StreamBroker};

/// The broker that a configuration asks for: `[broker] type = "memory" | "list" | "stream" | "pubsub"`, or `"redis"` for
/// whichever of `[redis.list]`, `[redis.stream]` and `[redis.pubsub]` is there. It does not connect.
///
/// # Errors
/// If a setting is unknown or can't be used; if the type is `"redis"` and not exactly one of the three is there; or if it is
/// not set at all and there are settings for Redis: whoever wrote them did not mean the in-memory broker. (`REDIS_URL` and
/// its like alone are none: a platform may set them for all of its programs.)
pub fn from_config(config: &Config) -> Result<Arc<dyn Broker>, ConfigError> {
    if config.contains("redis") && !config.contains("broker.type") {
        return Err(ConfigError::new(
            "there are settings for redis, but broker.type is not set: set it (or PYTHIA_BROKER_TYPE) to \"list\", \
             \"stream\" or \"pubsub\", or to \"memory\" if messages are to come from the in-memory broker",
        ));
    }
    let Some(pattern) = pattern(config)? else {
        // Not used, but a misspelt setting is one wherever it stands. (Not so a URL that the platform tells everybody.)
        RedisConfig::from_config(&config.without_platform())?;
        let unused = ["redis.url", "redis.host"].iter();
        let unused = unused.filter_map(|setting| config.source(setting)).next();
        if let Some(source) = unused
            && config.source("broker.type").is_none()
        {
            tracing::warn!(
                "{source} has no effect: broker.type is not set, so messages come from the in-memory broker; set \
                 PYTHIA_BROKER_TYPE to \"list\", \"stream\" or \"pubsub\""
            );
        }
        let memory = MemoryBroker::with_config(config.section("memory")?)?;
        return Ok(Arc::new(memory));
    };
    let redis = RedisConfig::from_config(config)?;
    match pattern {
        Pattern::List => Ok(Arc::new(ListBroker::new(redis)?)),
        Pattern::PubSub => Ok(Arc::new(PubSubBroker::new(redis)?)),
        Pattern::Stream => Ok(Arc::new(StreamBroker::new(redis)?)),
    }
}

/// The pattern that is chosen; none for the in-memory broker.
pub(crate) fn pattern(config: &Config) -> Result<Option<Pattern>, ConfigError> {
    let chosen = match config.broker_type()? {
        BrokerType::Redis => only_pattern(config)?,
        chosen => chosen,
    };
    match chosen {
        BrokerType::List => Ok(Some(Pattern::List)),
        BrokerType::Memory => Ok(None),
        BrokerType::Pubsub => Ok(Some(Pattern::PubSub)),
        BrokerType::Stream => Ok(Some(Pattern::Stream)),
        other => Err(ConfigError::new(format!(
            "broker.type {other:?} is none of Redis' patterns"
        ))),
    }
}

/// The one pattern that has a section.
fn only_pattern(config: &Config) -> Result<BrokerType, ConfigError> {
    let patterns = [
        ("redis.list", BrokerType::List),
        ("redis.pubsub", BrokerType::Pubsub),
        ("redis.stream", BrokerType::Stream),
    ];
    let present: Vec<_> = patterns
        .into_iter()
        .filter(|(section, _)| config.contains(section))
        .collect();
    match present[..] {
        [(_, pattern)] => Ok(pattern),
        [] => Err(ConfigError::new(
            "broker.type is \"redis\", but there is none of [redis.list], [redis.stream] and [redis.pubsub]: \
             add one, or say \"list\", \"stream\" or \"pubsub\"",
        )),
        _ => Err(ConfigError::new(format!(
            "broker.type is \"redis\", but there are several patterns ({}): say \"list\", \"stream\" or \"pubsub\"",
            present
                .iter()
                .map(|(section, _)| format!("[{section}]"))
                .collect::<Vec<_>>()
                .join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(toml: &str) -> Result<String, String> {
        let config = Config::from_toml(toml).unwrap();
        let broker = from_config(&config).map_err(|error| error.to_string())?;
        Ok(format!("{broker:?}")
            .split([' ', '('])
            .next()
            .unwrap()
            .to_owned())
    }

    #[test]
    fn the_type_chooses_the_broker() {
        assert_eq!(chosen("").unwrap(), "MemoryBroker");
        for (kind, broker) in [
            ("memory", "MemoryBroker"),
            ("list", "ListBroker"),
            ("stream", "StreamBroker"),
            ("pubsub", "PubSubBroker"),
        ] {
            assert_eq!(
                chosen(&format!("[broker]\ntype = \"{kind}\"")).unwrap(),
                broker
            );
        }
        let redis = "[broker]\ntype = \"redis\"\n";
        assert_eq!(
            chosen(&format!("{redis}[redis.stream]\ngroup = \"g\"")).unwrap(),
            "StreamBroker"
        );
        assert!(chosen(redis).unwrap_err().contains("none of [redis.list]"));
        let two = format!(
            "{redis}[redis.list]\ndelivery = \"at-least-once\"\n[redis.stream]\ngroup = \"g\""
        );
        assert!(
            chosen(&two)
                .unwrap_err()
                .contains("[redis.list], [redis.stream]")
        );
    }

    #[test]
    fn settings_for_redis_without_a_type_are_not_taken_for_memory() {
        let url = "[redis]\nurl = \"redis://example.com\"\n";
        assert!(chosen(url).unwrap_err().contains("PYTHIA_BROKER_TYPE"));
        let memory = format!("{url}[broker]\ntype = \"memory\"");
        assert_eq!(chosen(&memory).unwrap(), "MemoryBroker");
        let misspelt = memory.replace("url", "urll");
        assert!(chosen(&misspelt).unwrap_err().contains("redis.url"));
    }

    #[test]
    fn what_a_platform_says_of_redis_is_no_reason_to_refuse_memory() {
        let chosen = |variables: &[(&str, &str)]| {
            let config = Config::from_sources(None, variables.iter().copied()).unwrap();
            from_config(&config).map(|broker| format!("{broker:?}"))
        };
        let url = ("REDIS_URL", "redis://redis:6379");
        let strange = ("REDIS_URL", "amqp://no-redis");
        for variables in [
            [url].as_slice(),
            &[strange],
            &[strange, ("PYTHIA_BROKER_TYPE", "memory")],
            &[("REDIS_HOST", "redis"), ("REDIS_PASSWORD", "secret")],
            &[url, ("PYTHIA_PRESET", "durable")],
        ] {
            let broker = chosen(variables).unwrap();
            assert!(broker.starts_with("MemoryBroker"), "{broker}");
        }
        let list = ("PYTHIA_BROKER_TYPE", "list");
        assert!(chosen(&[url, list]).unwrap().starts_with("ListBroker"));
        for (setting, value) in [
            ("PYTHIA_REDIS__URL", "redis://redis"),
            ("PYTHIA_REDIS__LEASE", "10s"),
        ] {
            let error = chosen(&[url, (setting, value)]).unwrap_err().to_string();
            assert!(error.contains("broker.type is not set"), "{error}");
        }
        let error = chosen(&[strange, list]).unwrap_err().to_string();
        assert!(error.contains("REDIS_URL"), "{error}");
    }

    #[test]
    fn settings_that_would_be_ignored_are_refused() {
        let stream = |settings: &str| {
            chosen(&format!(
                "broker.type = \"stream\"\n[redis.stream]\n{settings}"
            ))
        };
        let (age, length) = ("retention = \"1h\"\n", "max_length = 9\n");
        let by_age = "trim_strategy = \"minid\"\n";
        // Whoever sets both limits may go from one to the other.
        let both = format!("{age}{length}");
        for good in [&both, &format!("{both}{by_age}"), length, by_age] {
            assert_eq!(stream(good).unwrap(), "StreamBroker");
        }
        for (bad, ignored) in [
            (age, "redis.stream.retention"),
            (&format!("{length}{by_age}"), "redis.stream.max_length"),
        ] {
            let error = stream(bad).expect_err(bad);
            assert!(error.contains(ignored), "{error}");
        }
    }
}
