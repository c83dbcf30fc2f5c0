//! `config/redis.conf` is taken by a real server, does what its comments say, and lets a worker work.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use pythia_redis::testing::RedisServer;

/// Each directive of the file, and what `CONFIG GET` answers for it.
const DIRECTIVES: &[(&str, &str)] = &[
    ("appendfsync", "everysec"),
    ("appendonly", "yes"),
    ("auto-aof-rewrite-min-size", "134217728"),
    ("auto-aof-rewrite-percentage", "100"),
    ("bind", "127.0.0.1"),
    ("latency-monitor-threshold", "100"),
    ("maxmemory", "2147483648"),
    ("maxmemory-policy", "noeviction"),
    ("no-appendfsync-on-rewrite", "no"),
    ("protected-mode", "yes"),
    ("save", "3600 1 600 100000"),
    ("slowlog-log-slower-than", "10000"),
    ("slowlog-max-len", "256"),
    ("stop-writes-on-bgsave-error", "no"),
    ("tcp-backlog", "1024"),
    ("tcp-keepalive", "60"),
    ("timeout", "0"),
];

async fn server(further: &[&str]) -> RedisServer {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/redis.conf");
    let file = file.to_str().unwrap();
    RedisServer::start_with(&[&["--include", file], further].concat()).await
}

#[tokio::test]
async fn the_server_has_every_value_of_the_file() {
    let text = include_str!("../../config/redis.conf");
    let written: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let limit = "client-output-buffer-limit";
    let known = DIRECTIVES.iter().map(|(directive, _)| *directive);
    assert_eq!(written, known.chain([limit]).collect());

    let server = server(&[]).await;
    for (directive, value) in DIRECTIVES {
        let answer = server.cli(&["CONFIG", "GET", directive]).await;
        assert_eq!(answer, format!("{directive}\n{value}"));
    }
    let limits = server.cli(&["CONFIG", "GET", limit]).await;
    assert!(limits.contains("pubsub 67108864 16777216 60"), "{limits}");
}

#[tokio::test]
async fn a_full_server_refuses_a_publish_and_keeps_what_it_has() {
    let server = server(&[]).await;
    server.cli(&["LPUSH", "orders", "1"]).await;
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let refused = server.cli(&["LPUSH", "orders", "2"]).await;
    assert!(refused.starts_with("OOM"), "{refused}");
    assert_eq!(server.cli(&["LLEN", "orders"]).await, "1");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash() {
    let mut server = server(&[]).await;
    server.cli(&["LPUSH", "orders", "1"]).await;
    server.kill().await;
    server.restart().await;
    assert_eq!(server.cli(&["LLEN", "orders"]).await, "1");
}

/// The user that the file's comments propose for workers.
fn proposed_user() -> Vec<&'static str> {
    let text = include_str!("../../config/redis.conf");
    let line = text.lines().find(|line| line.contains(" user pythia "));
    line.unwrap().split_whitespace().skip(1).collect()
}

#[tokio::test]
async fn a_worker_may_do_its_work_as_the_proposed_user_and_nothing_else() {
    let user = proposed_user();
    let server = server(&[&["--user"], &user[1..]].concat()).await;
    let url = server.url().replace("redis://", "redis://pythia:SECRET@");
    for (pattern, write) in [
        (
            "list",
            ["LPUSH", "orders", r#"{"id":1,"item":"lamp"}"#].as_slice(),
        ),
        (
            "stream",
            &["XADD", "of_stream", "*", "id", "1", "item", "lamp"],
        ),
    ] {
        server.cli(write).await;
        let mut worker = Command::new(env!("CARGO_BIN_EXE_worker"))
            .env_clear()
            .envs([("PYTHIA_BROKER_TYPE", pattern), ("REDIS_URL", &url)])
            .env("REDIS_QUEUE", write[1])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines();
        let line = lines.next().map(Result::unwrap);
        let ended = Command::new("kill").arg(worker.id().to_string()).status();
        assert!(ended.unwrap().success() && worker.wait().unwrap().success());
        assert_eq!(
            line.as_deref(),
            Some("order 1: shipping one lamp"),
            "{pattern}"
        );
    }
    for forbidden in [
        ["CONFIG", "GET", "maxmemory"].as_slice(),
        &["FLUSHALL"],
        &["SHUTDOWN"],
    ] {
        let as_worker = [&["--user", "pythia", "--pass", "SECRET"], forbidden].concat();
        let reply = server.cli(&as_worker).await;
        assert!(reply.contains("NOPERM"), "{reply}");
    }
}
