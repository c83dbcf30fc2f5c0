//! `rediss://`: certificates are checked on both sides.

use pythia_core::Config;
use pythia_redis::testing::RedisServer;

use super::{all_patterns_work, refusal};
use crate::bench::Bench;

#[tokio::test]
async fn tls_with_an_own_authority_works_on_every_pattern() {
    let server = RedisServer::start_tls(&["--tls-auth-clients", "no"]).await;
    let settings = format!(
        "redis.url = {:?}\nredis.tls.ca_file = {:?}",
        server.url(),
        server.ca_file()
    );
    all_patterns_work(&settings).await;
}

#[tokio::test]
async fn a_client_certificate_lets_in() {
    let server = RedisServer::start_tls(&[]).await;
    let by_option = format!(
        "redis.url = \"{}?ssl_ca_certs={}&ssl_certfile={}&ssl_keyfile={}\"",
        server.url(),
        server.ca_file().display(),
        server.client_cert_file().display(),
        server.client_key_file().display(),
    );
    all_patterns_work(&by_option).await;
    // By its parts, without a URL.
    let by_parts = format!(
        "redis.host = \"localhost\"\nredis.port = {}\nredis.tls.enabled = true\nredis.tls.ca_file = {:?}\n\
         redis.tls.cert_file = {:?}\nredis.tls.key_file = {:?}",
        server.port(),
        server.ca_file(),
        server.client_cert_file(),
        server.client_key_file(),
    );
    all_patterns_work(&by_parts).await;
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_says_so() {
    let server = RedisServer::start_tls(&[]).await;
    let error = refusal(&format!(
        "redis.url = {:?}\nredis.tls.ca_file = {:?}",
        server.url(),
        server.ca_file()
    ))
    .await;
    assert!(error.contains("certificate"), "{error}");
    assert!(error.contains("redis.tls"), "{error}");
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let server = RedisServer::start_tls(&["--tls-auth-clients", "no"]).await;
    let error = refusal(&format!(
        "redis.url = {:?}\nredis.tls.ca_file = {:?}",
        server.url(),
        server.other_ca_file()
    ))
    .await;
    assert!(error.contains("redis.tls"), "{error}");
    assert!(error.to_lowercase().contains("issuer"), "{error}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let server = RedisServer::start_tls(&["--tls-auth-clients", "no"]).await;
    let url = server.url().replace("localhost", "127.0.0.2");
    let error = refusal(&format!(
        "redis.url = {url:?}\nredis.tls.ca_file = {:?}",
        server.ca_file()
    ))
    .await;
    assert!(error.contains("127.0.0.2"), "{error}");
}

#[tokio::test]
async fn tls_on_a_plain_port_is_named() {
    let server = RedisServer::start().await;
    let url = server.url().replace("redis://", "rediss://");
    let error = refusal(&format!(
        "redis.url = {url:?}\nredis.connect_timeout = \"500ms\""
    ))
    .await;
    assert!(error.contains("without TLS on this port"), "{error}");
    assert!(error.contains("redis://"), "{error}");
    for scheme in ["rediss-cluster", "rediss-sentinel"] {
        let url = format!("{scheme}://127.0.0.1:{}/mymaster", server.port());
        let url = url.trim_end_matches(if scheme == "rediss-cluster" {
            "/mymaster"
        } else {
            ""
        });
        let error = refusal(&format!(
            "redis.url = {url:?}\nredis.connect_timeout = \"500ms\""
        ))
        .await;
        assert!(error.contains("without TLS on this port"), "{error}");
    }
}

/// The store keeps to the same rule, so that its password does not travel in the clear.
#[tokio::test]
async fn tls_that_is_enabled_holds_for_the_store_too() {
    let server = RedisServer::start_tls(&[]).await;
    let bench = Bench::with(
        &format!(
            "redis.host = \"localhost\"\nredis.port = {0}\nredis.store_url = \"redis://localhost:{0}\"\n\
             redis.tls.enabled = true\nredis.tls.ca_file = {1:?}\nredis.tls.cert_file = {2:?}\n\
             redis.tls.key_file = {3:?}",
            server.port(),
            server.ca_file(),
            server.client_cert_file(),
            server.client_key_file(),
        ),
        "list",
    );
    let store = bench.broker.store().expect("Redis has one");
    store.set("k", "v".into(), None).await.unwrap();
}

/// The settings of TLS are the store's too where the broker has no use for them.
#[tokio::test]
async fn the_store_alone_may_be_behind_tls() {
    let (broker, store) = tokio::join!(RedisServer::start(), RedisServer::start_tls(&[]));
    let (ca, cert, key) = (
        store.ca_file(),
        store.client_cert_file(),
        store.client_key_file(),
    );
    let options = format!(
        "?ssl_ca_certs={}&ssl_certfile={}&ssl_keyfile={}",
        ca.display(),
        cert.display(),
        key.display()
    );
    let files = format!("[redis.tls]\nca_file = {ca:?}\ncert_file = {cert:?}\nkey_file = {key:?}");
    for (options, files) in [(options.as_str(), ""), ("", files.as_str())] {
        let bench = Bench::with(
            &format!(
                "redis.url = {:?}\nredis.store_url = \"{}{options}\"\n{files}",
                broker.url(),
                store.url()
            ),
            "list",
        );
        bench.publish(0..1).await;
        let store = bench.broker.store().expect("Redis has one");
        store.set("k", "v".into(), None).await.unwrap();
    }
}

#[tokio::test]
async fn a_store_on_a_unix_socket_needs_no_tls() {
    let (broker, store) = tokio::join!(
        RedisServer::start_tls(&["--tls-auth-clients", "no"]),
        RedisServer::start()
    );
    let bench = Bench::with(
        &format!(
            "redis.host = \"localhost\"\nredis.port = {}\nredis.store_url = \"unix://{}\"\n\
             redis.tls.enabled = true\nredis.tls.ca_file = {:?}",
            broker.port(),
            store.socket().display(),
            broker.ca_file(),
        ),
        "list",
    );
    bench.publish(0..1).await;
    let kv = bench.broker.store().expect("Redis has one");
    kv.set("k", "v".into(), None).await.unwrap();
    assert_eq!(store.cli(&["KEYS", "*"]).await, "pythia:store:k");
}

#[tokio::test]
async fn a_tls_port_without_tls_is_named() {
    let server = RedisServer::start_tls(&[]).await;
    let error = refusal(&format!(
        "redis.url = \"redis://127.0.0.1:{}\"",
        server.port()
    ))
    .await;
    assert!(error.contains("expects TLS on this port"), "{error}");
    assert!(error.contains("rediss://"), "{error}");
}

#[tokio::test]
async fn files_that_can_not_be_used_are_named_before_anything_connects() {
    let server = RedisServer::start_tls(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let absent = folder.path().join("absent.pem").display().to_string();
    let empty = file("empty.pem", "no certificate\n");
    let key = server.client_key_file().display().to_string();
    let cert = server.client_cert_file().display().to_string();
    let ca = server.ca_file().display().to_string();
    for (settings, why) in [
        (format!("ca_file = {absent:?}"), "redis.tls.ca_file"),
        (format!("ca_file = {empty:?}"), "no certificate in PEM form"),
        (
            format!("ca_file = {ca:?}\ncert_file = {cert:?}\nkey_file = {empty:?}"),
            "no private key in PEM form",
        ),
        (
            format!("ca_file = {ca:?}\ncert_file = {key:?}\nkey_file = {key:?}"),
            "redis.tls.cert_file",
        ),
        (
            format!("ca_file = {ca:?}\ncert_file = {ca:?}\nkey_file = {key:?}"),
            "can't be used together",
        ),
        (
            format!("ca_file = {ca:?}\ncert_file = {cert:?}"),
            "only one is set",
        ),
    ] {
        let toml =
            format!("broker.type = \"list\"\nredis.url = \"rediss://h\"\n[redis.tls]\n{settings}");
        let config = Config::from_toml(&toml).unwrap();
        let error = pythia_redis::from_config(&config).expect_err(&settings);
        assert!(error.to_string().contains(why), "{settings}: {error}");
    }
}
