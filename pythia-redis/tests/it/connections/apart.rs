//! Connections that don't come back together.

use std::time::Duration;

use futures_util::future::join;
use pythia_core::broker::{Settler, Subscription};
use pythia_core::settlement::{Disposition, Settlement};
use pythia_core::{BrokerError, Delivery};
use pythia_redis::testing::RedisServer;
use tokio::time::timeout;

use super::PATIENCE;
use crate::bench::Bench;

/// A reader that is back before the others would give work to a worker that can neither renew nor settle it.
#[tokio::test]
async fn nothing_is_read_until_it_could_be_settled() {
    join(
        waits_for_its_settler("list"),
        waits_for_its_settler("stream"),
    )
    .await;
}

async fn waits_for_its_settler(pattern: &str) {
    let server = RedisServer::start().await;
    let everything = ["on", ">secret", "allkeys", "allchannels", "allcommands"];
    set_user(&server, &everything).await;
    let bench = bench(&server, pattern);
    let mut worker = bench.broker.subscribe(&bench.queue).await.unwrap();
    // It has looked at the queue, the others have only come.
    let reader = connections(&server, |client| {
        ["llen", "eval"]
            .iter()
            .any(|command| client.contains(&format!(" cmd={command}")))
    })
    .await;
    assert_eq!(reader.len(), 1, "{pattern}: {reader:?}");
    bench.write_number(&server, 1).await;
    let first = next(&mut worker).await;
    assert_eq!(ack(&*worker.settler, &first).await, 0, "{pattern}");

    set_user(&server, &["resetpass", ">another"]).await;
    for id in connections(&server, |_| true).await {
        if id != reader[0] {
            server.cli(&["CLIENT", "KILL", "ID", &id]).await;
        }
    }
    let noticed = async { while receive(&mut worker).await.is_ok() {} };
    timeout(PATIENCE, noticed).await.expect("an error");
    bench.write_number(&server, 2).await;
    for _ in 0..3 {
        let error = receive(&mut worker).await.expect_err(pattern).to_string();
        assert!(error.contains("refuses the credentials"), "{error}");
    }
    assert_eq!(
        connections(&server, |_| true).await,
        reader,
        "{pattern}: it was up"
    );

    set_user(&server, &["resetpass", ">secret"]).await;
    let second = next(&mut worker).await;
    assert_eq!(ack(&*worker.settler, &second).await, 0, "{pattern}");
}

fn bench(server: &RedisServer, pattern: &str) -> Bench {
    let url = format!("redis://app:secret@127.0.0.1:{}", server.port());
    let settings =
        format!("redis.url = {url:?}\nredis.doctor = false\nredis.reconnect_max_delay = \"100ms\"");
    Bench::with(&settings, pattern)
}

async fn set_user(server: &RedisServer, rules: &[&str]) {
    let set = ["ACL", "SETUSER", "app"];
    assert_eq!(server.cli(&[&set, rules].concat()).await, "OK");
}

/// The numbers that the server gives to the user's connections.
async fn connections(server: &RedisServer, which: fn(&str) -> bool) -> Vec<String> {
    let clients = server.cli(&["CLIENT", "LIST"]).await;
    let of_user = clients
        .lines()
        .filter(|client| client.contains(" user=app ") && which(client));
    let id = |client: &str| client.split([' ', '=']).nth(1).map(str::to_owned);
    of_user.filter_map(id).collect()
}

async fn receive(worker: &mut Subscription) -> Result<Vec<Delivery>, BrokerError> {
    let mut into = Vec::new();
    let received = worker.source.receive(1, &mut into).await;
    received.map(|()| into)
}

async fn next(worker: &mut Subscription) -> Vec<Delivery> {
    let some = async {
        loop {
            match receive(worker).await {
                Ok(deliveries) if !deliveries.is_empty() => break deliveries,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    timeout(PATIENCE, some).await.expect("a delivery")
}

/// How many of them were no longer the worker's.
async fn ack(settler: &dyn Settler, deliveries: &[Delivery]) -> u64 {
    let acked = |delivery: &Delivery| Settlement::new(delivery.clone(), Disposition::Ack);
    let batch: Vec<_> = deliveries.iter().map(acked).collect();
    let settled = timeout(Duration::from_secs(5), settler.settle(&batch)).await;
    settled.expect("it takes no time").expect("settled").stale
}
