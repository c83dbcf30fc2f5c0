//! What the server answers.

use std::future::Future;

use pythia_core::observe::{Event, Observer};
use pythia_metrics::prometheus::core::{Collector, Desc};
use pythia_metrics::prometheus::proto::MetricFamily;
use pythia_metrics::prometheus::{IntGauge, Registry};
use pythia_metrics::{
    HealthReport, MetricsConfig, MetricsErrorKind, MetricsServer, PrometheusObserver,
};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::exposition::Exposition;
use crate::http::{ask, config, served};
use crate::metrics::queue;
use crate::promtool::promtool;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_is_what_was_counted() {
    let registry = Registry::new();
    let observer = PrometheusObserver::register(&registry).unwrap();
    observer.on_event(&Event::Received {
        queue: &queue("orders"),
        count: 7,
    });
    let parcels = IntGauge::new("shop_parcels", "Parcels on the shelf.").unwrap();
    registry.register(Box::new(parcels.clone())).unwrap();
    parcels.set(5);
    let server = MetricsServer::bind(&config(), &registry).await.unwrap();
    served(server, async |address| {
        let first = ask(address, "GET", "/metrics").await;
        assert_eq!(first.status, 200);
        assert_eq!(
            first.header("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        assert_eq!(
            first.header("content-length"),
            Some(first.body.len().to_string().as_str())
        );
        assert_eq!(first.header("connection"), Some("close"));
        promtool(&first.body);
        let page = Exposition::parse(&first.body);
        assert_eq!(
            page.series["pythia_messages_received_total{queue=\"orders\"}"],
            7.0
        );
        assert_eq!(page.series["shop_parcels"], 5.0);

        observer.on_event(&Event::Received {
            queue: &queue("orders"),
            count: 1,
        });
        let page = Exposition::parse(&ask(address, "GET", "/metrics").await.body);
        assert_eq!(
            page.series["pythia_messages_received_total{queue=\"orders\"}"],
            8.0
        );
    })
    .await;
}

#[tokio::test]
async fn a_runtime_of_one_thread_serves_too() {
    let server = MetricsServer::bind(&config(), &Registry::new())
        .await
        .unwrap();
    served(server, async |address| {
        let answer = ask(address, "GET", "/metrics").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    })
    .await;
}

#[tokio::test]
async fn methods_and_paths_are_told_apart() {
    let server = MetricsServer::bind(&config(), &Registry::new())
        .await
        .unwrap();
    let server = server.health(|| HealthReport::new(Ok(()), Ok(())));
    served(server, async |address| {
        for path in ["/metrics", "/health", "/livez", "/readyz"] {
            let get = ask(address, "GET", path).await;
            let head = ask(address, "HEAD", path).await;
            assert_eq!((get.status, head.status), (200, 200), "{path}");
            assert_eq!(head.body, "", "{path}");
            assert_eq!(
                head.header("content-length"),
                get.header("content-length"),
                "{path}"
            );
            assert_eq!(
                head.header("content-type"),
                get.header("content-type"),
                "{path}"
            );
            let post = ask(address, "POST", path).await;
            assert_eq!(
                (post.status, post.header("allow")),
                (405, Some("GET,HEAD")),
                "{path}"
            );
        }
        for path in [
            "/",
            "/metrics/",
            "/metrics/x",
            "/livez/../metrics",
            "/%6detrics",
            "/METRICS",
        ] {
            let unknown = ask(address, "GET", path).await;
            assert_eq!(unknown.status, 404, "{path}");
            assert_eq!(
                unknown.body,
                "not found; try /metrics, /health, /livez or /readyz\n"
            );
        }
        assert_eq!(ask(address, "GET", "/metrics?name=x").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn probes_say_which_lane_and_why() {
    let (health, now) = tokio::sync::watch::channel(HealthReport::new(Ok(()), Ok(())));
    let server = MetricsServer::bind(&config(), &Registry::new())
        .await
        .unwrap();
    let server = server.health(move || now.borrow().clone());
    served(server, async |address| {
        let live = ask(address, "GET", "/livez").await;
        assert_eq!((live.status, live.body.as_str()), (200, "live\n"));
        let ready = ask(address, "GET", "/readyz").await;
        assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));

        let silent = "queue \"orders\", lane 1: no read has completed for 31s".to_owned();
        let away = "queue \"orders\", lane 1: not connected".to_owned();
        let second = "queue \"mail\", lane 0: not connected".to_owned();
        health.send_replace(HealthReport::new(
            Err(vec![silent.clone()]),
            Err(vec![away.clone(), second.clone()]),
        ));
        let live = ask(address, "GET", "/livez").await;
        assert_eq!(
            (live.status, live.body.clone()),
            (503, format!("not live\n{silent}\n"))
        );
        assert_eq!(
            live.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        let ready = ask(address, "GET", "/readyz").await;
        assert_eq!(
            (ready.status, ready.body),
            (503, format!("not ready\n{away}\n{second}\n"))
        );

        health.send_replace(HealthReport::new(Ok(()), Err(vec![away])));
        assert_eq!(ask(address, "GET", "/livez").await.status, 200);
        assert_eq!(ask(address, "GET", "/readyz").await.status, 503);
    })
    .await;
}

#[tokio::test]
async fn without_a_source_of_health_nothing_is_claimed() {
    let server = MetricsServer::bind(&config(), &Registry::new())
        .await
        .unwrap();
    served(server, async |address| {
        for path in ["/health", "/livez", "/readyz"] {
            let answer = ask(address, "GET", path).await;
            assert_eq!(answer.status, 404);
            assert_eq!(
                answer.body,
                "no source of health was given to this server\n"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_check_that_panics_is_a_failed_one() {
    let server = MetricsServer::bind(&config(), &Registry::new())
        .await
        .unwrap();
    let server = server.health(|| panic!("no health today"));
    served(server, async |address| {
        let answer = ask(address, "GET", "/livez").await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (503, "not live\nthe check panicked: no health today\n")
        );
    })
    .await;
}

/// A collector of somebody else's.
struct Foreign(fn() -> Vec<MetricFamily>, Desc);

impl Collector for Foreign {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.1]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.0)()
    }
}

#[tokio::test]
async fn what_cannot_be_encoded_is_an_error_of_the_server() {
    fn nameless() -> Vec<MetricFamily> {
        let mut families = IntGauge::new("x", "y").unwrap().collect();
        families[0].set_name(String::new());
        families
    }
    fn panics() -> Vec<MetricFamily> {
        panic!("a bug of the collector")
    }
    for (collect, says) in [
        (nameless as fn() -> _, "no name"),
        (panics, "a collector panicked: a bug of the collector"),
    ] {
        let registry = Registry::new();
        let desc = Desc::new("x".into(), "y".into(), Vec::new(), Default::default()).unwrap();
        registry.register(Box::new(Foreign(collect, desc))).unwrap();
        let server = MetricsServer::bind(&config(), &registry).await.unwrap();
        served(server, async |address| {
            // Twice: the first one must not have broken anything.
            for _ in 0..2 {
                let answer = ask(address, "GET", "/metrics").await;
                assert_eq!(answer.status, 500);
                assert!(
                    answer
                        .body
                        .starts_with("the metrics could not be encoded: "),
                    "{}",
                    answer.body
                );
                assert!(answer.body.contains(says), "{}", answer.body);
            }
        })
        .await;
    }
}

#[tokio::test]
async fn an_address_in_use_is_named_with_the_way_out() {
    let first = MetricsServer::bind(&config(), &Registry::new())
        .await
        .unwrap();
    let mut config = config();
    config.address = first.address().unwrap();
    let error = MetricsServer::bind(&config, &Registry::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), MetricsErrorKind::AddressInUse);
    assert!(error.is_address_in_use());
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("could not listen on {}: ", config.address)),
        "{text}"
    );
    assert!(
        text.contains("set `metrics.address` to a free one"),
        "{text}"
    );
    drop(first);
    MetricsServer::bind(&config, &Registry::new())
        .await
        .unwrap();
}

#[tokio::test]
async fn an_address_of_another_machine_is_refused() {
    let mut config = config();
    config.address = "192.0.2.1:9898".parse().unwrap();
    let error = MetricsServer::bind(&config, &Registry::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), MetricsErrorKind::Bind);
    assert!(error.to_string().contains("192.0.2.1:9898"), "{error}");
}

#[tokio::test]
async fn it_listens_on_this_machine_only_by_default() {
    let default = MetricsConfig::default();
    assert_eq!(default.address, "127.0.0.1:9898".parse().unwrap());
    // What is bound, of the same settings with a port that nothing else of this machine has.
    let server = MetricsServer::bind(&config(), &Registry::new())
        .await
        .unwrap();
    let bound = server.address().unwrap();
    assert_eq!(bound.ip(), default.address.ip());
    assert!(bound.ip().is_loopback() && bound.port() != 0, "{bound}");
    // Another address of this machine, where there is one, leads nowhere.
    let elsewhere = TcpStream::connect(("127.0.0.2", bound.port())).await;
    assert!(elsewhere.is_err(), "{elsewhere:?}");
}

#[tokio::test]
async fn metrics_that_are_not_enabled_listen_nowhere() {
    let mut config = config();
    config.enabled = false;
    let server = MetricsServer::bind(&config, &Registry::new())
        .await
        .unwrap();
    assert_eq!(server.address(), None);
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = server.serve(async {
        let _dropped = stopped.await;
    });
    let mut serve = std::pin::pin!(serve);
    assert!(poll_once(serve.as_mut()).await.is_pending());
    drop(stop);
    serve.await;
}

async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx))).await
}

/// Handlers may have taken all threads for blocking work: that is when somebody wants to see metrics.
#[test]
fn a_scrape_needs_no_thread_for_blocking_work() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (started, has_started) = oneshot::channel();
        let busy = tokio::task::spawn_blocking(move || {
            started.send(()).unwrap();
            released.recv().unwrap_err();
        });
        has_started.await.unwrap();
        let server = MetricsServer::bind(&config(), &Registry::new())
            .await
            .unwrap();
        let answer = served(server, async |address| {
            ask(address, "GET", "/metrics").await
        })
        .await;
        assert_eq!(answer.status, 200);
        drop(release);
        busy.await.unwrap();
    });
}

#[test]
fn the_futures_can_go_to_another_thread() {
    fn send<T: Send>(_: T) {}
    let (config, registry) = (config(), Registry::new());
    send(MetricsServer::bind(&config, &registry));
    fn _serve(server: MetricsServer) {
        send(server.serve(std::future::pending::<()>()));
    }
}
