//! Every setting of this crate changes something that is seen from outside. Each has a row: one thing that is measured
//! with the setting's default, and again with another value. The last test fails if a setting has no row.

mod measure;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::pin::Pin;

use pythia_core::resilience::{BreakerConfig, RetryConfig, TimeoutConfig};
use pythia_core::{Config, MemoryConfig, RouteConfig, RunnerConfig};
use serde::de::DeserializeOwned;

use self::measure::*;

struct Row {
    setting: &'static str,
    changed: &'static str,
    /// Other settings, the same in both runs, without which the effect would not show.
    given: &'static str,
    measure: fn(Config) -> Pin<Box<dyn Future<Output = u64>>>,
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
            measure: |config| Box::pin($measure(config)),
            by_default: $by_default,
            then: $then,
        }
    };
}

const ROWS: &[Row] = &[
    row!(
        "preset",
        r#""throughput""#,
        largest_fetch,
        100..=100,
        500..=500
    ),
    row!(
        "broker.queue",
        r#""elsewhere""#,
        taken_from_elsewhere,
        0..=0,
        1..=1
    ),
    row!("broker.type", r#""stream""#, streams, 0..=0, 1..=1),
    // The runner. Intervals are jittered by a quarter.
    row!(
        "runner.drain_timeout",
        r#""2s""#,
        seconds_to_drain,
        25..=25,
        2..=2
    ),
    row!("runner.maintain_interval", r#""10s""#, upkeeps_a_minute, 60..=82, 6..=9, given r#"memory.lease = "1s""#),
    row!(
        "runner.sample_interval",
        r#""30s""#,
        samples_a_minute,
        13..=18,
        3..=4
    ),
    row!(
        "runner.stall_after",
        r#""60s""#,
        seconds_to_stall,
        15..=16,
        60..=61
    ),
    // Routes.
    row!(
        "routes.orders.queue",
        r#""elsewhere""#,
        taken_from_elsewhere,
        0..=0,
        1..=1
    ),
    row!("worker.at_least_once", "true", refused, 0..=0, 1..=1, given "memory.fan_out = true"),
    row!("worker.batch", "7", largest_fetch, 100..=100, 7..=7),
    row!(
        "worker.batch_bytes",
        "20_000",
        largest_fetch,
        100..=100,
        20..=20
    ),
    row!(
        "worker.concurrency",
        "3",
        most_jobs_at_once,
        100..=100,
        3..=3
    ),
    row!(
        "worker.dead_letters",
        r#""discard""#,
        letters_kept,
        1..=1,
        0..=0
    ),
    row!(
        "worker.isolate_panics",
        "false",
        ended_by_a_panic,
        0..=0,
        1..=1
    ),
    row!("worker.lanes", "5", subscriptions, 2..=2, 5..=5),
    row!(
        "worker.linger",
        r#""3s""#,
        millis_to_a_batch,
        10..=20,
        3_000..=3_010
    ),
    row!(
        "worker.rate",
        r#""10/s""#,
        seconds_for_a_hundred,
        0..=0,
        9..=11
    ),
    // Retries. Without jitter five attempts take 1 + 2 + 4 + 8 seconds.
    row!("retry.enabled", "false", attempts, 5..=5, 1..=1),
    row!("retry.factor", "3", seconds_of_retries, 15..=15, 40..=40, given r#"retry.jitter = "none""#),
    row!("retry.initial_delay", r#""3s""#, seconds_of_retries, 15..=15, 45..=45, given r#"retry.jitter = "none""#),
    row!(
        "retry.jitter",
        r#""none""#,
        millis_of_retries,
        0..=14_990,
        15_000..=15_010
    ),
    row!("retry.max_attempts", "3", attempts, 5..=5, 3..=3),
    row!("retry.max_delay", r#""2s""#, seconds_of_retries, 15..=15, 7..=7, given r#"retry.jitter = "none""#),
    // The breaker, while all calls fail, unless the name says otherwise. Without jitter it is open for 5, 10, 20, 40 and
    // then for 60 seconds.
    row!("breaker.enabled", "false", openings, 1..=99, 0..=0),
    row!("breaker.failure_ratio", "0.3", openings_if_two_of_five_fail, 0..=0, 1..=99, given "retry.enabled = false\nworker.lanes = 1"),
    row!(
        "breaker.jitter",
        r#""none""#,
        millis_of_four_openings,
        0..=74_990,
        75_000..=75_040
    ),
    row!("breaker.max_open_for", r#""10s""#, longest_opening, 60..=60, 10..=10, given r#"breaker.jitter = "none""#),
    row!("breaker.min_calls", "5", openings_after_ten_calls, 0..=0, 1..=99, given "retry.enabled = false"),
    row!("breaker.open_for", r#""20s""#, first_opening, 5..=5, 20..=20, given r#"breaker.jitter = "none""#),
    row!("breaker.probes", "7", successes_to_close, 3..=3, 7..=7),
    row!("breaker.window", r#""60s""#, openings_after_fifty_calls, 0..=0, 1..=99, given "retry.enabled = false\nworker.rate = \"1/s\""),
    // Time limits, on a job that takes an hour unless it is told to stop.
    row!("timeout.hard", r#""2s""#, seconds_of_a_job, 3_600..=3_600, 2..=2, given "retry.enabled = false"),
    row!("timeout.soft", r#""2s""#, seconds_of_a_job, 3_600..=3_600, 2..=2, given "retry.enabled = false"),
    // The in-memory broker.
    row!("memory.buffer", "10", held_for_a_slow_subscriber, 100..=100, 10..=10, given "memory.fan_out = true"),
    row!(
        "memory.dedupe_window",
        r#""10m""#,
        taken_twice_in_half_an_hour,
        0..=0,
        1..=1
    ),
    row!(
        "memory.fan_out",
        "true",
        copies_for_two_subscribers,
        1..=1,
        2..=2
    ),
    row!(
        "memory.lease",
        r#""4s""#,
        seconds_to_recovery,
        30..=31,
        4..=5
    ),
    row!(
        "memory.max_message_bytes",
        "1_000",
        megabytes_refused,
        0..=0,
        1..=1
    ),
];

impl Row {
    fn section(&self) -> &str {
        self.setting.split('.').next().unwrap_or_default()
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

    /// Measures under a virtual clock.
    fn run(&self, setting: &str) -> u64 {
        let config = Config::from_toml(&format!("{}\n{setting}", self.given)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime.unwrap().block_on((self.measure)(config))
    }
}

fn check_section(section: &str) {
    let rows = ROWS.iter().filter(|row| row.section() == section);
    let wrong: Vec<String> = rows.filter_map(Row::check).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_broker_and_its_queue_are_those_that_are_asked_for() {
    check_section("broker");
}

#[test]
fn a_preset_has_its_effect() {
    check_section("preset");
}

#[test]
fn each_setting_of_the_runner_has_its_effect() {
    check_section("runner");
}

#[test]
fn each_setting_of_routes_has_its_effect() {
    check_section("routes");
    check_section("worker");
}

#[test]
fn each_setting_of_retries_has_its_effect() {
    check_section("retry");
}

#[test]
fn each_setting_of_the_breaker_has_its_effect() {
    check_section("breaker");
}

#[test]
fn each_time_limit_has_its_effect() {
    check_section("timeout");
}

#[test]
fn each_setting_of_the_in_memory_broker_has_its_effect() {
    check_section("memory");
}

#[test]
fn each_setting_has_its_row() {
    // What a section knows, it says when it is asked for nonsense.
    fn nonsense(section: &str) -> Config {
        Config::from_toml(&format!("{section}.xyzzy-xyzzy-xyzzy = 1")).unwrap()
    }
    fn check<T: DeserializeOwned + Debug>(section: &str, elsewhere: &[&str]) {
        let read = nonsense(section).section::<T>(section);
        check_rows(section, &read.unwrap_err().to_string(), elsewhere);
    }
    fn check_rows(section: &str, error: &str, elsewhere: &[&str]) {
        let (_, known) = error.split_once("; known are ").expect(error);
        let known: BTreeSet<&str> = known
            .split(", ")
            .filter(|key| !elsewhere.contains(key))
            .collect();
        let of_section = ROWS.iter().filter(|row| row.section() == section);
        let rows: BTreeSet<&str> = of_section
            .filter_map(|row| Some(row.setting.split_once('.')?.1))
            .collect();
        assert_eq!(rows, known, "[{section}]");
    }
    let broker = nonsense("broker").broker_type().unwrap_err();
    check_rows("broker", &broker.to_string(), &[]);
    check::<BreakerConfig>("breaker", &[]);
    check::<MemoryConfig>("memory", &[]);
    check::<RetryConfig>("retry", &[]);
    check::<RouteConfig>("worker", &["breaker", "queue", "retry", "timeout"]);
    check::<RunnerConfig>("runner", &[]);
    check::<TimeoutConfig>("timeout", &[]);
}

#[tokio::test(start_paused = true)]
async fn a_huge_number_is_no_limit() {
    for setting in ["batch", "concurrency"] {
        let text = format!("[worker]\n{setting} = {}", i64::MAX);
        let most = most_jobs_at_once(Config::from_toml(&text).unwrap()).await;
        let expected = if setting == "batch" { 100 } else { 1_000 };
        assert_eq!(most, expected, "{setting}");
    }
}
