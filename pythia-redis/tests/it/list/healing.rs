//! Whatever is done to the server, workers go on by themselves.

use pythia_core::BrokerErrorKind;

use super::*;

#[tokio::test]
async fn after_flushall_nothing_has_to_be_rebuilt() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    let mut worker = subscribe(&broker).await;
    lpush(&server, &["a", "b"]).await;
    let lost = take(&mut worker, 2).await;
    server.cli(&["FLUSHALL"]).await;
    server.cli(&["SCRIPT", "FLUSH"]).await;
    let receipts: Vec<_> = lost.iter().map(|one| one.receipt).collect();
    assert_eq!(
        worker.settler.extend(&receipts).await.expect("redis runs"),
        receipts
    );
    assert_eq!(settle(&worker, &lost[..1], retry(Duration::ZERO)).await, 1);
    assert_eq!(ack(&worker, &lost[1..]).await, 1);
    lpush(&server, &["c"]).await;
    let next = take(&mut worker, 1).await;
    assert_eq!(ack(&worker, &next).await, 0);
    // A settle of what is gone leaves nothing behind either.
    let patience = Instant::now() + Duration::from_secs(10);
    while server
        .cli(&["KEYS", "pythia:{orders}:[^c]*"])
        .await
        .contains("held")
    {
        maintain(&broker).await;
        assert!(
            Instant::now() < patience,
            "{}",
            server.cli(&["KEYS", "*"]).await
        );
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_is_held_survives_a_restart() {
    let mut server =
        RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let broker = on(&server);
    lpush(&server, &["a", "b", "c"]).await;
    let mut worker = subscribe(&broker).await;
    let held = take(&mut worker, 2).await;
    server.kill().await;
    let failed = worker.source.receive(1, &mut Vec::new()).await;
    let failed = failed.expect_err("nobody answers");
    assert!(failed.is_unavailable(), "{failed:?}");
    server.restart().await;
    let mut next = Vec::new();
    let patience = Instant::now() + Duration::from_secs(20);
    while next.is_empty() {
        assert!(Instant::now() < patience);
        // It reconnects by itself; until then each read fails.
        let _away = worker.source.receive(1, &mut next).await;
    }
    assert_eq!(bodies(&next), ["c"]);
    let mut stale = None;
    while stale.is_none() {
        assert!(Instant::now() < patience);
        let acks: Vec<_> = held
            .iter()
            .chain(&next)
            .map(|one| Settlement::Ack(one.receipt))
            .collect();
        stale = worker
            .settler
            .settle(&acks)
            .await
            .ok()
            .map(|settled| settled.stale);
    }
    assert_eq!(stale, Some(0), "they were ours all the time");
}

/// A restart or a fail-over may undo what Redis had confirmed. The owner knows nothing of it, and lives on.
#[tokio::test]
async fn a_settle_that_redis_has_forgotten_does_not_leave_its_messages_in_limbo() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    lpush(&server, &["a", "b"]).await;
    let mut worker = subscribe(&broker).await;
    let first = take(&mut worker, 2).await;
    let held = server.cli(&["KEYS", "pythia:{orders}:held:*"]).await;
    let batch = server.cli(&["KEYS", "pythia:{orders}:batch:*"]).await;
    for key in [&held, &batch] {
        server.cli(&["COPY", key, &format!("{key}:before")]).await;
    }
    assert_eq!(ack(&worker, &first).await, 0);
    lpush(&server, &["c"]).await;
    let open = take(&mut worker, 1).await;
    let now = server.cli(&["HGET", &held, "2"]).await;
    for key in [&held, &batch] {
        server.cli(&["RENAME", &format!("{key}:before"), key]).await;
    }
    // What was claimed since is still there.
    server.cli(&["HSET", &held, "2", &now, "claim", "2"]).await;

    let receipts: Vec<_> = open.iter().map(|delivery| delivery.receipt).collect();
    // What can't go back while something else has the queue's name keeps nobody from its leases.
    server.cli(&["SET", "orders", "no list"]).await;
    assert_eq!(worker.settler.extend(&receipts).await.unwrap(), []);
    server.cli(&["DEL", "orders"]).await;
    assert_eq!(worker.settler.extend(&receipts).await.unwrap(), []);
    let again = take(&mut worker, 2).await;
    assert_eq!(bodies(&again), ["a", "b"]);
    assert_eq!(again[0].attempt(), 1, "nobody has crashed");
    assert_eq!(ack(&worker, &open).await, 0);
    assert_eq!(ack(&worker, &again).await, 0);
    assert_eq!(server.cli(&["HKEYS", &held]).await, "claim\nsettle\nstale");
}

#[tokio::test]
async fn another_type_under_the_queues_name_is_refused_until_it_is_gone() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    let mut worker = subscribe(&broker).await;
    lpush(&server, &["a"]).await;
    let held = take(&mut worker, 1).await;
    server.cli(&["SET", "orders", "no list"]).await;
    let mut errors = vec![
        worker.source.receive(1, &mut Vec::new()).await.err(),
        broker.subscribe(&orders()).await.err(),
        broker
            .publish(&orders(), vec![Message::new("x")])
            .await
            .err(),
        broker
            .publish(&orders(), vec![Message::new("x").dedupe_key("k")])
            .await
            .err(),
        broker.maintain(&orders(), 5).await.err(),
    ];
    let admin = broker.admin().expect("it has one");
    errors.push(admin.depth(&orders()).await.err());
    // Its other dispositions don't need the list.
    let release = [Settlement::new(held[0].clone(), Disposition::Release)];
    errors.push(worker.settler.settle(&release).await.err());
    for error in errors {
        let error = error.expect("it is no list");
        assert_eq!(error.kind(), BrokerErrorKind::WrongType, "{error}");
        assert!(error.to_string().contains("\"orders\""), "{error}");
    }
    assert_eq!(server.cli(&["GET", "orders"]).await, "no list");
    server.cli(&["DEL", "orders"]).await;
    assert_eq!(settle(&worker, &held, Disposition::Release).await, 0);
    assert_eq!(bodies(&take(&mut worker, 1).await), ["a"]);
}

#[tokio::test]
async fn a_full_redis_takes_nothing_in_and_is_drained() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    let mut worker = subscribe(&broker).await;
    publish(&broker, numbered(10).into_iter().map(Message::new)).await;
    publish(
        &broker,
        [Message::new("later").delay(Duration::from_millis(1))],
    )
    .await;
    let set = async |memory: &str| server.cli(&["CONFIG", "SET", "maxmemory", memory]).await;
    assert_eq!(set("1").await, "OK");
    let refused = broker.publish(&orders(), vec![Message::new("x")]).await;
    let kind = refused.expect_err("it is full").kind();
    assert_eq!(kind, BrokerErrorKind::OutOfMemory);
    let deliveries = take(&mut worker, 10).await;
    let receipts: Vec<_> = deliveries.iter().map(|one| one.receipt).collect();
    assert_eq!(
        worker.settler.extend(&receipts).await.expect("redis runs"),
        []
    );
    assert_eq!(
        settle(&worker, &deliveries[..1], retry(Duration::from_secs(60))).await,
        0
    );
    assert_eq!(
        settle(&worker, &deliveries[1..2], dead(DeadKind::Permanent, "no")).await,
        0
    );
    assert_eq!(
        settle(&worker, &deliveries[2..3], Disposition::Release).await,
        0
    );
    assert_eq!(ack(&worker, &deliveries[3..]).await, 0);
    assert_eq!(maintain(&broker).await.promoted, 1);
    assert_eq!(bodies(&take(&mut worker, 2).await), ["m2", "later"]);
    drop(worker);
    assert_eq!(recovery(&broker).await.recovered, 2);
    let depth = broker.admin().expect("it has one").depth(&orders()).await;
    let depth = depth.expect("redis runs");
    assert_eq!(
        (depth.ready, depth.delayed, depth.dead),
        (Some(2), Some(1), Some(1))
    );
}

#[tokio::test]
async fn a_frozen_redis_is_waited_for() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| {
        config.command_timeout = Duration::from_secs(2)
    });
    let mut worker = subscribe(&broker).await;
    server.pause();
    let failed = worker.source.receive(10, &mut Vec::new()).await;
    assert!(failed.expect_err("it is frozen").is_unavailable());
    server.resume();
    lpush(&server, &["a"]).await;
    let mut taken = Vec::new();
    let patience = Instant::now() + Duration::from_secs(20);
    while taken.is_empty() {
        assert!(Instant::now() < patience);
        let _away = worker.source.receive(10, &mut taken).await;
    }
    assert_eq!(bodies(&taken), ["a"]);
    assert_eq!(ack(&worker, &taken).await, 0);
}
