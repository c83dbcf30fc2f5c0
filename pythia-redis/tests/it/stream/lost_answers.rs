//! Redis has carried a settle out, in part or whole, and the worker does not know.

use super::*;
use crate::relay::Relay;

#[tokio::test]
async fn a_settle_without_an_answer_is_not_taken_for_a_loss_nor_done_twice() {
    let server = RedisServer::start().await;
    let relay = Relay::to(server.port()).await;
    let broker = StreamBroker::new(config(&relay.url())).expect("valid settings");
    let mut worker = subscribe(&broker).await;
    publish(&broker, ["a", "b", "c", "d"].map(str::to_owned)).await;
    let held = take(&mut worker, 4).await;
    for (settlement, kind) in [
        (Settlement::Ack(held[0].receipt), ":acks"),
        (retry(&held[1], Duration::from_secs(60)), ":moves"),
        (dead(&held[2], "no"), ":moves"),
        (disposed(&held[3], Disposition::Release), ":moves"),
    ] {
        // The connection sends it again by itself.
        relay.lose_next_answer_to(kind);
        let stale = settle(&worker, std::slice::from_ref(&settlement)).await;
        assert_eq!(stale, 0, "{settlement:?}");
        assert!(relay.has_lost_it());
    }
    assert_eq!(state(&broker).await, [1, 0, 1, 1]);
}

#[tokio::test]
async fn what_a_settle_has_done_before_it_failed_is_not_stale_when_it_is_repeated() {
    let server = RedisServer::start().await;
    let broker = group(&server, "pythia");
    let mut worker = subscribe(&broker).await;
    publish(&broker, ["a", "b", "c", "d"].map(str::to_owned)).await;
    let held = take(&mut worker, 4).await;
    // Another has it by now.
    let id = server
        .cli(&["XPENDING", "orders", "pythia", "-", "+", "1"])
        .await;
    let id = id.lines().next().expect("four are pending");
    server
        .cli(&["XCLAIM", "orders", "pythia", "other", "0", id, "JUSTID"])
        .await;
    renew(&worker, &[]).await;
    let batch = [
        retry(&held[0], Duration::from_secs(60)),
        Settlement::Ack(held[1].receipt),
        retry(&held[2], Duration::from_secs(60)),
        dead(&held[3], "no"),
    ];
    let delayed = "pythia:{orders}:delayed:pythia";
    server.cli(&["SET", delayed, "somebody's"]).await;
    for _ in 0..2 {
        let failed = worker.settler.settle(&batch).await;
        failed.expect_err("something else is stored there");
    }
    assert_eq!(pending(&server, "pythia").await, [3, 0, 0], "one is acked");
    server.cli(&["DEL", delayed]).await;
    assert_eq!(settle(&worker, &batch).await, 1, "what another has");
    assert_eq!(state(&broker).await, [0, 1, 1, 1]);
    assert_eq!(
        settle(&worker, &batch).await,
        4,
        "a new settle, not a repeat"
    );
}

#[tokio::test]
async fn a_settle_that_fails_half_way_through_its_moves_is_repeated_from_there() {
    let server = RedisServer::start().await;
    let broker = group(&server, "pythia");
    let mut worker = subscribe(&broker).await;
    publish(&broker, ["a".into(), "b".into()]).await;
    let held = take(&mut worker, 2).await;
    let batch = [
        retry(&held[0], Duration::from_secs(60)),
        dead(&held[1], "no"),
    ];
    let letters = "pythia:{orders}:dead:pythia";
    server.cli(&["SET", letters, "somebody's"]).await;
    let failed = worker.settler.settle(&batch).await;
    failed.expect_err("something else is stored there");
    server.cli(&["DEL", letters]).await;
    assert_eq!(settle(&worker, &batch).await, 0);
    assert_eq!(state(&broker).await, [0, 0, 1, 1]);
}

/// How many are ready, pending, delayed and dead.
async fn state(broker: &StreamBroker) -> [u64; 4] {
    let admin = broker.admin().expect("streams have it");
    let depth = admin.depth(&orders()).await.expect("redis runs");
    [depth.ready, depth.pending, depth.delayed, depth.dead].map(|count| count.expect("it is known"))
}
