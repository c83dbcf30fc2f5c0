//! `explain()`: nothing is missing, all of it is true, and nothing that is secret is in it.

use super::*;
use crate::{MemoryConfig, RunnerConfig};

/// A section with the secrets that a section may have.
#[derive(Debug, Default, Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
struct Secrets {
    url: Option<String>,
    urls: Vec<String>,
    username: Option<String>,
    password: Option<String>,
    password_file: Option<String>,
    session_token: Option<String>,
    retries: Option<u8>,
}

#[test]
fn it_is_toml_that_says_the_same() {
    let config = config(
        "preset = \"throughput\"\n[worker]\nrate = \"10/s burst 3\"\n[routes.\"eu:orders\"]\nqueue = \"{eu}\\\\o\"\n\
         retry.max_attempts = 9\n[timeout]\nsoft = \"90s\"",
        &[("PYTHIA_MAX_CONCURRENT", "3")],
    );
    let text = config.explain().unwrap().to_string();
    let again = Config::from_toml(&text).unwrap();
    again.check().unwrap();
    for route in ["eu_orders", "others"] {
        assert_eq!(
            config.route::<RouteConfig>(route).unwrap(),
            again.route::<RouteConfig>(route).unwrap(),
            "{text}"
        );
    }
    let runner: RunnerConfig = again.section("runner").unwrap();
    assert_eq!(runner, RunnerConfig::default());
    let memory: MemoryConfig = again.section("memory").unwrap();
    assert_eq!(memory, MemoryConfig::default());
    assert_eq!(again.preset().unwrap(), Some(Preset::Throughput));
}

#[test]
fn each_value_has_its_source() {
    let config = config(
        "[retry]\nmax_attempts = 7\n[routes.orders]\nbatch = 1",
        &[
            ("PYTHIA_BROKER__TYPE", "list"),
            ("PYTHIA_PRESET", "low_latency"),
            ("REDIS_QUEUE", "eu"),
        ],
    );
    let text = config.explain().unwrap().to_string();
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for expected in [
        "preset = \"low_latency\" # environment variable PYTHIA_PRESET",
        "broker.queue = \"eu\" # environment variable REDIS_QUEUE",
        "broker.type = \"list\" # environment variable PYTHIA_BROKER__TYPE",
        "runner.drain_timeout = \"25s\" # default",
        "worker.batch = 10 # preset \"low_latency\"",
        "worker.rate = \"\" # default",
        "retry.max_attempts = 7 # line 2",
        "routes.orders.batch = 1 # line 4",
        "memory.lease = \"30s\" # default",
    ] {
        assert!(
            lines.iter().any(|line| line == expected),
            "{expected}\n{text}"
        );
    }
    // Of a route only what it has of its own, and no queue for all of them.
    assert_eq!(text.matches("routes.orders.").count(), 1, "{text}");
    assert!(!text.contains("worker.queue"), "{text}");
    // The comments are below each other.
    let columns: BTreeSet<_> = text.lines().filter_map(|line| line.find("  # ")).collect();
    assert!(columns.len() < 15, "{text}");
}

/// Wherever settings are shown, and all that is shown there.
fn shown_everywhere(toml: &str, environment: &[(&str, &str)]) -> String {
    let config = match Config::from_sources(Some(toml), environment.iter().copied()) {
        Ok(config) => config,
        Err(error) => return format!("{error} {error:?}"),
    };
    let mut shown = format!("{config:?} {config:#?}");
    match config.section::<Secrets>("redis") {
        Ok(_) => {
            let explained = config
                .explain()
                .unwrap()
                .section::<Secrets>("redis")
                .unwrap();
            shown += &format!("{explained} {explained:?} {:?}", explained.settings());
        }
        Err(error) => shown += &format!("{error} {error:?}"),
    }
    let builder = crate::Runner::builder().config(&config);
    shown += &format!("{builder:?}");
    if let Err(error) = builder.build() {
        shown += &format!("{error} {error:?}");
    }
    shown
}

#[test]
fn no_secret_is_shown_anywhere() {
    for (toml, environment) in [
        ("redis.url = \"redis://app:hunter2@h\"", [].as_slice()),
        ("redis.url = \"redis://:hunter2@h/0?protocol=3\"", &[]),
        ("redis.url = \"redis://hunter2@h\"", &[]),
        ("redis.url = \"redis://app:a/hunter2@b@h\"", &[]),
        ("redis.url = \"redis://h?password=hunter2\"", &[]),
        ("redis.url = \"hunter2\"", &[]),
        ("redis.urls = [\"redis://:hunter2@h\"]", &[]),
        ("redis.password = \"hunter2\"", &[]),
        ("redis.session_token = \"hunter2\"", &[]),
        // What is refused.
        ("redis.password = \"hunter2", &[]),
        ("redis.password = [\"hunter2\"]", &[]),
        ("redis.pasword = \"hunter2\"", &[]),
        ("redis.retries = 1\nredis.password.a = \"hunter2\"", &[]),
        ("", &[("REDIS_URL", "redis://:hunter2@h")]),
        ("", &[("REDIS_PASSWORD", "hunter2")]),
        ("", &[("PYTHIA_REDIS__PASSWORD", "hunter2")]),
        ("", &[("PYTHIA_REDIS__PASWORD", "hunter2")]),
        ("", &[("PYTHIA_REDIS_PASSWORD", "hunter2")]),
        ("", &[("PYTHIA_REDIS__PASSWORD__A", "hunter2")]),
    ] {
        let shown = shown_everywhere(toml, environment);
        assert!(
            !shown.contains("hunter2"),
            "{toml} {environment:?}: {shown}"
        );
    }
}

#[test]
fn what_is_no_secret_is_shown() {
    let config = config(
        "[redis]\nusername = \"app\"\npassword_file = \"/run/secrets/redis\"",
        &[
            ("REDIS_URL", "redis://app:hunter2@h:1/2"),
            ("REDIS_PASSWORD", "hunter2"),
        ],
    );
    let explained = config
        .explain()
        .unwrap()
        .section::<Secrets>("redis")
        .unwrap();
    let of = |name: &str| {
        let mut settings = explained.settings().iter();
        settings
            .find(|setting| setting.name == name)
            .unwrap()
            .value
            .clone()
    };
    assert_eq!(of("redis.url"), r#""redis://app:***@h:1/2""#);
    assert_eq!(of("redis.password"), r#""***""#);
    assert_eq!(of("redis.session_token"), r#""""#);
    assert_eq!(of("redis.username"), r#""app""#);
    assert_eq!(of("redis.password_file"), r#""/run/secrets/redis""#);
}
