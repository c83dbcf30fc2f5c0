//! Every setting of this crate changes something that is seen from outside. Each has a row: one thing that is measured
//! with the setting's default, and again with another value. The last test fails if a setting has no row.

mod measure;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::pin::Pin;

use pythia_core::Config;
use pythia_redis::config::{
    ListConfig, MaintainConfig, PubSubConfig, RedisConfig, StreamConfig, TlsConfig,
};
use serde::de::DeserializeOwned;

use self::measure::*;

struct Row {
    setting: &'static str,
    changed: &'static str,
    /// Other settings, the same in both runs, without which the effect would not show.
    given: &'static str,
    measure: fn(Bench) -> Pin<Box<dyn Future<Output = u64>>>,
    by_default: RangeInclusive<u64>,
    then: RangeInclusive<u64>,
}

macro_rules! row {
    ($setting:literal, $changed:literal, $measure:ident, $by_default:expr, $then:expr) => {
        row!($setting, $changed, $measure, $by_default, $then, given "")
    };
    ($setting:literal, $changed:literal, $measure:ident, $by_default:expr, $then:expr, given $given:literal) => {
        Row {
            setting: $setting,
            changed: $changed,
            given: $given,
            measure: |bench| Box::pin($measure(bench)),
            by_default: $by_default,
            then: $then,
        }
    };
}

const ROWS: &[Row] = &[
    // Connections. What depends on silence is measured under a virtual clock.
    row!(
        "redis.url",
        r#""SERVER/3""#,
        database_written_to,
        0..=0,
        3..=3
    ),
    row!("redis.host", r#""no-such-host.invalid""#, arrives, 1..=1, 0..=0, given "redis.port = PORT"),
    row!("redis.port", "7000", port_that_it_leads_to, 6379..=6379, 7000..=7000, given r#"redis.host = "127.0.0.1""#),
    row!("redis.db", "3", database_written_to, 0..=0, 3..=3),
    row!("redis.username", r#""app""#, known_as_app, 0..=0, 1..=1, given r#"redis.password = "secret""#),
    row!(
        "redis.password",
        r#""secret""#,
        arrives_with_the_password,
        0..=0,
        1..=1
    ),
    row!(
        "redis.store_url",
        r#""SERVER/3""#,
        database_of_the_store,
        0..=0,
        3..=3
    ),
    row!("redis.tls.enabled", "true", arrives, 1..=1, 0..=0),
    row!("redis.tls.ca_file", "TLS_CA", arrives, 0..=0, 1..=1, given "redis.tls.cert_file = TLS_CERT\nredis.tls.key_file = TLS_KEY"),
    row!("redis.tls.cert_file", "TLS_CERT", arrives, 0..=0, 1..=1, given "redis.tls.ca_file = TLS_CA\nredis.tls.key_file = TLS_KEY"),
    row!("redis.tls.key_file", "TLS_KEY", arrives, 0..=0, 1..=1, given "redis.tls.ca_file = TLS_CA\nredis.tls.cert_file = TLS_CERT"),
    row!(
        "redis.command_attempts",
        "1",
        times_that_a_lost_command_is_sent,
        3..=3,
        1..=1
    ),
    row!(
        "redis.publish_wait",
        r#""3s""#,
        seconds_that_publishing_waits,
        1..=2,
        3..=4
    ),
    row!("redis.health_check_interval", r#""1s""#, pings_after_silence, 0..=0, 1..=1, given "redis.pool_size = 1"),
    // Read back from the socket.
    row!(
        "redis.tcp_keepalive",
        r#""10s""#,
        seconds_to_the_first_keepalive,
        55..=60,
        5..=10
    ),
    row!(
        "redis.pool_size",
        "5",
        connections_of_a_producer,
        2..=2,
        5..=5
    ),
    row!(
        "redis.connect_timeout",
        r#""1s""#,
        seconds_to_no_connection,
        5..=5,
        1..=1
    ),
    row!(
        "redis.command_timeout",
        r#""2s""#,
        seconds_to_no_answer,
        10..=10,
        2..=2
    ),
    row!("redis.reconnect_min_delay", r#""1s""#, millis_to_reconnect, 50..=950, 1_000..=2_950, given "redis.pool_size = 1"),
    row!("redis.reconnect_max_delay", r#""100ms""#, millis_to_five_attempts, 1_550..=10_000, 0..=1_500, given "redis.pool_size = 1"),
    // What all patterns have in common: the sum over those that have it.
    row!(
        "redis.key_prefix",
        r#""shop:""#,
        names_under_the_prefix,
        0..=0,
        4..=4
    ),
    row!(
        "redis.lease",
        r#""4s""#,
        seconds_of_two_leases,
        50..=60,
        2..=8
    ),
    row!(
        "redis.max_message_bytes",
        "1_000",
        megabytes_refused,
        0..=0,
        3..=3
    ),
    row!(
        "redis.dedupe_window",
        r#""10m""#,
        minutes_of_three_dedupe_keys,
        170..=180,
        20..=30
    ),
    row!(
        "redis.doctor",
        "false",
        examinations_at_the_start,
        1..=1,
        0..=0
    ),
    // One round of upkeep.
    row!(
        "redis.maintain.promote",
        "7",
        promoted_at_once,
        400..=400,
        14..=14
    ),
    row!("redis.maintain.recover", "100", recovered_at_once, 1_000..=1_000, 200..=200, given r#"redis.lease = "300ms""#),
    row!("redis.maintain.trim", "7", trimmed_at_once, 1_000..=1_000, 7..=7, given "redis.stream.trim_approximate = false"),
    // Lists.
    row!(
        "redis.list.delivery",
        r#""at-most-once""#,
        kept_while_it_is_worked_on,
        1..=1,
        0..=0
    ),
    // Streams. Of a thousand entries that are processed, some are kept.
    row!(
        "redis.stream.group",
        r#""billing""#,
        pending_in_billing,
        0..=0,
        1..=1
    ),
    row!(
        "redis.stream.start",
        r#""$""#,
        entries_that_a_new_group_sees,
        3..=3,
        0..=0
    ),
    row!(
        "redis.stream.replay_from",
        r#""0""#,
        entries_that_an_old_group_sees,
        0..=0,
        3..=3
    ),
    row!("redis.stream.max_length", "500", entries_kept, 0..=0, 500..=500, given "redis.stream.trim_approximate = false"),
    row!("redis.stream.trim_strategy", r#""minid""#, entries_kept, 500..=500, 1_000..=1_000, given "redis.stream.max_length = 500\nredis.stream.retention = \"1h\"\nredis.stream.trim_approximate = false"),
    row!("redis.stream.trim_approximate", "false", entries_kept, 451..=550, 450..=450, given "redis.stream.max_length = 450"),
    row!("redis.stream.retention", r#""1h""#, entries_kept, 0..=0, 1_000..=1_000, given "redis.stream.trim_strategy = \"minid\"\nredis.stream.trim_approximate = false"),
    // Pub/sub. How much has arrived when the slow worker first looks is up to the machine; the buffer is a bound.
    row!(
        "redis.pubsub.mode",
        r#""pattern""#,
        receivers_of_another_channel,
        0..=0,
        1..=1
    ),
    row!(
        "redis.pubsub.buffer",
        "16",
        lost_to_a_slow_worker,
        0..=7_808,
        7_809..=15_984
    ),
];

impl Row {
    fn section(&self) -> &str {
        let (section, _) = self.setting.rsplit_once('.').unwrap_or_default();
        section
    }

    /// What is wrong, if anything is.
    fn check(&self) -> Option<String> {
        let Self {
            setting,
            changed,
            by_default,
            then,
            ..
        } = self;
        if by_default.start() <= then.end() && then.start() <= by_default.end() {
            return Some(format!(
                "{setting}: the ranges overlap, so the row can't fail"
            ));
        }
        let measured = self.run("");
        if !by_default.contains(&measured) {
            return Some(format!(
                "{setting}: {measured} by default, not {by_default:?}"
            ));
        }
        let measured = self.run(&format!("{setting} = {changed}"));
        (!then.contains(&measured))
            .then(|| format!("{setting} = {changed}: {measured}, not {then:?}"))
    }

    /// Measures on a server of its own, on one thread, so that the clock can be stopped.
    fn run(&self, setting: &str) -> u64 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let bench = Bench::new(&format!("{}\n{setting}", self.given)).await;
            (self.measure)(bench).await
        })
    }
}

fn check_section(section: &str) {
    let rows = ROWS.iter().filter(|row| row.section() == section);
    let wrong: Vec<String> = rows.filter_map(Row::check).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_setting_of_all_patterns_has_its_effect() {
    check_section("redis");
}

#[test]
fn each_bound_of_the_upkeep_has_its_effect() {
    check_section("redis.maintain");
}

#[test]
fn each_setting_of_tls_has_its_effect() {
    check_section("redis.tls");
}

#[test]
fn each_setting_of_lists_has_its_effect() {
    check_section("redis.list");
}

#[test]
fn each_setting_of_streams_has_its_effect() {
    check_section("redis.stream");
}

#[test]
fn each_setting_of_pub_sub_has_its_effect() {
    check_section("redis.pubsub");
}

#[test]
fn each_setting_has_its_row() {
    fn check<T: DeserializeOwned + Debug>(section: &str, elsewhere: &[&str]) {
        // What a section knows, it says when it is asked for nonsense.
        let nonsense = Config::from_toml(&format!("{section}.xyzzy-xyzzy-xyzzy = 1")).unwrap();
        let error = nonsense.section::<T>(section).unwrap_err().to_string();
        let (_, known) = error.split_once("; known are ").expect(&error);
        let known: BTreeSet<&str> = known
            .split(", ")
            .filter(|key| !elsewhere.contains(key))
            .collect();
        let of_section = ROWS.iter().filter(|row| row.section() == section);
        let rows: BTreeSet<&str> = of_section
            .filter_map(|row| Some(row.setting.rsplit_once('.')?.1))
            .collect();
        assert_eq!(rows, known, "[{section}]");
    }
    check::<RedisConfig>("redis", &["list", "maintain", "pubsub", "stream", "tls"]);
    check::<ListConfig>("redis.list", &[]);
    check::<MaintainConfig>("redis.maintain", &[]);
    check::<PubSubConfig>("redis.pubsub", &[]);
    check::<StreamConfig>("redis.stream", &[]);
    check::<TlsConfig>("redis.tls", &[]);
}
