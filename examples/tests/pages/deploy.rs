//! docs/deploy.md

use pythia_core::testing::Record;
use pythia_core::{Config, Message, QueueName};
use pythia_redis::config::RedisConfig;
use pythia_redis::doctor::rights;
use pythia_redis::testing::{Cluster, RedisServer, Sentinels};

use crate::page::Page;
use crate::service::Service;
use crate::shell::Shell;

#[tokio::test]
async fn connections_and_what_redis_keeps_are_as_shown() {
    let mut page = Page::open("deploy.md");
    for _ in 0..4 {
        page.skip(RIGHTS);
    }

    let server = RedisServer::start().await;
    // The doctor's connection is there for a moment only.
    let settings = "broker.type = 'list'\nredis.doctor = false";
    let service = Service::start(&server.url(), settings).await;
    // A lane connects for its results when it has some.
    for settled in 1.. {
        server.cli(&["LPUSH", "orders", LAMP]).await;
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

#[tokio::test]
async fn a_worker_needs_no_more_rights_than_it_is_given() {
    let server = RedisServer::start().await;
    let mut page = Page::open("deploy.md");
    let shell = Shell::on(&server);
    page.run(RIGHTS, &shell).await;
    let url = format!("redis://worker:SECRET@127.0.0.1:{}", server.port());
    everything_is_allowed(&url, "", &shell).await;
    page.run(RIGHTS, &shell).await;
    let prefix = "redis.key_prefix = 'shop:'";
    everything_is_allowed(&url, prefix, &shell).await;
}

#[tokio::test]
async fn nor_does_it_on_a_cluster() {
    let cluster = Cluster::start().await;
    for node in 0..NODES {
        let mut page = Page::open("deploy.md");
        let shell = Shell::on(cluster.node(node));
        page.run(RIGHTS, &shell).await;
        page.skip(RIGHTS);
        page.skip(RIGHTS);
        page.run(RIGHTS, &shell).await;
    }
    let url = cluster.url().replace("://", "://worker:SECRET@");
    everything_is_allowed(&url, "", &Shell::on(cluster.node(0))).await;
}

#[tokio::test]
async fn nor_by_way_of_sentinels() {
    let sentinels = Sentinels::start().await;
    let mut page = Page::open("deploy.md");
    let shell = Shell::on(sentinels.primary());
    page.run(RIGHTS, &shell).await;
    page.skip(RIGHTS);
    page.run(RIGHTS, &shell).await;
    let url = sentinels.url().replace("://", "://worker:SECRET@");
    everything_is_allowed(&url, "", &shell).await;
}

/// The page grants what `doctor::rights` says; for a whole family of queues by patterns, which cover more names.
#[test]
fn its_rights_are_those_that_a_worker_needs() {
    let page = include_str!("../../../docs/deploy.md");
    for (place, url) in [
        ("reset on", "redis://h"),
        ("+role", "redis-sentinel://h/mymaster"),
        ("+cluster|slots", "redis-cluster://h"),
    ] {
        let settings = Config::from_toml(&format!("redis.url = {url:?}")).unwrap();
        let queue = QueueName::new("orders").unwrap();
        let needed = rights(&settings, &[queue]).unwrap();
        let shown: Vec<&str> = page
            .lines()
            .filter(|line| line.contains("ACL SETUSER worker"))
            .filter(|line| line.contains("reset on") || line.contains(place))
            .flat_map(str::split_whitespace)
            .map(|word| word.trim_matches('\''))
            .filter(|word| word.starts_with(['+', '-']))
            .collect();
        let commands: Vec<&str> = needed
            .iter()
            .map(String::as_str)
            .filter(|word| word.starts_with(['+', '-']))
            .collect();
        assert_eq!(shown, commands, "{url}");
    }
}

/// Each pattern, with a queue whose name begins as the rules say: nothing is refused.
async fn everything_is_allowed(url: &str, more: &str, shell: &Shell) {
    for pattern in ["list", "stream", "pubsub"] {
        let settings = format!(
            "broker.type = {pattern:?}\nbroker.queue = 'orders-{pattern}'\nrunner.sample_interval = '20ms'\n\
             runner.maintain_interval = '20ms'\nretry.initial_delay = '10ms'\nretry.max_attempts = 2\n{more}"
        );
        let service = Service::start(url, &settings).await;
        let ask = format!("curl -s {}/health", service.address);
        let mut health = String::new();
        while health.is_empty() || health.contains("connecting") {
            assert!(!health.contains("NOPERM"), "{pattern}: {health}");
            health = shell.run(&ask).await;
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
        let sampled = |records: &[Record]| {
            let failed = records.iter().any(is_failure);
            assert!(!failed, "{pattern}: {records:?}");
            records
                .iter()
                .any(|record| matches!(record, Record::ServerSampled { .. }))
        };
        service.log.wait_for(sampled).await;
        service.end().await;
    }
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
    let lamp = Message::new(LAMP);
    service.producer().publish("orders", lamp).await.unwrap();
    service.log.wait_settled(1).await;
    service.end().await;
}

const RIGHTS: &str = "A user of the workers' own";
const LAMP: &str = r#"{"item":"lamp"}"#;
/// Of the cluster that tests have: three masters, three replicas.
const NODES: usize = 6;
