//! docs/deploy.md

use pythia_core::Config;
use pythia_core::testing::Record;
use pythia_redis::config::RedisConfig;
use pythia_redis::testing::RedisServer;

use crate::page::Page;
use crate::service::Service;
use crate::shell::Shell;

#[tokio::test]
async fn a_worker_is_deployed_as_it_is_shown() {
    let mut page = Page::open("deploy.md");

    let server = RedisServer::start().await;
    let shell = Shell::on(&server);
    page.run("A user of the workers' own", &shell).await;
    for pattern in ["list", "stream", "pubsub"] {
        works_with_those_rights(&server, pattern).await;
    }

    let server = RedisServer::start().await;
    let service = Service::start(&server.url(), "broker.type = 'list'").await;
    // A lane connects for its results when it has some.
    for settled in 1.. {
        server.cli(&["LPUSH", "orders", r#"{"item":"lamp"}"#]).await;
        service.log.wait_settled(settled).await;
        let clients = server.cli(&["CLIENT", "LIST"]).await;
        if clients.lines().count() > 7 {
            break;
        }
    }
    let shell = Shell::on(&server);
    page.run("Connections", &shell).await;
    service.end().await;

    page.run("What Redis keeps", &shell).await;
    page.end();
}

/// With a queue of its own, whose name begins as the rules say.
async fn works_with_those_rights(server: &RedisServer, pattern: &str) {
    let url = format!("redis://worker:SECRET@127.0.0.1:{}", server.port());
    let settings = format!(
        "broker.type = {pattern:?}\nbroker.queue = 'orders-{pattern}'\nrunner.sample_interval = '20ms'\n\
         runner.maintain_interval = '20ms'\nretry.initial_delay = '10ms'\nretry.max_attempts = 2"
    );
    let service = Service::start(&url, &settings).await;
    let shell = Shell::on(server).metrics(service.address);
    let mut health = String::new();
    while health.is_empty() || health.contains("connecting") {
        health = shell.run("curl -s 127.0.0.1:9898/health").await;
    }
    assert!(health.contains(r#""status":"ok""#), "{pattern}: {health}");
    let queue = format!("orders-{pattern}");
    let producer = service.producer();
    for item in ["lamp", "broken", "bomb"] {
        let message = producer.message(&serde_json::json!({ "item": item }));
        let message = message.unwrap().dedupe_key(item);
        producer.publish(&*queue, message).await.unwrap();
    }
    // A broken one is tried twice; on pub/sub within the process.
    let settled = if pattern == "pubsub" { 3 } else { 4 };
    service.log.wait_settled(settled).await;
    let failures = |records: &[Record]| {
        let failed = records.iter().filter(|record| is_failure(record));
        assert_eq!(failed.count(), 0, "{pattern}: {records:?}");
        records
            .iter()
            .any(|record| matches!(record, Record::ServerSampled { .. }))
    };
    service.log.wait_for(failures).await;
    service.end().await;
}

fn is_failure(record: &Record) -> bool {
    matches!(
        record,
        Record::ExtendFailed { .. }
            | Record::FetchFailed { .. }
            | Record::MaintainFailed { .. }
            | Record::SettleFailed { .. }
    )
}

#[test]
fn each_form_of_a_url_is_one() {
    let page = Page::open("deploy.md");
    let rows = page.rows("Where Redis is");
    assert_eq!(rows.len(), 5);
    for row in rows {
        RedisConfig::from_url(row[1].trim_matches('`')).unwrap();
    }
}

#[test]
fn its_settings_are_settings() {
    let page = Page::open("deploy.md");
    let blocks = page.blocks("toml");
    assert_eq!(blocks.len(), 2);
    for toml in blocks {
        RedisConfig::from_config(&Config::from_toml(toml).unwrap()).unwrap();
    }
}

#[tokio::test]
async fn tls_works_as_it_is_shown() {
    let server = RedisServer::start_tls(&[]).await;
    let page = Page::open("deploy.md");
    let mut settings = format!("broker.type = 'list'\n{}", page.blocks("toml")[0]);
    for (shown, here) in [
        ("/etc/worker/ca.pem", server.ca_file()),
        ("/etc/worker/worker.pem", server.client_cert_file()),
        ("/etc/worker/worker.key", server.client_key_file()),
    ] {
        assert!(settings.contains(shown), "{shown}");
        settings = settings.replace(shown, here.to_str().unwrap());
    }
    let service = Service::start(&server.url(), &settings).await;
    let lamp = serde_json::json!({"item": "lamp"});
    let producer = service.producer();
    producer.send("orders", &lamp).await.unwrap();
    service.log.wait_settled(1).await;
    service.end().await;
}
