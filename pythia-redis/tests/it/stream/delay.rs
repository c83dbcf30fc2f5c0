//! What waits for its time.

use std::time::SystemTime;

use pythia_core::admin::Page;

use super::*;

#[tokio::test]
async fn a_retry_waits_counts_and_keeps_everything() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let mut worker = subscribe(&broker).await;
    let message = Message::new("body").id("order-1").header("tenant", "blue");
    broker
        .publish(&orders(), vec![message])
        .await
        .expect("redis runs");
    let first = take_one(&mut worker).await;
    let began = Instant::now();
    assert_eq!(
        settle(&worker, &[retry(&first, Duration::from_millis(400))]).await,
        0
    );
    assert_eq!(pending(&server, "g").await, [0, 0, 0], "it frees its place");
    let listed = broker
        .admin()
        .expect("streams have it")
        .delayed(&orders(), Page::first(5))
        .await
        .expect("redis runs");
    assert_eq!(
        (listed.len(), listed[0].delivery.id.as_str()),
        (1, "order-1")
    );
    let due = maintain(&broker)
        .await
        .next_due
        .expect("this worker looks after it");
    assert!(due <= Duration::from_millis(400), "{due:?}");
    maintain_until(&broker, |maintained| maintained.promoted == 1).await;
    assert!(Instant::now() - began >= Duration::from_millis(400));
    let second = take_one(&mut worker).await;
    assert_eq!(
        (second.failures, second.crashes, second.attempt()),
        (1, 0, 2)
    );
    assert_eq!(
        (
            second.id.as_str(),
            second.headers.get("tenant"),
            body(&second)
        ),
        ("order-1", Some("blue"), "body")
    );
    assert_eq!(second.enqueued_at, first.enqueued_at);
    let snooze = disposed(
        &second,
        Disposition::Snooze {
            after: Duration::from_millis(1),
        },
    );
    assert_eq!(settle(&worker, &[snooze]).await, 0);
    maintain_until(&broker, |maintained| maintained.promoted == 1).await;
    assert_eq!(
        take_one(&mut worker).await.failures,
        1,
        "a snooze does not count"
    );
}

#[tokio::test]
async fn a_settle_that_is_sent_twice_is_done_once() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let mut worker = subscribe(&broker).await;
    publish(&broker, ["a".into(), "b".into(), "c".into(), "d".into()]).await;
    let held = take(&mut worker, 4).await;
    let batch = [
        Settlement::Ack(held[0].receipt),
        retry(&held[1], Duration::from_secs(60)),
        dead(&held[2], "no"),
        disposed(&held[3], Disposition::Release),
    ];
    assert_eq!(settle(&worker, &batch).await, 0);
    assert_eq!(settle(&worker, &batch).await, 4);
    let depth = broker
        .admin()
        .expect("streams have it")
        .depth(&orders())
        .await
        .expect("redis runs");
    assert_eq!(
        (depth.ready, depth.pending, depth.delayed, depth.dead),
        (Some(1), Some(0), Some(1), Some(1))
    );
}

#[tokio::test]
async fn messages_that_are_equal_stay_as_many_as_they_are() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let mut worker = subscribe(&broker).await;
    for _ in 0..3 {
        server.cli(&["XADD", "orders", "*", "k", "same"]).await;
        let same = Message::new("same").id("same");
        broker
            .publish(
                &orders(),
                vec![same.clone(), same.delay(Duration::from_millis(5))],
            )
            .await
            .expect("redis runs");
    }
    let held = take_due(&broker, &mut worker, 9).await;
    let batch: Vec<_> = held
        .iter()
        .map(|delivery| retry(delivery, Duration::from_millis(5)))
        .collect();
    assert_eq!(settle(&worker, &batch).await, 0);
    assert_eq!(
        number(&server, &["ZCARD", "pythia:{orders}:delayed:g"]).await,
        9
    );
    maintain_until(&broker, |maintained| maintained.promoted == 9).await;
    assert_eq!(take(&mut worker, 9).await.len(), 9);
}

#[tokio::test]
async fn what_is_published_for_later_goes_to_every_group_once() {
    let server = RedisServer::start().await;
    let (billing, audit) = (group(&server, "billing"), group(&server, "audit"));
    let (mut ours, mut theirs) = (subscribe(&billing).await, subscribe(&audit).await);
    let past = SystemTime::now() - Duration::from_secs(5);
    let batch = vec![
        Message::new("later").delay(Duration::from_millis(300)),
        Message::new("at").deliver_at(SystemTime::now() + Duration::from_millis(200)),
        Message::new("past").deliver_at(past),
    ];
    billing.publish(&orders(), batch).await.expect("redis runs");
    assert_eq!(bodies(&take(&mut ours, 1).await), ["past"]);
    let depth = billing
        .admin()
        .expect("streams have it")
        .depth(&orders())
        .await
        .expect("redis runs");
    assert_eq!(depth.delayed, Some(2));
    let patience = Instant::now() + Duration::from_secs(5);
    let mut promoted = 0;
    while promoted < 2 {
        promoted += maintain(&billing).await.promoted + maintain(&audit).await.promoted;
        assert!(Instant::now() < patience);
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(promoted, 2);
    assert_eq!(bodies(&take(&mut ours, 2).await), ["at", "later"]);
    assert_eq!(bodies(&take(&mut theirs, 3).await), ["at", "later", "past"]);
}

#[tokio::test]
async fn one_of_many_workers_looks_after_the_delayed_and_is_told_of_earlier_ones() {
    let server = RedisServer::start().await;
    let (one, two) = (group(&server, "g"), group(&server, "g"));
    let later = |after| vec![Message::new("later").delay(after)];
    one.publish(&orders(), later(Duration::from_secs(60)))
        .await
        .expect("redis runs");
    assert!(maintain(&one).await.next_due.is_some());
    assert_eq!(maintain(&two).await.next_due, None, "one is enough");
    let earlier = one.due_earlier(&orders());
    let told = earlier.notified();
    one.publish(&orders(), later(Duration::from_secs(90)))
        .await
        .expect("redis runs");
    one.publish(&orders(), later(Duration::from_secs(30)))
        .await
        .expect("redis runs");
    tokio::time::timeout(Duration::from_secs(1), told)
        .await
        .expect("told of the earlier one");
    let due = maintain(&one).await.next_due.expect("it still is the one");
    assert!(due <= Duration::from_secs(30), "{due:?}");
    // When it is gone, another takes over.
    drop(one);
    maintain_until(&two, |maintained| maintained.next_due.is_some()).await;
}

#[tokio::test]
async fn large_messages_become_ready_a_few_at_a_time() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let peak = async || -> u64 {
        let memory = server.cli(&["INFO", "memory"]).await;
        let mut lines = memory.lines();
        let peak = lines.find_map(|line| line.strip_prefix("used_memory_peak:"));
        peak.and_then(|bytes| bytes.parse().ok())
            .expect("redis knows it")
    };
    let body = "x".repeat(1 << 20);
    for _ in 0..16 {
        let large = Message::new(body.clone()).delay(Duration::from_millis(1));
        let published = broker.publish(&orders(), vec![large; 4]).await;
        published.expect("redis runs");
    }
    let before = peak().await;
    let mut promoted = 0;
    let patience = Instant::now() + Duration::from_secs(20);
    while promoted < 64 {
        assert!(Instant::now() < patience, "{promoted} of 64");
        promoted += maintain(&broker).await.promoted;
    }
    // What a script reads is there once more while it runs: so this shows how much a single call has read.
    let after = peak().await;
    assert!(after < before + (32 << 20), "{before} bytes became {after}");
}

#[tokio::test]
async fn what_somebody_else_has_put_among_the_delayed_is_a_dead_letter_and_in_nobody_s_way() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let mut worker = subscribe(&broker).await;
    publish(&broker, ["a".into()]).await;
    let held = take(&mut worker, 1).await;
    let soon = Duration::from_millis(1);
    assert_eq!(settle(&worker, &[retry(&held[0], soon)]).await, 0);
    let later = Message::new("b").delay(soon);
    broker
        .publish(&orders(), vec![later])
        .await
        .expect("redis runs");
    let name = "sixteen bytes ..";
    let by_hand = [
        "short".into(),
        name.into(),
        format!("{name}{{\"id\": 1}}"),
        format!("{name}\x7f\x7f\x7f\x7fcut off"),
    ];
    for set in ["delayed", "delayed:g"] {
        for member in &by_hand {
            let key = format!("pythia:{{orders}}:{set}");
            assert_eq!(server.cli(&["ZADD", &key, "1", member]).await, "1");
        }
    }
    let admin = broker.admin().expect("streams have it");
    let listed = admin.delayed(&orders(), Page::first(100)).await;
    assert_eq!(listed.expect("redis runs").len(), 10);
    let due = take_due(&broker, &mut worker, 2).await;
    assert_eq!(bodies(&due), ["a", "b"]);
    let letters = admin.dead(&orders(), Page::first(100)).await;
    let letters = letters.expect("redis runs");
    assert_eq!(letters.len(), 8);
    for letter in &letters {
        let reason = letter.reason.as_ref().expect("it has one");
        assert_eq!(reason.kind, DeadKind::Decode);
        let member = letter.delivery.payload.field("member");
        let member = member.expect("it is there as it was");
        assert!(by_hand.iter().any(|one| one.as_bytes() == member));
    }
}
