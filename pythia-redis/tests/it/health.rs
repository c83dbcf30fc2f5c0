//! What a probe learns of Redis: that it answers, how fast, or why not; in time, and without a password.

use std::sync::Arc;
use std::time::Duration;

use pythia_core::broker::Broker;
use pythia_core::{Health, Job, Ping, Route, Runner, worker_fn};
use pythia_redis::config::RedisConfig;
use pythia_redis::testing::RedisServer;
use pythia_redis::{ListBroker, PubSubBroker, StreamBroker};
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(1);

/// The health of a runner that does not run: what is known comes from the pings alone.
fn health(broker: &Arc<dyn Broker>) -> Health {
    let worker = worker_fn(async |_: &Job<String>| Ok(()));
    let runner = Runner::builder().route(broker, Route::new("orders", worker));
    runner.build().unwrap().health()
}

async fn ping(health: &Health) -> Ping {
    let asked = Instant::now();
    let mut pings = health.ping(PATIENCE).await;
    let took = Instant::now() - asked;
    assert!(took < 5 * PATIENCE, "{took:?}");
    pings.remove(0)
}

async fn is_pinged(kind: &str, broker: fn(RedisConfig) -> Arc<dyn Broker>) {
    let mut server = RedisServer::start_with(&["--requirepass", "hunter2"]).await;
    let broker = broker(RedisConfig::from_url(&format!("{}/3", server.url())).unwrap());
    let endpoint = broker.endpoint();
    let address = format!("127.0.0.1:{}/3", server.port());
    assert_eq!(endpoint.to_string(), format!("{kind} at {address}"));
    // The same server under the same name, so that metrics and probes can be put side by side.
    let stats = broker.admin().unwrap().server().await.unwrap().unwrap();
    assert_eq!(Some(stats.server), endpoint.server);

    let health = health(&broker);
    let up = ping(&health).await;
    assert!(up.answered.is_ok(), "{up:?}");
    assert!(matches!(up.stored, Some(Ok(_))), "{up:?}");
    let left = server.cli(&["-n", "3", "KEYS", "*health*"]).await;
    assert_eq!(left, "", "the store is left as it was");

    // Half-open: nothing says that it is gone.
    server.pause();
    let silent = ping(&health).await;
    assert_eq!(
        silent.answered.unwrap_err().to_string(),
        "could not ping the broker: no answer within 1s"
    );
    server.resume();
    let again = async { while ping(&health).await.answered.is_err() {} };
    timeout(Duration::from_secs(60), again).await.unwrap();

    // Gone, and a fresh process meets it like that.
    server.kill().await;
    let gone = ping(&health).await;
    assert!(gone.answered.unwrap_err().is_unavailable());
    assert!(gone.stored.unwrap().unwrap_err().is_unavailable());
}

#[tokio::test]
async fn a_list_broker_is_pinged() {
    is_pinged("list", |config| Arc::new(ListBroker::new(config).unwrap())).await;
}

#[tokio::test]
async fn a_stream_broker_is_pinged() {
    is_pinged("stream", |config| {
        Arc::new(StreamBroker::new(config).unwrap())
    })
    .await;
}

#[tokio::test]
async fn a_pubsub_broker_is_pinged() {
    is_pinged("pubsub", |config| {
        Arc::new(PubSubBroker::new(config).unwrap())
    })
    .await;
}

#[tokio::test]
async fn a_server_that_was_never_there_is_named() {
    let broker: Arc<dyn Broker> = Arc::new(
        ListBroker::new(RedisConfig::from_url("redis://user:hunter2@127.0.0.1:1").unwrap())
            .unwrap(),
    );
    let never = ping(&health(&broker)).await;
    let error = never.answered.unwrap_err().to_string();
    assert!(error.starts_with("could not ping the server: "), "{error}");
    assert!(error.contains("127.0.0.1:1"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}
