//! Variables with short names, and those that others set as well.

use super::*;

fn read(environment: &[(&str, &str)]) -> Config {
    config("", environment)
}

fn refused(name: &str) -> String {
    Config::from_sources(None, [(name, "1")])
        .unwrap_err()
        .to_string()
}

#[test]
fn each_short_name_is_that_of_its_setting() {
    for (variable, setting) in [
        ("PYTHIA_BROKER_TYPE", "broker.type"),
        ("PYTHIA_MAX_CONCURRENT", "worker.concurrency"),
        ("REDIS_URL", "redis.url"),
        ("REDIS_HOST", "redis.host"),
        ("REDIS_PORT", "redis.port"),
        ("REDIS_DB", "redis.db"),
        ("REDIS_USERNAME", "redis.username"),
        ("REDIS_PASSWORD", "redis.password"),
        ("REDIS_QUEUE", "broker.queue"),
    ] {
        let source = read(&[(variable, "7")]).source(setting).expect(variable);
        assert_eq!(
            source.to_string(),
            format!("environment variable {variable}")
        );
        assert_eq!(read(&[(variable, "")]).source(setting), None, "{variable}");
    }
    let config = read(&[
        ("PYTHIA_BROKER_TYPE", "stream"),
        ("PYTHIA_MAX_CONCURRENT", "07"),
        ("PYTHIA_PRESET", "durable"),
        ("REDIS_QUEUE", "eu:orders"),
    ]);
    config.check().unwrap();
    assert_eq!(config.broker_type().unwrap(), BrokerType::Stream);
    let route: RouteConfig = config.route("any").unwrap();
    assert_eq!(route.concurrency.get(), 7);
    assert_eq!(config.preset().unwrap(), Some(Preset::Durable));
    assert_eq!(config.broker_queue().unwrap().as_deref(), Some("eu:orders"));
}

#[test]
fn a_password_of_digits_stays_a_text_by_each_of_its_names() {
    for name in ["REDIS_PASSWORD", "PYTHIA_REDIS__PASSWORD"] {
        let read = redis("", &[(name, "00123")]);
        assert_eq!(read.password.as_deref(), Some("00123"), "{name}");
    }
}

#[test]
fn an_empty_short_name_leaves_alone_what_the_file_says() {
    let toml = "preset = \"durable\"\n[redis]\npassword = \"x\"\n[broker]\ntype = \"list\"";
    let config = config(
        toml,
        &[
            ("REDIS_PASSWORD", ""),
            ("PYTHIA_BROKER_TYPE", ""),
            ("PYTHIA_PRESET", ""),
        ],
    );
    let source = config.source("redis.password").unwrap();
    assert_eq!(source.to_string(), "line 3");
    assert_eq!(config.broker_type().unwrap(), BrokerType::List);
    assert_eq!(config.preset().unwrap(), Some(Preset::Durable));
}

#[test]
fn a_port_that_describes_a_service_is_none() {
    for text in ["tcp://10.0.0.1:6379", "udp://10.0.0.1:6379"] {
        assert_eq!(read(&[("REDIS_PORT", text)]).source("redis"), None);
    }
    // A text that only is no port is a mistake, and is refused by the setting.
    assert!(
        read(&[("REDIS_PORT", "6379x")])
            .source("redis.port")
            .is_some()
    );
}

#[test]
fn what_a_platform_says_can_be_left_out() {
    let config = config(
        "[redis]\ndb = 3",
        &[
            ("REDIS_URL", "redis://a"),
            ("REDIS_DB", "4"),
            ("PYTHIA_REDIS__RATIO", "0.25"),
        ],
    );
    let ours: Redis = config.without_platform().section("redis").unwrap();
    assert_eq!((ours.db, ours.ratio), (3, 0.25));
    assert!(config.contains("redis.db") && !config.contains("redis.url"));
    assert!(!read(&[("REDIS_URL", "redis://a")]).contains("redis"));
    assert!(!config.with_preset(Preset::Durable).contains("worker"));
}

#[test]
fn a_misspelt_short_name_is_refused_with_the_right_one() {
    for (wrong, right) in [
        ("PYTHIA_BROKER_TYP", "PYTHIA_BROKER_TYPE"),
        ("PYTHIA_BORKER_TYPE", "PYTHIA_BROKER_TYPE"),
        ("PYTHIA_MAX_CONCURRENCY", "PYTHIA_MAX_CONCURRENT"),
        ("PYTHIA_PRESETS", "PYTHIA_PRESET"),
        ("PYTHIA_preset", "PYTHIA_PRESET"),
        ("PYTHIA_CONFIGS", "PYTHIA_CONFIG"),
        ("PYTHIA_REDIS_URL", "PYTHIA_REDIS__URL"),
        ("PYTHIA_BROKER_QUEUE", "PYTHIA_BROKER__QUEUE"),
    ] {
        assert_eq!(
            refused(wrong),
            format!(
                "environment variable {wrong} names no setting: one is written PYTHIA_SECTION__KEY, with two \
                 underscores; did you mean {right}?"
            )
        );
    }
}
