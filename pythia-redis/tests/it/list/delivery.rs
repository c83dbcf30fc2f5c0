//! What plain clients write, and who gets it.

use std::collections::HashSet;

use futures_util::future::join_all;

use super::*;

#[tokio::test]
async fn what_redis_cli_pushes_arrives_byte_for_byte_and_in_order() {
    let server = RedisServer::start().await;
    let mut worker = subscribe(&on(&server)).await;
    let written = [r#"{"id": 1}"#, "", " two\nlines\t", "äöü €", r#"{"id": 2}"#];
    for body in written {
        lpush(&server, &[body]).await;
    }
    let deliveries = take(&mut worker, written.len()).await;
    assert_eq!(bodies(&deliveries), written);
    let ids: HashSet<_> = deliveries.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids.len(), written.len(), "ids are unique: {ids:?}");
    for one in &deliveries {
        assert_eq!((one.attempt(), one.enqueued_at), (1, None));
        assert!(one.headers.is_empty() && !one.alone);
    }
    assert_eq!(ack(&worker, &deliveries).await, 0);
    assert_eq!(server.cli(&["EXISTS", "orders"]).await, "0");
    worker
        .source
        .close(&mut Vec::new())
        .await
        .expect("redis runs");
    assert_eq!(server.cli(&["KEYS", "*"]).await, "", "nothing is left");
}

#[tokio::test]
async fn every_byte_there_is_comes_through() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    let mut worker = subscribe(&broker).await;
    // A tombstone, half a frame, a frame with a wild length, and no UTF-8 at all.
    let script = r"return redis.call('LPUSH', KEYS[1], '\245PY\0', '\245PY1', '\245PY1\9\9\255\255\255\255x', '\0\255\13\10')";
    server.cli(&["EVAL", script, "1", "orders"]).await;
    let odd: [&[u8]; 4] = [
        b"\xF5PY\0",
        b"\xF5PY1",
        b"\xF5PY1\x09\x09\xFF\xFF\xFF\xFFx",
        b"\0\xFF\r\n",
    ];
    let payloads = |deliveries: &[Delivery]| -> Vec<_> {
        let bytes = deliveries.iter().map(|one| one.payload.as_bytes().cloned());
        bytes.map(|bytes| bytes.expect("bytes")).collect()
    };
    let deliveries = take(&mut worker, 4).await;
    assert_eq!(payloads(&deliveries), odd);
    // Nor does a crash change them, or a retry, or death.
    drop(worker);
    assert_eq!(recovery(&broker).await.recovered, 4);
    let mut heir = subscribe(&broker).await;
    let deliveries = take(&mut heir, 4).await;
    assert_eq!(payloads(&deliveries), odd);
    assert!(deliveries.iter().all(|one| one.crashes == 1));
    assert_eq!(settle(&heir, &deliveries, retry(Duration::ZERO)).await, 0);
    assert_eq!(maintain(&broker).await.promoted, 4);
    let deliveries = take(&mut heir, 4).await;
    assert_eq!(payloads(&deliveries), odd);
    assert!(deliveries.iter().all(|one| one.attempt() == 3));
    assert_eq!(ack(&heir, &deliveries).await, 0);
}

#[tokio::test]
async fn a_short_queue_is_shared_and_a_long_one_goes_in_full_batches() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    let mut workers = Vec::new();
    for _ in 0..4 {
        let mut worker = subscribe(&broker).await;
        // Known from its first look on.
        assert!(read(&mut worker, 1).await.is_empty());
        workers.push(worker);
    }
    publish(&broker, numbered(8).into_iter().map(Message::new)).await;
    let reads = workers.iter_mut().map(|worker| read(worker, 100));
    let counts: Vec<_> = join_all(reads).await.iter().map(Vec::len).collect();
    assert!(
        counts.iter().all(|count| (1..=2).contains(count)),
        "{counts:?}"
    );
    publish(&broker, numbered(2_000).into_iter().map(Message::new)).await;
    for worker in &mut workers {
        assert_eq!(read(worker, 100).await.len(), 100);
    }
}

#[tokio::test]
async fn one_push_wakes_a_waiting_worker_at_once() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    let mut worker = subscribe(&broker).await;
    assert!(
        read(&mut worker, 1).await.is_empty(),
        "it waits from now on"
    );
    let push = async {
        sleep(Duration::from_millis(200)).await;
        publish(&broker, [Message::new("now")]).await;
        Instant::now()
    };
    let (deliveries, pushed) = tokio::join!(take(&mut worker, 1), push);
    let took = Instant::now().saturating_duration_since(pushed);
    assert_eq!(bodies(&deliveries), ["now"]);
    // A wait that ran out would have taken 600 ms and more.
    assert!(took < Duration::from_millis(300), "after {took:?}");
}

#[tokio::test]
async fn a_batch_is_bounded_in_bytes() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| config.max_message_bytes = 64 << 20);
    let mut worker = subscribe(&broker).await;
    let large = |size: usize| Message::new(vec![b'x'; size]);
    publish(&broker, [large(64 << 20)]).await;
    publish(&broker, (0..40).map(|_| large(1 << 20))).await;
    let first = read(&mut worker, 100).await;
    assert_eq!(first.len(), 1, "a large one goes by itself");
    assert_eq!(first[0].payload.len(), 64 << 20);
    let second = read(&mut worker, 100).await;
    assert!(
        (5..=12).contains(&second.len()),
        "{} messages",
        second.len()
    );
    assert_eq!(ack(&worker, &first).await + ack(&worker, &second).await, 0);
}

#[tokio::test]
async fn names_with_a_prefix_and_a_tag_reach_the_same_list() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| {
        config.key_prefix = String::from("shop:").try_into().expect("a valid prefix");
    });
    let queue = QueueName::new("{eu}:orders").expect("a valid name");
    let mut worker = broker.subscribe(&queue).await.expect("redis runs");
    server.cli(&["LPUSH", "shop:{eu}:orders", "a"]).await;
    let deliveries = take(&mut worker, 1).await;
    let keys = server.cli(&["KEYS", "*"]).await;
    assert!(
        keys.lines()
            .all(|key| key.starts_with("shop:pythia:{eu}@shop:{eu}:orders:")),
        "{keys}"
    );
    assert_eq!(ack(&worker, &deliveries).await, 0);
}
