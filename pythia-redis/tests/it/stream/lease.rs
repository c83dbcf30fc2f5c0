//! Who owns a message, and what becomes of one whose owner is silent.

use super::*;
use crate::relay::Relay;

#[tokio::test]
async fn a_dead_workers_messages_are_in_other_hands_within_a_lease_and_a_tick() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    publish(&broker, (0..5).map(|i| i.to_string())).await;
    let mut worker = subscribe(&broker).await;
    maintain(&broker).await;
    let held = {
        let mut dies = subscribe(&broker).await;
        take(&mut dies, 5).await
    };
    let died = Instant::now();
    let mut recovered = 0;
    while recovered < 5 {
        // Another worker's sign of life: this is no outage.
        assert_eq!(renew(&worker, &[]).await, []);
        recovered += maintain(&broker).await.recovered;
        sleep(Duration::from_millis(20)).await;
    }
    let took = Instant::now() - died;
    assert!(
        took < Duration::from_millis(1_200),
        "{took:?} on a lease of 600 ms"
    );
    let again = take(&mut worker, 5).await;
    assert_eq!(bodies(&again), bodies(&held));
    assert!(
        again
            .iter()
            .all(|delivery| (delivery.crashes, delivery.failures, delivery.alone) == (1, 0, false))
    );
    assert!(
        again
            .iter()
            .zip(&held)
            .all(|(again, held)| (&again.id, again.enqueued_at) == (&held.id, held.enqueued_at))
    );
}

#[tokio::test]
async fn who_lost_the_lease_can_neither_settle_nor_renew_nor_take_back() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    publish(&broker, ["a".into(), "b".into(), "c".into(), "d".into()]).await;
    let (mut slow, mut quick) = (subscribe(&broker).await, subscribe(&broker).await);
    let lost = take(&mut slow, 4).await;
    recover_all(&broker, 4).await;
    let owned = take(&mut quick, 4).await;

    let receipts: Vec<_> = lost.iter().map(|delivery| delivery.receipt).collect();
    assert_eq!(
        renew(&slow, &lost).await,
        receipts,
        "a renewal says what is lost"
    );
    assert_eq!(
        ack(&slow, &lost[..1]).await,
        1,
        "and the renewed lease gives nothing back"
    );
    let batch = [
        retry(&lost[1], Duration::from_millis(1)),
        dead(&lost[2], "no"),
        disposed(&lost[3], Disposition::Release),
    ];
    assert_eq!(settle(&slow, &batch).await, 3);

    assert_eq!(
        renew(&quick, &owned).await,
        [],
        "the new owner has not noticed"
    );
    assert_eq!(ack(&quick, &owned).await, 0);
    let depth = broker
        .admin()
        .expect("streams have it")
        .depth(&orders())
        .await
        .expect("redis runs");
    assert_eq!(
        (depth.pending, depth.delayed, depth.dead),
        (Some(0), Some(0), Some(0))
    );
}

#[tokio::test]
async fn a_late_renewal_keeps_what_nobody_has_taken() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    publish(&broker, ["a".into(), "b".into()]).await;
    let mut worker = subscribe(&broker).await;
    let held = take(&mut worker, 2).await;
    // The lease is over, and no upkeep came by.
    server
        .cli(&[
            "ZADD",
            "pythia:{orders}:consumers:g",
            "1",
            &consumer(&server).await,
        ])
        .await;
    assert_eq!(ack(&worker, &held[..1]).await, 0);
    assert_eq!(renew(&worker, &held[1..]).await, []);
    assert_eq!(ack(&worker, &held[1..]).await, 0);
}

#[tokio::test]
async fn what_another_consumer_claimed_by_hand_is_lost_and_stays_there() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let id = xadd(&server, "a").await;
    let mut worker = subscribe(&broker).await;
    let held = take(&mut worker, 1).await;
    server
        .cli(&["XCLAIM", "orders", "g", "somebody", "0", &id])
        .await;
    server
        .cli(&[
            "ZADD",
            "pythia:{orders}:consumers:g",
            "1",
            &consumer(&server).await,
        ])
        .await;
    assert_eq!(ack(&worker, &held).await, 1);
    assert_eq!(settle(&worker, &[retry(&held[0], Duration::ZERO)]).await, 1);
    assert_eq!(renew(&worker, &held).await, [held[0].receipt]);
    let owner = server
        .cli(&["XPENDING", "orders", "g", "-", "+", "10"])
        .await;
    assert!(owner.contains("somebody"), "{owner}");
}

#[tokio::test]
async fn a_renewed_message_stays_for_many_leases() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| config.lease = Duration::from_millis(300));
    publish(&broker, (0..2_500).map(|i| i.to_string())).await;
    let mut worker = subscribe(&broker).await;
    let held = take(&mut worker, 2_500).await;
    let patience = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < patience {
        assert_eq!(renew(&worker, &held).await, []);
        assert_eq!(maintain(&broker).await.recovered, 0);
        sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(ack(&worker, &held).await, 0);
}

#[tokio::test]
async fn after_an_outage_owners_have_half_a_lease_to_renew_first() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    publish(&broker, ["a".into()]).await;
    let mut worker = subscribe(&broker).await;
    let held = take(&mut worker, 1).await;
    maintain(&broker).await;
    server.pause();
    sleep(Duration::from_millis(900)).await;
    server.resume();
    // Whoever comes back first: the message is far older than its lease.
    assert_eq!(maintain(&broker).await.recovered, 0);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(maintain(&broker).await.recovered, 0);
    assert_eq!(renew(&worker, &held).await, []);
    assert_eq!(ack(&worker, &held).await, 0);
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_comes_again_at_once_and_counts_as_no_crash() {
    let server = RedisServer::start().await;
    let relay = Relay::to(server.port()).await;
    let broker = StreamBroker::new(config(&relay.url())).expect("valid settings");
    let mut worker = subscribe(&broker).await;
    publish(&group(&server, "g"), (0..50).map(|i| i.to_string())).await;
    relay.lose_next_large_answer();
    let mut taken = Vec::new();
    let error = worker
        .source
        .receive(50, &mut taken)
        .await
        .expect_err("the answer is lost");
    assert!(
        error.is_unavailable() && taken.is_empty() && relay.has_lost_it(),
        "{error}"
    );
    assert_eq!(
        pending(&server, "pythia").await,
        [50, 0, 0],
        "the server has given them out"
    );
    let began = Instant::now();
    while taken.len() < 50 {
        // The connection may still be coming up again.
        let _error = worker.source.receive(50, &mut taken).await;
        assert!(
            Instant::now() - began < Duration::from_millis(500),
            "{} came",
            taken.len()
        );
    }
    assert!(taken.iter().all(|delivery| delivery.attempt() == 1));
    assert_eq!(ack(&worker, &taken).await, 0);
    assert_eq!(pending(&server, "pythia").await, [0, 0, 0]);
    nothing(&mut worker).await;
}

#[tokio::test]
async fn what_somebody_deleted_in_flight_is_cleared_away() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let id = xadd(&server, "a").await;
    let worker = {
        let mut worker = subscribe(&broker).await;
        take_one(&mut worker).await;
        worker
    };
    server.cli(&["XDEL", "orders", &id]).await;
    let patience = Instant::now() + Duration::from_secs(5);
    while pending(&server, "g").await != [0, 0, 0] {
        assert!(Instant::now() < patience);
        assert_eq!(renew(&worker, &[]).await, []);
        assert_eq!(maintain(&broker).await.recovered, 0);
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn dead_consumers_are_removed_and_strangers_are_not() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| config.lease = Duration::from_millis(200));
    publish(&broker, ["a".into()]).await;
    let dead = {
        let mut dies = subscribe(&broker).await;
        take_one(&mut dies).await;
        server
            .cli(&["ZRANGE", "pythia:{orders}:consumers:pythia", "0", "-1"])
            .await
    };
    let mut stays = subscribe(&broker).await;
    server
        .cli(&["XGROUP", "CREATECONSUMER", "orders", "pythia", "stranger"])
        .await;
    let patience = Instant::now() + Duration::from_secs(5);
    loop {
        assert_eq!(renew(&stays, &[]).await, []);
        maintain(&broker).await;
        if number(&server, &["ZCARD", "pythia:{orders}:consumers:pythia"]).await == 1 {
            break;
        }
        assert!(Instant::now() < patience);
        sleep(Duration::from_millis(20)).await;
    }
    let left = server
        .cli(&["XINFO", "CONSUMERS", "orders", "pythia"])
        .await;
    assert!(left.contains("stranger") && !left.contains(&dead), "{left}");
    assert_eq!(take_one(&mut stays).await.crashes, 1);
}

/// The name of the only consumer.
async fn consumer(server: &RedisServer) -> String {
    server
        .cli(&["ZRANGE", "pythia:{orders}:consumers:g", "0", "-1"])
        .await
}
