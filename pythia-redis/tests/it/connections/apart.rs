//! Connections that don't come back together.

use std::time::Duration;

use futures_util::future::join3;
use pythia_core::broker::{Settler, Subscription};
use pythia_core::settlement::Settlement;
use pythia_core::{BrokerError, Delivery};
use pythia_redis::testing::RedisServer;
use tokio::time::timeout;

use super::PATIENCE;
use crate::bench::Bench;

/// What a worker reads that can neither renew nor settle it is lost to all others until its lease ends.
#[tokio::test]
async fn nothing_is_read_until_it_could_be_settled() {
    join3(
        reads_nothing_without("list", Lost::Settler),
        reads_nothing_without("list", Lost::Pool),
        reads_nothing_without("stream", Lost::Settler),
    )
    .await;
}

/// What is gone for a time, while the reader is there.
#[derive(Clone, Copy, Debug)]
enum Lost {
    /// The connection by which results are settled; on streams it renews, too.
    Settler,
    /// The connections by which a list's leases are renewed.
    Pool,
}

async fn reads_nothing_without(pattern: &str, lost: Lost) {
    let server = RedisServer::start().await;
    let everything = ["on", ">secret", "allkeys", "allchannels", "allcommands"];
    set_user(&server, &everything).await;
    let bench = Bench::with(
        &format!(
            "redis.url = \"redis://app:secret@127.0.0.1:{}\"\n\
             redis.doctor = false\n\
             redis.reconnect_max_delay = \"100ms\"",
            server.port()
        ),
        pattern,
    );
    let mut worker = bench.broker.subscribe(&bench.queue).await.unwrap();
    // It has looked at the queue, the others have only come.
    let [reader] = &connections(&server, |client| has_run(client, &["llen", "eval"])).await[..]
    else {
        panic!("{pattern}: one reader")
    };
    bench.write_number(&server, 1).await;
    let first = next(&mut worker).await;
    assert_eq!(ack(&*worker.settler, &first).await, 0, "{pattern}");

    set_user(&server, &["resetpass", ">another"]).await;
    let doomed = connections(
        &server,
        match lost {
            Lost::Settler => |client| has_run(client, &["eval"]),
            Lost::Pool => |client| !has_run(client, &["eval"]),
        },
    );
    for id in doomed.await.iter().filter(|&id| id != reader) {
        server.cli(&["CLIENT", "KILL", "ID", id]).await;
    }
    let noticed = async { while receive(&mut worker).await.is_ok() {} };
    timeout(Duration::from_secs(20), noticed)
        .await
        .unwrap_or_else(|_| panic!("{pattern} goes on without its {lost:?}"));
    bench.write_number(&server, 2).await;
    let refused = async {
        loop {
            let error = receive(&mut worker).await.expect_err(pattern).to_string();
            if error.contains("refuses the credentials") {
                break;
            }
        }
    };
    timeout(PATIENCE, refused)
        .await
        .expect("an error that says why");
    let waiting = match pattern {
        "list" => {
            "return redis.call('LLEN', 'orders') + redis.call('LLEN', 'pythia:{orders}:inbox')"
        }
        _ => "return 1 - redis.call('XPENDING', 'orders', 'pythia')[1]",
    };
    assert_eq!(server.cli(&["EVAL", waiting, "0"]).await, "1", "{pattern}");
    assert!(connections(&server, |_| true).await.contains(reader));

    set_user(&server, &["resetpass", ">secret"]).await;
    let second = next(&mut worker).await;
    assert_eq!(ack(&*worker.settler, &second).await, 0, "{pattern}");
}

/// It would leave a consumer behind that is none, each time that it tries.
#[tokio::test]
async fn a_group_is_not_joined_by_who_could_not_settle() {
    let server = RedisServer::start().await;
    let settings = format!("redis.url = {:?}\nredis.doctor = false", server.url());
    let bench = Bench::with(&settings, "stream");
    // Room for the reader alone.
    assert_eq!(
        server.cli(&["CONFIG", "SET", "maxclients", "1"]).await,
        "OK"
    );
    let refused = bench.broker.subscribe(&bench.queue).await;
    let error = refused.expect_err("the settler can't connect").to_string();
    assert!(error.contains("max number of clients"), "{error}");
    let again = async { while server.cli(&["CONFIG", "SET", "maxclients", "99"]).await != "OK" {} };
    timeout(PATIENCE, again).await.expect("the reader has gone");
    assert_eq!(server.cli(&["EXISTS", "orders"]).await, "0");
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

/// Whether the last command of a connection begins with one of these.
fn has_run(client: &str, commands: &[&str]) -> bool {
    let mut commands = commands.iter();
    commands.any(|command| client.contains(&format!(" cmd={command}")))
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
    let acked = |delivery: &Delivery| Settlement::Ack(delivery.receipt);
    let batch: Vec<_> = deliveries.iter().map(acked).collect();
    let settled = timeout(PATIENCE, settler.settle(&batch)).await;
    settled.expect("it takes no time").expect("settled").stale
}
