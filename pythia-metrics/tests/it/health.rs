//! `/health`, and what checks of the user's own do to it and to the probes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pythia_core::broker::Broker;
use pythia_core::testing::{FaultyBroker, Operation};
use pythia_core::{Job, MemoryBroker, Message, QueueName, Route, Runner, WorkError, worker_fn};
use pythia_metrics::prometheus::Registry;
use pythia_metrics::{Check, HealthReport, MetricsConfig, MetricsServer};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::http::{Answer, answer, ask, config, connect, served};

/// More than the settings allow, and less than a test may take.
const LONG: Duration = Duration::from_secs(3_600);

async fn bind(config: &MetricsConfig) -> MetricsServer {
    let server = MetricsServer::bind(config, &Registry::new()).await;
    server.unwrap()
}

/// A busy machine fails no check.
fn patient() -> MetricsConfig {
    let mut config = config();
    config.check_timeout = Duration::from_secs(60);
    config
}

fn parse(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), Some("application/json"));
    serde_json::from_str(&answer.body).unwrap()
}

async fn health(address: std::net::SocketAddr) -> (u16, Value) {
    let answer = ask(address, "GET", "/health").await;
    (answer.status, parse(&answer))
}

/// As often as it takes: answers are shared for a second.
async fn health_when(
    address: std::net::SocketAddr,
    wanted: impl Fn(&Value) -> bool,
) -> (u16, Value) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (status, page) = health(address).await;
        if wanted(&page) {
            return (status, page);
        }
        assert!(Instant::now() < deadline, "{page}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Runs a worker and a server with these checks, and a client beside them.
async fn with_worker(
    broker: &Arc<FaultyBroker<MemoryBroker>>,
    config: &MetricsConfig,
    checks: Vec<Check>,
    client: impl AsyncFnOnce(std::net::SocketAddr),
) {
    let fails = worker_fn(async |_: &Job<String>| Err::<(), _>(WorkError::retryable("no")));
    let route = Route::new("orders", fails).lanes(1).configure(|settings| {
        let breaker = &mut settings.breaker;
        (breaker.open_for, breaker.max_open_for) = (LONG, LONG);
    });
    let runner = Runner::builder().route(broker, route).build().unwrap();
    let mut server = bind(config).await.health(runner.health());
    for check in checks {
        server = server.check(check);
    }
    let address = server.address().unwrap();
    server
        .serve(runner.run_until(client(address)))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_whole_state_is_one_page_and_only_what_fails_is_an_error() {
    let broker = Arc::new(FaultyBroker::new(MemoryBroker::new()));
    let checks = vec![Check::new("database", async || Ok::<_, String>(()))];
    with_worker(&broker, &patient(), checks, async |address| {
        let (status, page) = health_when(address, |page| page["status"] == "ok").await;
        assert_eq!(status, 200);
        assert_eq!(page["version"], env!("CARGO_PKG_VERSION"));
        assert!(page["uptime_seconds"].is_u64(), "{page}");
        assert_eq!(
            (&page["live"], &page["ready"]),
            (&json!(true), &json!(true))
        );
        assert_eq!(page["problems"], json!([]));
        let [memory] = &page["brokers"].as_array().unwrap()[..] else {
            panic!("{page}");
        };
        assert_eq!(
            (&memory["kind"], &memory["server"]),
            (&json!("memory"), &Value::Null)
        );
        for answer in [&memory["ping"], &memory["store"], &page["checks"][0]] {
            assert_eq!(
                (&answer["ok"], &answer["error"]),
                (&json!(true), &Value::Null)
            );
            assert!(answer["latency_ms"].is_f64(), "{page}");
        }
        assert_eq!(page["checks"][0]["name"], "database");
        assert_eq!(page["checks"][0]["required"], true);
        let orders = &memory["queues"][0];
        assert_eq!(
            (&orders["queue"], &orders["breaker"]),
            (&json!("orders"), &json!("closed"))
        );
        let lane = &orders["lanes"][0];
        assert_eq!(
            (&lane["lane"], &lane["state"]),
            (&json!(0), &json!("reading"))
        );
        assert_eq!(
            (&lane["waits_for"], &lane["unsettled_ms"]),
            (&Value::Null, &Value::Null)
        );

        // The store is nothing that messages depend on.
        broker.faults().refuse(Operation::Store);
        let (status, page) = health_when(address, |page| page["status"] == "degraded").await;
        assert_eq!(status, 200);
        assert_eq!(page["brokers"][0]["store"]["ok"], false);
        assert_eq!(page["brokers"][0]["store"]["latency_ms"], Value::Null);
        assert_eq!(
            page["problems"],
            json!(["broker memory: could not reach the store: the request was lost"])
        );
        broker.faults().bring_up();
        health_when(address, |page| page["status"] == "ok").await;

        // An open breaker keeps messages where they are safe.
        let orders = QueueName::new("orders").unwrap();
        let batch = (0..100).map(|_| Message::new("\"x\"")).collect();
        broker.inner().publish(&orders, batch).await.unwrap();
        let opened =
            |page: &Value| page["brokers"][0]["queues"][0]["lanes"][0]["waits_for"] == "breaker";
        let (status, page) = health_when(address, opened).await;
        assert_eq!((status, &page["status"]), (200, &json!("degraded")));
        assert_eq!(
            page["problems"],
            json!(["queue \"orders\": the breaker is open"])
        );
        let queue = &page["brokers"][0]["queues"][0];
        assert_eq!(queue["breaker"], "open");
        assert_eq!(queue["lanes"][0]["state"], "waiting");
        assert!(queue["lanes"][0]["last_read_ms"].is_u64(), "{page}");

        // A broker that can't be reached.
        broker.faults().refuse(Operation::Ping);
        let (status, page) = health_when(address, |page| page["status"] == "failing").await;
        assert_eq!(status, 503);
        let error = "could not ping the server: the request was lost";
        assert_eq!(
            page["brokers"][0]["ping"],
            json!({"ok": false, "latency_ms": null, "error": error})
        );
        assert_eq!(page["problems"][0], format!("broker memory: {error}"));
        broker.faults().bring_up();
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_says_nothing_is_reported_promptly() {
    let broker = Arc::new(FaultyBroker::new(MemoryBroker::new()));
    let mut impatient = config();
    impatient.check_timeout = Duration::from_millis(200);
    with_worker(&broker, &impatient, Vec::new(), async |address| {
        broker.faults().fall_silent();
        let asked = Instant::now();
        let (status, page) = health(address).await;
        let took = Instant::now() - asked;
        assert_eq!((status, &page["status"]), (503, &json!("failing")));
        assert_eq!(
            page["brokers"][0]["ping"]["error"],
            "could not ping the broker: no answer within 200ms"
        );
        assert!(took < Duration::from_secs(20), "{took:?}");
        broker.faults().speak();
    })
    .await;
}

#[tokio::test]
async fn many_probes_at_once_are_one_ping_and_one_run_of_a_check() {
    let broker = Arc::new(FaultyBroker::new(MemoryBroker::new()));
    let (runs, asked) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let count = Check::with(
        "counted",
        (Arc::clone(&runs), Arc::clone(&asked)),
        async |(runs, release): &(Arc<AtomicU32>, Arc<Notify>)| {
            runs.fetch_add(1, Ordering::Relaxed);
            release.notified().await;
            Ok::<_, String>(())
        },
    );
    with_worker(&broker, &patient(), vec![count], async |address| {
        let mut probes = Vec::new();
        for path in ["/health", "/readyz"].into_iter().cycle().take(20) {
            let mut stream = connect(address).await;
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            probes.push(stream);
        }
        // Connections are served in the order in which they come, so all these wait for their answer by now.
        ask(address, "GET", "/livez").await;
        asked.notify_one();
        for probe in &mut probes {
            assert!([200, 503].contains(&answer(probe).await.status));
        }
        let pings = broker.faults().operations();
        let pings = pings
            .iter()
            .filter(|operation| **operation == Operation::Ping);
        assert_eq!((runs.load(Ordering::Relaxed), pings.count()), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_required_check_fails_readiness_and_an_informational_one_does_not() {
    let server = bind(&patient())
        .await
        .health(|| HealthReport::new(Ok(()), Ok(())));
    let down = || async { Err::<(), _>(std::io::Error::other("connection refused")) };
    let required = server
        .check(Check::new("database", down))
        .check(Check::new("cache", async || Ok::<_, String>(())));
    served(required, async |address| {
        let ready = ask(address, "GET", "/readyz").await;
        assert_eq!(ready.status, 503);
        assert_eq!(
            ready.body,
            "not ready\ncheck \"database\": connection refused\n"
        );
        let (status, page) = health(address).await;
        assert_eq!((status, &page["status"]), (503, &json!("failing")));
        assert_eq!(
            (&page["live"], &page["ready"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(page["checks"][0]["error"], "connection refused");
        assert_eq!(page["checks"][1]["ok"], true);
        assert_eq!(page["brokers"], json!([]));
        // A restart would mend no database.
        assert_eq!(ask(address, "GET", "/livez").await.status, 200);
    })
    .await;

    let server = bind(&patient())
        .await
        .health(|| HealthReport::new(Ok(()), Ok(())));
    // It would also keep a readiness probe waiting for an hour.
    let hangs = async || std::future::pending::<Result<(), String>>().await;
    let informational = server
        .check(Check::new("geocoder", down).informational())
        .check(Check::new("slow", hangs).informational().timeout(LONG));
    served(informational, async |address| {
        let ready = ask(address, "GET", "/readyz").await;
        assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));
    })
    .await;
}

#[tokio::test]
async fn checks_alone_make_a_service_ready_but_say_nothing_of_its_life() {
    let server = bind(&patient())
        .await
        .check(Check::new("database", async || Ok::<_, String>(())));
    served(server, async |address| {
        assert_eq!(ask(address, "GET", "/livez").await.status, 404);
        assert_eq!(ask(address, "GET", "/readyz").await.status, 200);
        let (status, page) = health(address).await;
        assert_eq!((status, &page["live"]), (200, &Value::Null));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_check_that_panics_hangs_or_blocks_is_a_failed_one_and_no_more() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let blocked = Arc::new(AtomicU32::new(0));
    let brief = Duration::from_millis(200);
    let blocks = Check::with(
        "blocks",
        (Arc::clone(&blocked), released),
        async |(count, released): &(
            Arc<AtomicU32>,
            std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
        )| {
            count.fetch_add(1, Ordering::Relaxed);
            let _ended = released.lock().unwrap().recv();
            Ok::<_, String>(())
        },
    );
    let server = bind(&patient())
        .await
        .check(Check::new("panics", || async {
            if true {
                panic!("a bug of the check");
            }
            Ok::<_, String>(())
        }))
        .check(Check::new(
            "panics at once",
            || -> std::future::Ready<Result<(), String>> { panic!("another bug") },
        ))
        .check(
            Check::new("hangs", async || {
                std::future::pending::<Result<(), String>>().await
            })
            .timeout(brief),
        )
        .check(blocks.timeout(brief))
        .check(Check::new("well", async || Ok::<_, String>(())));
    served(server, async move |address| {
        let errors = |page: &Value| {
            let checks = page["checks"].as_array().unwrap().iter();
            let errors = checks.map(|check| check["error"].as_str().unwrap_or("none").to_owned());
            errors.collect::<Vec<_>>()
        };
        let expected = [
            "the check panicked: a bug of the check",
            "the check panicked: another bug",
            "no answer within 200ms",
            "no answer within 200ms",
            "none",
        ];
        let (status, page) = health(address).await;
        assert_eq!(
            (status, errors(&page)),
            (503, expected.map(str::to_owned).into())
        );
        // Once more, when the shared answers are too old: the one that blocks has not taken a second thread.
        sleep(Duration::from_millis(1_100)).await;
        let (_, page) = health(address).await;
        assert_eq!(errors(&page), expected);
        assert_eq!(blocked.load(Ordering::Relaxed), 1);
        drop(release);
    })
    .await;
}

#[tokio::test]
async fn a_runner_that_drains_is_live_and_not_ready() {
    let broker = MemoryBroker::new();
    let (is_running, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let worker = pythia_core::worker_fn_with(
        (Arc::clone(&is_running), Arc::clone(&release)),
        async |(running, release): &(Arc<Notify>, Arc<Notify>), _: &Job<String>| {
            running.notify_one();
            release.notified().await;
            Ok(())
        },
    );
    let orders = QueueName::new("orders").unwrap();
    broker
        .publish(&orders, vec![Message::new("\"x\"")])
        .await
        .unwrap();
    let runner = Runner::builder()
        .route(&broker, Route::new("orders", worker))
        .build()
        .unwrap();
    let server = bind(&patient()).await.health(runner.health());
    let address = server.address().unwrap();
    let probe = async {
        loop {
            let (status, page) = health(address).await;
            if page["ready"] == false {
                assert_eq!(
                    (status, &page["status"], &page["live"]),
                    (503, &json!("failing"), &json!(true))
                );
                let lanes = page["brokers"][0]["queues"][0]["lanes"].as_array().unwrap();
                if lanes.iter().all(|lane| lane["state"] == "stopped") {
                    break;
                }
            }
        }
        assert_eq!(ask(address, "GET", "/livez").await.status, 200);
        assert_eq!(ask(address, "GET", "/readyz").await.status, 503);
        release.notify_one();
    };
    let served = server.serve(runner.run_until(is_running.notified()));
    let (summary, ()) = tokio::join!(served, probe);
    assert_eq!(summary.unwrap().settled.acked, 1);
}
