//! What can be seen of a queue, and done to it.

use pythia_core::MessageId;
use pythia_core::admin::{Admin, Depth, Page, Purge};

use super::*;

async fn depth(broker: &StreamBroker) -> Depth {
    admin(broker).depth(&orders()).await.expect("redis runs")
}

fn admin(broker: &StreamBroker) -> &dyn Admin {
    broker.admin().expect("streams have it")
}

#[tokio::test]
async fn the_depth_says_how_much_is_where() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    assert_eq!(
        (depth(&broker).await.ready, depth(&broker).await.lag),
        (Some(0), None)
    );
    publish(&broker, (0..10).map(|i| i.to_string())).await;
    assert_eq!(
        depth(&broker).await.ready,
        Some(10),
        "a group that begins at the beginning will get them"
    );
    let mut worker = subscribe(&broker).await;
    let held = take(&mut worker, 6).await;
    let batch = [
        Settlement::Ack(held[0].receipt),
        retry(&held[1], Duration::from_secs(60)),
        dead(&held[2], "no"),
        disposed(&held[3], Disposition::Release),
    ];
    assert_eq!(settle(&worker, &batch).await, 0);
    broker
        .publish(
            &orders(),
            vec![Message::new("x").delay(Duration::from_secs(60))],
        )
        .await
        .expect("redis runs");
    sleep(Duration::from_millis(20)).await;
    let seen = depth(&broker).await;
    assert_eq!(
        (seen.pending, seen.delayed, seen.dead),
        (Some(2), Some(2), Some(1))
    );
    assert!(
        seen.oldest
            .is_some_and(|oldest| oldest >= Duration::from_millis(20)),
        "{seen:?}"
    );
    // 6.2 does not know the lag of a group.
    let known = server
        .cli(&["XINFO", "GROUPS", "orders"])
        .await
        .contains("lag");
    assert_eq!(
        (seen.lag, seen.ready),
        if known {
            (Some(4), Some(5))
        } else {
            (None, None)
        }
    );

    let rest = take(&mut worker, 5).await;
    assert_eq!(ack(&worker, &[&held[4..], &rest[..]].concat()).await, 0);
    let seen = depth(&broker).await;
    assert_eq!(
        (seen.ready, seen.lag, seen.pending, seen.oldest),
        (Some(0), Some(0), Some(0), None)
    );
}

#[tokio::test]
async fn an_unknown_lag_is_not_zero() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let mut worker = subscribe(&broker).await;
    publish(&broker, (0..5).map(|i| i.to_string())).await;
    let done = take(&mut worker, 1).await;
    assert_eq!(ack(&worker, &done).await, 0);
    let unread = server.cli(&["XRANGE", "orders", "-", "+"]).await;
    let ids: Vec<_> = unread
        .lines()
        .filter(|line| line.contains('-') && line.len() < 30)
        .collect();
    server.cli(&["XDEL", "orders", ids[2]]).await;
    let seen = depth(&broker).await;
    assert_eq!((seen.lag, seen.ready), (None, None));
    assert!(seen.oldest.is_some());
}

#[tokio::test]
async fn dead_letters_keep_every_byte_and_can_be_tried_again() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let mut worker = subscribe(&broker).await;
    let raw = vec![0, 159, 146, 150, 10];
    broker
        .publish(
            &orders(),
            vec![Message::new(raw.clone()).id("raw").header("tenant", "blue")],
        )
        .await
        .expect("redis runs");
    server
        .cli(&["XADD", "orders", "*", "k", "plain", "k2", ""])
        .await;
    let held = take(&mut worker, 2).await;
    let mut doomed = held[0].clone();
    doomed.failures = 3;
    let error = "no such\ncustomer: größer".to_owned();
    let reason = DeadReason {
        kind: DeadKind::Decode,
        error,
    };
    let letter = Settlement::new(
        doomed,
        Disposition::DeadLetter {
            reason: reason.clone(),
        },
    );
    assert_eq!(settle(&worker, &[letter]).await, 0);
    assert_eq!(settle(&worker, &[dead(&held[1], "")]).await, 0);

    let letters = admin(&broker)
        .dead(&orders(), Page::first(10))
        .await
        .expect("redis runs");
    assert_eq!(letters.len(), 2);
    assert_eq!(
        letters[0].delivery.payload, held[1].payload,
        "the newest first"
    );
    let letter = &letters[1];
    assert_eq!(letter.delivery.payload, Payload::from(raw));
    assert_eq!(
        (
            letter.delivery.id.as_str(),
            letter.delivery.headers.get("tenant")
        ),
        ("raw", Some("blue"))
    );
    assert_eq!(
        (letter.delivery.failures, &letter.reason),
        (4, &Some(reason))
    );
    assert!(letter.died_at >= letter.delivery.enqueued_at);

    let wanted = [MessageId::from("raw"), MessageId::from("unknown")];
    assert_eq!(
        admin(&broker)
            .requeue(&orders(), Some(&wanted), 10)
            .await
            .expect("redis runs"),
        1
    );
    let again = take(&mut worker, 1).await;
    assert_eq!(
        (
            again[0].payload == letter.delivery.payload,
            again[0].attempt()
        ),
        (true, 1)
    );
    assert_eq!(
        admin(&broker)
            .requeue(&orders(), None, 10)
            .await
            .expect("redis runs"),
        1
    );
    let again = take(&mut worker, 1).await;
    assert_eq!(
        (&again[0].payload, &again[0].id),
        (&held[1].payload, &held[1].id)
    );
    assert_eq!(depth(&broker).await.dead, Some(0));
}

#[tokio::test]
async fn listings_have_pages() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let mut worker = subscribe(&broker).await;
    publish(&broker, (0..260).map(|i| format!("{i:03}"))).await;
    let held = take(&mut worker, 260).await;
    let letters: Vec<_> = held[..250]
        .iter()
        .map(|delivery| dead(delivery, "no"))
        .collect();
    assert_eq!(settle(&worker, &letters).await, 0);
    for (offset, limit, expected) in [
        (0, 3, 247..250),
        (99, 2, 149..151),
        (249, 5, 0..1),
        (250, 5, 0..0),
        (0, 0, 0..0),
    ] {
        let letters = admin(&broker)
            .dead(&orders(), Page { offset, limit })
            .await
            .expect("redis runs");
        let listed: Vec<_> = letters
            .iter()
            .map(|letter| body(&letter.delivery).to_owned())
            .collect();
        let expected: Vec<_> = expected.rev().map(|i| format!("{i:03}")).collect();
        assert_eq!(listed, expected, "{offset}, {limit}");
    }
    assert_eq!(
        admin(&broker)
            .requeue(&orders(), None, 120)
            .await
            .expect("redis runs"),
        120
    );
    let oldest = admin(&broker)
        .dead(
            &orders(),
            Page {
                offset: 129,
                limit: 5,
            },
        )
        .await
        .expect("redis runs");
    assert_eq!(
        (oldest.len(), body(&oldest[0].delivery)),
        (1, "120"),
        "the oldest went"
    );

    let later = |seconds| Duration::from_secs(seconds);
    let batch: Vec<_> = (250..260)
        .map(|i| retry(&held[i], later(i as u64)))
        .collect();
    assert_eq!(settle(&worker, &batch).await, 0);
    broker
        .publish(&orders(), vec![Message::new("all").delay(later(255))])
        .await
        .expect("redis runs");
    let delayed = admin(&broker)
        .delayed(
            &orders(),
            Page {
                offset: 4,
                limit: 4,
            },
        )
        .await
        .expect("redis runs");
    let listed: Vec<_> = delayed
        .iter()
        .map(|delayed| body(&delayed.delivery))
        .collect();
    assert!(
        listed == ["254", "255", "all", "256"] || listed == ["254", "all", "255", "256"],
        "{listed:?}"
    );
    assert!(delayed.is_sorted_by_key(|delayed| delayed.due));
    assert_eq!(delayed[0].delivery.failures, 1);
}

#[tokio::test]
async fn a_purge_takes_one_state_of_one_group() {
    let server = RedisServer::start().await;
    let (ours, theirs) = (group(&server, "ours"), group(&server, "theirs"));
    let (mut worker, mut other) = (subscribe(&ours).await, subscribe(&theirs).await);
    publish(&ours, (0..1_300).map(|i| i.to_string())).await;
    let held = take(&mut worker, 10).await;
    let batch = [
        retry(&held[0], Duration::from_secs(60)),
        dead(&held[1], "no"),
        dead(&held[2], "no"),
        disposed(&held[3], Disposition::Release),
    ];
    assert_eq!(settle(&worker, &batch).await, 0);
    let purge = async |state| {
        admin(&ours)
            .purge(&orders(), state)
            .await
            .expect("redis runs")
    };
    assert_eq!(purge(Purge::Dead).await, 2);
    assert_eq!(purge(Purge::Delayed).await, 1);
    assert_eq!(purge(Purge::Ready).await, 1_291);
    nothing(&mut worker).await;
    assert_eq!(
        ack(&worker, &held[4..]).await,
        0,
        "what is in flight is not touched"
    );
    let seen = depth(&ours).await;
    assert_eq!(
        (seen.ready, seen.pending, seen.delayed, seen.dead),
        (Some(0), Some(0), Some(0), Some(0))
    );
    assert_eq!(take(&mut other, 1_300).await.len(), 1_300);
    assert_eq!(
        admin(&group(&server, "nobody"))
            .purge(&orders(), Purge::Ready)
            .await
            .expect("redis runs"),
        0
    );
}

#[tokio::test]
async fn the_server_and_its_connections_are_seen() {
    let server = RedisServer::start_with(&["--maxmemory", "100mb"]).await;
    let broker = group(&server, "g");
    let worker = subscribe(&broker).await;
    assert_eq!(renew(&worker, &[]).await, []);
    let stats = admin(&broker)
        .server()
        .await
        .expect("redis runs")
        .expect("there is one");
    assert!(stats.memory_used.is_some_and(|used| used > 100_000));
    assert_eq!(stats.memory_max, Some(100 << 20));
    assert!(stats.connected >= 3, "{stats:?}");
}
