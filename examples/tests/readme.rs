//! The README's worker is the one in `worker/main.rs`, and consumes what plain clients write.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use pythia_redis::testing::RedisServer;

#[test]
fn the_readme_shows_the_worker_as_it_is() {
    let readme = include_str!("../../README.md");
    // What is before the first empty line is for the linter.
    let (_, worker) = include_str!("../worker/main.rs")
        .split_once("\n\n")
        .unwrap();
    assert!(
        readme.contains(worker),
        "the README's worker and examples/worker/main.rs differ"
    );
}

/// The worker's process; killed when the test ends, however it ends.
struct Worker(Child);

impl Worker {
    fn terminate(&self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn start(pattern: &str, server: &RedisServer) -> Worker {
    Worker(
        Command::new(env!("CARGO_BIN_EXE_worker"))
            .env("PYTHIA_BROKER__TYPE", pattern)
            .env("PYTHIA_REDIS__URL", server.url())
            .env_remove("PYTHIA_CONFIG")
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    )
}

/// Runs the worker on a pattern, writes with redis-cli until it says what is expected, and ends it by a signal.
async fn consumes(pattern: &str, write: &[&str], expected: &str) {
    let server = RedisServer::start().await;
    let mut worker = start(pattern, &server);
    // A channel remembers nothing, so the subscriber has to be there first.
    while pattern == "pubsub"
        && !server
            .cli(&["PUBSUB", "NUMSUB", "orders"])
            .await
            .ends_with('1')
    {}
    server.cli(write).await;
    let mut lines = BufReader::new(worker.0.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), expected);
    worker.terminate();
    let summary = lines.next().unwrap().unwrap();
    assert!(summary.starts_with("received 1, acked 1,"), "{summary}");
    assert!(worker.0.wait().unwrap().success());
}

#[tokio::test]
async fn the_worker_consumes_what_lpush_writes() {
    consumes(
        "list",
        &["LPUSH", "orders", r#"{"id":1,"item":"lamp"}"#],
        "order 1: shipping one lamp",
    )
    .await;
}

#[tokio::test]
async fn the_worker_consumes_what_xadd_writes() {
    consumes(
        "stream",
        &["XADD", "orders", "*", "id", "2", "item", "chair"],
        "order 2: shipping one chair",
    )
    .await;
}

#[tokio::test]
async fn the_worker_consumes_what_publish_writes() {
    consumes(
        "pubsub",
        &["PUBLISH", "orders", r#"{"id":3,"item":"desk"}"#],
        "order 3: shipping one desk",
    )
    .await;
}

#[tokio::test]
async fn the_worker_says_what_it_can_not_read() {
    let server = RedisServer::start().await;
    let mut worker = start("list", &server);
    server.cli(&["LPUSH", "orders", "no JSON"]).await;
    while server.cli(&["EXISTS", "orders"]).await == "1" {}
    worker.terminate();
    let mut lines = BufReader::new(worker.0.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    assert!(line.contains("dead letter: decode: "), "{line}");
}
