use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

mod aliases;
mod explained;
mod precedence;
mod presets;

/// A section with a setting of each type that ours use.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Redis {
    password: Option<String>,
    db: u8,
    pool_size: NonZeroU32,
    ratio: f64,
    keepalive: bool,
    #[serde(with = "humantime_serde")]
    command_timeout: Duration,
    #[serde(with = "humantime_serde")]
    retention: Option<Duration>,
    channels: Vec<String>,
    ports: Vec<u16>,
    mode: Mode,
    stream: Stream,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            password: None,
            db: 0,
            pool_size: NonZeroU32::MIN,
            ratio: 0.5,
            keepalive: true,
            command_timeout: Duration::from_secs(10),
            retention: None,
            channels: Vec::new(),
            ports: Vec::new(),
            mode: Mode::default(),
            stream: Stream::default(),
        }
    }
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    #[default]
    AtLeastOnce,
    AtMostOnce,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Stream {
    group: String,
    start: Start,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(try_from = "String")]
struct Start(u64);

impl TryFrom<String> for Start {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_prefix('#').map(str::parse) {
            Some(Ok(id)) => Ok(Self(id)),
            _ => Err("a start is written #1".into()),
        }
    }
}

/// A route, with worker's settings beside tables of its own.
#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Route {
    queue: Option<String>,
    batch: u32,
    lanes: u32,
    retry: Retry,
    breaker: Empty,
    timeout: Empty,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Retry {
    max_attempts: u32,
    cap: u32,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Empty {}

fn config(toml: &str, environment: &[(&str, &str)]) -> Config {
    Config::from_sources(Some(toml), environment.iter().copied()).unwrap()
}

fn redis(toml: &str, environment: &[(&str, &str)]) -> Redis {
    config(toml, environment).section("redis").unwrap()
}

fn refused(toml: &str, environment: &[(&str, &str)]) -> String {
    match Config::from_sources(Some(toml), environment.iter().copied()) {
        Ok(config) => config.section::<Redis>("redis").unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn without_sources_everything_has_its_default() {
    assert_eq!(redis("", &[]), Redis::default());
    let config = Config::default();
    assert_eq!(config.section::<Redis>("redis").unwrap(), Redis::default());
    assert_eq!(config.broker_type().unwrap(), BrokerType::Memory);
}

#[test]
fn every_type_is_read_from_the_file() {
    let toml = r##"
        [redis]
        password = "00123"
        db = 3
        pool_size = 4
        ratio = 1
        keepalive = false
        command_timeout = "1m 30s"
        retention = "250ms"
        channels = ["a,b", "c"]
        ports = [1, 2]
        mode = "at-most-once"
        [redis.stream]
        group = "eu"
        start = "#7"
    "##;
    assert_eq!(redis(toml, &[]), all_set("a,b"));
}

#[test]
fn every_type_is_read_from_the_text_of_a_variable() {
    let environment = [
        ("PYTHIA_REDIS__PASSWORD", "00123"),
        ("PYTHIA_REDIS__DB", "003"),
        ("PYTHIA_REDIS__POOL_SIZE", " 4"),
        ("PYTHIA_REDIS__RATIO", "1"),
        ("PYTHIA_REDIS__KEEPALIVE", "off"),
        ("PYTHIA_REDIS__COMMAND_TIMEOUT", "1m 30s"),
        ("PYTHIA_REDIS__RETENTION", "250ms"),
        ("PYTHIA_REDIS__CHANNELS", "a.b, c"),
        ("PYTHIA_REDIS__PORTS", "1,2"),
        ("PYTHIA_REDIS__MODE", "at-most-once"),
        ("PYTHIA_REDIS__STREAM__GROUP", "eu"),
        ("PYTHIA_REDIS__STREAM__START", "#7"),
    ];
    assert_eq!(redis("", &environment), all_set("a.b"));
}

fn all_set(first_channel: &str) -> Redis {
    Redis {
        password: Some("00123".into()),
        db: 3,
        pool_size: NonZeroU32::new(4).unwrap(),
        ratio: 1.0,
        keepalive: false,
        command_timeout: Duration::from_secs(90),
        retention: Some(Duration::from_millis(250)),
        channels: vec![first_channel.into(), "c".into()],
        ports: vec![1, 2],
        mode: Mode::AtMostOnce,
        stream: Stream {
            group: "eu".into(),
            start: Start(7),
        },
    }
}

#[test]
fn a_password_is_the_text_that_was_written() {
    for password in [
        "00123",
        "1e5",
        "true",
        "[1,2]",
        "{a=b}",
        " x ",
        "a,b",
        "\"quoted\"",
    ] {
        let read = redis("", &[("PYTHIA_REDIS__PASSWORD", password)]);
        assert_eq!(read.password.as_deref(), Some(password));
    }
}

#[test]
fn an_empty_text_is_no_value() {
    let toml = "[redis]\npassword = \"\"\nretention = \"\"";
    assert_eq!(redis(toml, &[]), Redis::default());
    let error = refused("[redis]\ncommand_timeout = \"\"", &[]);
    assert!(
        error.starts_with("redis.command_timeout: expected a duration"),
        "{error}"
    );
}

#[test]
fn an_empty_variable_unsets_what_the_file_set() {
    let toml = "[redis]\npassword = \"x\"\nretention = \"1h\"\nchannels = [\"a\"]";
    let environment = [
        ("PYTHIA_REDIS__PASSWORD", ""),
        ("PYTHIA_REDIS__RETENTION", ""),
        ("PYTHIA_REDIS__CHANNELS", ""),
    ];
    assert_eq!(redis(toml, &environment), Redis::default());
}

#[test]
fn what_is_refused_is_named_with_its_place_and_what_was_meant() {
    for (toml, environment, expected) in [
        (
            "[redis]\n\npasword = \"hunter2\"",
            [].as_slice(),
            "unknown setting \"redis.pasword\" (line 3); did you mean \"redis.password\"?",
        ),
        (
            "",
            &[("PYTHIA_REDIS__PASWORD", "hunter2")],
            "unknown setting \"redis.pasword\" (environment variable PYTHIA_REDIS__PASWORD); did you mean \
             \"redis.password\"?",
        ),
        (
            "[redis]\nfrobnicate = 1",
            &[],
            "unknown setting \"redis.frobnicate\" (line 2); known are password, db, pool_size, ratio, keepalive, \
             command_timeout, retention, channels, ports, mode, stream",
        ),
        (
            "[redis.stream]\ngruop = \"eu\"",
            &[],
            "unknown setting \"redis.stream.gruop\" (line 2); did you mean \"redis.stream.group\"?",
        ),
        (
            "[redis]\ndb = 1\n[redis.straem]\ngroup = \"eu\"",
            &[],
            "unknown setting \"redis.straem\" (line 3); did you mean \"redis.stream\"?",
        ),
        (
            "",
            &[("PYTHIA_REDIS__STRAEM__GROUP", "eu")],
            "unknown setting \"redis.straem\" (environment variable PYTHIA_REDIS__STRAEM__GROUP); did you mean \
             \"redis.stream\"?",
        ),
        (
            "[redsi]\ndb = 1",
            &[],
            "unknown section [redsi] (line 1); did you mean [redis]?",
        ),
        (
            "[database]",
            &[],
            "unknown section [database] (line 1); known are breaker, broker, memory, metrics, redis, retry, routes, \
             runner, timeout, worker",
        ),
        (
            "",
            &[("PYTHIA_REDSI__DB", "1")],
            "unknown section [redsi] (environment variable PYTHIA_REDSI__DB); did you mean [redis]?",
        ),
        (
            "redis = 5",
            &[],
            "\"redis\" is a section, [redis], not a setting (line 1)",
        ),
        (
            "",
            &[("PYTHIA_ROUTES__ORDERS", "5")],
            "\"routes.orders\" is a section, [routes.orders], not a setting (environment variable \
             PYTHIA_ROUTES__ORDERS)",
        ),
        (
            "[redis]\ndb = \"3\"",
            &[],
            "redis.db: expected a whole number from 0 to 255, found \"3\" (line 2)",
        ),
        (
            "[redis]\ndb = 256",
            &[],
            "redis.db: expected a whole number from 0 to 255, found 256 (line 2)",
        ),
        (
            "",
            &[("PYTHIA_REDIS__DB", "-1")],
            "redis.db: expected a whole number from 0 to 255, found -1 (environment variable PYTHIA_REDIS__DB)",
        ),
        (
            "[redis]\ndb = 1",
            &[("PYTHIA_REDIS__DB", "three")],
            "redis.db: expected a whole number from 0 to 255, found \"three\" (environment variable \
             PYTHIA_REDIS__DB)",
        ),
        (
            "[redis]\npool_size = 0",
            &[],
            "redis.pool_size: expected a whole number from 1 to 4294967295, found 0 (line 2)",
        ),
        (
            "",
            &[("PYTHIA_REDIS__KEEPALIVE", "maybe")],
            "redis.keepalive: expected true or false, found \"maybe\" (environment variable \
             PYTHIA_REDIS__KEEPALIVE)",
        ),
        (
            "[redis]\ncommand_timeout = \"-5s\"",
            &[],
            "redis.command_timeout: expected a duration with its unit, not negative, such as \"500ms\" or \"30s\", found \
             \"-5s\" (line 2)",
        ),
        (
            "[redis]\nretention = 30",
            &[],
            "redis.retention: expected a duration with its unit, not negative, such as \"500ms\" or \"30s\", found 30 (line \
             2)",
        ),
        (
            "",
            &[("PYTHIA_REDIS__COMMAND_TIMEOUT", "30")],
            "redis.command_timeout: expected a duration with its unit, not negative, such as \"500ms\" or \"30s\", found \
             \"30\" (environment variable PYTHIA_REDIS__COMMAND_TIMEOUT)",
        ),
        (
            "[redis]\npassword = 12345",
            &[],
            "redis.password: expected a string, found a number (line 2)",
        ),
        (
            "[redis]\nports = [1,\n\"x\"]",
            &[],
            "redis.ports.1: expected a whole number from 0 to 65535, found \"x\" (line 2)",
        ),
        (
            "",
            &[("PYTHIA_REDIS__PORTS", "1,x")],
            "redis.ports.1: expected a whole number from 0 to 65535, found \"x\" (environment variable \
             PYTHIA_REDIS__PORTS)",
        ),
        (
            "[redis]\nmode = \"at-most-onec\"",
            &[],
            "redis.mode: unknown value \"at-most-onec\" (line 2); did you mean \"at-most-once\"?",
        ),
        (
            "",
            &[("PYTHIA_REDIS__STREAM__START", "now")],
            "redis.stream.start: a start is written #1 (environment variable PYTHIA_REDIS__STREAM__START)",
        ),
        (
            "",
            &[("PYTHIA_REDIS__STREAM", "eu")],
            "redis.stream: expected a table, found \"eu\" (environment variable PYTHIA_REDIS__STREAM)",
        ),
        (
            "",
            &[("PYTHIA_REDIS_DB", "1")],
            "environment variable PYTHIA_REDIS_DB names no setting: one is written PYTHIA_SECTION__KEY, with two \
             underscores; did you mean PYTHIA_REDIS__DB?",
        ),
        (
            "",
            &[("PYTHIA_REDSI", "1")],
            "environment variable PYTHIA_REDSI names no setting: one is written PYTHIA_SECTION__KEY, with two \
             underscores; did you mean PYTHIA_REDIS__KEY?",
        ),
        (
            "",
            &[("PYTHIA_REDIS__", "1")],
            "environment variable PYTHIA_REDIS__ names no setting: one is written PYTHIA_SECTION__KEY",
        ),
        (
            "",
            &[
                ("PYTHIA_REDIS__STREAM", "x"),
                ("PYTHIA_REDIS__STREAM__GROUP", "eu"),
            ],
            "environment variables PYTHIA_REDIS__STREAM and PYTHIA_REDIS__STREAM__GROUP can't both be set: they name \
             the same setting, or one is a part of the other",
        ),
        (
            "",
            &[("PYTHIA_REDIS__DB", "1"), ("PYTHIA_REDIS__db", "2")],
            "environment variables PYTHIA_REDIS__DB and PYTHIA_REDIS__db can't both be set: they name the same \
             setting, or one is a part of the other",
        ),
        (
            "[routes.\"eu:orders\"]\n[routes.eu_orders]",
            &[],
            "route \"eu_orders\" (line 2) has the same name in environment variables as another route, EU_ORDERS",
        ),
    ] {
        assert_eq!(
            refused(toml, environment),
            expected,
            "{toml:?} {environment:?}"
        );
    }
}

#[test]
fn a_text_that_is_not_toml_is_refused_without_quoting_it() {
    for toml in [
        "[redis]\npassword = \"hunter2",
        "[redis]\npassword = hunter2",
        "[redis]\npassword \"hunter2\"",
        "[redis]\ndb = 1\ndb = 2",
    ] {
        let error = refused(toml, &[]);
        assert!(error.contains(" is not TOML: "), "{error}");
        assert!(error.starts_with("line "), "{error}");
        assert!(
            !error.contains("hunter2") && !error.contains('\n'),
            "{error}"
        );
    }
}

#[test]
fn secrets_are_not_shown() {
    let config = config(
        "[redis]\npassword = \"hunter2\"\nurls = [\"redis://:hunter2@a\"]\ndb = 3\n[redis.sentinel]\nname = \"main\"",
        &[("PYTHIA_REDIS__URL", "redis://:hunter2@b")],
    );
    let shown = format!("{config:?}");
    assert_eq!(
        shown,
        r#"{"redis": {"db": 3, "password": ***, "sentinel": {"name": "main"}, "url": ***, "urls": [***]}}"#
    );
}

#[test]
fn variables_of_others_are_left_alone() {
    let config = config(
        "",
        &[
            ("HOME", "/root"),
            ("REDIS__DB", "7"),
            ("pythia_redis__db", "7"),
            ("PYTHIA_CONFIG", "/nowhere.toml"),
            ("PYTHIA_HOME", "/opt/pythia"),
            ("PYTHIA_TEST_FULL", "1"),
            // What Kubernetes tells each pod about services named `pythia` and `pythia-redis`.
            ("PYTHIA_SERVICE_HOST", "10.0.0.1"),
            ("PYTHIA_SERVICE_PORT", "80"),
            ("PYTHIA_PORT", "tcp://10.0.0.1:80"),
            ("PYTHIA_REDIS_SERVICE_HOST", "10.0.0.2"),
            ("PYTHIA_REDIS_SERVICE_PORT_REDIS", "6379"),
            ("PYTHIA_REDIS_PORT", "tcp://10.0.0.2:6379"),
            ("PYTHIA_REDIS_PORT_6379_TCP_ADDR", "10.0.0.2"),
        ],
    );
    assert_eq!(config.section::<Redis>("redis").unwrap(), Redis::default());
}

#[test]
fn a_route_is_the_worker_settings_with_its_own_over_them() {
    let config = config(
        "[worker]\nbatch = 10\nlanes = 2\n[retry]\nmax_attempts = 3\ncap = 30\n\
         [routes.\"eu:orders\"]\nbatch = 20\nretry.max_attempts = 5",
        &[
            ("PYTHIA_WORKER__BATCH", "11"),
            ("PYTHIA_ROUTES__EU_ORDERS__QUEUE", "{eu}:orders"),
            ("PYTHIA_RETRY__CAP", "31"),
        ],
    );
    let plain = Route {
        batch: 11,
        lanes: 2,
        retry: Retry {
            max_attempts: 3,
            cap: 31,
        },
        ..Route::default()
    };
    assert_eq!(config.route::<Route>("mails").unwrap(), plain);
    assert_eq!(
        config.route::<Route>("eu:orders").unwrap(),
        Route {
            queue: Some("{eu}:orders".into()),
            batch: 20,
            retry: Retry {
                max_attempts: 5,
                cap: 31,
            },
            ..plain
        }
    );
    assert_eq!(config.routes(), ["eu_orders"]);
}

#[test]
fn a_wrong_setting_of_a_route_is_named_by_the_section_that_it_is_in() {
    for (toml, expected) in [
        (
            "[worker]\nbtach = 1",
            "unknown setting \"worker.btach\" (line 2); did you mean \"worker.batch\"?",
        ),
        (
            "[worker]\nqueue = \"orders\"",
            "unknown setting \"worker.queue\" (line 2); a queue is set by [routes.NAME]",
        ),
        (
            "[worker.retry]\ncap = 1",
            "unknown setting \"worker.retry\" (line 1); it is a section of its own, [retry]",
        ),
        (
            "[retry]\ncapp = 1",
            "unknown setting \"retry.capp\" (line 2); did you mean \"retry.cap\"?",
        ),
        (
            "[worker]\nbatch = 1\n[routes.orders]\nbatch = \"x\"",
            "routes.orders.batch: expected a whole number from 0 to 4294967295, found \"x\" (line 4)",
        ),
        (
            "[routes.orders.retry]\ncapp = 1",
            "unknown setting \"routes.orders.retry.capp\" (line 2); did you mean \"routes.orders.retry.cap\"?",
        ),
    ] {
        let error = config(toml, &[]).route::<Route>("orders").unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn routes_that_nobody_serves_are_known() {
    let config = config("[routes.\"eu:orders\"]\n[routes.ordres]", &[]);
    assert_eq!(config.routes_beside(["EU-orders", "orders"]), ["ordres"]);
}

#[test]
fn settings_that_make_no_sense_are_found_before_anyone_reads_them() {
    for (toml, expected) in [
        ("[retry]\ncap = 1", "unknown setting \"retry.cap\" (line 2)"),
        (
            "[runner]\nstall_afterr = \"1s\"",
            "unknown setting \"runner.stall_afterr\" (line 2)",
        ),
        (
            "[runner]\nstall_after = \"1s\"",
            "runner.stall_after is 1s, it must be at least 12s",
        ),
        (
            "[runner]\nmaintain_interval = \"0s\"",
            "runner.maintain_interval is 0ns",
        ),
        (
            "[runner]\nsample_interval = \"1us\"",
            "runner.sample_interval is 1µs, it must be at least 10ms, or zero",
        ),
        (
            "[memory]\nleas = \"1s\"",
            "unknown setting \"memory.leas\" (line 2)",
        ),
        (
            "[memory]\nlease = \"0s\"",
            "the in-memory broker's `lease` is zero",
        ),
        (
            "[broker]\ntyp = \"list\"",
            "unknown setting \"broker.typ\" (line 2)",
        ),
        (
            "[worker]\nbatch = 0",
            "worker.batch: expected a whole number from 1, found 0 (line 2)",
        ),
        ("[breaker]\nfailure_ratio = 2", "breaker.failure_ratio is 2"),
        (
            "[timeout]\nhard = \"1s\"\n[routes.a]\ntimeout.soft = \"2s\"",
            "in [routes.a] or below it: timeout.soft is 2s",
        ),
        (
            "[routes.a]\nqueue = \"two words\"",
            "in [routes.a] or below it: queue name \"two words\"",
        ),
        (
            "[routes.a]\nbtach = 1",
            "unknown setting \"routes.a.btach\" (line 2)",
        ),
    ] {
        let error = config(toml, &[]).check().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    Config::default().check().unwrap();
}

#[test]
fn a_section_or_a_part_of_one_is_there_once_it_is_written() {
    let config = config("[redis.stream]", &[("PYTHIA_REDIS__LIST__DELIVERY", "x")]);
    for (name, there) in [
        ("redis", true),
        ("redis.stream", true),
        ("redis.list", true),
        ("redis.pubsub", false),
        ("memory", false),
    ] {
        assert_eq!(config.contains(name), there, "{name}");
    }
    let stream: Stream = config.section("redis.stream").unwrap();
    assert_eq!(stream, Stream::default());
}

#[test]
fn the_broker_is_chosen_by_its_name() {
    for (name, broker) in [
        ("list", BrokerType::List),
        ("memory", BrokerType::Memory),
        ("pubsub", BrokerType::Pubsub),
        ("redis", BrokerType::Redis),
        ("stream", BrokerType::Stream),
    ] {
        let config = config("", &[("PYTHIA_BROKER__TYPE", name)]);
        assert_eq!(config.broker_type().unwrap(), broker);
    }
    assert_eq!(
        config("[broker]\ntype = \"streams\"", &[])
            .broker_type()
            .unwrap_err()
            .to_string(),
        "broker.type: unknown value \"streams\" (line 2); did you mean \"stream\"?"
    );
}

#[test]
fn the_file_is_the_one_that_the_variable_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.toml");
    fs::write(&file, "[redis]\ndb = 3\npool_size = 4").unwrap();
    let load = |variables: &[(&str, OsString)]| {
        let variables = variables
            .iter()
            .map(|(name, text)| (OsString::from(name), text.clone()));
        Config::load_from(variables).map(|config| config.section::<Redis>("redis").unwrap())
    };
    let named = ("PYTHIA_CONFIG", file.clone().into_os_string());

    let read = load(&[named.clone(), ("PYTHIA_REDIS__DB", "5".into())]).unwrap();
    assert_eq!((read.db, read.pool_size.get()), (5, 4));
    assert_eq!(load(&[]).unwrap(), Redis::default());
    assert_eq!(
        load(&[("PYTHIA_CONFIG", "".into())]).unwrap(),
        Redis::default()
    );

    fs::write(&file, "[redis]\n\ndb == 3").unwrap();
    let error = load(std::slice::from_ref(&named)).unwrap_err().to_string();
    let place = format!("line 3 of {} is not TOML: ", file.display());
    assert!(error.starts_with(&place), "{error}");

    fs::remove_file(&file).unwrap();
    let error = load(&[named]).unwrap_err().to_string();
    let unread = format!("can't read the configuration file {}", file.display());
    let named = format!("{unread} (environment variable PYTHIA_CONFIG): ");
    assert!(error.starts_with(&named), "{error}");
    let error = Config::from_file(&file).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{unread}: ")), "{error}");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_refused_if_it_is_ours() {
    use std::os::unix::ffi::OsStringExt;

    let garbage = OsString::from_vec(vec![0xFF]);
    assert!(Config::load_from([("OTHER".into(), garbage.clone())]).is_ok());
    let error = Config::load_from([("PYTHIA_REDIS__DB".into(), garbage)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment variable PYTHIA_REDIS__DB is not UTF-8"
    );
}

/// One letter added, lost, replaced, or swapped with the next.
fn misspelt(word: &str, at: usize, letter: char, edit: u8) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    let at = at % letters.len();
    match edit {
        0 => letters.insert(at, letter),
        1 => drop(letters.remove(at)),
        2 => letters[at] = letter,
        _ => {
            let next = (at + 1) % letters.len();
            letters.swap(at, next);
        }
    }
    letters.into_iter().collect()
}

/// The hints at all names that are one letter away: `breoker` may be a breaker or a broker.
fn nearest(wrong: &str, known: &[&str], hint: impl Fn(&str) -> String) -> Vec<String> {
    known
        .iter()
        .filter(|known| strsim::osa_distance(known, wrong) == 1)
        .map(|known| hint(known))
        .collect()
}

const KEYS: [&str; 11] = [
    "password",
    "db",
    "pool_size",
    "ratio",
    "keepalive",
    "command_timeout",
    "retention",
    "channels",
    "ports",
    "mode",
    "stream",
];

proptest! {
    #[test]
    fn a_key_with_one_letter_wrong_is_refused_with_the_right_one(
        key in proptest::sample::select(&KEYS[..]),
        at in 0usize..20,
        letter in "[a-z]",
        edit in 0u8..4,
    ) {
        let wrong = misspelt(key, at, letter.chars().next().unwrap(), edit);
        prop_assume!(!KEYS.contains(&wrong.as_str()) && !wrong.contains("__"));
        let in_file = refused(&format!("[redis]\n{wrong} = 1"), &[]);
        prop_assert!(in_file.starts_with(&format!("unknown setting \"redis.{wrong}\" (line 2)")), "{}", in_file);
        let variable = format!("PYTHIA_REDIS__{}", wrong.to_uppercase());
        prop_assume!(!variable.ends_with('_') && !variable.contains("___"));
        let in_variable = refused("", &[(&variable, "1")]);
        prop_assert!(in_variable.contains(&format!("\"redis.{wrong}\" (environment variable {variable})")), "{}", in_variable);
        if strsim::osa_distance(key, &wrong) == 1 {
            let nearest = nearest(&wrong, &KEYS, |key| format!("; did you mean \"redis.{key}\"?"));
            prop_assert!(nearest.iter().any(|hint| in_file.ends_with(hint)), "{}", in_file);
            prop_assert!(nearest.iter().any(|hint| in_variable.ends_with(hint)), "{}", in_variable);
        }
    }

    #[test]
    fn a_section_with_one_letter_wrong_is_refused_with_the_right_one(
        section in proptest::sample::select(SECTIONS),
        at in 0usize..20,
        letter in "[a-z]",
        edit in 0u8..3,
    ) {
        let wrong = misspelt(section, at, letter.chars().next().unwrap(), edit);
        prop_assume!(!SECTIONS.contains(&wrong.as_str()));
        let error = refused(&format!("[{wrong}]"), &[]);
        let nearest = nearest(&wrong, SECTIONS, |section| {
            format!("unknown section [{wrong}] (line 1); did you mean [{section}]?")
        });
        prop_assert!(nearest.contains(&error), "{}", error);
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_defaults(
        layers in proptest::collection::btree_map(
            proptest::sample::select(vec!["batch", "lanes", "retry.max_attempts", "retry.cap"]),
            (proptest::option::of(0u32..1_000), proptest::option::of(0u32..1_000)),
            0..=4,
        ),
    ) {
        let mut toml = String::new();
        let mut environment = Vec::new();
        let mut expected = BTreeMap::new();
        for (key, (in_file, in_variable)) in &layers {
            let (table, key) = key.split_once('.').unwrap_or(("worker", key));
            if let Some(value) = in_file {
                toml.push_str(&format!("{table}.{key} = {value}\n"));
            }
            if let Some(value) = in_variable {
                let variable = format!("PYTHIA_{table}__{key}").to_uppercase();
                environment.push((variable, value.to_string()));
            }
            expected.insert(key, in_variable.or(*in_file).unwrap_or_default());
        }
        let route: Route = Config::from_sources(Some(&toml), environment).unwrap().route("any").unwrap();
        let of = |key| expected.get(key).copied().unwrap_or_default();
        prop_assert_eq!(route, Route {
            batch: of("batch"),
            lanes: of("lanes"),
            retry: Retry { max_attempts: of("max_attempts"), cap: of("cap") },
            ..Route::default()
        });
    }
}
