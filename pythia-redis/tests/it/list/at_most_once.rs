//! Lists whose messages are gone when they are handed out.

use std::sync::{Arc, Mutex};

use pythia_core::broker::Guarantee;
use pythia_core::observe::{Event, GapCause, Observer};
use pythia_redis::config::Delivery as Mode;

use super::*;

#[tokio::test]
async fn both_commands_take_batches_from_the_right_end() {
    for server in [RedisServer::start().await, without_blmpop().await] {
        let broker = at_most_once(&server);
        assert_eq!(broker.guarantee(), Guarantee::AtMostOnce);
        let mut worker = subscribe(&broker).await;
        assert_eq!(worker.lease, None);
        lpush(&server, &["message", "b", "c", "d", "e"]).await;
        let deliveries = read(&mut worker, 4).await;
        assert_eq!(bodies(&deliveries), ["message", "b", "c", "d"]);
        assert_eq!(server.cli(&["LRANGE", "orders", "0", "-1"]).await, "e");
        assert_eq!(ack(&worker, &deliveries).await, 0);
        assert_eq!(bodies(&read(&mut worker, 1).await), ["e"]);
        assert_eq!(server.cli(&["KEYS", "*"]).await, "");
    }
}

#[tokio::test]
async fn the_newer_command_is_used_where_there_is_one() {
    let calls = async |server: &RedisServer| {
        let mut worker = subscribe(&at_most_once(server)).await;
        read(&mut worker, 1).await;
        let stats = server.cli(&["INFO", "commandstats"]).await;
        ["blmpop", "brpop"].map(|name| stats.contains(&format!("cmdstat_{name}:")))
    };
    assert_eq!(calls(&without_blmpop().await).await, [false, true]);
    let server = RedisServer::start().await;
    let known = server.cli(&["COMMAND", "INFO", "BLMPOP"]).await;
    let newer = known.to_lowercase().contains("blmpop");
    assert_eq!(calls(&server).await, [newer, !newer]);
}

#[tokio::test]
async fn headers_delays_and_keys_work_as_ever() {
    let server = RedisServer::start().await;
    let broker = at_most_once(&server);
    let mut worker = subscribe(&broker).await;
    let now = Message::new("now").id("chosen").header("tenant", "a");
    let later = Message::new("later").delay(Duration::from_millis(100));
    publish(&broker, [now, later]).await;
    let first = take_one(&mut worker).await;
    assert_eq!(first.id.as_str(), "chosen");
    assert_eq!(first.headers.get("tenant"), Some("a"));
    while maintain(&broker).await.promoted == 0 {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bodies(&take(&mut worker, 1).await), ["later"]);
}

#[derive(Debug, Default)]
struct Gaps(Mutex<Vec<(GapCause, Option<u64>)>>);

impl Observer for Gaps {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Gap { cause, lost, .. } = event {
            self.0.lock().unwrap().push((*cause, *lost));
        }
    }
}

#[tokio::test]
async fn a_lost_connection_is_a_gap() {
    let server = RedisServer::start().await;
    let broker = at_most_once(&server);
    let gaps = Arc::new(Gaps::default());
    broker.attach(Arc::<Gaps>::clone(&gaps));
    let mut worker = subscribe(&broker).await;
    assert!(read(&mut worker, 1).await.is_empty());
    let cut = async {
        sleep(Duration::from_millis(100)).await;
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    };
    let mut taken = Vec::new();
    let (read_while_cut, ()) = tokio::join!(worker.source.receive(1, &mut taken), cut);
    assert!(read_while_cut.expect_err("it was cut").is_unavailable());
    lpush(&server, &["a"]).await;
    assert_eq!(bodies(&take(&mut worker, 1).await), ["a"]);
    lpush(&server, &["b"]).await;
    take(&mut worker, 1).await;
    assert_eq!(*gaps.0.lock().unwrap(), [(GapCause::Disconnected, None)]);
}

#[tokio::test]
async fn what_the_other_mode_has_left_behind_comes_back() {
    let server = RedisServer::start().await;
    let held = async |broker: ListBroker| take(&mut subscribe(&broker).await, 2).await;
    lpush(&server, &["a", "b"]).await;
    held(on(&server)).await;
    let broker = at_most_once(&server);
    assert_eq!(recovery(&broker).await.recovered, 2);
    assert_eq!(
        bodies(&take(&mut subscribe(&broker).await, 2).await),
        ["a", "b"]
    );
}

fn at_most_once(server: &RedisServer) -> ListBroker {
    with(server, |config| config.list.delivery = Mode::AtMostOnce)
}
