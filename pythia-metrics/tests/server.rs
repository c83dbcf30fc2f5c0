//! The server as its clients see it: raw bytes over TCP.

mod support;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use pythia_core::observe::{Event, Observer};
use pythia_metrics::prometheus::core::{Collector, Desc};
use pythia_metrics::prometheus::proto::MetricFamily;
use pythia_metrics::prometheus::{IntGauge, Registry};
use pythia_metrics::{
    HealthReport, MetricsConfig, MetricsErrorKind, MetricsServer, PrometheusObserver,
};
use support::{Exposition, promtool, queue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

fn config() -> MetricsConfig {
    let mut config = MetricsConfig::default();
    config.address.set_port(0);
    config
}

/// Runs `client` beside the server, then stops the server and waits for its end.
async fn served<F: Future>(
    server: MetricsServer,
    client: impl FnOnce(SocketAddr) -> F,
) -> F::Output {
    let address = server.address().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = server.serve(async {
        let _dropped = stopped.await;
    });
    let client = async {
        let output = client(address).await;
        drop(stop);
        output
    };
    tokio::join!(serve, client).1
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        headers
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    let mut stream = connect(address).await;
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    answer(&mut stream).await
}

/// Reads until the server closes.
async fn answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

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
        for path in ["/metrics", "/livez", "/readyz"] {
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
            assert_eq!(unknown.body, "not found; try /metrics, /livez or /readyz\n");
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
        for path in ["/livez", "/readyz"] {
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
async fn what_can_not_be_encoded_is_an_error_of_the_server() {
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
    let config = MetricsConfig::default();
    assert_eq!(config.address, "127.0.0.1:9898".parse().unwrap());
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

#[tokio::test]
async fn garbage_and_large_headers_are_turned_away() {
    let server = MetricsServer::bind(&config(), &Registry::new())
        .await
        .unwrap();
    served(server, async |address| {
        let mut stream = connect(address).await;
        stream
            .write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(answer(&mut stream).await.status, 400);

        // A whole request, but with 20 kB of header.
        let mut stream = connect(address).await;
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
            "x".repeat(20_000)
        );
        // The server may have refused and closed before all of it is written or read.
        let _written = stream.write_all(request.as_bytes()).await;
        let mut bytes = Vec::new();
        let _read = stream.read_to_end(&mut bytes).await;
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 431"),
            "{text}"
        );

        assert_eq!(ask(address, "GET", "/metrics").await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_probe_is_answered_beside_hundreds_of_silent_clients() {
    let server = MetricsServer::bind(&config(), &Registry::new())
        .await
        .unwrap();
    let server = server.health(|| HealthReport::new(Ok(()), Ok(())));
    served(server, async |address| {
        let mut silent = Vec::new();
        for _ in 0..300 {
            silent.push(connect(address).await);
        }
        assert_eq!(ask(address, "GET", "/livez").await.status, 200);
        // It did not wait for them to be given up: the latest of them are still there, only the oldest had to go.
        tokio::time::pause();
        let began = Instant::now();
        assert_eq!(silent[0].read(&mut [0; 1]).await.unwrap_or(0), 0);
        assert_eq!(
            Instant::now(),
            began,
            "the oldest stayed until it was given up"
        );
        let open = silent.last().unwrap().try_read(&mut [0; 1]).unwrap_err();
        assert_eq!(open.kind(), std::io::ErrorKind::WouldBlock);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_sends_nothing_is_given_up() {
    let server = MetricsServer::bind(&config(), &Registry::new())
        .await
        .unwrap();
    served(server, async |address| {
        let mut silent = connect(address).await;
        let mut half = connect(address).await;
        half.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
            .await
            .unwrap();
        // Both are accepted by now, since this one came after them.
        assert_eq!(ask(address, "GET", "/metrics").await.status, 200);
        // From here on nothing happens but time.
        tokio::time::pause();
        let began = Instant::now();
        for stream in [&mut silent, &mut half] {
            let given_up =
                timeout(Duration::from_secs(60), stream.read_to_end(&mut Vec::new())).await;
            assert!(given_up.is_ok());
        }
        let took = Instant::now().saturating_duration_since(began);
        assert!(took < Duration::from_secs(6), "{took:?}");
    })
    .await;
}

/// A page that fits into no buffer of a socket.
fn large_registry() -> Registry {
    let registry = Registry::new();
    let help = "x".repeat(LARGE);
    let large = IntGauge::new("large", help).unwrap();
    registry.register(Box::new(large)).unwrap();
    registry
}

const LARGE: usize = 32 << 20;

/// Asks for the page and reads as far as the first bytes of the answer.
async fn begin(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address).await;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    stream
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_given_up_and_holds_up_nobody() {
    let server = MetricsServer::bind(&config(), &large_registry())
        .await
        .unwrap();
    served(server, async |address| {
        let mut deaf = begin(address).await;
        let heard = ask(address, "GET", "/metrics").await;
        assert!(heard.body.len() > LARGE);
        // From here on nothing happens but time.
        tokio::time::pause();
        tokio::time::sleep(Duration::from_secs(31)).await;
        let mut rest = Vec::new();
        let _reset = deaf.read_to_end(&mut rest).await;
        assert!(rest.len() < LARGE, "all of it was sent after 31 s");
    })
    .await;
}

#[tokio::test]
async fn shutdown_waits_for_nobody_for_long() {
    let server = MetricsServer::bind(&config(), &large_registry())
        .await
        .unwrap();
    let address = server.address().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = server.serve(async {
        let _dropped = stopped.await;
    });
    let client = async {
        let silent = connect(address).await;
        let mut half = connect(address).await;
        half.write_all(b"GET /metr").await.unwrap();
        // The others are accepted by now, since they came before it.
        let deaf = begin(address).await;
        tokio::time::pause();
        drop(stop);
        (silent, half, deaf, Instant::now())
    };
    let ((), (_silent, _half, _deaf, stopped)) = tokio::join!(serve, client);
    let took = Instant::now().saturating_duration_since(stopped);
    assert!(took <= Duration::from_millis(2_100), "{took:?}");
    assert!(
        TcpStream::connect(address).await.is_err(),
        "it still listens"
    );
}

#[tokio::test]
async fn shutdown_does_not_wait_for_silent_clients() {
    let server = MetricsServer::bind(&config(), &Registry::new())
        .await
        .unwrap();
    let address = server.address().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = server.serve(async {
        let _dropped = stopped.await;
    });
    let client = async {
        let silent = connect(address).await;
        assert_eq!(ask(address, "GET", "/metrics").await.status, 200);
        tokio::time::pause();
        drop(stop);
        (silent, Instant::now())
    };
    let ((), (_silent, stopped)) = tokio::join!(serve, client);
    assert_eq!(Instant::now(), stopped);
}

#[tokio::test]
async fn an_answer_under_way_is_finished_at_shutdown() {
    let server = MetricsServer::bind(&config(), &large_registry())
        .await
        .unwrap();
    let address = server.address().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = server.serve(async {
        let _dropped = stopped.await;
    });
    let client = async {
        let silent = connect(address).await;
        let mut stream = begin(address).await;
        drop(stop);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() > LARGE, "{} bytes", rest.len());
        silent
    };
    tokio::join!(serve, client);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_scrapes_at_once_are_all_answered() {
    let registry = Registry::new();
    let observer = PrometheusObserver::register(&registry).unwrap();
    observer.on_event(&Event::Received {
        queue: &queue("orders"),
        count: 1,
    });
    let server = MetricsServer::bind(&config(), &registry).await.unwrap();
    served(server, async |address| {
        let mut scrapes = tokio::task::JoinSet::new();
        for _ in 0..32 {
            scrapes.spawn(ask(address, "GET", "/metrics"));
        }
        while let Some(answer) = scrapes.join_next().await {
            let answer = answer.unwrap();
            assert_eq!(answer.status, 200);
            Exposition::parse(&answer.body);
        }
    })
    .await;
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
