//! Streams against a real Redis.

#![expect(
    clippy::future_not_send,
    reason = "a test and its subscriptions stay on one thread"
)]

mod admin;
mod conformance;
mod delay;
mod delivery;
mod healing;
mod lease;
mod lost_answers;
mod poison;
mod publish;
mod replay;
mod trim;

use std::time::Duration;

use pythia_core::broker::{Broker, Maintained, Settled, Subscription};
use pythia_core::settlement::{DeadKind, DeadReason, Disposition, Settlement};
use pythia_core::{Delivery, Message, Payload, QueueName, Receipt};
use pythia_redis::StreamBroker;
use pythia_redis::config::RedisConfig;
use pythia_redis::testing::RedisServer;
use tokio::time::{Instant, sleep};

const LIMIT: u32 = 5;

fn orders() -> QueueName {
    QueueName::new("orders").expect("a valid name")
}

fn config(url: &str) -> RedisConfig {
    let mut config = RedisConfig::from_url(url).expect("a valid url");
    config.lease = Duration::from_millis(600);
    config
}

/// A worker's broker with that group, on a lease that a test can wait for.
fn group(server: &RedisServer, group: &str) -> StreamBroker {
    with(server, |config| config.stream.group = group.to_owned())
}

fn with(server: &RedisServer, change: impl FnOnce(&mut RedisConfig)) -> StreamBroker {
    let mut config = config(&server.url());
    change(&mut config);
    StreamBroker::new(config).expect("valid settings")
}

async fn subscribe(broker: &StreamBroker) -> Subscription {
    broker.subscribe(&orders()).await.expect("redis runs")
}

/// The next messages, as many as that.
async fn take(subscription: &mut Subscription, count: usize) -> Vec<Delivery> {
    let patience = Instant::now() + Duration::from_secs(10);
    let mut taken = Vec::new();
    while taken.len() < count {
        assert!(
            Instant::now() < patience,
            "{} of {count} messages came",
            taken.len()
        );
        let room = count - taken.len();
        let before = taken.len();
        subscription
            .source
            .receive(room, &mut taken)
            .await
            .expect("redis runs");
        assert!(taken.len() - before <= room, "more than asked for");
    }
    taken
}

/// The next messages, some of which have yet to become due.
async fn take_due(
    broker: &StreamBroker,
    subscription: &mut Subscription,
    count: usize,
) -> Vec<Delivery> {
    let patience = Instant::now() + Duration::from_secs(10);
    let mut taken = Vec::new();
    while taken.len() < count {
        assert!(
            Instant::now() < patience,
            "{} of {count} messages came",
            taken.len()
        );
        maintain(broker).await;
        let room = count - taken.len();
        let received = subscription.source.receive(room, &mut taken).await;
        received.expect("redis runs");
    }
    taken
}

async fn take_one(subscription: &mut Subscription) -> Delivery {
    take(subscription, 1).await.remove(0)
}

/// Waits out one read, in which nothing comes.
async fn nothing(subscription: &mut Subscription) {
    let mut taken = Vec::new();
    subscription
        .source
        .receive(10, &mut taken)
        .await
        .expect("redis runs");
    assert!(taken.is_empty(), "{taken:?}");
}

async fn ack(subscription: &Subscription, deliveries: &[Delivery]) -> u64 {
    let batch: Vec<_> = deliveries
        .iter()
        .map(|delivery| Settlement::Ack(delivery.receipt))
        .collect();
    settle(subscription, &batch).await
}

/// Settles, and answers how many were stale.
async fn settle(subscription: &Subscription, batch: &[Settlement]) -> u64 {
    let Settled { stale, .. } = subscription
        .settler
        .settle(batch)
        .await
        .expect("redis runs");
    stale
}

fn disposed(delivery: &Delivery, disposition: Disposition) -> Settlement {
    Settlement::new(delivery.clone(), disposition)
}

fn retry(delivery: &Delivery, after: Duration) -> Settlement {
    disposed(delivery, Disposition::Retry { after })
}

fn dead(delivery: &Delivery, error: &str) -> Settlement {
    let reason = DeadReason {
        kind: DeadKind::Permanent,
        error: error.to_owned(),
    };
    disposed(delivery, Disposition::DeadLetter { reason })
}

async fn renew(subscription: &Subscription, deliveries: &[Delivery]) -> Vec<Receipt> {
    let receipts: Vec<_> = deliveries.iter().map(|delivery| delivery.receipt).collect();
    subscription
        .settler
        .extend(&receipts)
        .await
        .expect("redis runs")
}

async fn publish(broker: &StreamBroker, bodies: impl IntoIterator<Item = String>) {
    let batch: Vec<_> = bodies.into_iter().map(Message::new).collect();
    let count = batch.len();
    let published = broker.publish(&orders(), batch).await.expect("redis runs");
    assert_eq!(published.len(), count);
}

async fn maintain(broker: &StreamBroker) -> Maintained {
    broker.maintain(&orders(), LIMIT).await.expect("redis runs")
}

/// Rounds of upkeep, as workers make them, until one of them has done what is waited for.
async fn maintain_until(broker: &StreamBroker, done: impl Fn(&Maintained) -> bool) -> Maintained {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let maintained = maintain(broker).await;
        if done(&maintained) {
            return maintained;
        }
        assert!(Instant::now() < patience, "{maintained:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Lets everything that is pending run out of its lease, and hands all of it on.
async fn recover_all(broker: &StreamBroker, count: u64) {
    let patience = Instant::now() + Duration::from_secs(10);
    let mut recovered = 0;
    while recovered < count {
        assert!(
            Instant::now() < patience,
            "{recovered} of {count} were recovered"
        );
        let maintained = maintain(broker).await;
        recovered += maintained.recovered + maintained.dead;
        if !maintained.more {
            sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(recovered, count);
}

fn body(delivery: &Delivery) -> &str {
    let bytes = match &delivery.payload {
        Payload::Bytes(bytes) => bytes,
        payload => payload.field("k").expect("tests write the field k"),
    };
    std::str::from_utf8(bytes).expect("tests write text")
}

fn bodies(deliveries: &[Delivery]) -> Vec<&str> {
    let mut bodies: Vec<_> = deliveries.iter().map(body).collect();
    bodies.sort_unstable();
    bodies
}

async fn xadd(server: &RedisServer, value: &str) -> String {
    server.cli(&["XADD", "orders", "*", "k", value]).await
}

async fn number(server: &RedisServer, command: &[&str]) -> u64 {
    let answer = server.cli(command).await;
    answer
        .parse()
        .unwrap_or_else(|_| panic!("{command:?}: {answer}"))
}

/// How many entries of the queue's stream, and of the group's own, are pending.
async fn pending(server: &RedisServer, group: &str) -> [u64; 3] {
    let mut counts = [0; 3];
    let own = |kind| format!("pythia:{{orders}}:{kind}:{group}");
    for (count, key) in counts
        .iter_mut()
        .zip(["orders".to_owned(), own("retry"), own("suspect")])
    {
        let summary = server.cli(&["XPENDING", &key, group]).await;
        *count = summary
            .lines()
            .next()
            .and_then(|count| count.parse().ok())
            .unwrap_or_else(|| panic!("{summary}"));
    }
    counts
}
