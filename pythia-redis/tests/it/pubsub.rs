//! Pub/sub, against a real server.

mod conformance;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pythia_core::broker::{Broker, Published, Source};
use pythia_core::observe::{Event, GapCause, Observer};
use pythia_core::{BrokerErrorKind, Delivery, Message, QueueName};
use pythia_redis::PubSubBroker;
use pythia_redis::config::{PubSubMode, RedisConfig};
use pythia_redis::testing::RedisServer;

fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

fn broker(server: &RedisServer, change: impl FnOnce(&mut RedisConfig)) -> (PubSubBroker, Gaps) {
    let mut config = RedisConfig::from_url(&server.url()).unwrap();
    change(&mut config);
    let (broker, gaps) = (
        PubSubBroker::new(config).expect("valid settings"),
        Gaps::default(),
    );
    broker.attach(Arc::new(gaps.clone()));
    (broker, gaps)
}

#[derive(Clone, Default)]
struct Gaps(Arc<Mutex<Vec<Lost>>>);

/// Why, and how many.
type Lost = (GapCause, Option<u64>);

impl Gaps {
    fn all(&self) -> Vec<(GapCause, Option<u64>)> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Gaps {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Gap { cause, lost, .. } = event {
            self.0.lock().unwrap().push((*cause, *lost));
        }
    }
}

/// Receives until there are so many.
async fn receive(source: &mut Box<dyn Source>, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    let enough = async {
        while all.len() < count {
            let mut batch = Vec::new();
            match source.receive(100, &mut batch).await {
                Ok(()) => all.append(&mut batch),
                Err(error) => assert!(error.is_unavailable(), "{error}"),
            }
        }
    };
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, enough)
        .await
        .expect("they come in time");
    all
}

fn body(delivery: &Delivery) -> &[u8] {
    delivery.payload.as_bytes().unwrap()
}

#[tokio::test]
async fn what_a_plain_client_publishes_is_received_as_it_is() {
    let server = RedisServer::start().await;
    let (broker, gaps) = broker(&server, |_| {});
    let mut source = broker.subscribe(&queue("news")).await.unwrap().source;
    assert_eq!(server.cli(&["PUBLISH", "news", r#"{"a":1}"#]).await, "1");
    let news = receive(&mut source, 1).await;
    assert_eq!(body(&news[0]), br#"{"a":1}"#);
    assert!(gaps.all().is_empty());
}

#[tokio::test]
async fn every_subscriber_gets_every_message_in_order_with_id_and_headers() {
    let server = RedisServer::start().await;
    let (broker, gaps) = broker(&server, |_| {});
    let news = queue("news");
    let mut one = broker.subscribe(&news).await.unwrap().source;
    let mut two = broker.subscribe(&news).await.unwrap().source;
    let batch = (0..1_200).map(|n| {
        Message::new(n.to_string())
            .id(format!("id-{n}"))
            .header("tenant", "a")
    });
    broker.publish(&news, batch.collect()).await.unwrap();
    for source in [&mut one, &mut two] {
        let news = receive(source, 1_200).await;
        for (n, delivery) in news.iter().enumerate() {
            assert_eq!(
                (body(delivery), delivery.id.as_str()),
                (n.to_string().as_bytes(), &*format!("id-{n}"))
            );
            assert_eq!(
                delivery.headers.iter().collect::<Vec<_>>(),
                [("tenant", "a")]
            );
            assert!(delivery.enqueued_at.is_some());
        }
    }
    assert!(gaps.all().is_empty(), "{:?}", gaps.all());
}

#[tokio::test]
async fn a_pattern_brings_the_channels_that_match_and_names_them() {
    let server = RedisServer::start().await;
    let (broker, _) = broker(&server, |config| config.pubsub.mode = PubSubMode::Pattern);
    let mut source = broker.subscribe(&queue("news.*")).await.unwrap().source;
    for (channel, text) in [
        ("news.sport", "goal"),
        ("weather", "rain"),
        ("news.local", "cat"),
    ] {
        server.cli(&["PUBLISH", channel, text]).await;
    }
    let news = receive(&mut source, 2).await;
    let seen: Vec<_> = news
        .iter()
        .map(|one| (one.headers.get("pythia-channel").unwrap(), body(one)))
        .collect();
    assert_eq!(seen, [("news.sport", &b"goal"[..]), ("news.local", b"cat")]);
}

/// The header tells of another channel than the one that was asked for; a prefix makes none.
#[tokio::test]
async fn a_channel_behind_a_prefix_is_no_other_channel() {
    let server = RedisServer::start().await;
    let (broker, _) = broker(&server, |config| {
        config.key_prefix = "shop:".to_owned().try_into().unwrap();
    });
    let mut source = broker.subscribe(&queue("news")).await.unwrap().source;
    server.cli(&["PUBLISH", "shop:news", "goal"]).await;
    let news = receive(&mut source, 1).await;
    assert_eq!(news[0].headers.get("pythia-channel"), None);
}

#[tokio::test]
async fn sharded_channels_work() {
    let server = RedisServer::start().await;
    let (broker, _) = broker(&server, |config| config.pubsub.mode = PubSubMode::Sharded);
    let news = queue("news");
    let mut source = broker.subscribe(&news).await.unwrap().source;
    server.cli(&["SPUBLISH", "news", "plain"]).await;
    broker
        .publish(&news, vec![Message::new("ours")])
        .await
        .unwrap();
    let seen = receive(&mut source, 2).await;
    assert_eq!(
        (body(&seen[0]), body(&seen[1])),
        (&b"plain"[..], &b"ours"[..])
    );
}

#[tokio::test]
async fn a_redis_without_sharded_pubsub_is_refused_by_the_name_of_the_command() {
    let mut server = RedisServer::start().await;
    let known = server.cli(&["COMMAND", "INFO", "SSUBSCRIBE"]).await;
    // Before 7.0 there is none to take away.
    if known.to_lowercase().contains("ssubscribe") {
        server = RedisServer::start_with(&["--rename-command", "SSUBSCRIBE", ""]).await;
    }
    let (broker, _) = broker(&server, |config| config.pubsub.mode = PubSubMode::Sharded);
    let error = broker.subscribe(&queue("news")).await.unwrap_err();
    assert_eq!(error.kind(), BrokerErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("SSUBSCRIBE"), "{error}");
}

#[tokio::test]
async fn what_a_slow_worker_misses_is_counted_once() {
    let server = RedisServer::start().await;
    let (broker, gaps) = broker(&server, |config| {
        config.pubsub.buffer = 16.try_into().unwrap()
    });
    let news = queue("news");
    let mut source = broker.subscribe(&news).await.unwrap().source;
    broker
        .publish(&news, vec![Message::new("first")])
        .await
        .unwrap();
    assert_eq!(receive(&mut source, 1).await.len(), 1);
    let batch = (0..1_000).map(|n| Message::new(n.to_string())).collect();
    broker.publish(&news, batch).await.unwrap();
    // The connection has everything once a later message to it has come.
    let (mut received, mut last) = (0, false);
    while !last {
        let some = receive(&mut source, 1).await;
        received += some.len() as u64;
        last = some.iter().any(|one| body(one) == b"999");
    }
    let lost: u64 = gaps.all().iter().filter_map(|(_, lost)| *lost).sum();
    assert!(lost > 0);
    assert_eq!(received + lost, 1_000, "{:?}", gaps.all());
}

#[tokio::test]
async fn a_reconnect_is_a_gap_and_missing_numbers_tell_how_many() {
    let mut server = RedisServer::start().await;
    let (broker, gaps) = broker(&server, |_| {});
    let (other, _) = self::broker(&server, |_| {});
    let news = queue("news");
    let mut source = broker.subscribe(&news).await.unwrap().source;
    other.publish(&news, vec![Message::new("0")]).await.unwrap();
    assert_eq!(body(&receive(&mut source, 1).await[0]), b"0");
    server.restart().await;
    // Somebody who is not away publishes until we hear it again.
    let heard = receive(&mut source, 1);
    let publishing = async {
        for n in 1.. {
            // Redis may not be back yet.
            let _sent = other
                .publish(&news, vec![Message::new(n.to_string())])
                .await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        heard = heard => assert_eq!(heard.len(), 1),
        () = publishing => unreachable!("it goes on for ever"),
    }
    let gaps = gaps.all();
    assert!(
        gaps.iter()
            .any(|(cause, lost)| *cause == GapCause::Disconnected && lost.is_none()),
        "{gaps:?}"
    );
}

#[tokio::test]
async fn what_was_received_before_the_server_went_away_is_not_lost_with_it() {
    let mut server = RedisServer::start().await;
    let (broker, gaps) = broker(&server, |_| {});
    let mut source = broker.subscribe(&queue("news")).await.unwrap().source;
    let script = "for n = 1, 500 do redis.call('PUBLISH', KEYS[1], n) end";
    server.cli(&["EVAL", script, "1", "news"]).await;
    let mut all = Vec::new();
    source.receive(1, &mut all).await.unwrap();
    server.stop().await;
    // The connection reads its end after all that came before.
    let admin = broker.admin().unwrap();
    while admin.server().await.is_ok() {}
    // The runtime has a second for it.
    let close = source.close(&mut all);
    let _away = tokio::time::timeout(Duration::from_secs(1), close).await;
    assert_eq!(all.len(), 500);
    drop(source);
    assert!(gaps.all().is_empty(), "{:?}", gaps.all());
}

#[tokio::test]
async fn what_nobody_hears_is_reported_to_the_publisher() {
    let server = RedisServer::start().await;
    let (broker, gaps) = broker(&server, |_| {});
    broker
        .publish(&queue("news"), vec![Message::new("a"), Message::new("b")])
        .await
        .unwrap();
    assert_eq!(gaps.all(), [(GapCause::NoReceiver, Some(2))]);
}

#[tokio::test]
async fn a_dedupe_key_is_published_once() {
    let server = RedisServer::start().await;
    let (broker, _) = broker(&server, |_| {});
    let news = queue("news");
    let mut source = broker.subscribe(&news).await.unwrap().source;
    let batch = || {
        vec![
            Message::new("a").dedupe_key("k"),
            Message::new("b"),
            Message::new("c").dedupe_key("k"),
        ]
    };
    let published = broker.publish(&news, batch()).await.unwrap();
    assert!(matches!(
        published[..],
        [
            Published::Published(_),
            Published::Published(_),
            Published::Deduplicated
        ]
    ));
    let again = broker.publish(&news, batch()).await.unwrap();
    assert!(matches!(
        again[..],
        [
            Published::Deduplicated,
            Published::Published(_),
            Published::Deduplicated
        ]
    ));
    let seen = receive(&mut source, 3).await;
    assert_eq!(
        seen.iter().map(body).collect::<Vec<_>>(),
        [b"a", b"b", b"b"]
    );
}

#[tokio::test]
async fn what_a_channel_can_not_carry_is_refused_before_anything_is_sent() {
    let server = RedisServer::start().await;
    let (broker, gaps) = broker(&server, |config| {
        config.max_message_bytes = 100.try_into().unwrap()
    });
    for (message, kind) in [
        (
            Message::new("late").delay(Duration::from_secs(1)),
            BrokerErrorKind::Unsupported,
        ),
        (Message::new(vec![0; 101]), BrokerErrorKind::TooLarge),
    ] {
        let error = broker
            .publish(&queue("news"), vec![Message::new("ok"), message])
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("\"news\""), "{error}");
    }
    assert!(gaps.all().is_empty(), "nothing was published");
}
