//! A whole worker on a real Redis, whatever the pattern: what it can't read, and a Redis that comes and goes.

use pythia_core::Payload;
use pythia_core::admin::Page;
use pythia_core::settlement::DeadKind;
use pythia_core::testing::Record;
use pythia_redis::testing::RedisServer;

use crate::bench::Bench;

#[tokio::test]
async fn a_list_worker_buries_what_it_can_not_read_and_goes_on() {
    buries_bad_input("list").await;
}

#[tokio::test]
async fn a_stream_worker_buries_what_it_can_not_read_and_goes_on() {
    buries_bad_input("stream").await;
}

#[tokio::test]
async fn a_pubsub_worker_reports_what_it_can_not_read_and_goes_on() {
    buries_bad_input("pubsub").await;
}

/// Bodies that are not `{"number": 7}`, beside many megabytes of nothing.
const BAD: [&[u8]; 7] = [
    br#"{"number":"#,
    br#"{"number":"seven"}"#,
    br#"{"count":7}"#,
    b"",
    b"\xFF\xFE\x00\x01",
    // Another program's message.
    br#"{"body":"W1s3XSwge30sIHt9XQ==","content-type":"application/json","headers":{"task":"tasks.add"},"properties":{}}"#,
    // What begins as a frame of ours, and is none.
    b"\xF5PY1\x00\x00\xFF\xFF\xFF\xFFrest",
];

async fn buries_bad_input(pattern: &str) {
    let server = RedisServer::start().await;
    let bench = Bench::new(&server.url(), pattern);
    let mut bad: Vec<Vec<u8>> = BAD.iter().map(|body| body.to_vec()).collect();
    // By default Redis disconnects a subscriber who has 32 MiB to read.
    let large = if pattern == "pubsub" { 16 } else { 64 };
    bad.push(vec![b'x'; large << 20]);
    let drive = async {
        for body in &bad {
            bench.write(&server, body).await;
        }
        bench.write(&server, br#"{"number":7}"#).await;
        bench.log.wait_settled(bad.len() as u64 + 1).await;
    };
    bench.run(drive).await;
    assert_eq!(bench.seen(), [7]);
    let records = bench.log.records().into_iter();
    let reported = records.filter_map(|record| match record {
        Record::DeadLettered {
            queue,
            reason,
            kept,
            ..
        } => Some((queue, reason, kept)),
        _ => None,
    });
    let reported: Vec<_> = reported.collect();
    assert_eq!(reported.len(), bad.len());
    for (queue, reason, kept) in reported {
        assert_eq!((queue.as_str(), reason.kind), ("orders", DeadKind::Decode));
        let length = reason.error.len();
        assert!(
            (1..1_000).contains(&length),
            "{length} bytes: {}",
            reason.error
        );
        assert_eq!(kept, pattern != "pubsub");
    }
    if pattern == "pubsub" {
        return;
    }
    let admin = bench.broker.admin().unwrap();
    let letters = admin.dead(&bench.queue, Page::first(100)).await.unwrap();
    let mut bodies: Vec<&[u8]> = letters
        .iter()
        .map(|letter| body(&letter.delivery.payload))
        .collect();
    // Two lanes bury at the same time, so their order is any.
    bodies.sort_unstable();
    bad.sort_unstable();
    // Not by `assert_eq`, which would print 64 MiB.
    assert!(
        bodies == bad,
        "other bytes than were sent, of {} letters",
        bodies.len()
    );
}

#[tokio::test]
async fn a_dead_letter_of_a_list_that_can_not_be_stored_holds_up_nobody() {
    holds_up_nobody("list", "pythia:{orders}:dead").await;
}

#[tokio::test]
async fn a_dead_letter_of_a_stream_that_can_not_be_stored_holds_up_nobody() {
    holds_up_nobody("stream", "pythia:{orders}:dead:pythia").await;
}

/// Something else has the name of the dead letters.
async fn holds_up_nobody(pattern: &str, dead: &str) {
    let server = RedisServer::start().await;
    let bench = Bench::new(&server.url(), pattern);
    server.cli(&["SET", dead, "not a letter"]).await;
    // Before there is a worker, so that it fetches, and settles, many at once.
    for number in 0..20 {
        if number % 7 == 3 {
            bench.write(&server, b"not a number").await;
        }
        bench.write_number(&server, number).await;
    }
    let drive = async {
        bench.log.wait_settled(20).await;
        assert_eq!(bench.log.settled().dead, 0, "there is no place for them");
        server.cli(&["DEL", dead]).await;
        bench.log.wait_settled(23).await;
    };
    bench.run(drive).await;
    let settled = bench.log.settled();
    assert_eq!((settled.acked, settled.dead, settled.stale), (20, 3, 0));
}

#[tokio::test]
async fn a_pubsub_worker_that_is_stopped_processes_what_it_has_received() {
    let server = RedisServer::start().await;
    let bench = Bench::new(&server.url(), "pubsub");
    let publish = async {
        bench.write_number(&server, 0).await;
        // In one go, so that nearly all of them are in the worker's buffer when it is told to stop.
        let script =
            r#"for n = 1, 4999 do redis.call('PUBLISH', KEYS[1], '{"number":' .. n .. '}') end"#;
        server.cli(&["EVAL", script, "1", "orders"]).await;
    };
    bench.run(publish).await;
    assert_eq!(bench.seen().len(), 5_000);
    assert_eq!(bench.log.lost(), 0);
}

#[tokio::test]
async fn a_list_worker_gets_over_a_redis_that_comes_and_goes() {
    gets_over_outages("list").await;
}

#[tokio::test]
async fn a_stream_worker_gets_over_a_redis_that_comes_and_goes() {
    gets_over_outages("stream").await;
}

#[tokio::test]
async fn a_pubsub_worker_gets_over_a_redis_that_comes_and_goes() {
    gets_over_outages("pubsub").await;
}

/// Redis is away when the worker starts, is killed while the worker works, and both times nobody but Redis does anything
/// about it.
async fn gets_over_outages(pattern: &str) {
    let mut server =
        RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let bench = Bench::new(&server.url(), pattern);
    server.stop().await;
    let drive = async {
        bench
            .log
            .wait_for(|records| records.iter().any(is_fetch_failure))
            .await;
        let failure = bench.log.records().into_iter().find(is_fetch_failure);
        let Some(Record::FetchFailed { error, .. }) = failure else {
            unreachable!("it was there a moment ago")
        };
        let error = error.to_string();
        assert!(
            error.contains("orders") && error.contains(&server.port().to_string()),
            "{error}"
        );
        assert!(error.contains("refused"), "{error}");

        server.restart().await;
        for number in 0..100 {
            bench.write_number(&server, number).await;
        }
        bench.sees(50).await;
        server.kill().await;
        server.restart().await;
        // What is published while nobody is subscribed is nobody's, on pub/sub.
        if pattern == "pubsub" {
            return bench.hears_again(&server).await;
        }
        for number in 100..200 {
            bench.write_number(&server, number).await;
        }
        bench.sees(200).await;
    };
    bench.run(drive).await;
    if pattern != "pubsub" {
        assert_eq!(bench.seen(), (0..200).collect::<Vec<_>>());
        let depth = bench
            .broker
            .admin()
            .unwrap()
            .depth(&bench.queue)
            .await
            .unwrap();
        assert_eq!(
            (depth.ready, depth.pending, depth.dead),
            (Some(0), Some(0), Some(0))
        );
    }
}

fn is_fetch_failure(record: &Record) -> bool {
    matches!(record, Record::FetchFailed { .. })
}

fn body(payload: &Payload) -> &[u8] {
    match payload {
        Payload::Bytes(bytes) => bytes,
        Payload::Fields(fields) => &fields[0].1,
        other => panic!("{other:?}"),
    }
}
