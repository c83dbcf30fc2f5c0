//! Publishing.

use pythia_core::broker::Published;
use pythia_core::{BrokerErrorKind, EntryFields};

use super::*;

#[tokio::test]
async fn a_batch_arrives_in_order_with_ids_and_headers() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let batch: Vec<_> = (0..1_203)
        .map(|i| Message::new(format!("{i}")).header("n", format!("{i}")))
        .collect();
    let published = broker.publish(&orders(), batch).await.expect("redis runs");
    let mut worker = subscribe(&broker).await;
    let deliveries = take(&mut worker, 1_203).await;
    for (i, (delivery, published)) in deliveries.iter().zip(&published).enumerate() {
        assert_eq!(
            (body(delivery), delivery.headers.get("n")),
            (&*i.to_string(), Some(&*i.to_string()))
        );
        assert_eq!(published, &Published::Published(delivery.id.clone()));
    }
    let answer = broker
        .publish(&orders(), Vec::new())
        .await
        .expect("nothing to do");
    assert!(answer.is_empty());
}

#[tokio::test]
async fn fields_are_published_as_fields() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    let fields = Payload::from(EntryFields::from([
        ("user", &b"7"[..]),
        ("raw", &[0, 255, 10]),
    ]));
    let message = Message::new(fields.clone());
    let message = message.id("mine").header("tenant", "blue");
    broker
        .publish(&orders(), vec![message])
        .await
        .expect("redis runs");
    let seen = server.cli(&["XRANGE", "orders", "-", "+"]).await;
    assert!(
        seen.contains("user\n"),
        "other programs read them as they are: {seen}"
    );
    let mut worker = subscribe(&broker).await;
    let mut delivery = take_one(&mut worker).await;
    for _ in 0..2 {
        assert_eq!((&delivery.payload, delivery.id.as_str()), (&fields, "mine"));
        assert_eq!(delivery.headers.get("tenant"), Some("blue"));
        assert_eq!(
            settle(&worker, &[retry(&delivery, Duration::ZERO)]).await,
            0
        );
        delivery = take_one(&mut worker).await;
    }
}

#[tokio::test]
async fn a_key_that_is_remembered_is_not_published_again() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| {
        config.dedupe_window = Duration::from_millis(700)
    });
    let keyed = |body: &'static str, key: &'static str| Message::new(body).dedupe_key(key);
    let batch = vec![
        keyed("one", "a"),
        keyed("two", "a"),
        Message::new("three"),
        keyed("four", "b"),
    ];
    let published = broker.publish(&orders(), batch).await.expect("redis runs");
    let duplicates: Vec<_> = published
        .iter()
        .map(|published| *published == Published::Deduplicated)
        .collect();
    assert_eq!(duplicates, [false, true, false, false]);
    let later = keyed("five", "b").delay(Duration::from_secs(60));
    assert_eq!(
        broker
            .publish(&orders(), vec![later])
            .await
            .expect("redis runs"),
        [Published::Deduplicated]
    );
    let patience = Instant::now() + Duration::from_secs(5);
    while broker
        .publish(&orders(), vec![keyed("six", "a")])
        .await
        .expect("redis runs")
        == [Published::Deduplicated]
    {
        assert!(Instant::now() < patience, "keys are forgotten");
        sleep(Duration::from_millis(50)).await;
    }
    let mut worker = subscribe(&broker).await;
    assert_eq!(
        bodies(&take(&mut worker, 4).await),
        ["four", "one", "six", "three"]
    );
}

#[tokio::test]
async fn one_message_that_is_too_large_stops_the_batch_before_anything_is_sent() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| config.max_message_bytes = 1_000);
    let large = Message::new(vec![b'x'; 900]).header("h", "y".repeat(100));
    let error = broker
        .publish(&orders(), vec![Message::new("small"), large])
        .await
        .expect_err("too large");
    assert_eq!(error.kind(), BrokerErrorKind::TooLarge, "{error}");
    assert!(error.to_string().contains("max_message_bytes"), "{error}");
    let wide = Message::new(EntryFields::from([("a", "b"); 2_000]));
    let error = with(&server, |_| ())
        .publish(&orders(), vec![wide])
        .await
        .expect_err("too wide");
    assert_eq!(error.kind(), BrokerErrorKind::TooLarge, "{error}");
    assert_eq!(number(&server, &["EXISTS", "orders"]).await, 0);
}

#[tokio::test]
async fn large_and_odd_bodies_arrive_as_they_are() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| config.max_message_bytes = 65 << 20);
    let bodies = [
        vec![],
        b"\xF5PY1\x01".to_vec(),
        vec![0xFF; 3],
        vec![7; 64 << 20],
    ];
    let batch = bodies
        .iter()
        .map(|body| Message::new(body.clone()))
        .collect();
    broker.publish(&orders(), batch).await.expect("redis runs");
    let mut worker = subscribe(&broker).await;
    for body in bodies {
        let delivery = take_one(&mut worker).await;
        assert!(
            delivery
                .payload
                .as_bytes()
                .is_some_and(|bytes| *bytes == body),
            "{:?}",
            delivery.payload
        );
        assert_eq!(
            settle(&worker, &[retry(&delivery, Duration::ZERO)]).await,
            0
        );
        let again = take_one(&mut worker).await;
        assert!(again.payload == delivery.payload);
        assert_eq!(ack(&worker, &[again]).await, 0);
    }
}
