//! Lists against a real Redis.

#![expect(
    clippy::future_not_send,
    reason = "a test and its subscriptions stay on one thread"
)]

mod admin;
mod at_most_once;
mod chaos;
mod conformance;
mod delay;
mod delivery;
mod healing;
mod lost_answers;
mod publish;
mod recovery;

use std::time::Duration;

use pythia_core::broker::{Broker, Maintained, Subscription};
use pythia_core::settlement::{DeadKind, DeadReason, Disposition, Settlement};
use pythia_core::{Delivery, Message, QueueName};
use pythia_redis::ListBroker;
use pythia_redis::config::RedisConfig;
use pythia_redis::testing::RedisServer;
use tokio::time::{Instant, sleep};

const MAX_ATTEMPTS: u32 = 5;

fn orders() -> QueueName {
    QueueName::new("orders").expect("a valid name")
}

fn on(server: &RedisServer) -> ListBroker {
    with(server, |_| {})
}

fn with(server: &RedisServer, change: impl FnOnce(&mut RedisConfig)) -> ListBroker {
    at(&server.url(), change)
}

/// A server that has no `BLMPOP`, as before 7.0.
async fn without_blmpop() -> RedisServer {
    let server = RedisServer::start().await;
    let known = server.cli(&["COMMAND", "INFO", "BLMPOP"]).await;
    if known.to_lowercase().contains("blmpop") {
        return RedisServer::start_with(&["--rename-command", "BLMPOP", ""]).await;
    }
    server
}

/// A broker with a lease that a test can wait for.
fn at(url: &str, change: impl FnOnce(&mut RedisConfig)) -> ListBroker {
    let mut config = RedisConfig::from_url(url).expect("a valid url");
    config.lease = Duration::from_millis(600);
    change(&mut config);
    ListBroker::new(config).expect("valid settings")
}

async fn subscribe(broker: &ListBroker) -> Subscription {
    broker.subscribe(&orders()).await.expect("redis runs")
}

/// What a plain client writes.
async fn lpush(server: &RedisServer, bodies: &[&str]) {
    server.cli(&[&["LPUSH", "orders"], bodies].concat()).await;
}

/// One read, of which nothing or something comes.
async fn read(subscription: &mut Subscription, max: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    let read = subscription.source.receive(max, &mut taken).await;
    read.expect("redis runs");
    taken
}

/// The next messages, as many as that.
async fn take(subscription: &mut Subscription, count: usize) -> Vec<Delivery> {
    let patience = Instant::now() + Duration::from_secs(10);
    let mut taken = Vec::new();
    while taken.len() < count {
        assert!(Instant::now() < patience, "{} of {count} came", taken.len());
        taken.append(&mut read(subscription, count - taken.len()).await);
    }
    taken
}

async fn take_one(subscription: &mut Subscription) -> Delivery {
    take(subscription, 1).await.remove(0)
}

async fn ack(subscription: &Subscription, deliveries: &[Delivery]) -> u64 {
    settle(subscription, deliveries, Disposition::Ack).await
}

/// Settles, and answers how many were stale.
async fn settle(
    subscription: &Subscription,
    deliveries: &[Delivery],
    disposition: Disposition,
) -> u64 {
    let batch: Vec<_> = deliveries
        .iter()
        .map(|delivery| Settlement::new(delivery.clone(), disposition.clone()))
        .collect();
    let settled = subscription.settler.settle(&batch).await;
    settled.expect("redis runs").stale
}

fn retry(after: Duration) -> Disposition {
    Disposition::Retry { after }
}

fn dead(kind: DeadKind, error: &str) -> Disposition {
    let error = error.to_owned();
    Disposition::DeadLetter {
        reason: DeadReason { kind, error },
    }
}

async fn publish(broker: &ListBroker, messages: impl IntoIterator<Item = Message>) {
    let batch = messages.into_iter().collect();
    broker.publish(&orders(), batch).await.expect("redis runs");
}

async fn maintain(broker: &ListBroker) -> Maintained {
    let maintained = broker.maintain(&orders(), MAX_ATTEMPTS).await;
    maintained.expect("redis runs")
}

/// Rounds of upkeep until one of them recovers something, or buries it.
async fn recovery(broker: &ListBroker) -> Maintained {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let round = maintain(broker).await;
        if round.recovered + round.dead > 0 {
            return round;
        }
        assert!(Instant::now() < patience, "nothing was recovered");
        sleep(Duration::from_millis(20)).await;
    }
}

fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    let body = |delivery: &Delivery| {
        let bytes = delivery.payload.as_bytes().expect("bytes");
        String::from_utf8_lossy(bytes).into_owned()
    };
    deliveries.iter().map(body).collect()
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("m{n}")).collect()
}
