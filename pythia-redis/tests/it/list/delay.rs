//! Delayed messages, and who is told of them.

use std::time::SystemTime;

use pythia_core::admin::Page;

use super::*;

#[tokio::test]
async fn delays_are_kept_to_the_millisecond_and_never_shortened() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    let mut worker = subscribe(&broker).await;
    let delay = Duration::from_millis(300);
    let start = Instant::now();
    publish(
        &broker,
        [
            Message::new("after").delay(delay),
            Message::new("at").deliver_at(SystemTime::now() + 2 * delay),
            Message::new("past").deliver_at(SystemTime::UNIX_EPOCH),
            Message::new("now"),
        ],
    )
    .await;
    let mut due = Vec::new();
    let mut got = bodies(&take(&mut worker, 2).await);
    while due.len() < 2 {
        let round = maintain(&broker).await;
        if round.promoted > 0 {
            due.push(Instant::now().saturating_duration_since(start));
            got.append(&mut bodies(&take(&mut worker, 1).await));
        } else if let Some(wait) = round.next_due {
            assert!(wait <= 2 * delay, "{wait:?}");
            sleep(wait).await;
        } else {
            panic!("the only worker is the promoter: {round:?}");
        }
    }
    assert_eq!(got, ["past", "now", "after", "at"]);
    // The wall clock of the second is read a little before `start` can be compared with it.
    assert!(
        due[0] >= delay && due[1] + Duration::from_millis(5) >= 2 * delay,
        "{due:?}"
    );
}

#[tokio::test]
async fn what_is_due_together_keeps_its_order() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| {
        config.maintain.promote = 30.try_into().expect("not zero");
    });
    let at = SystemTime::now() + Duration::from_millis(200);
    let sent = numbered(100)
        .into_iter()
        .map(|body| Message::new(body).deliver_at(at));
    publish(&broker, sent).await;
    let mut worker = subscribe(&broker).await;
    sleep(Duration::from_millis(250)).await;
    for (promoted, more) in [(30, true), (30, true), (30, true), (10, false)] {
        let round = maintain(&broker).await;
        assert_eq!((round.promoted, round.more), (promoted, more));
    }
    assert_eq!(bodies(&take(&mut worker, 100).await), numbered(100));
}

#[tokio::test]
async fn two_equal_messages_are_two() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    let same = || {
        Message::new("same")
            .id("same")
            .delay(Duration::from_millis(1))
    };
    publish(&broker, [same(), same()]).await;
    publish(&broker, [same()]).await;
    assert_eq!(server.cli(&["ZCARD", "pythia:{orders}:delayed"]).await, "3");
}

#[tokio::test]
async fn one_worker_is_the_promoter_and_is_told_of_an_earlier_message() {
    let server = RedisServer::start().await;
    let (promoter, other) = (on(&server), on(&server));
    let told = promoter.due_earlier(&orders());
    let others = other.due_earlier(&orders());
    publish(&other, [Message::new("x").delay(Duration::from_secs(60))]).await;
    // Whoever looks first; the other one only looks now and then.
    assert!(maintain(&promoter).await.next_due.is_some());
    assert_eq!(maintain(&other).await.next_due, None);
    // Its subscription may still be on its way, and a notice may be of the message above: until one is heard that is not.
    let patience = Instant::now() + Duration::from_secs(10);
    for minutes in (1..50).rev() {
        assert!(Instant::now() < patience, "no notice was heard");
        let earlier = Message::new("y").delay(Duration::from_secs(minutes));
        publish(&other, [earlier]).await;
        let heard = tokio::time::timeout(Duration::from_millis(200), told.notified()).await;
        if heard.is_ok() {
            let later = Message::new("z").delay(Duration::from_secs(3_600));
            publish(&other, [later]).await;
            let heard = tokio::time::timeout(Duration::from_millis(300), told.notified()).await;
            assert!(heard.is_err(), "a later one is no news");
            let heard = tokio::time::timeout(Duration::from_millis(1), others.notified()).await;
            assert!(heard.is_err(), "the other one leaves it to the promoter");
            return;
        }
    }
    panic!("no notice was heard");
}

#[tokio::test]
async fn a_retry_is_news_to_the_promoter_too() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    let told = broker.due_earlier(&orders());
    assert_eq!(maintain(&broker).await.next_due, None, "nothing is delayed");
    let mut worker = subscribe(&broker).await;
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        assert!(Instant::now() < patience, "no notice was heard");
        lpush(&server, &["a"]).await;
        let held = take(&mut worker, 1).await;
        settle(&worker, &held, retry(Duration::from_secs(60))).await;
        let heard = tokio::time::timeout(Duration::from_millis(200), told.notified()).await;
        if heard.is_ok() {
            return;
        }
        server.cli(&["DEL", "pythia:{orders}:delayed"]).await;
    }
}

#[tokio::test]
async fn a_dead_promoter_is_replaced() {
    let server = RedisServer::start().await;
    let (first, second) = (on(&server), on(&server));
    publish(&first, [Message::new("x").delay(Duration::from_secs(60))]).await;
    assert!(maintain(&first).await.next_due.is_some());
    drop(first);
    let patience = Instant::now() + Duration::from_secs(10);
    while maintain(&second).await.next_due.is_none() {
        assert!(Instant::now() < patience, "nobody took over");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn large_messages_become_ready_a_few_at_a_time() {
    let server = RedisServer::start().await;
    let broker = on(&server);
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
        publish(&broker, vec![large; 4]).await;
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
async fn what_somebody_else_has_put_among_the_delayed_becomes_ready_as_it_is() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    let mut worker = subscribe(&broker).await;
    let by_hand = ["", "short", "{\"id\": 1, \"customer\": 2}"];
    for (due, member) in by_hand.iter().enumerate() {
        let (key, due) = ("pythia:{orders}:delayed", due.to_string());
        assert_eq!(server.cli(&["ZADD", key, &due, member]).await, "1");
    }
    let later = Message::new("later").delay(Duration::from_millis(1));
    publish(&broker, [later]).await;
    let admin = broker.admin().expect("lists have it");
    let listed = admin.delayed(&orders(), Page::first(10)).await;
    let listed: Vec<_> = listed
        .expect("redis runs")
        .into_iter()
        .map(|one| one.delivery)
        .collect();
    let all = [&by_hand[..], &["later"]].concat();
    assert_eq!(bodies(&listed), all);
    let mut promoted = 0;
    let patience = Instant::now() + Duration::from_secs(10);
    while promoted < 4 {
        assert!(Instant::now() < patience, "{promoted} of 4");
        promoted += maintain(&broker).await.promoted;
    }
    assert_eq!(bodies(&take(&mut worker, 4).await), all);
}
