//! A runner at work, seen through the page and the probes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pythia_core::config::Config;
use pythia_core::testing::{EventLog, FaultyBroker, Record};
use pythia_core::{Job, MemoryBroker, Producer, Route, Runner, RunnerConfig, WorkError, worker_fn};
use pythia_metrics::prometheus::Registry;
use pythia_metrics::{MetricsConfig, MetricsServer, PrometheusObserver};
use tokio::net::TcpStream;

use crate::exposition::Exposition;
use crate::http::{ask, config};
use crate::promtool::promtool;

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = ask(address, "GET", path).await;
    (answer.status, answer.body)
}

fn settings() -> RunnerConfig {
    let mut settings = RunnerConfig::default();
    settings.sample_interval = Duration::from_millis(20);
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_says_what_a_runner_did() {
    const MESSAGES: u32 = 200;
    let broker = MemoryBroker::new();
    Producer::new(broker.clone())
        .send_all("orders", &(0..MESSAGES).collect::<Vec<_>>())
        .await
        .unwrap();
    let worker = worker_fn(async |job: &Job<u32>| match job.input % 10 {
        0 => Err(WorkError::permanent("not a number of ours")),
        _ => Ok(()),
    });
    let registry = Registry::new();
    let log = Arc::new(EventLog::new());
    let runner = Runner::builder()
        .route(&broker, Route::new("orders", worker))
        .observer(PrometheusObserver::register(&registry).unwrap())
        .observer(Arc::clone(&log))
        .settings(settings())
        .build()
        .unwrap();
    let server = MetricsServer::bind(&config(), &registry)
        .await
        .unwrap()
        .health(runner.health());
    let address = server.address().unwrap();

    let work = runner.run_until(async {
        log.wait_for(|records| {
            let settled = |record: &Record| match record {
                Record::Settled { counts, .. } => counts.total(),
                _ => 0,
            };
            let empty = |record: &Record| matches!(record, Record::Sampled { depth, .. } if depth.dead == Some(20));
            records.iter().map(settled).sum::<u64>() == u64::from(MESSAGES) && records.iter().any(empty)
        })
        .await;
        assert_eq!(get(address, "/livez").await, (200, "live\n".into()));
        assert_eq!(get(address, "/readyz").await, (200, "ready\n".into()));
        let (status, text) = get(address, "/metrics").await;
        assert_eq!(status, 200);
        promtool(&text);
        let page = Exposition::parse(&text);
        for (series, expected) in [
            ("pythia_messages_received_total{queue=\"orders\"}", 200.0),
            ("pythia_messages_settled_total{outcome=\"acked\",queue=\"orders\"}", 180.0),
            ("pythia_messages_settled_total{outcome=\"dead\",queue=\"orders\"}", 20.0),
            ("pythia_messages_stale_total{queue=\"orders\"}", 0.0),
            ("pythia_messages_in_flight{queue=\"orders\"}", 0.0),
            ("pythia_job_failures_total{kind=\"permanent\",queue=\"orders\"}", 20.0),
            ("pythia_job_processing_seconds_count{queue=\"orders\"}", 200.0),
            ("pythia_job_wait_seconds_count{queue=\"orders\"}", 200.0),
            ("pythia_dead_letters_total{kept=\"true\",queue=\"orders\",reason=\"permanent\"}", 20.0),
            ("pythia_queue_depth{queue=\"orders\",state=\"dead\"}", 20.0),
        ] {
            assert_eq!(page.series.get(series), Some(&expected), "{series}");
        }
    });
    let summary = server.serve(work).await.unwrap();
    assert_eq!(summary.settled.total(), u64::from(MESSAGES));
    assert!(
        TcpStream::connect(address).await.is_err(),
        "it still listens"
    );
}

#[tokio::test]
async fn a_process_that_consumes_nothing_is_not_live() {
    let broker = Arc::new(FaultyBroker::new(MemoryBroker::new()));
    let faults = broker.faults().clone();
    faults.take_down();
    let registry = Registry::new();
    let log = Arc::new(EventLog::new());
    let runner = Runner::builder()
        .route(
            &broker,
            Route::new("orders", worker_fn(async |_: &Job<u32>| Ok(()))),
        )
        .observer(PrometheusObserver::register(&registry).unwrap())
        .observer(Arc::clone(&log))
        .settings(settings())
        .build()
        .unwrap();
    let server = MetricsServer::bind(&config(), &registry)
        .await
        .unwrap()
        .health(runner.health());
    let address = server.address().unwrap();

    let work = runner.run_until(async {
        log.wait_for(|records| records.iter().any(|record| matches!(record, Record::FetchFailed { .. }))).await;
        // It has only begun to try.
        assert_eq!(get(address, "/livez").await.0, 200);
        let (status, text) = get(address, "/readyz").await;
        assert_eq!(status, 503);
        assert!(text.contains("queue \"orders\", lane 0: not connected"), "{text}");

        let patience = 2 * settings().stall_after + Duration::from_secs(1);
        tokio::time::pause();
        tokio::time::sleep(patience).await;
        tokio::time::resume();
        let (status, text) = get(address, "/livez").await;
        assert_eq!(status, 503);
        assert!(text.contains("queue \"orders\", lane 0: no read has completed for 31s"), "{text}");
        let page = Exposition::parse(&get(address, "/metrics").await.1);
        let failures = "pythia_broker_failures_total{kind=\"unavailable\",operation=\"fetch\",queue=\"orders\"}";
        assert!(page.series[failures] > 1.0);

        faults.bring_up();
        let before = log.records().len();
        let lanes_again = |records: &[Record]| {
            records[before..].iter().filter(|record| matches!(record, Record::Subscribed { .. })).count() == 2
        };
        tokio::time::pause();
        log.wait_for(lanes_again).await;
        // Connected is ready; live is only who has completed a read since, and an idle one takes ten seconds.
        tokio::time::sleep(Duration::from_secs(11)).await;
        tokio::time::resume();
        assert_eq!(get(address, "/readyz").await, (200, "ready\n".into()));
        assert_eq!(get(address, "/livez").await, (200, "live\n".into()));
    });
    server.serve(work).await.unwrap();
}

#[test]
fn the_section_is_read_from_file_and_environment() {
    let file = "[metrics]\nenabled = false\nwait_buckets = [1, 5]\ndisabled_families = [\"pythia_gaps_total\"]";
    let environment = [
        ("PYTHIA_METRICS__ENABLED", "true"),
        ("PYTHIA_METRICS__ADDRESS", "0.0.0.0:9100"),
        ("PYTHIA_METRICS__PROCESSING_BUCKETS", "0.5, 1"),
        ("PYTHIA_METRICS__MAX_QUEUES", "7"),
    ];
    let read: MetricsConfig = Config::from_sources(Some(file), environment)
        .unwrap()
        .section("metrics")
        .unwrap();
    assert!(read.enabled);
    assert_eq!(read.address, "0.0.0.0:9100".parse().unwrap());
    assert_eq!(read.processing_buckets.as_slice(), [0.5, 1.0]);
    assert_eq!(read.wait_buckets.as_slice(), [1.0, 5.0]);
    assert_eq!(read.disabled_families.len(), 1);
    assert_eq!(read.max_queues.get(), 7);
}

#[test]
fn what_is_wrong_in_the_section_is_named_with_its_source() {
    let refusal = |file: Option<&str>, environment: &[(&str, &str)]| {
        let config = Config::from_sources(file, environment.iter().copied()).unwrap();
        config
            .section::<MetricsConfig>("metrics")
            .unwrap_err()
            .to_string()
    };
    for (file, environment, says) in [
        (
            Some("[metrics]\nadress = \"\""),
            None,
            vec!["metrics.adress", "line 2", "metrics.address"],
        ),
        (
            Some("[metrics]\naddress = \"localhost\""),
            None,
            vec!["\"localhost\" is no address", "metrics.address"],
        ),
        (
            Some("[metrics]\nwait_buckets = [5, 1]"),
            None,
            vec!["this one has 5 before 1", "metrics.wait_buckets"],
        ),
        (
            None,
            Some(("PYTHIA_METRICS__MAX_QUEUES", "0")),
            vec!["PYTHIA_METRICS__MAX_QUEUES"],
        ),
        (
            None,
            Some(("PYTHIA_METRICS__DISABLED_FAMILIES", "pythia_gap_total")),
            vec![
                "PYTHIA_METRICS__DISABLED_FAMILIES",
                "the closest one is \"pythia_gaps_total\"",
            ],
        ),
    ] {
        let environment: Vec<_> = environment.into_iter().collect();
        let error = refusal(file, &environment);
        for part in says {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
