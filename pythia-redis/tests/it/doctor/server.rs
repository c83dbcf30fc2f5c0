//! What is found of one server.

use std::path::Path;
use std::time::Duration;

use pythia_redis::doctor::{Code, Severity, examine};
use pythia_redis::testing::RedisServer;
use tokio::time::{Instant, sleep};

use super::{config, mend, mends, none_of, orders, report, the, with_snapshots};
use crate::relay::Forger;

/// As `config/redis.conf` has it.
async fn production() -> RedisServer {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/redis.conf");
    RedisServer::start_with(&["--include", file.to_str().expect("a plain path")]).await
}

#[tokio::test]
async fn of_a_server_as_we_propose_it_there_is_nothing_to_say() {
    let server = production().await;
    for pattern in ["list", "stream", "pubsub"] {
        let report = report(&config(pattern, &server.url(), "")).await;
        assert!(report.findings().is_empty(), "{report}");
        let [server] = report.servers() else {
            panic!("{report}");
        };
        assert_eq!(server.purpose, "queues and store");
        assert_eq!(server.role.as_deref(), Some("master"));
        assert_eq!(server.eviction_policy.as_deref(), Some("noeviction"));
        assert_eq!(server.memory_max, Some(2 << 30));
        assert!(server.clock_skew_ms.expect("it has a clock").abs() < 2_000);
        let persistence = server.persistence.as_ref().expect("it says so");
        assert_eq!(persistence.loss_window, "the last 1 to 2 s");
        assert!(!server.paths.is_empty());
    }
}

/// The lowest severity at which a plain server of a developer is silent is that of a note.
#[tokio::test]
async fn a_server_as_it_comes_is_no_reason_to_warn() {
    let server = with_snapshots("3600 1 300 100 60 10000").await;
    let report = report(&config("list", &server.url(), "")).await;
    assert_eq!(report.worst(), Some(Severity::Note), "{report}");
}

#[tokio::test]
async fn a_policy_that_evicts_is_found_and_mended() {
    let server = production().await;
    let config = config("list", &server.url(), "");
    for (policy, limit, severity) in [
        ("allkeys-lru", "2gb", Severity::Critical),
        ("allkeys-random", "0", Severity::Warning),
        ("volatile-ttl", "2gb", Severity::Warning),
        ("volatile-lru", "0", Severity::Note),
    ] {
        server.cli(&["CONFIG", "SET", "maxmemory", limit]).await;
        server
            .cli(&["CONFIG", "SET", "maxmemory-policy", policy])
            .await;
        let before = report(&config).await;
        let finding = the(&before, Code::EvictionPolicy);
        assert!(finding.what().contains(policy), "{finding}");
        mends(&server, &config, severity, Code::EvictionPolicy).await;
    }
}

#[tokio::test]
async fn a_cache_and_queues_are_not_to_be_on_one_instance_that_evicts() {
    let (server, cache) = (production().await, production().await);
    for server in [&server, &cache] {
        server
            .cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
            .await;
    }
    let same = format!("redis.store_url = {:?}", format!("{}/3", server.url()));
    for more in ["", &same] {
        let config = config("stream", &server.url(), more);
        let shared = report(&config).await;
        assert_eq!(
            the(&shared, Code::SharedEviction).severity(),
            Severity::Warning
        );
    }
    let apart = format!("redis.store_url = {:?}", cache.url());
    let apart = config("stream", &server.url(), &apart);
    let of_queues = report(&apart).await;
    none_of(&of_queues, Code::SharedEviction);
    the(&of_queues, Code::EvictionPolicy);
    mends(
        &server,
        &config("stream", &server.url(), ""),
        Severity::Warning,
        Code::SharedEviction,
    )
    .await;
    // A cache of its own may evict.
    let healthy = report(&apart).await;
    assert!(healthy.findings().is_empty(), "{healthy}");
    assert_eq!(healthy.servers()[1].purpose, "store");
    assert_eq!(
        healthy.servers()[1].eviction_policy.as_deref(),
        Some("allkeys-lru")
    );
    // Channels hold nothing that could be evicted.
    server
        .cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .await;
    let channels = report(&config("pubsub", &server.url(), "")).await;
    assert!(channels.findings().is_empty(), "{channels}");
}

#[tokio::test]
async fn a_server_that_writes_nothing_to_disk_is_found_and_mended() {
    let server = RedisServer::start().await;
    let list = config("list", &server.url(), "");
    let before = report(&list).await;
    let [state] = before.servers() else {
        panic!("{before}");
    };
    let persistence = state.persistence.as_ref().expect("it says so");
    assert!(
        persistence.loss_window.starts_with("everything"),
        "{before}"
    );
    // Channels keep nothing anyway.
    none_of(
        &report(&config("pubsub", &server.url(), "")).await,
        Code::NoPersistence,
    );
    mends(&server, &list, Severity::Warning, Code::NoPersistence).await;
}

#[tokio::test]
async fn the_loss_window_is_the_actual_one() {
    let server = with_snapshots("3600 1 300 100").await;
    let config = config("stream", &server.url(), "");
    server.cli(&["SET", "k", "v"]).await;
    server.cli(&["SET", "k", "w"]).await;
    let snapshots = report(&config).await;
    let finding = the(&snapshots, Code::LossWindow);
    assert_eq!(finding.severity(), Severity::Note);
    assert!(finding.meaning().contains("up to 1h"), "{finding}");
    assert!(finding.meaning().contains("2 changes since"), "{finding}");
    mends(&server, &config, Severity::Note, Code::LossWindow).await;

    server.cli(&["CONFIG", "SET", "appendfsync", "no"]).await;
    mends(&server, &config, Severity::Note, Code::LossWindow).await;
    server
        .cli(&["CONFIG", "SET", "appendfsync", "always"])
        .await;
    let always = report(&config).await;
    let persistence = always.servers()[0]
        .persistence
        .as_ref()
        .expect("it says so");
    assert_eq!(persistence.loss_window, "nothing");
    none_of(&always, Code::LossWindow);

    let pausing = ["CONFIG", "SET", "no-appendfsync-on-rewrite", "yes"];
    server.cli(&pausing).await;
    mends(&server, &config, Severity::Note, Code::LossWindow).await;
}

#[tokio::test]
async fn a_snapshot_that_fails_is_found_and_mended() {
    let server = with_snapshots("3600 1").await;
    let config = config("list", &server.url(), "");
    let folder = server.cli(&["CONFIG", "GET", "dir"]).await;
    let in_the_way = Path::new(folder.lines().last().expect("a folder")).join("dump.rdb");
    std::fs::create_dir_all(in_the_way.join("full")).expect("the folder is ours");
    saves(&server, "err").await;
    let failing = report(&config).await;
    let finding = the(&failing, Code::PersistenceFailing);
    assert_eq!(finding.severity(), Severity::Critical, "{finding}");
    assert!(
        server
            .cli(&["LPUSH", "orders", "1"])
            .await
            .starts_with("MISCONF")
    );
    server
        .cli(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"])
        .await;
    let tolerated = report(&config).await;
    assert_eq!(
        the(&tolerated, Code::PersistenceFailing).severity(),
        Severity::Warning
    );
    std::fs::remove_dir_all(in_the_way).expect("the folder is ours");
    mend(&server, finding);
    says(&server, "persistence", "rdb_last_bgsave_status:ok").await;
    none_of(&report(&config).await, Code::PersistenceFailing);
}

/// Saves until it ends like this.
async fn saves(server: &RedisServer, outcome: &str) {
    server.cli(&["BGSAVE"]).await;
    let outcome = format!("rdb_last_bgsave_status:{outcome}");
    says(server, "persistence", &outcome).await;
}

/// Until the server says so of itself: it counts now and then.
async fn says(server: &RedisServer, section: &str, wanted: &str) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !server.cli(&["INFO", section]).await.contains(wanted) {
        assert!(Instant::now() < patience, "no {wanted}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn little_memory_is_found_and_mended() {
    let server = production().await;
    let config = config("list", &server.url(), "");
    // So much that a connection more or less makes no difference.
    let value = "v".repeat(100_000);
    for key in 0..500 {
        server.cli(&["SET", &key.to_string(), &value]).await;
    }
    for (percent, severity) in [
        (70, None),
        (87, Some(Severity::Warning)),
        (98, Some(Severity::Critical)),
    ] {
        let used = report(&config).await.servers()[0]
            .memory_used
            .expect("it says so");
        let limit = (used * 100 / percent).to_string();
        server.cli(&["CONFIG", "SET", "maxmemory", &limit]).await;
        match severity {
            Some(severity) => mends(&server, &config, severity, Code::MemoryHeadroom).await,
            None => none_of(&report(&config).await, Code::MemoryHeadroom),
        }
    }
}

/// Twice as much would bring the system's own killer.
#[tokio::test]
async fn no_more_memory_is_advised_than_the_machine_has() {
    let server = production().await;
    let memory = server.cli(&["INFO", "memory"]).await;
    let total = memory
        .lines()
        .find(|line| line.starts_with("total_system_memory:"));
    let total = total.expect("it says so").trim().to_owned();
    let used = memory
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    let used: u64 = used
        .and_then(|used| used.trim().parse().ok())
        .expect("it says so");
    let limit = used * 10 / 9;
    server
        .cli(&["CONFIG", "SET", "maxmemory", &limit.to_string()])
        .await;
    let name = "total_system_memory:";
    let small = format!(
        "{name}{:0>width$}",
        limit * 2,
        width = total.len() - name.len()
    );
    let forger = Forger::between(server.port(), total, small).await;
    let report = report(&config("list", &forger.url(), "")).await;
    let finding = the(&report, Code::MemoryHeadroom);
    assert_eq!(finding.command(), None, "{finding}");
    assert!(finding.advice().contains("larger machine"), "{finding}");
}

#[tokio::test]
async fn a_replica_is_found_with_its_primary() {
    let primary = production().await;
    let replica = RedisServer::start_replica_of(&primary).await;
    let config = config("list", &replica.url(), "");
    let read_only = report(&config).await;
    let finding = the(&read_only, Code::Replica);
    assert_eq!(finding.severity(), Severity::Critical);
    assert!(finding.meaning().contains("READONLY"), "{finding}");
    let address = format!("127.0.0.1:{}", primary.port());
    assert!(finding.advice().contains(&address), "{finding}");
    let advised = super::config("list", &format!("redis://{address}"), "");
    none_of(&report(&advised).await, Code::Replica);

    replica
        .cli(&["CONFIG", "SET", "replica-read-only", "no"])
        .await;
    let writable = report(&config).await;
    let finding = the(&writable, Code::Replica);
    assert!(finding.what().contains("takes writes"), "{finding}");
}

#[tokio::test]
async fn a_primary_without_the_replicas_that_it_waits_for_is_found_and_mended() {
    let server = production().await;
    let config = config("list", &server.url(), "");
    server
        .cli(&["CONFIG", "SET", "min-replicas-to-write", "2"])
        .await;
    let replica = RedisServer::start_replica_of(&server).await;
    says(&server, "replication", "min_slaves_good_slaves:1").await;
    let one = report(&config).await;
    let finding = the(&one, Code::TooFewReplicas);
    assert!(finding.what().contains("is 2, and 1"), "{finding}");
    assert!(
        server
            .cli(&["LPUSH", "orders", "1"])
            .await
            .starts_with("NOREPLICAS")
    );
    mends(&server, &config, Severity::Critical, Code::TooFewReplicas).await;
    assert_eq!(server.cli(&["LPUSH", "orders", "1"]).await, "1");
    drop(replica);
}

/// The clock of a real server can't be moved: what it says is forged on the way.
#[tokio::test]
async fn clocks_that_differ_are_found() {
    let server = production().await;
    let of_first_digit = |digit| format!("*2\r\n$10\r\n{digit}");
    let ahead = Forger::between(server.port(), of_first_digit(1), of_first_digit(2)).await;
    let report = report(&config("list", &ahead.url(), "")).await;
    let finding = the(&report, Code::ClockSkew);
    assert_eq!(finding.severity(), Severity::Warning);
    assert!(finding.what().contains("ahead of ours"), "{finding}");
    assert!(finding.meaning().contains("leases"), "{finding}");
    assert!(
        report.servers()[0].clock_skew_ms > Some(900_000_000_000),
        "{report}"
    );
}

#[tokio::test]
async fn sharded_channels_on_a_version_that_has_none_are_found() {
    let server = production().await;
    let version = server.cli(&["INFO", "server"]).await;
    let version = version
        .lines()
        .find(|line| line.starts_with("redis_version:"));
    let version = version.expect("it says so").trim().to_owned();
    let old = format!(
        "redis_version:6.2{:0<width$}",
        ".",
        width = version.len() - "redis_version:6.2".len()
    );
    let forger = Forger::between(server.port(), version.clone(), old).await;
    let sharded = "redis.pubsub.mode = \"sharded\"";
    let of_old = report(&config("pubsub", &forger.url(), sharded)).await;
    let finding = the(&of_old, Code::UnsupportedVersion);
    assert_eq!(finding.severity(), Severity::Critical);
    none_of(
        &report(&config("pubsub", &server.url(), sharded)).await,
        Code::UnsupportedVersion,
    );

    let at_most_once = "redis.list.delivery = \"at-most-once\"";
    for (url, path) in [(forger.url(), "BRPOP"), (server.url(), "BLMPOP (7.0")] {
        let report = report(&config("list", &url, at_most_once)).await;
        let [server] = report.servers() else {
            panic!("{report}");
        };
        assert!(
            server.paths.iter().any(|taken| taken.contains(path)),
            "{report}"
        );
    }
}

#[tokio::test]
async fn a_store_that_is_down_is_found_and_redis_itself_is_an_error() {
    let (server, mut store) = (production().await, production().await);
    let more = format!("redis.store_url = {:?}", store.url());
    let config = config("list", &server.url(), &more);
    store.stop().await;
    let without_store = report(&config).await;
    let finding = the(&without_store, Code::Unreachable);
    assert_eq!(finding.severity(), Severity::Critical);
    assert!(
        finding.about().contains(&store.port().to_string()),
        "{finding}"
    );

    let nobody = super::config("list", &store.url(), "");
    let error = examine(&nobody, &orders())
        .await
        .expect_err("nobody is there");
    assert!(error.is_unavailable(), "{error}");
    let memory = super::config("memory", &server.url(), "");
    let error = examine(&memory, &orders())
        .await
        .expect_err("there is no redis");
    assert!(error.to_string().contains("broker.type"), "{error}");
}

#[tokio::test]
async fn a_tool_reads_the_report_as_json_and_people_as_text() {
    let server = RedisServer::start().await;
    let report = report(&config("list", &server.url(), "")).await;
    let json = serde_json::to_value(&report).expect("it is plain data");
    assert_eq!(json["servers"][0]["role"], "master");
    assert_eq!(json["findings"][0]["code"], "no-persistence");
    assert_eq!(json["findings"][0]["severity"], "warning");
    assert_eq!(json["findings"][0]["command"], "CONFIG SET appendonly yes");
    let text = report.to_string();
    for part in [
        ", master",
        "a power cut loses everything",
        "warning [no-persistence] 127.0.0.1:",
        "    means: a crash",
        "    mend:  redis-cli CONFIG SET appendonly yes\n",
        "0 critical, 1 warnings, 0 notes",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}
