//! Unix sockets, in every form that is documented.

use pythia_redis::testing::RedisServer;

use super::{all_patterns_work, refusal};
use crate::bench::Bench;

#[tokio::test]
async fn a_unix_socket_works_on_every_pattern() {
    let server = RedisServer::start().await;
    let socket = server.socket();
    all_patterns_work(&format!("redis.url = \"unix://{}\"", socket.display())).await;
}

#[tokio::test]
async fn every_form_of_a_socket_leads_to_its_database() {
    let server = RedisServer::start_with(&["--requirepass", "secret"]).await;
    let path = server.socket().display().to_string();
    for (nth, url) in [
        format!("unix://:secret@{path}?db=3"),
        format!("socket://:secret@{path}?db=3"),
        format!("redis+socket://:secret@{path}?virtual_host=3"),
        format!("redis+unix://:secret@{path}?db=3"),
        format!("redis://:secret@/3?path={path}"),
        format!("redis://:secret@localhost/3?path={path}"),
    ]
    .into_iter()
    .enumerate()
    {
        let bench = Bench::new(&url, "list");
        bench.publish(0..1).await;
        let waiting = server.cli(&["-n", "3", "LLEN", "orders"]).await;
        assert_eq!(waiting, (nth + 1).to_string(), "{url}");
    }
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_named() {
    let error = refusal("redis.url = \"unix:///nowhere/redis.sock\"").await;
    assert!(error.contains("unix:///nowhere/redis.sock"), "{error}");
    assert!(error.contains("no such file"), "{error}");
}
