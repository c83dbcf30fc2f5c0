//! Where the URL, its parts and its options come from decides which of them hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use pythia_core::Config;
use pythia_core::observe::{Event, Observer};
use pythia_redis::config::RedisConfig;
use pythia_redis::testing::RedisServer;

use crate::bench::Bench;

fn read(toml: &str, environment: &[(&str, &str)]) -> Result<RedisConfig, String> {
    let environment = environment.iter().map(|(name, text)| (*name, *text));
    let config =
        Config::from_sources(Some(toml), environment).map_err(|error| error.to_string())?;
    RedisConfig::from_config(&config).map_err(|error| error.to_string())
}

/// Where the settings lead, without credentials.
fn place(toml: &str, environment: &[(&str, &str)]) -> String {
    let config =
        read(toml, environment).unwrap_or_else(|error| panic!("{toml} {environment:?}: {error}"));
    let broker = pythia_redis::ListBroker::new(config).expect("valid settings");
    format!("{broker:?}")
}

#[test]
fn the_stronger_source_wins_between_a_url_and_its_parts() {
    let in_file = "redis.url = \"redis://file:1/1\"";
    let parts_in_file = "redis.host = \"file\"\nredis.port = 1\nredis.db = 1";
    for (toml, environment, expected) in [
        ("", &[][..], "redis://127.0.0.1:6379"),
        (in_file, &[], "redis://file:1/1"),
        (parts_in_file, &[], "redis://file:1/1"),
        // Parts of a stronger source replace those parts of the URL.
        (in_file, &[("REDIS_HOST", "env")], "redis://env:1/1"),
        (
            in_file,
            &[("REDIS_PORT", "2"), ("REDIS_DB", "2")],
            "redis://file:2/2",
        ),
        (in_file, &[("PYTHIA_REDIS__HOST", "env")], "redis://env:1/1"),
        // A URL of a stronger source replaces all parts.
        (
            parts_in_file,
            &[("REDIS_URL", "redis://env")],
            "redis://env:6379",
        ),
        (
            "",
            &[("REDIS_URL", "redis://url:3"), ("REDIS_HOST", "part")],
            "redis://url:3",
        ),
        (
            "",
            &[("REDIS_URL", "redis://url:3"), ("PYTHIA_REDIS__PORT", "4")],
            "redis://url:4",
        ),
        // A database and credentials that a platform sets beside the URL are for the URL.
        (
            "",
            &[("REDIS_URL", "redis://url"), ("REDIS_DB", "5")],
            "redis://url:6379/5",
        ),
        (
            "",
            &[("REDIS_URL", "redis://url/4"), ("REDIS_DB", "5")],
            "redis://url:6379/4",
        ),
        (
            "redis.db = 5",
            &[("REDIS_URL", "redis://url")],
            "redis://url:6379",
        ),
        (
            in_file,
            &[
                ("REDIS_URL", "redis://url"),
                ("PYTHIA_REDIS__URL", "redis://own"),
            ],
            "redis://own:6379",
        ),
    ] {
        let shown = place(toml, environment);
        assert_eq!(
            shown,
            format!("ListBroker({expected})"),
            "{toml} {environment:?}"
        );
    }
}

#[test]
fn what_says_two_things_at_once_is_refused() {
    for (toml, why) in [
        ("url = \"redis://a\"\nhost = \"b\"", "redis.host"),
        ("url = \"redis://a\"\nport = 2", "redis.port"),
        ("url = \"redis://a/1\"\ndb = 2", "redis.db"),
        ("url = \"redis://:x@a\"\npassword = \"y\"", "redis.password"),
        ("username = \"app\"", "redis.password"),
        ("url = \"redis-cluster://a\"\ndb = 2", "cluster"),
        (
            "url = \"redis://a?socket_timeout=3\"\ncommand_timeout = \"4s\"",
            "redis.command_timeout",
        ),
        ("tls.ca_file = \"/ca.pem\"", "rediss://"),
        ("url = \"unix:///s\"\ntls.enabled = true", "unix socket"),
        ("host = \"\"", "redis.host"),
    ] {
        let error = read(&format!("[redis]\n{toml}"), &[]).expect_err(toml);
        assert!(error.contains(why), "{toml}: {error}");
    }
    let error = read("redis.url = \"unix:///s\"", &[("REDIS_HOST", "h")]).unwrap_err();
    assert!(error.contains("redis.host can't replace"), "{error}");
}

/// The same as if one source said it all.
#[test]
fn what_a_part_makes_of_a_url_must_be_usable_too() {
    let login = "redis.url = \"redis://app:pw@h\"";
    for (toml, variable, why) in [
        (
            "redis.url = \"redis://h\"",
            ("REDIS_USERNAME", "app"),
            "without redis.password",
        ),
        (
            login,
            ("PYTHIA_REDIS__PASSWORD", ""),
            "without redis.password",
        ),
        (
            "redis.url = \"redis-cluster://h\"",
            ("REDIS_DB", "2"),
            "cluster",
        ),
        (login, ("REDIS_HOST", "redis://:hunter2@h"), "redis.url"),
    ] {
        let error = read(toml, &[variable]).expect_err(toml);
        assert!(error.contains(why), "{toml} {variable:?}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

/// It would be shown with the password that it holds, in errors and labels.
#[test]
fn a_host_is_no_url() {
    let read = |host| read("", &[("REDIS_HOST", host)]);
    for host in [
        "redis://:hunter2@h:6379",
        "app:hunter2@h",
        "hunter2@h",
        "h:6380",
        "h/1",
        "two words",
        "[hunter2:]",
    ] {
        let error = read(host).expect_err(host);
        assert!(error.contains("redis.host is not"), "{host}: {error}");
        assert!(!error.contains("hunter2"), "{host}: {error}");
    }
    for host in [
        "h",
        "my_redis.example.com.",
        "10.0.0.1",
        "::1",
        "[::1]",
        "fe80::1%eth0",
    ] {
        read(host).expect(host);
    }
}

#[test]
fn a_setting_of_a_stronger_source_wins_over_an_option_of_the_url() {
    let url = "redis.url = \"redis://h?command_timeout=3s&pool_size=7\"";
    let shown = |environment: &[(&str, &str)]| format!("{:?}", read(url, environment).unwrap());
    // The options show only in what they do; see the table of settings. Here it is enough that nothing is refused.
    assert!(shown(&[("PYTHIA_REDIS__COMMAND_TIMEOUT", "4s")]).contains("command_timeout: 4s"));
    assert!(shown(&[]).contains("command_timeout: 10s"));
}

#[tokio::test]
async fn a_password_of_digits_from_the_environment_keeps_its_zeros() {
    let server = RedisServer::start_with(&["--requirepass", "00123"]).await;
    let port = server.port().to_string();
    let url = format!("redis://127.0.0.1:{port}");
    for (place, password) in [
        (("REDIS_PORT", port.as_str()), "REDIS_PASSWORD"),
        (("REDIS_PORT", port.as_str()), "PYTHIA_REDIS__PASSWORD"),
        (("REDIS_URL", url.as_str()), "REDIS_PASSWORD"),
    ] {
        let environment = [place, (password, "00123")];
        let config = read("", &environment).unwrap();
        let shown = format!("{config:?}");
        assert!(!shown.contains("00123"), "{shown}");
        let broker = pythia_redis::ListBroker::new(config).unwrap();
        let queue = pythia_core::QueueName::new("orders").unwrap();
        let message = pythia_core::Message::new("1");
        pythia_core::broker::Broker::publish(&broker, &queue, vec![message])
            .await
            .expect("the password is right");
    }
}

struct CountCommands(Arc<AtomicU64>);

impl Observer for CountCommands {
    fn on_event(&self, event: &Event<'_>) {
        if matches!(event, Event::Command { .. }) {
            self.0.fetch_add(1, SeqCst);
        }
    }
}

#[tokio::test]
async fn the_store_may_be_elsewhere() {
    let (broker, store) = tokio::join!(RedisServer::start(), RedisServer::start());
    let settings = format!(
        "redis.url = {:?}\nredis.store_url = \"{}/2\"",
        broker.url(),
        store.url()
    );
    let bench = Bench::with(&settings, "list");
    bench.publish(0..1).await;
    let commands = Arc::new(AtomicU64::new(0));
    bench
        .broker
        .attach(Arc::new(CountCommands(Arc::clone(&commands))));
    let kv = bench.broker.store().expect("Redis has one");
    kv.set("k", "v".into(), None).await.unwrap();
    assert_eq!(commands.load(SeqCst), 1, "its commands are observed, too");
    assert_eq!(broker.cli(&["KEYS", "*"]).await, "orders");
    assert_eq!(store.cli(&["-n", "2", "KEYS", "*"]).await, "pythia:store:k");
}
