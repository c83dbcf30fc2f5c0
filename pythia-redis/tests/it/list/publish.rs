//! Publishing: in few commands, once, and not too much.

use pythia_core::broker::Published;
use pythia_core::{BrokerErrorKind, EntryFields};

use super::*;

#[tokio::test]
async fn a_batch_of_any_size_is_published_in_order() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    let count = 25_000;
    server.cli(&["CONFIG", "RESETSTAT"]).await;
    publish(&broker, numbered(count).into_iter().map(Message::new)).await;
    let stats = server.cli(&["INFO", "commandstats"]).await;
    assert!(stats.contains("cmdstat_lpush:calls=3,"), "{stats}");
    let mut worker = subscribe(&broker).await;
    let deliveries = take(&mut worker, count).await;
    assert_eq!(bodies(&deliveries), numbered(count));
    assert_eq!(ack(&worker, &deliveries).await, 0);
}

#[tokio::test]
async fn a_keyed_batch_is_one_script_in_order() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    let keyed = |n: usize| Message::new(format!("m{n}")).dedupe_key(format!("k{}", n % 60));
    let published = broker
        .publish(&orders(), (0..100).map(keyed).collect())
        .await;
    let published = published.expect("redis runs");
    for (n, one) in published.iter().enumerate() {
        assert_eq!(matches!(one, Published::Deduplicated), n >= 60, "{n}");
    }
    let mut worker = subscribe(&broker).await;
    assert_eq!(bodies(&take(&mut worker, 60).await), numbered(60));
}

#[tokio::test]
async fn a_key_is_remembered_for_the_window_and_per_queue() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| {
        config.dedupe_window = Duration::from_millis(300)
    });
    let returns = QueueName::new("returns").expect("a valid name");
    let published = async |queue: &QueueName| {
        let batch = vec![Message::new("x").dedupe_key("k")];
        let published = broker.publish(queue, batch).await.expect("redis runs");
        matches!(published[0], Published::Published(_))
    };
    assert!(published(&orders()).await);
    assert!(!published(&orders()).await);
    assert!(published(&returns).await);
    // Also when the message is long done.
    server.cli(&["DEL", "orders"]).await;
    assert!(!published(&orders()).await);
    sleep(Duration::from_millis(320)).await;
    assert!(published(&orders()).await);
}

#[tokio::test]
async fn what_is_too_large_or_no_bytes_is_refused_before_anything_is_sent() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| config.max_message_bytes = 1_000);
    let fields = Message::new(EntryFields::from([("a", "b")]));
    for (message, kind) in [
        (Message::new(vec![0; 1_001]), BrokerErrorKind::TooLarge),
        (
            Message::new("x").header("h", "v".repeat(1_000)),
            BrokerErrorKind::TooLarge,
        ),
        (fields, BrokerErrorKind::Unsupported),
    ] {
        let batch = vec![Message::new("small"), message];
        let error = broker.publish(&orders(), batch).await.expect_err("refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("\"orders\""), "{error}");
    }
    assert_eq!(server.cli(&["DBSIZE"]).await, "0");
}

#[tokio::test]
async fn publishing_and_working_use_separate_connections() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    let mut worker = subscribe(&broker).await;
    assert!(read(&mut worker, 1).await.is_empty());
    let idle = read(&mut worker, 1);
    let start = Instant::now();
    let publish_while_it_waits = async {
        sleep(Duration::from_millis(50)).await;
        let other = QueueName::new("other").expect("a valid name");
        broker
            .publish(&other, vec![Message::new("x")])
            .await
            .expect("redis runs");
        Instant::now().saturating_duration_since(start)
    };
    let (nothing, took) = tokio::join!(idle, publish_while_it_waits);
    assert!(nothing.is_empty());
    assert!(
        took < Duration::from_millis(600),
        "it waited for the reader: {took:?}"
    );
}
