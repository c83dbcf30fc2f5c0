//! What is found in queues.

use std::time::Duration;

use pythia_core::Message;
use pythia_core::broker::Subscription;
use pythia_redis::doctor::{Code, Severity};
use pythia_redis::testing::RedisServer;
use tokio::time::{Instant, sleep};

use super::{config, mend, mends, none_of, report, the};
use crate::bench::Bench;

const SETTINGS: &str = "redis.lease = \"100ms\"\nredis.doctor = false";

fn bench(server: &RedisServer, pattern: &str) -> Bench {
    Bench::with(
        &format!("redis.url = {:?}\n{SETTINGS}", server.url()),
        pattern,
    )
}

/// A worker that holds so many messages.
async fn holding(bench: &Bench, count: usize) -> Subscription {
    let messages = (0..count).map(|_| Message::new("1")).collect();
    bench
        .broker
        .publish(&bench.queue, messages)
        .await
        .expect("redis runs");
    let mut subscription = bench
        .broker
        .subscribe(&bench.queue)
        .await
        .expect("redis runs");
    let mut held = Vec::new();
    while held.len() < count {
        let room = count - held.len();
        subscription
            .source
            .receive(room, &mut held)
            .await
            .expect("redis runs");
    }
    subscription
}

/// Until the doctor sees it: the lease ends some time after the worker.
async fn is_found(bench: &Bench, code: Code) -> pythia_redis::doctor::Report {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let report = report(&bench.config).await;
        if report
            .findings()
            .iter()
            .any(|finding| finding.code() == code)
        {
            return report;
        }
        assert!(Instant::now() < patience, "no {code} in\n{report}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The upkeep of a worker, until it has taken back so many.
async fn takes_back(bench: &Bench, count: u64) {
    let patience = Instant::now() + Duration::from_secs(20);
    let mut recovered = 0;
    while recovered < count {
        let round = bench
            .broker
            .maintain(&bench.queue, 5)
            .await
            .expect("redis runs");
        recovered += round.recovered;
        assert!(
            Instant::now() < patience,
            "{recovered} of {count} were taken back"
        );
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_a_dead_worker_holds_is_found_until_somebody_takes_it_back() {
    for pattern in ["list", "stream"] {
        let server = RedisServer::start().await;
        let bench = bench(&server, pattern);
        let worker = holding(&bench, 3).await;
        none_of(&report(&bench.config).await, Code::OrphanConsumer);
        drop(worker);
        let orphaned = is_found(&bench, Code::OrphanConsumer).await;
        let finding = the(&orphaned, Code::OrphanConsumer);
        assert_eq!(finding.severity(), Severity::Warning);
        assert_eq!(finding.about(), "queue orders");
        assert!(
            finding.what().starts_with("3 messages"),
            "{pattern}: {finding}"
        );
        takes_back(&bench, 3).await;
        none_of(&report(&bench.config).await, Code::OrphanConsumer);
    }
}

#[tokio::test]
async fn a_claim_whose_consumer_was_deleted_by_hand_is_found_and_mended() {
    let server = RedisServer::start().await;
    let bench = bench(&server, "list");
    let worker = holding(&bench, 2).await;
    server.cli(&["DEL", "pythia:{orders}:consumers"]).await;
    let orphaned = report(&bench.config).await;
    let finding = the(&orphaned, Code::OrphanConsumer);
    assert!(finding.what().contains("2 messages"), "{finding}");
    drop(worker);
    mend(&server, finding);
    takes_back(&bench, 2).await;
    none_of(&report(&bench.config).await, Code::OrphanConsumer);
    assert_eq!(server.cli(&["LLEN", "orders"]).await, "2");
}

#[tokio::test]
async fn what_nobody_has_renewed_for_many_leases_is_found_until_somebody_takes_it_back() {
    let server = RedisServer::start().await;
    let bench = bench(&server, "stream");
    let worker = holding(&bench, 1).await;
    let pending = server
        .cli(&["XPENDING", "orders", "pythia", "-", "+", "1"])
        .await;
    let [id, consumer] = [0, 1].map(|line| pending.lines().nth(line).expect("an entry"));
    let now: u64 = server
        .cli(&["TIME"])
        .await
        .lines()
        .next()
        .and_then(|s| s.parse().ok())
        .expect("a time");
    let later = format!("{}", (now + 3_600) * 1_000);
    server
        .cli(&["ZADD", "pythia:{orders}:consumers:pythia", &later, consumer])
        .await;
    server
        .cli(&[
            "XCLAIM", "orders", "pythia", consumer, "0", id, "IDLE", "60000", "JUSTID",
        ])
        .await;
    let late = report(&bench.config).await;
    let finding = the(&late, Code::OldPending);
    assert_eq!(finding.severity(), Severity::Warning);
    assert!(finding.what().contains("1m"), "{finding}");
    none_of(&late, Code::OrphanConsumer);
    drop(worker);
    takes_back(&bench, 1).await;
    none_of(&report(&bench.config).await, Code::OldPending);
}

#[tokio::test]
async fn another_type_under_the_queues_name_is_found_and_mended() {
    for pattern in ["list", "stream"] {
        let server = RedisServer::start().await;
        let config = config(pattern, &server.url(), "");
        server.cli(&["HSET", "orders", "f", "v"]).await;
        mends(&server, &config, Severity::Critical, Code::WrongType).await;
        assert_eq!(server.cli(&["HGET", "{orders}:hash", "f"]).await, "v");
    }
}

/// However many keys there are, only so many are looked at.
#[tokio::test]
async fn the_work_is_bounded() {
    let server = RedisServer::start().await;
    let fill = "for i = 1, 30000 do redis.call('SET', 'k' .. i, '') end";
    server.cli(&["EVAL", fill, "0"]).await;
    server.cli(&["CONFIG", "RESETSTAT"]).await;
    report(&config("list", &server.url(), "")).await;
    let stats = server.cli(&["INFO", "commandstats"]).await;
    let calls: u64 = stats
        .lines()
        .filter_map(|line| {
            line.split_once("calls=")?
                .1
                .split(',')
                .next()?
                .parse::<u64>()
                .ok()
        })
        .sum();
    assert!(calls < 150, "{stats}");
    let scans = stats.lines().find(|line| line.starts_with("cmdstat_scan:"));
    assert!(
        scans.is_some_and(|line| line.contains("calls=20,")),
        "{stats}"
    );
    assert!(!stats.contains("cmdstat_keys"), "{stats}");
}
