//! `config/pythia.toml` is the documentation of every setting: it must say what the code does.

use std::collections::BTreeSet;
use std::fmt::Debug;

use pythia_core::resilience::{BreakerConfig, RetryConfig, TimeoutConfig};
use pythia_core::{Config, MemoryConfig, RouteConfig, RunnerConfig};
use pythia_metrics::MetricsConfig;
use pythia_redis::config::RedisConfig;
use serde::de::DeserializeOwned;

const FILE: &str = include_str!("../../config/pythia.toml");

#[test]
fn the_annotated_file_is_the_defaults() {
    fn check<T: DeserializeOwned + Debug + Default + PartialEq>(section: &str) {
        let config = Config::from_toml(FILE).unwrap();
        let written: T = config.section(section).unwrap();
        assert_eq!(written, T::default(), "[{section}]");
    }
    check::<BreakerConfig>("breaker");
    check::<MemoryConfig>("memory");
    check::<MetricsConfig>("metrics");
    check::<RedisConfig>("redis");
    check::<RetryConfig>("retry");
    check::<RunnerConfig>("runner");
    check::<TimeoutConfig>("timeout");
    let config = Config::from_toml(FILE).unwrap();
    let route: RouteConfig = config.route("orders").unwrap();
    assert_eq!(route, RouteConfig::default());
    assert_eq!(config.broker_type(), Config::default().broker_type());
    config.check().unwrap();
}

#[test]
fn the_annotated_file_leaves_nothing_out() {
    fn check<T: DeserializeOwned>(section: &str, tables: &[&str]) {
        let tables = tables.iter().map(|table| (*table).to_owned());
        let written: BTreeSet<String> = written_in(section).chain(tables).collect();
        assert_eq!(written, known_to::<T>(section), "[{section}]");
    }
    check::<BreakerConfig>("breaker", &[]);
    check::<MemoryConfig>("memory", &[]);
    check::<MetricsConfig>("metrics", &[]);
    check::<RedisConfig>("redis", &["list", "maintain", "pubsub", "stream"]);
    for table in [
        "redis.list",
        "redis.maintain",
        "redis.pubsub",
        "redis.stream",
    ] {
        let known = known_to::<RedisConfig>(table);
        assert_eq!(
            written_in(table).collect::<BTreeSet<_>>(),
            known,
            "[{table}]"
        );
    }
    check::<RetryConfig>("retry", &[]);
    check::<RunnerConfig>("runner", &[]);
    check::<TimeoutConfig>("timeout", &[]);
    check::<RouteConfig>("worker", &["breaker", "queue", "retry", "timeout"]);
}

#[test]
fn the_annotated_example_of_a_route_is_one() {
    let example: String = FILE
        .lines()
        .skip_while(|line| *line != "# [routes.orders]")
        .map_while(|line| line.strip_prefix("# "))
        .flat_map(|line| [line, "\n"])
        .collect();
    let config = Config::from_toml(&example).unwrap();
    config.check().unwrap();
    let route: RouteConfig = config.route("orders").unwrap();
    assert_eq!(route.queue.as_deref(), Some("{eu}:orders"));
    assert_eq!(route.retry.max_attempts.get(), 20);
}

/// What a section knows, as it says when it is asked for nonsense.
fn known_to<T: DeserializeOwned>(section: &str) -> BTreeSet<String> {
    let nonsense = format!("[{section}]\nxyzzy-xyzzy-xyzzy = 1");
    let whole = section.split('.').next().unwrap();
    let Err(error) = Config::from_toml(&nonsense).unwrap().section::<T>(whole) else {
        panic!("[{section}] takes anything");
    };
    let error = error.to_string();
    let (_, known) = error.split_once("; known are ").expect(&error);
    known.split(", ").map(str::to_owned).collect()
}

/// The keys below a section's header in the file.
fn written_in(section: &str) -> impl Iterator<Item = String> {
    FILE.lines()
        .skip_while(move |line| !line.starts_with(&format!("[{section}]")))
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once(" = "))
        .map(|(key, _)| key.to_owned())
        .filter(|key| !key.starts_with('#'))
}
