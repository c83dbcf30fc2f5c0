//! What is read, and by whom.

use pythia_core::EntryFields;

use super::*;

#[tokio::test]
async fn what_redis_cli_adds_is_consumed() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let id = server
        .cli(&["XADD", "orders", "*", "user", "7", "note", "größer"])
        .await;
    let mut worker = subscribe(&broker).await;
    let delivery = take_one(&mut worker).await;
    assert_eq!(delivery.id.as_str(), id);
    let fields = EntryFields::from([("user", "7"), ("note", "größer")]);
    assert_eq!(delivery.payload, Payload::Fields(fields));
    assert_eq!((delivery.attempt(), delivery.alone), (1, false));
    assert!(delivery.enqueued_at.is_some());
    assert_eq!(ack(&worker, &[delivery]).await, 0);
    assert_eq!(pending(&server, "g").await, [0, 0, 0]);
}

#[tokio::test]
async fn fields_that_look_like_replies_are_only_fields() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    for words in [
        ["message", "a", "b", "c"],
        ["subscribe", "a", "pmessage", "1"],
        ["pythia", "x", "y", "z"],
    ] {
        server
            .cli(&[&["XADD", "orders", "*"], &words[..]].concat())
            .await;
        server
            .cli(&[&["XADD", "orders", "*"], &words[..2]].concat())
            .await;
    }
    let mut worker = subscribe(&broker).await;
    let deliveries = take(&mut worker, 6).await;
    assert!(deliveries[0].payload.field("message").is_some());
    assert!(deliveries[5].payload.field("pythia").is_some());
    let again: Vec<_> = deliveries
        .iter()
        .map(|delivery| disposed(delivery, Disposition::Release))
        .collect();
    assert_eq!(settle(&worker, &again).await, 0);
    let returned = take(&mut worker, 6).await;
    for (before, after) in deliveries.iter().zip(&returned) {
        assert_eq!((&before.payload, &before.id), (&after.payload, &after.id));
    }
    let letters: Vec<_> = returned
        .iter()
        .map(|delivery| dead(delivery, "no"))
        .collect();
    assert_eq!(settle(&worker, &letters).await, 0);
    let admin = broker.admin().expect("streams have it");
    let letters = admin
        .dead(&orders(), pythia_core::admin::Page::first(10))
        .await
        .expect("redis runs");
    assert_eq!(letters.len(), 6);
}

#[tokio::test]
async fn every_group_gets_everything_and_its_workers_share_it() {
    let server = RedisServer::start().await;
    let (billing, audit) = (group(&server, "billing"), group(&server, "audit"));
    publish(&billing, (0..20).map(|i| format!("{i:02}"))).await;
    let (mut one, mut two) = (subscribe(&billing).await, subscribe(&billing).await);
    let mut other = subscribe(&audit).await;
    let mut shared = take(&mut one, 10).await;
    shared.extend(take(&mut two, 10).await);
    let all: Vec<_> = (0..20).map(|i| format!("{i:02}")).collect();
    assert_eq!(bodies(&shared), all);
    assert_eq!(bodies(&take(&mut other, 20).await), all);
}

#[tokio::test]
async fn what_one_group_tries_again_no_other_group_sees() {
    let server = RedisServer::start().await;
    let (billing, audit) = (group(&server, "billing"), group(&server, "audit"));
    let (mut ours, mut theirs) = (subscribe(&billing).await, subscribe(&audit).await);
    for value in ["released", "retried", "recovered", "requeued"] {
        xadd(&server, value).await;
    }
    let deliveries = take(&mut ours, 4).await;
    let seen = take(&mut theirs, 4).await;
    assert_eq!(ack(&theirs, &seen).await, 0);
    let batch = [
        disposed(&deliveries[0], Disposition::Release),
        retry(&deliveries[1], Duration::from_millis(1)),
        dead(&deliveries[3], "no"),
    ];
    assert_eq!(settle(&ours, &batch).await, 0);
    let admin = billing.admin().expect("streams have it");
    assert_eq!(
        admin
            .requeue(&orders(), None, 10)
            .await
            .expect("redis runs"),
        1
    );
    recover_all(&billing, 1).await;
    let again = take(&mut ours, 4).await;
    assert_eq!(
        bodies(&again),
        ["recovered", "released", "requeued", "retried"]
    );
    maintain(&audit).await;
    nothing(&mut theirs).await;
}

#[tokio::test]
async fn a_blocked_reader_gets_what_comes_at_once() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let (mut holder, mut waiter) = (subscribe(&broker).await, subscribe(&broker).await);
    publish(&broker, ["a".to_owned()]).await;
    let held = take_one(&mut holder).await;
    let began = Instant::now();
    let release = async {
        sleep(Duration::from_millis(200)).await;
        settle(&holder, &[disposed(&held, Disposition::Release)]).await
    };
    let (released, stale) = tokio::join!(take_one(&mut waiter), release);
    let waited = Instant::now() - began;
    assert_eq!((stale, body(&released)), (0, "a"));
    assert_eq!((released.attempt(), &released.id), (1, &held.id));
    assert!(
        waited < Duration::from_millis(600),
        "{waited:?}: not after a lease, nor at the end of the read"
    );
}

#[tokio::test]
async fn a_read_brings_no_more_than_asked_and_keeps_the_rest_under_its_lease() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let mut worker = subscribe(&broker).await;
    publish(&broker, ["a".to_owned(), "b".to_owned()]).await;
    let released: Vec<_> = take(&mut worker, 2)
        .await
        .iter()
        .map(|held| disposed(held, Disposition::Release))
        .collect();
    settle(&worker, &released).await;
    publish(&broker, ["c".to_owned(), "d".to_owned()]).await;
    // Both streams hold two, and one is asked for: the server counts each stream for itself.
    let mut taken = vec![take_one(&mut worker).await];
    assert_eq!(
        pending(&server, "g").await.iter().sum::<u64>(),
        2,
        "one is read ahead"
    );
    let patience = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < patience {
        assert_eq!(renew(&worker, &taken).await, []);
        assert_eq!(
            maintain(&broker).await.recovered,
            0,
            "what is read ahead is renewed too"
        );
        sleep(Duration::from_millis(50)).await;
    }
    taken.extend(take(&mut worker, 3).await);
    assert_eq!(bodies(&taken), ["a", "b", "c", "d"]);
    assert!(taken.iter().all(|delivery| delivery.crashes == 0));
    assert_eq!(ack(&worker, &taken).await, 0);
}

#[tokio::test]
async fn a_closed_source_hands_back_what_it_read_ahead_and_leaves_no_trace() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let (mut leaver, mut stayer) = (subscribe(&broker).await, subscribe(&broker).await);
    publish(&broker, ["a".to_owned(), "b".to_owned()]).await;
    let released: Vec<_> = take(&mut leaver, 2)
        .await
        .iter()
        .map(|held| disposed(held, Disposition::Release))
        .collect();
    settle(&leaver, &released).await;
    publish(&broker, ["c".to_owned()]).await;
    let held = take_one(&mut leaver).await;
    assert_eq!(ack(&leaver, &[held]).await, 0);
    leaver
        .source
        .close(&mut Vec::new())
        .await
        .expect("redis runs");
    let taken = take(&mut stayer, 2).await;
    assert!(taken.iter().all(|delivery| delivery.attempt() == 1));
    assert_eq!(ack(&stayer, &taken).await, 0);
    for key in ["orders", "pythia:{orders}:retry:g"] {
        let consumers = server.cli(&["XINFO", "CONSUMERS", key, "g"]).await;
        assert!(consumers.matches("pending").count() <= 1, "{consumers}");
    }
    assert_eq!(
        number(&server, &["ZCARD", "pythia:{orders}:consumers:g"]).await,
        1
    );
}

#[tokio::test]
async fn what_is_done_leaves_nothing_in_the_groups_own_streams() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let mut worker = subscribe(&broker).await;
    publish(&broker, (0..10).map(|i| i.to_string())).await;
    for _ in 0..3 {
        let batch: Vec<_> = take(&mut worker, 10)
            .await
            .iter()
            .map(|held| retry(held, Duration::ZERO))
            .collect();
        assert_eq!(settle(&worker, &batch).await, 0);
    }
    let last = take(&mut worker, 10).await;
    assert!(last.iter().all(|delivery| delivery.failures == 3));
    assert_eq!(ack(&worker, &last).await, 0);
    assert_eq!(
        number(&server, &["XLEN", "pythia:{orders}:retry:g"]).await,
        0
    );
}

#[tokio::test]
async fn ids_beyond_a_receipt_come_through_the_retry_stream() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let mut worker = subscribe(&broker).await;
    server
        .cli(&["XADD", "orders", "9223372036854775807-1", "k", "large"])
        .await;
    server
        .cli(&["XADD", "orders", "18446744073709551615-1", "k", "too large"])
        .await;
    let large = take_one(&mut worker).await;
    assert_eq!(body(&large), "large");
    assert_eq!(ack(&worker, &[large]).await, 0);
    nothing(&mut worker).await;
    recover_all(&broker, 1).await;
    let delivery = take_one(&mut worker).await;
    assert_eq!(
        (body(&delivery), delivery.id.as_str()),
        ("too large", "18446744073709551615-1")
    );
    assert_eq!(ack(&worker, &[delivery]).await, 0);
}
