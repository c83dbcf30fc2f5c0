//! Redis has carried a command out, and its answer never arrives.

use super::*;
use crate::relay::Relay;

#[tokio::test]
async fn a_claim_without_an_answer_is_the_same_claim_again() {
    let server = RedisServer::start().await;
    let relay = Relay::to(server.port()).await;
    let broker = at(&relay.url(), |_| {});
    let mut worker = subscribe(&broker).await;
    let bodies_sent = numbered(100);
    publish(&on(&server), bodies_sent.iter().cloned().map(Message::new)).await;
    relay.lose_next_large_answer();
    let mut taken = Vec::new();
    let lost = worker.source.receive(100, &mut taken).await;
    assert!(lost.expect_err("its answer is lost").is_unavailable());
    assert!(taken.is_empty() && relay.has_lost_it());
    assert_eq!(server.cli(&["LLEN", "orders"]).await, "0", "it is claimed");
    let again = take(&mut worker, 100).await;
    assert_eq!(bodies(&again), bodies_sent);
    assert_eq!(ack(&worker, &again).await, 0);
    assert_eq!(
        server.cli(&["HKEYS", &held_key(&server).await]).await,
        "claim\nsettle\nstale"
    );
}

/// A worker that has claimed all 100 messages, and does not know it.
async fn claimed_without_an_answer() -> (RedisServer, Relay, Subscription) {
    let server = RedisServer::start().await;
    let relay = Relay::to(server.port()).await;
    let broker = at(&relay.url(), |_| {});
    let mut worker = subscribe(&broker).await;
    publish(&on(&server), numbered(100).into_iter().map(Message::new)).await;
    relay.lose_next_large_answer();
    let lost = worker.source.receive(100, &mut Vec::new()).await;
    lost.expect_err("its answer is lost");
    (server, relay, worker)
}

#[tokio::test]
async fn a_claim_without_an_answer_can_be_asked_for_in_a_smaller_size() {
    let (server, _relay, mut worker) = claimed_without_an_answer().await;
    // As the runtime does behind a slow worker, and the source itself behind a slow network.
    let again = take(&mut worker, 10).await;
    assert_eq!(bodies(&again), numbered(100)[..10]);
    assert_eq!(server.cli(&["LLEN", "orders"]).await, "90");
    assert_eq!(bodies(&take(&mut worker, 90).await), numbered(100)[10..]);
    assert_eq!(ack(&worker, &again).await, 0);
}

#[tokio::test]
async fn a_claim_without_an_answer_goes_back_when_the_source_closes() {
    let (server, _relay, mut worker) = claimed_without_an_answer().await;
    worker
        .source
        .close(&mut Vec::new())
        .await
        .expect("redis runs");
    assert_eq!(server.cli(&["LLEN", "orders"]).await, "100");
    let mut other = subscribe(&on(&server)).await;
    let deliveries = take(&mut other, 100).await;
    assert_eq!(bodies(&deliveries), numbered(100), "in their old order");
    assert!(deliveries.iter().all(|one| one.attempt() == 1));
}

#[tokio::test]
async fn what_can_not_go_back_when_the_source_closes_is_not_lost() {
    let (server, _relay, mut worker) = claimed_without_an_answer().await;
    // The list is empty, so its name was free.
    server.cli(&["SET", "orders", "no list"]).await;
    let refused = worker.source.close(&mut Vec::new()).await;
    refused.expect_err("there is no list to hand it back to");
    server.cli(&["DEL", "orders"]).await;
    let broker = on(&server);
    recovery(&broker).await;
    let mut heir = subscribe(&broker).await;
    assert_eq!(bodies(&take(&mut heir, 100).await), numbered(100));
}

#[tokio::test]
async fn a_settle_without_an_answer_is_not_taken_for_a_loss_nor_done_twice() {
    let server = RedisServer::start().await;
    let relay = Relay::to(server.port()).await;
    let broker = at(&relay.url(), |_| {});
    lpush(&server, &["a", "b", "c", "d"]).await;
    let mut worker = subscribe(&broker).await;
    let deliveries = take(&mut worker, 4).await;
    for (part, disposition) in [
        (&deliveries[..1], Disposition::Ack),
        (&deliveries[1..2], retry(Duration::ZERO)),
        (&deliveries[2..], dead(DeadKind::Permanent, "no")),
    ] {
        // The connection sends it again by itself.
        relay.lose_next_answer_to("pythia:{orders}:dead");
        assert_eq!(
            settle(&worker, part, disposition.clone()).await,
            0,
            "{disposition:?}"
        );
        assert!(relay.has_lost_it());
    }
    let count = async |key: &str| {
        server
            .cli(&["ZCARD", &format!("pythia:{{orders}}:{key}")])
            .await
    };
    assert_eq!(
        (count("delayed").await, count("dead").await),
        ("1".into(), "2".into())
    );
    assert_eq!(
        server.cli(&["HKEYS", &held_key(&server).await]).await,
        "claim\nsettle\nstale"
    );
}

#[tokio::test]
async fn a_settle_that_fails_is_repeated_and_its_stale_ones_counted_once() {
    let mut server =
        RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let broker = with(&server, |config| {
        config.command_timeout = Duration::from_secs(5)
    });
    lpush(&server, &["a", "b"]).await;
    let mut worker = subscribe(&broker).await;
    let deliveries = take(&mut worker, 2).await;
    let acks: Vec<_> = deliveries
        .iter()
        .map(|one| Settlement::Ack(one.receipt))
        .collect();
    server.kill().await;
    let failed = worker.settler.settle(&acks[..1]).await;
    assert!(failed.expect_err("nobody answers").is_unavailable());
    server.restart().await;
    let patience = Instant::now() + Duration::from_secs(20);
    let settled = loop {
        match worker.settler.settle(&acks[..1]).await {
            Ok(settled) => break settled,
            Err(error) => assert!(Instant::now() < patience, "{error}"),
        }
    };
    assert_eq!(settled.stale, 0);
    assert_eq!(ack(&worker, &deliveries[1..]).await, 0);
    assert_eq!(server.cli(&["KEYS", "pythia:{orders}:batch:*"]).await, "");
}

#[tokio::test]
async fn a_keyed_publish_without_an_answer_is_published_once() {
    let server = RedisServer::start().await;
    let relay = Relay::to(server.port()).await;
    let broker = at(&relay.url(), |_| {});
    let batch = vec![
        Message::new("a").dedupe_key("k"),
        Message::new("b").delay(Duration::from_secs(60)),
    ];
    relay.lose_next_answer_to("pythia:{orders}:dedupe:k");
    let published = broker
        .publish(&orders(), batch)
        .await
        .expect("it is sent again");
    assert!(relay.has_lost_it());
    assert!(
        published
            .iter()
            .all(|one| matches!(one, pythia_core::broker::Published::Published(_)))
    );
    assert_eq!(server.cli(&["LLEN", "orders"]).await, "1");
    assert_eq!(server.cli(&["ZCARD", "pythia:{orders}:delayed"]).await, "1");
}

#[tokio::test]
async fn a_claim_that_the_network_held_up_claims_nothing_anew() {
    let server = RedisServer::start().await;
    let relay = Relay::to(server.port()).await;
    let broker = at(&relay.url(), |_| {});
    lpush(&server, &["a"]).await;
    let mut worker = subscribe(&broker).await;
    // The script is in the server's cache from here on.
    let first = take(&mut worker, 1).await;
    assert_eq!(ack(&worker, &first).await, 0);
    lpush(&server, &["b"]).await;
    assert_eq!(bodies(&take(&mut worker, 1).await), ["b"]);
    lpush(&server, &["c"]).await;
    relay.hold_next_request("EVALSHA");
    let mut taken = Vec::new();
    while taken.is_empty() {
        let _held_up = worker.source.receive(1, &mut taken).await;
    }
    assert_eq!(bodies(&taken), ["c"]);
    assert_eq!(ack(&worker, &taken).await, 0);
    lpush(&server, &["d"]).await;
    relay.deliver().await;
    assert_eq!(server.cli(&["LRANGE", "orders", "0", "-1"]).await, "d");
    assert_eq!(bodies(&take(&mut worker, 1).await), ["d"]);
}

#[tokio::test]
async fn a_settle_that_the_network_held_up_settles_nothing_anew() {
    let server = RedisServer::start().await;
    let relay = Relay::to(server.port()).await;
    let broker = at(&relay.url(), |_| {});
    lpush(&server, &["a", "b", "c", "d"]).await;
    let mut worker = subscribe(&broker).await;
    let deliveries = take(&mut worker, 4).await;
    assert_eq!(ack(&worker, &deliveries[..1]).await, 0);
    relay.hold_next_request("pythia:{orders}:dead");
    assert_eq!(ack(&worker, &deliveries[1..2]).await, 0, "sent again");
    assert_eq!(ack(&worker, &deliveries[2..3]).await, 0);
    relay.deliver().await;
    let left = server.cli(&["HGET", &held_key(&server).await, "1"]).await;
    assert_eq!(left, "1", "counted once");
    let release = settle(&worker, &deliveries[3..], Disposition::Release).await;
    assert_eq!(release, 0);
    assert_eq!(bodies(&take(&mut worker, 1).await), ["d"]);
}

/// The one consumer's bookkeeping.
async fn held_key(server: &RedisServer) -> String {
    let keys = server.cli(&["KEYS", "pythia:{orders}:held:*"]).await;
    assert_eq!(keys.lines().count(), 1, "{keys}");
    keys
}
