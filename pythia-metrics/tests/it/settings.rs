//! Every setting of this crate changes something that is seen from outside. Each has a row: one thing that is measured
//! with the setting's default, and again with another value. The last test fails if a setting has no row.

use std::collections::BTreeSet;
use std::future::pending;
use std::ops::RangeInclusive;
use std::pin::Pin;

use pythia_core::Config;
use pythia_metrics::prometheus::Registry;
use pythia_metrics::{Check, MetricsConfig, MetricsServer, names};
use tokio::time::Instant;

use crate::exposition::Exposition;
use crate::http::{ask, served};
use crate::metrics::{Metrics, everything, queue, text};

struct Row {
    setting: &'static str,
    changed: &'static str,
    /// Other settings, the same in both runs, without which the effect would not show.
    given: &'static str,
    measure: fn(MetricsConfig) -> Pin<Box<dyn Future<Output = u64>>>,
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
    row!("metrics.enabled", "false", families_and_listeners, 2..=100, 0..=0, given r#"metrics.address = "127.0.0.1:0""#),
    // Port 0 is any that the system gives out, which begin above this one.
    row!(
        "metrics.address",
        r#""127.0.0.1:0""#,
        port,
        9_898..=9_898,
        9_899..=65_535
    ),
    // In milliseconds, with a check that hangs.
    row!(
        "metrics.check_timeout",
        r#""50ms""#,
        wait_for_a_check,
        1_900..=60_000,
        50..=1_800,
        given r#"metrics.address = "127.0.0.1:0""#
    ),
    // Each histogram has a bucket without a bound too.
    row!(
        "metrics.processing_buckets",
        "[1, 2]",
        buckets_of_processing,
        22..=22,
        3..=3
    ),
    row!(
        "metrics.wait_buckets",
        "[1, 2]",
        buckets_of_waiting,
        20..=20,
        3..=3
    ),
    // Of a queue's settlements, and of one command.
    row!(
        "metrics.round_trip_buckets",
        "[1, 2]",
        buckets_of_round_trips,
        34..=34,
        6..=6
    ),
    row!(
        "metrics.disabled_families",
        r#"["pythia_gaps_total", "pythia_queue_depth"]"#,
        families_left_out,
        0..=0,
        2..=2
    ),
    row!(
        "metrics.max_queues",
        "7",
        queues_told_apart,
        1_000..=1_000,
        7..=7
    ),
];

async fn families_and_listeners(config: MetricsConfig) -> u64 {
    let server = MetricsServer::bind(&config, &Registry::new())
        .await
        .unwrap();
    families(&config) + u64::from(server.address().is_some())
}

async fn port(config: MetricsConfig) -> u64 {
    let port = match MetricsServer::bind(&config, &Registry::new()).await {
        Ok(server) => server.address().unwrap().port(),
        // Somebody else listens there.
        Err(error) => {
            let error = error.to_string();
            let (_, after) = error.split_once("127.0.0.1:").expect(&error);
            let (port, _) = after.split_once(|c: char| !c.is_ascii_digit()).unwrap();
            port.parse().unwrap()
        }
    };
    port.into()
}

async fn wait_for_a_check(config: MetricsConfig) -> u64 {
    let hangs = Check::new("hangs", async || pending::<Result<(), String>>().await);
    let server = MetricsServer::bind(&config, &Registry::new()).await;
    let waited = served(server.unwrap().check(hangs), async |address| {
        let asked = Instant::now();
        assert_eq!(ask(address, "GET", "/readyz").await.status, 503);
        Instant::now() - asked
    });
    waited.await.as_millis() as u64
}

async fn buckets_of_processing(config: MetricsConfig) -> u64 {
    buckets(&config, &["pythia_job_processing_seconds"])
}

async fn buckets_of_waiting(config: MetricsConfig) -> u64 {
    buckets(&config, &["pythia_job_wait_seconds"])
}

async fn buckets_of_round_trips(config: MetricsConfig) -> u64 {
    let families = ["pythia_settle_seconds", "pythia_broker_command_seconds"];
    buckets(&config, &families)
}

async fn families_left_out(config: MetricsConfig) -> u64 {
    names::ALL.len() as u64 - families(&config)
}

/// Of 1,500.
async fn queues_told_apart(config: MetricsConfig) -> u64 {
    let metrics = Metrics::by(&config);
    for number in 0..1_500 {
        metrics.received(&queue(&number.to_string()), 1);
    }
    let family = metrics.lines("pythia_messages_received_total");
    let series = family.lines().filter(|line| !line.starts_with('#'));
    // One of them is that of all others.
    series.count() as u64 - 1
}

fn families(config: &MetricsConfig) -> u64 {
    let metrics = Metrics::by(config);
    everything(&metrics);
    let page = Exposition::parse(&text(&metrics.registry));
    page.families.len() as u64
}

fn buckets(config: &MetricsConfig, families: &[&str]) -> u64 {
    let metrics = Metrics::by(config);
    everything(&metrics);
    let buckets = families
        .iter()
        .map(|family| metrics.lines(family).matches("le=\"").count() as u64);
    buckets.sum()
}

impl Row {
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

    fn run(&self, setting: &str) -> u64 {
        let config = Config::from_toml(&format!("{}\n{setting}", self.given)).unwrap();
        let config = config.section("metrics").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on((self.measure)(config))
    }
}

#[test]
fn each_setting_has_its_effect() {
    let wrong: Vec<String> = ROWS.iter().filter_map(Row::check).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_setting_has_its_row() {
    // What a section knows, it says when it is asked for nonsense.
    let nonsense = Config::from_toml("metrics.xyzzy-xyzzy-xyzzy = 1").unwrap();
    let error = nonsense.section::<MetricsConfig>("metrics").unwrap_err();
    let error = error.to_string();
    let (_, known) = error.split_once("; known are ").expect(&error);
    let known: BTreeSet<&str> = known.split(", ").collect();
    let rows: BTreeSet<&str> = ROWS
        .iter()
        .filter_map(|row| row.setting.strip_prefix("metrics."))
        .collect();
    assert_eq!(rows, known);
}
