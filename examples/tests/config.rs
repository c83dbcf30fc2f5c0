//! `config/pythia.toml` is the documentation of every setting: it must say what the code does.

use std::collections::BTreeSet;
use std::fmt::Debug;

use pythia_core::resilience::{BreakerConfig, RetryConfig, TimeoutConfig};
use pythia_core::{
    Config, Job, MemoryBroker, MemoryConfig, Route, RouteConfig, Runner, RunnerConfig, worker_fn,
};
use pythia_metrics::MetricsConfig;
use pythia_redis::config::RedisConfig;
use serde::de::DeserializeOwned;

const FILE: &str = include_str!("../../config/pythia.toml");
const PRODUCTION: &str = include_str!("../../config/production.toml");

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
    assert_eq!(config.preset(), Ok(None));
    config.check().unwrap();
    // `broker.queue` is read where a runner is built: none, so several routes are no contradiction.
    let broker = MemoryBroker::new();
    let route = |name| Route::new(name, worker_fn(async |_: &Job<u64>| Ok(())));
    let runner = Runner::builder()
        .config(&config)
        .route(&broker, route("orders"))
        .route(&broker, route("mails"));
    runner.build().unwrap();
}

#[test]
fn the_annotated_file_leaves_nothing_out() {
    let above: Vec<_> = FILE
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(key)
        .collect();
    assert_eq!(above, ["preset"]);
    let nonsense = Config::from_toml("broker.xyzzy-xyzzy-xyzzy = 1").unwrap();
    let refusal = nonsense.broker_type().unwrap_err().to_string();
    assert_eq!(
        written_in("broker").collect::<BTreeSet<_>>(),
        listed(&refusal)
    );
    fn check<T: DeserializeOwned>(section: &str, tables: &[&str]) {
        let tables = tables.iter().map(|table| (*table).to_owned());
        let written: BTreeSet<String> = written_in(section).chain(tables).collect();
        assert_eq!(written, known_to::<T>(section), "[{section}]");
    }
    check::<BreakerConfig>("breaker", &[]);
    check::<MemoryConfig>("memory", &[]);
    check::<MetricsConfig>("metrics", &[]);
    check::<RedisConfig>("redis", &["list", "maintain", "pubsub", "stream", "tls"]);
    for table in [
        "redis.list",
        "redis.maintain",
        "redis.pubsub",
        "redis.stream",
        "redis.tls",
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

#[test]
fn the_overlay_for_production_says_only_what_differs() {
    let overlay = Config::from_toml(PRODUCTION).unwrap();
    overlay.check().unwrap();
    overlay.section::<RedisConfig>("redis").unwrap();
    overlay.section::<MetricsConfig>("metrics").unwrap();
    pythia_redis::from_config(&overlay).unwrap();

    let (mut section, mut reason, mut settings) = (String::new(), false, 0);
    for line in PRODUCTION.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("[{}]\n", name.trim_end_matches(']'));
        } else if line.starts_with('#') {
            reason = true;
        } else if key(line).is_some() {
            assert!(reason, "{line} has no reason");
            assert!(
                differs(&format!("{section}{line}")),
                "{line} is the default"
            );
            settings += 1;
        }
        reason = reason && line.starts_with('#');
    }
    assert!(settings > 10, "{settings}");
}

/// Whether a text sets anything to another value than its default.
fn differs(toml: &str) -> bool {
    fn section<T: DeserializeOwned + Default + PartialEq>(config: &Config, name: &str) -> bool {
        config.section::<T>(name).unwrap() != T::default()
    }
    let config = Config::from_toml(toml).unwrap();
    config.preset().unwrap().is_some()
        || config.broker_type() != Config::default().broker_type()
        || config.route::<RouteConfig>("any").unwrap() != RouteConfig::default()
        || section::<RunnerConfig>(&config, "runner")
        || section::<RedisConfig>(&config, "redis")
        || section::<MetricsConfig>(&config, "metrics")
}

/// What a section knows, as it says when it is asked for nonsense.
fn known_to<T: DeserializeOwned>(section: &str) -> BTreeSet<String> {
    let nonsense = format!("[{section}]\nxyzzy-xyzzy-xyzzy = 1");
    let whole = section.split('.').next().unwrap();
    let Err(error) = Config::from_toml(&nonsense).unwrap().section::<T>(whole) else {
        panic!("[{section}] takes anything");
    };
    listed(&error.to_string())
}

fn listed(error: &str) -> BTreeSet<String> {
    let (_, known) = error.split_once("; known are ").expect(error);
    known.split(", ").map(str::to_owned).collect()
}

/// The key that a line sets, if it does.
fn key(line: &str) -> Option<String> {
    let (key, _) = line.split_once(" = ")?;
    (!key.starts_with('#')).then(|| key.to_owned())
}

/// The keys below a section's header in the file.
fn written_in(section: &str) -> impl Iterator<Item = String> {
    FILE.lines()
        .skip_while(move |line| !line.starts_with(&format!("[{section}]")))
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(key)
}
