//! The examination at the start of a worker.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pythia_core::Message;
use pythia_redis::testing::RedisServer;
use tokio::time::{Instant, sleep};
use tracing_subscriber::fmt::MakeWriter;

use super::with_snapshots;
use crate::bench::Bench;

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn at(level: tracing::Level) -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        let bytes = self.0.lock().expect("no test panics in it");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    async fn says(&self, text: &str) -> String {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let all = self.text();
            if let Some(line) = all.lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            assert!(Instant::now() < patience, "nobody says {text:?} in\n{all}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panics in it").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn what_endangers_messages_is_logged_once_with_what_mends_it() {
    let server =
        RedisServer::start_with(&["--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"]).await;
    for pattern in ["list", "stream"] {
        let (log, _guard) = Log::at(tracing::Level::INFO);
        let bench = Bench::new(&server.url(), pattern).apart();
        let first = bench.broker.subscribe(&bench.queue).await;
        let second = bench.broker.subscribe(&bench.queue).await;
        assert!(first.is_ok() && second.is_ok());
        let line = log.says("no-persistence").await;
        assert!(
            line.contains(" WARN ") && line.contains("redis-cli CONFIG SET appendonly yes"),
            "{line}"
        );
        let line = log.says("eviction-policy").await;
        assert!(
            line.contains("ERROR") && line.contains("maxmemory-policy noeviction"),
            "{line}"
        );
        assert_eq!(
            log.text().matches("no-persistence").count(),
            1,
            "{}",
            log.text()
        );
    }
}

/// A developer's server, as it comes, is left in peace.
#[tokio::test]
async fn of_a_server_as_it_comes_nothing_is_logged_but_for_the_curious() {
    let server = with_snapshots("3600 1 300 100 60 10000").await;
    let (log, _guard) = Log::at(tracing::Level::DEBUG);
    let bench = Bench::new(&server.url(), "list");
    let _subscription = bench.broker.subscribe(&bench.queue).await;
    let line = log.says("loss-window").await;
    assert!(line.contains("DEBUG"), "{line}");
    let doctor = log.text();
    let loud = doctor
        .lines()
        .find(|line| line.contains("doctor:") && !line.contains("DEBUG"));
    assert_eq!(loud, None);
}

/// What a dead worker has left is not reported at once: the upkeep may take it back. This broker does none.
#[tokio::test]
async fn what_the_upkeep_does_not_take_back_is_logged_some_leases_later() {
    for pattern in ["list", "stream"] {
        let server = RedisServer::start().await;
        let (log, _guard) = Log::at(tracing::Level::INFO);
        let settings = format!("redis.url = {:?}\nredis.lease = \"200ms\"", server.url());
        let bench = Bench::with(&settings, pattern);
        bench
            .broker
            .publish(&bench.queue, vec![Message::new("1")])
            .await
            .expect("redis runs");
        let mut worker = bench
            .broker
            .subscribe(&bench.queue)
            .await
            .expect("redis runs");
        let mut held = Vec::new();
        while held.is_empty() {
            worker
                .source
                .receive(1, &mut held)
                .await
                .expect("redis runs");
        }
        drop(worker);
        let line = log.says("orphan-consumer").await;
        assert!(line.contains(" WARN "), "{line}");
    }
}

#[tokio::test]
async fn its_connection_goes_when_it_is_done_or_its_broker_is_dropped() {
    let server = RedisServer::start().await;
    for waits in [true, false] {
        let (log, _guard) = Log::at(tracing::Level::INFO);
        let bench = Bench::new(&server.url(), "list");
        let subscription = bench
            .broker
            .subscribe(&bench.queue)
            .await
            .expect("redis runs");
        if waits {
            log.says("no-persistence").await;
            // The lane's alone: to read, to settle, to renew.
            connections(&server, 3).await;
        }
        drop((subscription, bench));
        connections(&server, 0).await;
    }
}

/// Until there are so many, beside the one that asks.
async fn connections(server: &RedisServer, count: usize) {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let clients = server.cli(&["CLIENT", "LIST"]).await;
        if clients.lines().count() == count + 1 {
            return;
        }
        assert!(Instant::now() < patience, "not {count}:\n{clients}");
        sleep(Duration::from_millis(10)).await;
    }
}
