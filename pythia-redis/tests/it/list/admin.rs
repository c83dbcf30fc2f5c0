//! Looking into lists and putting them in order.

use pythia_core::admin::{Admin, Page, Purge};

use super::*;

#[tokio::test]
async fn a_plain_clients_dead_letter_keeps_its_bytes_and_can_go_back() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    let mut worker = subscribe(&broker).await;
    let script = r"return redis.call('LPUSH', KEYS[1], '\245PY1\1', 'not \0 json')";
    server.cli(&["EVAL", script, "1", "orders"]).await;
    let held = take(&mut worker, 2).await;
    let before = std::time::SystemTime::now() - Duration::from_secs(5);
    settle(
        &worker,
        &held,
        dead(DeadKind::Decode, "expected value at line 1"),
    )
    .await;
    let letters = admin(&broker).dead(&orders(), Page::first(10)).await;
    let letters = letters.expect("redis runs");
    assert_eq!(letters.len(), 2);
    for letter in &letters {
        let was = held.iter().find(|one| one.id == letter.delivery.id);
        assert_eq!(was.expect("the same id").payload, letter.delivery.payload);
        let reason = letter.reason.as_ref().expect("it is known");
        assert_eq!(reason.to_string(), "decode: expected value at line 1");
        assert!(letter.died_at.expect("it is known") > before);
    }
    let ids = [letters[1].delivery.id.clone()];
    let requeued = admin(&broker).requeue(&orders(), Some(&ids), 0).await;
    assert_eq!(requeued.expect("redis runs"), 1);
    let again = take_one(&mut worker).await;
    assert_eq!(
        (again.id, again.payload),
        (ids[0].clone(), letters[1].delivery.payload.clone())
    );
    assert_eq!(again.failures + again.crashes, 0);
}

#[tokio::test]
async fn many_letters_go_back_in_order_and_none_twice() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    publish(&broker, numbered(1_000).into_iter().map(Message::new)).await;
    let mut worker = subscribe(&broker).await;
    let held = take(&mut worker, 1_000).await;
    for chunk in held.chunks(100) {
        settle(&worker, chunk, dead(DeadKind::Permanent, "no")).await;
    }
    // Ids that are spread over the whole.
    let some: Vec<_> = held.iter().step_by(10).map(|one| one.id.clone()).collect();
    let requeued = admin(&broker).requeue(&orders(), Some(&some), 0).await;
    assert_eq!(requeued.expect("redis runs"), 100);
    let requeued = admin(&broker).requeue(&orders(), None, 650).await;
    assert_eq!(requeued.expect("redis runs"), 650);
    let depth = admin(&broker).depth(&orders()).await.expect("redis runs");
    assert_eq!((depth.ready, depth.dead), (Some(750), Some(250)));
    let back = take(&mut worker, 750).await;
    let ids: std::collections::HashSet<_> = back.iter().map(|one| &one.id).collect();
    assert_eq!(ids.len(), 750);
}

#[tokio::test]
async fn depth_adds_up_wherever_messages_are() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    let (mut one, mut two) = (subscribe(&broker).await, subscribe(&broker).await);
    publish(&broker, numbered(20).into_iter().map(Message::new)).await;
    let held = [take(&mut one, 6).await, take(&mut two, 5).await].concat();
    ack(&one, &held[..2]).await;
    settle(&two, &held[10..], retry(Duration::from_secs(60))).await;
    // Moved by a wait, and claimed by nobody yet.
    server
        .cli(&["LMOVE", "orders", "pythia:{orders}:inbox", "RIGHT", "LEFT"])
        .await;
    let depth = admin(&broker).depth(&orders()).await.expect("redis runs");
    assert_eq!(
        (depth.ready, depth.pending, depth.delayed),
        (Some(9), Some(8), Some(1))
    );
    assert_eq!((depth.dead, depth.lag), (Some(0), None));
    let oldest = depth.oldest.expect("ours say when they were published");
    assert!(oldest < Duration::from_secs(60), "{oldest:?}");
    let purged = admin(&broker).purge(&orders(), Purge::Ready).await;
    assert_eq!(purged.expect("redis runs"), 9, "with the inbox");
    // What plain clients write says nothing of its age.
    lpush(&server, &["plain"]).await;
    let depth = admin(&broker).depth(&orders()).await.expect("redis runs");
    assert_eq!(
        (depth.ready, depth.pending, depth.oldest),
        (Some(1), Some(8), None)
    );
}

#[tokio::test]
async fn the_server_tells_its_memory_and_its_connections() {
    let server = RedisServer::start_with(&["--maxmemory", "512mb"]).await;
    let broker = on(&server);
    let _worker = subscribe(&broker).await;
    let stats = admin(&broker)
        .server()
        .await
        .expect("redis runs")
        .expect("there is one");
    assert!(
        stats.memory_used.is_some_and(|used| used > 100_000),
        "{stats:?}"
    );
    assert_eq!(stats.memory_max, Some(512 << 20));
    assert_eq!(stats.pool_size, 2);
    assert!(stats.connected >= 2, "{stats:?}");
}

fn admin(broker: &ListBroker) -> &dyn Admin {
    broker.admin().expect("it has one")
}
