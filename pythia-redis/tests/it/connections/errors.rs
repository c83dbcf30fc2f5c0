//! What goes wrong with a connection is said at once: what, where, and what to do.

use std::time::Duration;

use pythia_core::{Config, Message};
use pythia_redis::testing::RedisServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{PATTERNS, refusal};
use crate::bench::Bench;

async fn publish_error(bench: &Bench) -> String {
    let published = bench.broker.publish(&bench.queue, vec![Message::new("1")]);
    published
        .await
        .expect_err("it can't be published")
        .to_string()
}

#[tokio::test]
async fn another_type_under_the_queues_name_is_named() {
    let server = RedisServer::start().await;
    server.cli(&["SET", "orders", "a string"]).await;
    for pattern in ["list", "stream"] {
        let error = publish_error(&Bench::new(&server.url(), pattern)).await;
        assert!(error.contains("\"orders\""), "{pattern}: {error}");
        assert!(
            error.contains("the key holds another type"),
            "{pattern}: {error}"
        );
        assert!(error.contains("WRONGTYPE"), "{pattern}: {error}");
    }
}

#[tokio::test]
async fn a_read_only_replica_is_named() {
    let primary = RedisServer::start().await;
    let replica = RedisServer::start_replica_of(&primary).await;
    for pattern in ["list", "stream"] {
        let error = publish_error(&Bench::new(&replica.url(), pattern)).await;
        assert!(error.contains("read-only replica"), "{pattern}: {error}");
        assert!(
            error.contains("connect to the primary"),
            "{pattern}: {error}"
        );
    }
}

#[tokio::test]
async fn a_full_redis_is_named() {
    let server = RedisServer::start().await;
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for pattern in ["list", "stream"] {
        let error = publish_error(&Bench::new(&server.url(), pattern)).await;
        assert!(
            error.contains("OOM command not allowed"),
            "{pattern}: {error}"
        );
        assert!(error.contains("raise maxmemory"), "{pattern}: {error}");
    }
}

#[tokio::test]
async fn a_missing_password_is_named() {
    let server = RedisServer::start_with(&["--requirepass", "secret"]).await;
    let error = refusal(&format!(
        "redis.url = \"redis://127.0.0.1:{}\"",
        server.port()
    ))
    .await;
    assert!(error.contains("refuses the credentials"), "{error}");
    assert!(error.contains("redis.url"), "{error}");
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_named() {
    let server = RedisServer::start().await;
    let error = refusal(&format!("redis.url = \"{}/99\"", server.url())).await;
    assert!(error.contains("database"), "{error}");
    assert!(error.contains("/99"), "{error}");
}

#[tokio::test]
async fn an_unknown_host_is_named() {
    let error = refusal("redis.url = \"redis://no-such-host.invalid\"").await;
    assert!(error.contains("no-such-host.invalid"), "{error}");
    assert!(error.contains("lookup"), "{error}");
}

#[tokio::test]
async fn a_refused_connection_is_named() {
    let mut server = RedisServer::start().await;
    server.kill().await;
    let error = refusal(&format!("redis.url = {:?}", server.url())).await;
    assert!(error.contains("connection refused"), "{error}");
    assert!(error.contains(&server.port().to_string()), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named() {
    let server = RedisServer::start().await;
    server.pause();
    let error = refusal(&format!(
        "redis.url = {:?}\nredis.connect_timeout = \"300ms\"",
        server.url()
    ))
    .await;
    server.resume();
    assert!(error.contains("no connection within 300ms"), "{error}");
}

#[tokio::test]
async fn something_that_is_no_redis_is_named() {
    let url = answering("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let error = refusal(&format!(
        "redis.url = {url:?}\nredis.connect_timeout = \"1s\""
    ))
    .await;
    assert!(error.contains("unexpected reply"), "{error}");
    assert!(error.contains("127.0.0.1"), "{error}");
}

#[tokio::test]
async fn a_redis_that_is_too_old_is_named() {
    let url = answering_as("5.0.14").await;
    let error = refusal(&format!("redis.url = {url:?}")).await;
    assert!(error.contains("too old"), "{error}");
    assert!(error.contains("6.2"), "{error}");
    assert!(error.contains("5.0.14"), "{error}");
}

#[tokio::test]
async fn a_cluster_for_a_single_server_and_the_reverse_are_named() {
    let server = RedisServer::start().await;
    let error = refusal(&format!(
        "redis.url = \"redis-cluster://127.0.0.1:{}\"",
        server.port()
    ))
    .await;
    assert!(error.contains("cluster support disabled"), "{error}");
}

#[tokio::test]
async fn names_that_can_not_be_used_are_refused_before_anything_connects() {
    for (settings, why) in [
        ("redis.key_prefix = \"two words\"", "white space"),
        ("redis.key_prefix = \"{a}{b}\"", "braces"),
        ("redis.key_prefix = \"{}\"", "braces"),
        ("redis.stream.group = \"\"", "redis.stream.group"),
    ] {
        let config = Config::from_toml(&format!("broker.type = \"stream\"\n{settings}")).unwrap();
        let error = pythia_redis::from_config(&config).expect_err(settings);
        assert!(error.to_string().contains(why), "{settings}: {error}");
    }
}

/// Whoever publishes has a user waiting; a worker waits for as long as it takes.
#[tokio::test]
async fn publishing_fails_fast_while_redis_is_away_and_works_again_after() {
    for pattern in PATTERNS {
        let mut server = RedisServer::start().await;
        let bench = Bench::with(
            &format!(
                "redis.url = {:?}\nredis.publish_wait = \"200ms\"",
                server.url()
            ),
            pattern,
        );
        bench.publish(0..1).await;
        server.kill().await;
        let began = tokio::time::Instant::now();
        let error = publish_error(&bench).await;
        assert!(error.contains("connection"), "{pattern}: {error}");
        let took = tokio::time::Instant::now() - began;
        assert!(took < Duration::from_secs(3), "{pattern}: {took:?}");
        server.restart().await;
        bench.publish(1..2).await;
    }
}

/// Something that answers every line that ends a command with this.
async fn answering(answer: &'static str) -> String {
    serve(move |_| answer.to_owned()).await
}

/// A server that calls itself a Redis of this version.
async fn answering_as(version: &'static str) -> String {
    serve(move |request| {
        if request.contains("INFO") {
            let info = format!("# Server\r\nredis_version:{version}\r\n");
            format!("${}\r\n{info}\r\n", info.len())
        } else if request.contains("CLIENT") {
            ":7\r\n".to_owned()
        } else {
            "+PONG\r\n".to_owned()
        }
    })
    .await
}

async fn serve(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    #[expect(
        clippy::disallowed_methods,
        reason = "the server of a test, gone with its runtime"
    )]
    tokio::spawn(async move {
        let mut request = [0; 1024];
        while let Ok((mut stream, _)) = listener.accept().await {
            while let Ok(length @ 1..) = stream.read(&mut request).await {
                let reply = answer(&String::from_utf8_lossy(&request[..length]));
                if stream.write_all(reply.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    url
}
