//! Users with a password and with too few rights.

use pythia_core::{Config, QueueName};
use pythia_redis::doctor::rights;
use pythia_redis::testing::{RedisServer, Sentinels};

use super::{PATTERNS, all_patterns_work, refusal};
use crate::bench::Bench;

/// The rights that a worker of these tests' queues needs, wherever its Redis is.
fn all_rights() -> Vec<String> {
    let queues = ["orders", "orders-list", "orders-pubsub", "orders-stream"];
    let queues = queues.map(|name| QueueName::new(name).expect("a valid name"));
    rights(&Config::default(), &queues).expect("no settings")
}

/// A user with all rights, but for these.
async fn with_user(but: &[&str]) -> RedisServer {
    let server = RedisServer::start().await;
    let user = ["ACL", "SETUSER", "app", "reset", "on", ">se:cret"];
    let rights = all_rights();
    let rights: Vec<&str> = rights.iter().map(String::as_str).collect();
    assert_eq!(server.cli(&[&user[..], &rights, but].concat()).await, "OK");
    server
}

fn url(server: &RedisServer) -> String {
    format!("redis://app:se%3Acret@127.0.0.1:{}", server.port())
}

#[tokio::test]
async fn a_user_with_the_documented_rights_can_run_every_pattern() {
    let server = with_user(&[]).await;
    all_patterns_work(&format!("redis.url = {:?}", url(&server))).await;
}

#[tokio::test]
async fn user_and_password_may_stand_beside_the_url() {
    let server = with_user(&[]).await;
    server.cli(&["ACL", "SETUSER", "default", "off"]).await;
    let beside = format!(
        "redis.url = \"redis://127.0.0.1:{}\"\nredis.username = \"app\"\nredis.password = \"se:cret\"",
        server.port()
    );
    all_patterns_work(&beside).await;
}

#[tokio::test]
async fn a_wrong_password_is_refused_without_being_shown() {
    let server = with_user(&[]).await;
    let url = url(&server).replace("se%3Acret", "hunter2");
    let error = refusal(&format!("redis.url = {url:?}")).await;
    assert!(error.contains("refuses the credentials"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

/// The error names the command, or the key, and what grants it.
#[tokio::test]
async fn a_missing_right_is_named_with_what_grants_it() {
    for (taken, pattern, expected) in [
        ("-lpush", "list", "ACL SETUSER app +lpush"),
        ("-xadd", "stream", "ACL SETUSER app +xadd"),
        ("-evalsha", "pubsub", "ACL SETUSER app +evalsha"),
    ] {
        let server = with_user(&[taken]).await;
        let bench = Bench::new(&url(&server), pattern);
        let message = pythia_core::Message::new("1");
        let error = bench
            .broker
            .publish(&bench.queue, vec![message])
            .await
            .expect_err("the right is missing")
            .to_string();
        assert!(error.contains(expected), "{pattern} {taken}: {error}");
        assert!(error.contains("orders"), "{pattern} {taken}: {error}");
    }
}

#[tokio::test]
async fn a_key_or_channel_out_of_reach_is_named_with_what_grants_it() {
    let out_of_reach = ["resetkeys", "~other*", "allchannels", "+@all"];
    let server = with_user(&out_of_reach).await;
    for pattern in PATTERNS {
        let bench = Bench::new(&url(&server), pattern).apart();
        let message = pythia_core::Message::new("1");
        let published = bench.broker.publish(&bench.queue, vec![message]).await;
        let error = published.expect_err("the key is out of reach").to_string();
        assert!(error.contains("lacks a permission"), "{pattern}: {error}");
        assert!(error.contains("ACL SETUSER app"), "{pattern}: {error}");
    }
}

/// What the connection itself needs is named as well: here it asks each server whether it is the primary.
#[tokio::test]
async fn a_right_that_connecting_takes_is_named_with_what_grants_it() {
    let sentinels = Sentinels::start().await;
    let user = ["ACL", "SETUSER", "app", "reset", "on", ">se:cret"];
    let rights = all_rights();
    let rights: Vec<&str> = rights.iter().map(String::as_str).collect();
    let set = sentinels
        .primary()
        .cli(&[&user[..], &rights].concat())
        .await;
    assert_eq!(set, "OK");
    let url = sentinels.url().replace("://", "://app:se%3Acret@");
    let error = refusal(&format!("redis.url = {url:?}")).await;
    assert!(error.contains("ACL SETUSER app +role"), "{error}");
}
