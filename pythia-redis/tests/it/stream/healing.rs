//! Whatever is done to the server, the reading goes on by itself.

use pythia_core::BrokerErrorKind;

use super::*;

#[tokio::test]
async fn a_destroyed_group_goes_on_where_it_was() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let mut worker = subscribe(&broker).await;
    publish(&broker, ["done".into()]).await;
    let done = take(&mut worker, 1).await;
    assert_eq!(ack(&worker, &done).await, 0);
    maintain(&broker).await;
    publish(&broker, ["held".into()]).await;
    let held = take(&mut worker, 1).await;
    let destroy = async {
        sleep(Duration::from_millis(100)).await;
        server.cli(&["XGROUP", "DESTROY", "orders", "g"]).await;
        publish(&broker, ["new".into()]).await;
    };
    let (_, again) = tokio::join!(destroy, take(&mut worker, 2));
    assert_eq!(
        bodies(&again),
        ["held", "new"],
        "what was pending comes again, what was done does not"
    );
    assert_eq!(
        settle(&worker, &[retry(&held[0], Duration::ZERO)]).await,
        0,
        "it is this consumer's again"
    );
}

#[tokio::test]
async fn a_settle_without_a_group_is_stale() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let mut worker = subscribe(&broker).await;
    publish(&broker, ["a".into(), "b".into()]).await;
    let held = take(&mut worker, 2).await;
    server.cli(&["FLUSHALL"]).await;
    assert_eq!(ack(&worker, &held[..1]).await, 1);
    assert_eq!(settle(&worker, &[retry(&held[1], Duration::ZERO)]).await, 1);
    assert_eq!(renew(&worker, &held).await.len(), 2);
    assert_eq!(maintain(&broker).await.recovered, 0);
}

#[tokio::test]
async fn nothing_is_passed_over_after_a_deletion() {
    for destroy in [
        &["DEL", "orders"][..],
        &["FLUSHALL"],
        &["RENAME", "orders", "elsewhere"],
        &["DEL", "pythia:{orders}:retry:g"],
    ] {
        for while_blocked in [true, false] {
            let server = RedisServer::start().await;
            // Even a group that began at the end must not begin there again.
            let broker = with(&server, |config| {
                config.stream.group = "g".to_owned();
                config.stream.start = "$".to_owned().try_into().expect("a valid start");
            });
            let mut worker = subscribe(&broker).await;
            publish(&broker, ["before".into()]).await;
            let before = take(&mut worker, 1).await;
            assert_eq!(ack(&worker, &before).await, 0);
            maintain(&broker).await;
            let disturb = async {
                if while_blocked {
                    sleep(Duration::from_millis(100)).await;
                }
                server.cli(destroy).await;
                publish(&broker, ["after".into()]).await;
            };
            if !while_blocked {
                disturb.await;
                assert_eq!(
                    bodies(&take(&mut worker, 1).await),
                    ["after"],
                    "{destroy:?}"
                );
            } else {
                let (_, after) = tokio::join!(disturb, take(&mut worker, 1));
                assert_eq!(bodies(&after), ["after"], "{destroy:?}, blocked");
            }
        }
    }
}

#[tokio::test]
async fn a_restart_loses_nothing_that_the_server_keeps() {
    let mut server =
        RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let broker = group(&server, "g");
    let mut worker = subscribe(&broker).await;
    publish(&broker, ["held".into(), "waiting".into()]).await;
    let held = take(&mut worker, 1).await;
    server.kill().await;
    let mut nothing = Vec::new();
    let error = worker
        .source
        .receive(1, &mut nothing)
        .await
        .expect_err("nobody answers");
    assert!(error.is_unavailable(), "{error}");
    server.restart().await;
    let patience = Instant::now() + Duration::from_secs(10);
    let mut taken = Vec::new();
    while taken.is_empty() {
        assert!(Instant::now() < patience);
        if worker.source.receive(1, &mut taken).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(
        bodies(&taken),
        ["waiting"],
        "what is in this worker's hands is not handed to it twice"
    );
    assert_eq!(ack(&worker, &[held, taken].concat()).await, 0);
}

#[tokio::test]
async fn another_type_under_the_name_is_named() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    server.cli(&["LPUSH", "orders", "x"]).await;
    let subscribe = broker.subscribe(&orders()).await.map(drop);
    let publish = broker
        .publish(&orders(), vec![Message::new("x")])
        .await
        .map(drop);
    let maintain = broker.maintain(&orders(), LIMIT).await.map(drop);
    let depth = broker
        .admin()
        .expect("streams have it")
        .depth(&orders())
        .await
        .map(drop);
    for answer in [subscribe, publish, maintain, depth] {
        let error = answer.expect_err("a list is no stream");
        assert_eq!(error.kind(), BrokerErrorKind::WrongType, "{error}");
        assert!(error.to_string().contains("\"orders\""), "{error}");
    }
    // It heals when the key is gone.
    let mut worker = {
        server.cli(&["DEL", "orders"]).await;
        super::subscribe(&broker).await
    };
    super::publish(&broker, ["a".into()]).await;
    let held = take(&mut worker, 1).await;
    server.cli(&["DEL", "orders"]).await;
    server.cli(&["SET", "orders", "x"]).await;
    let error = worker
        .source
        .receive(1, &mut Vec::new())
        .await
        .expect_err("a string is no stream");
    assert_eq!(error.kind(), BrokerErrorKind::WrongType, "{error}");
    server.cli(&["DEL", "orders"]).await;
    super::publish(&broker, ["b".into()]).await;
    assert_eq!(bodies(&take(&mut worker, 1).await), ["b"]);
    assert_eq!(ack(&worker, &held).await, 1);
}

#[tokio::test]
async fn a_full_redis_takes_nothing_in_and_is_drained() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| config.stream.trim_approximate = false);
    let mut worker = super::subscribe(&broker).await;
    super::publish(&broker, (0..10).map(|n| format!("m{n}"))).await;
    let held = take(&mut worker, 10).await;
    let set = async |memory: &str| server.cli(&["CONFIG", "SET", "maxmemory", memory]).await;
    assert_eq!(set("1").await, "OK");
    let error = broker
        .publish(&orders(), vec![Message::new("x")])
        .await
        .expect_err("no memory");
    assert_eq!(error.kind(), BrokerErrorKind::OutOfMemory, "{error}");
    let receipts: Vec<_> = held.iter().map(|one| one.receipt).collect();
    let lost = worker.settler.extend(&receipts).await;
    assert_eq!(lost.expect("a lease takes no memory"), []);
    let moves = [
        retry(&held[7], Duration::from_millis(1)),
        dead(&held[8], "no"),
        disposed(&held[9], Disposition::Release),
    ];
    assert_eq!(settle(&worker, &moves).await, 0);
    assert_eq!(ack(&worker, &held[..7]).await, 0);
    let patience = Instant::now() + Duration::from_secs(10);
    let (mut promoted, mut trimmed) = (0, 0);
    while (promoted, trimmed) != (1, 10) {
        assert!(
            Instant::now() < patience,
            "promoted {promoted}, trimmed {trimmed}"
        );
        let round = maintain(&broker).await;
        promoted += round.promoted;
        trimmed += round.trimmed;
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(server.cli(&["XLEN", "orders"]).await, "0");
    // One that is started now has to drain it, too.
    let mut second = super::subscribe(&broker).await;
    let taken = take(&mut second, 2).await;
    let mut taken = bodies(&taken);
    taken.sort_unstable();
    assert_eq!(taken, ["m7", "m9"]);
    drop(second);
    recover_all(&broker, 2).await;
    worker
        .source
        .close(&mut Vec::new())
        .await
        .expect("redis runs");
}

#[tokio::test]
async fn a_frozen_server_costs_one_failed_read_and_nothing_else() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let mut worker = subscribe(&broker).await;
    nothing(&mut worker).await;
    server.pause();
    let error = worker
        .source
        .receive(10, &mut Vec::new())
        .await
        .expect_err("nobody answers");
    assert!(error.is_unavailable(), "{error}");
    server.resume();
    publish(&broker, ["a".into()]).await;
    let patience = Instant::now() + Duration::from_secs(10);
    let mut taken = Vec::new();
    while taken.is_empty() {
        assert!(Instant::now() < patience);
        if worker.source.receive(10, &mut taken).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!((bodies(&taken), taken[0].attempt()), (vec!["a"], 1));
}
