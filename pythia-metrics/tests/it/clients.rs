//! Slow, silent and hostile clients, many of them, and the end.

use std::net::SocketAddr;
use std::time::Duration;

use pythia_core::observe::{Event, Observer};
use pythia_metrics::prometheus::{IntGauge, Registry};
use pythia_metrics::{HealthReport, MetricsServer, PrometheusObserver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::exposition::Exposition;
use crate::http::{answer, ask, config, connect, served};
use crate::metrics::queue;

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
