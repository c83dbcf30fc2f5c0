//! The store, against a real server.

use std::time::Duration;

use bytes::Bytes;
use pythia_core::broker::Broker;
use pythia_redis::PubSubBroker;
use pythia_redis::config::RedisConfig;
use pythia_redis::testing::RedisServer;

#[tokio::test]
async fn values_are_plain_strings_with_a_time_to_live() {
    let server = RedisServer::start().await;
    let store = PubSubBroker::new(RedisConfig::from_url(&server.url()).unwrap())
        .unwrap()
        .store()
        .unwrap();
    let value = |text: &'static str| Bytes::from_static(text.as_bytes());
    assert_eq!(store.get("k").await.unwrap(), None);
    store.set("k", value("a"), None).await.unwrap();
    assert_eq!(store.get("k").await.unwrap(), Some(value("a")));
    assert_eq!(server.cli(&["GET", "pythia:store:k"]).await, "a");
    assert_eq!(server.cli(&["PTTL", "pythia:store:k"]).await, "-1");
    assert!(!store.set_if_absent("k", value("b"), None).await.unwrap());
    assert!(store.delete("k").await.unwrap());
    assert!(!store.delete("k").await.unwrap());
    assert!(
        store
            .set_if_absent("k", value("b"), Some(Duration::from_secs(60)))
            .await
            .unwrap()
    );
    let left: u64 = server
        .cli(&["PTTL", "pythia:store:k"])
        .await
        .parse()
        .unwrap();
    assert!((50_000..=60_000).contains(&left), "{left}");
    store
        .set("k", value("c"), Some(Duration::ZERO))
        .await
        .unwrap();
    while store.get("k").await.unwrap().is_some() {}
}
