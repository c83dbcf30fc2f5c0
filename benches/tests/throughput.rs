//! The measuring program runs, and counts what it was given.

use std::process::{Command, Output};

use pythia_redis::testing::RedisServer;
use serde_json::Value;

const FEW: [&str; 5] = ["--messages", "2000", "--rounds", "1", "--json"];

fn throughput(args: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_throughput"));
    program.args(args).output().expect("it runs")
}

/// What it prints with these arguments, of a few messages.
fn measured(args: &[&str]) -> Value {
    let output = throughput(&[args, &FEW].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

/// Each of them has been settled, at some rate.
fn is_whole(args: &[&str], row: &Value) {
    assert_eq!(row["error_rate"], 0.0, "{args:?}: {row}");
    let rate = row["rate"]["median"].as_f64().expect("a rate");
    assert!(rate > 0.0 && rate.is_finite(), "{args:?}: {row}");
    if args.contains(&"drain") {
        let steady = row["steady"].as_f64().expect("it is drained");
        assert!(steady > 0.0 && steady.is_finite(), "{args:?}: {row}");
    }
}

#[test]
fn every_pattern_is_drained_and_so_is_what_it_is_compared_with() {
    for args in [
        &["drain", "--pattern", "list", "--compare", "raw"][..],
        &[
            "drain",
            "--pattern",
            "list",
            "--delivery",
            "at-most-once",
            "--compare",
            "raw",
        ],
        &[
            "drain",
            "--pattern",
            "stream",
            "--compare",
            "raw",
            "--rtt",
            "1",
        ],
        &["drain", "--pattern", "pubsub", "--compare", "raw"],
        &["drain", "--pattern", "memory"],
    ] {
        let report = measured(args);
        is_whole(args, &report["pythia"]);
        if args.contains(&"raw") {
            is_whole(args, &report["by_hand"]);
            assert!(report["ratio"].is_number(), "{report}");
        }
    }
}

#[test]
fn a_queue_is_filled_again_when_it_is_drained() {
    for pattern in ["list", "stream"] {
        let args = ["drain", "--pattern", pattern, "--waiting", "1000"];
        let args = [&args[..], &["--batch", "100", "--compare", "raw"]].concat();
        let report = measured(&args);
        for contender in ["pythia", "by_hand"] {
            is_whole(&args, &report[contender]);
            let row = &report[contender];
            assert_eq!(row["fillings"], 2, "{row}");
            // Redis has filled the queue meanwhile, with the same messages.
            assert!(row["redis_us"].is_null(), "{row}");
            assert!(row["wait_ms"].is_null(), "{row}");
        }
    }
    for (wrong, why) in [
        (&["drain", "--waiting", "300"][..], "multiple"),
        (&["drain", "--waiting", "0"], "1 at least"),
        (&["drain", "--waiting", "2000000"], "1000000 at most"),
        (
            &["drain", "--pattern", "memory", "--waiting", "100"],
            "memory",
        ),
        (&["latency", "--waiting", "100"], "drain"),
    ] {
        let output = throughput(&[wrong, &FEW].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{said}");
    }
}

#[test]
fn publishing_waiting_and_idling_are_measured() {
    for pattern in ["list", "stream"] {
        let args = ["enqueue", "--pattern", pattern, "--compare", "raw"];
        let report = measured(&args);
        is_whole(&args, &report["pythia"]);
        is_whole(&args, &report["by_hand"]);
    }
    let args = [
        "latency",
        "--pattern",
        "list",
        "--rate",
        "100",
        "--seconds",
        "1",
        "--compare",
        "raw",
    ];
    let report = measured(&args);
    for contender in ["pythia", "by_hand"] {
        let half = report[contender]["wait_ms"]["p50"].as_f64();
        assert!(half.is_some_and(|ms| ms > 0.0), "{report}");
    }
    // Redis counts a wait when it is over, and each takes a second.
    let report = measured(&["idle", "--pattern", "list", "--seconds", "3"]);
    let commands = report["pythia"]["commands_per_second"].as_object();
    assert!(
        commands.is_some_and(|commands| commands.contains_key("blmove")),
        "{report}"
    );
}

/// On somebody's own server: their keys stay, and none of ours do.
#[tokio::test]
async fn a_server_in_use_is_refused_and_an_unused_one_left_empty() {
    let server = RedisServer::start().await;
    let drain = ["drain", "--pattern", "list", "--redis", &server.url()];
    server
        .cli(&["SET", "app:pythia-throughput", "theirs"])
        .await;
    server.cli(&["SET", "another", "theirs"]).await;
    let output = throughput(&[&drain[..], &FEW].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("app:pythia-throughput"), "{said}");
    let kept = server.cli(&["GET", "app:pythia-throughput"]).await;
    assert_eq!(kept, "theirs");

    server.cli(&["DEL", "app:pythia-throughput"]).await;
    is_whole(&drain, &measured(&drain)["pythia"]);
    assert_eq!(server.cli(&["KEYS", "*"]).await, "another");
}

#[test]
fn what_would_have_no_effect_is_refused() {
    for (args, why) in [
        (
            &["drain", "--aof", "no", "--redis", "redis://127.0.0.1:1"][..],
            "--aof",
        ),
        (&["drain", "--pattern", "memory", "--rtt", "1"], "in memory"),
        (&["drain", "--rtt=-1"], "--rtt"),
        (&["latency", "--rate", "1000001"], "--rate"),
        (&["drain", "--threads", "0"], "--threads is 1 at least"),
        (
            &["drain", "--pattern", "stream", "--delivery", "at-most-once"],
            "at most once",
        ),
        (
            &["drain", "--redis", "redis://:secret@127.0.0.1:1"],
            "no connection to redis://127.0.0.1:1",
        ),
    ] {
        let output = throughput(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(why),
            "{args:?}: {said}"
        );
    }
}
