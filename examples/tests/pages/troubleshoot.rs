//! docs/troubleshoot.md

use std::collections::BTreeSet;
use std::time::Duration;

use pythia_core::testing::Record;
use pythia_core::{Config, Message, QueueName};
use pythia_redis::doctor::Code;
use pythia_redis::testing::RedisServer;

use crate::page::Page;
use crate::service::{Service, tells_lag};
use crate::shell::Shell;

/// Each scenario is what a session of the page is typed in, one after the other. What Redis holds meanwhile is compared with the
/// page's table of keys.
#[tokio::test]
async fn each_question_is_answered_as_it_is_shown() {
    let mut page = Page::open("troubleshoot.md");
    let mut keys = Keys::default();

    let server = RedisServer::start().await;
    let shell = Shell::on(&server)
        .variable("PYTHIA_BROKER_TYPE", "list")
        .variable("REDIS_URL", server.url());
    page.run("The worker can't connect", &shell).await;

    // The first of them never ends.
    for item in ["piano", "lamp", "lamp", "lamp", "lamp"] {
        push(&server, item).await;
    }
    let busy = "broker.type = 'list'\nrunner.sample_interval = '20ms'\nrunner.drain_timeout = '10ms'\n\
                worker.lanes = 1\nworker.concurrency = 1\nworker.batch = 1";
    let service = Service::start(&server.url(), busy).await;
    let shell = Shell::on(&server).metrics(service.address);
    let health = "curl -s 127.0.0.1:9898/health";
    while !shell.run(health).await.contains("capacity") {}
    keys.look(&server).await;
    page.run("Nothing is processed", &shell).await;

    let other = RedisServer::start().await;
    after_a_crash(&mut page, &other).await;

    page.run("Messages vanish", &shell).await;

    let samples = service.log.records().len();
    let sampled = |records: &[Record]| {
        let mut news = records.iter().skip(samples);
        news.any(|record| matches!(record, Record::Sampled { .. }))
    };
    service.log.wait_for(sampled).await;
    page.run("The queue grows", &shell).await;
    service.end().await;

    let server = RedisServer::start().await;
    for group in ["pythia", "reports"] {
        let make = ["XGROUP", "CREATE", "orders", group, "0", "MKSTREAM"];
        assert_eq!(server.cli(&make).await, "OK");
    }
    add(&server, "lamp").await;
    add(&server, "lamp").await;
    let service = Service::start(&server.url(), STREAM).await;
    service.log.wait_settled(2).await;
    page.run("The queue grows", &Shell::on(&server)).await;
    keys.look(&server).await;
    service.end().await;

    let list_server = RedisServer::start().await;
    push(&list_server, "bomb").await;
    push(&list_server, "sofa").await;
    let list = Service::start(&list_server.url(), "broker.type = 'list'").await;
    list.log.wait_settled(2).await;
    let lists = Shell::on(&list_server);
    page.run("Dead letters", &lists).await;

    let server = RedisServer::start().await;
    add(&server, "bomb").await;
    add(&server, "sofa").await;
    let stream = Service::start(&server.url(), STREAM).await;
    stream.log.wait_settled(2).await;
    page.run("Dead letters", &Shell::on(&server)).await;
    page.run("Delayed messages", &lists).await;
    for service in [&list, &stream] {
        let later = Message::new("{}").delay(Duration::from_secs(3600));
        let later = later.dedupe_key("order-7");
        service.producer().publish("orders", later).await.unwrap();
    }
    // Some come with the next upkeep. A row that is none ends this by the limit of a test.
    while !keys.have_each_row_of(&page) {
        keys.look(&list_server).await;
        keys.look(&server).await;
    }
    list.end().await;
    stream.end().await;

    for _ in 0..3 {
        add(&server, "lamp").await;
    }
    let ids = server.cli(&["XRANGE", "orders", "-", "+"]).await;
    let second = ids.lines().filter(|line| line.ends_with("-0")).nth(1);
    assert_eq!(server.cli(&["XDEL", "orders", second.unwrap()]).await, "1");
    match tells_lag(&server).await {
        true => page.run("The lag is unknown", &Shell::on(&server)).await,
        false => page.skip("The lag is unknown"),
    }

    let stream = Service::start(&server.url(), STREAM).await;
    stream.log.wait_settled(2).await;
    page.run("NOGROUP, FLUSHALL, restarts", &Shell::on(&server))
        .await;
    stream.log.wait_settled(3).await;
    stream.end().await;

    let shell = Shell::on(&server);
    page.run("High memory", &shell).await;
    page.run("High CPU", &shell).await;
    page.run("Timeouts", &shell).await;
    keys.are_those_of(&page);
    page.end();
}

/// A lane that takes a message and is never heard of again.
async fn after_a_crash(page: &mut Page, server: &RedisServer) {
    push(server, "lamp").await;
    let settings = "broker.type = 'list'\nredis.lease = '300ms'\nrunner.maintain_interval = '20ms'";
    let toml = format!("{settings}\nredis.url = {:?}", server.url());
    let broker = pythia_redis::from_config(&Config::from_toml(&toml).unwrap()).unwrap();
    let queue = QueueName::new("orders").unwrap();
    let mut lane = broker.subscribe(&queue).await.unwrap();
    let mut held = Vec::new();
    while held.is_empty() {
        lane.source.receive(1, &mut held).await.unwrap();
    }
    drop(lane);
    let service = Service::start(&server.url(), settings).await;
    service.log.wait_settled(1).await;
    let shell = Shell::on(server).metrics(service.address);
    page.run("Messages are processed twice", &shell).await;
    service.end().await;
}

async fn push(server: &RedisServer, item: &str) {
    let message = format!("{{\"item\":{item:?}}}");
    server.cli(&["LPUSH", "orders", &message]).await;
}

async fn add(server: &RedisServer, item: &str) {
    server.cli(&["XADD", "orders", "*", "item", item]).await;
}

/// Names and types of keys that have been seen.
#[derive(Default)]
struct Keys(BTreeSet<(String, String)>);

impl Keys {
    async fn look(&mut self, server: &RedisServer) {
        for key in server.cli(&["KEYS", "*"]).await.lines() {
            let kind = server.cli(&["TYPE", key]).await;
            // Some are there for a moment only.
            if kind != "none" {
                self.0.insert((key.to_owned(), kind));
            }
        }
    }

    fn have_each_row_of(&self, page: &Page) -> bool {
        page.rows("What is in Redis").iter().all(|row| {
            let is_brief = BRIEF.contains(&row[0]);
            is_brief || self.0.iter().any(|(key, kind)| is_of(row, key, kind))
        })
    }

    fn are_those_of(&self, page: &Page) {
        let rows = page.rows("What is in Redis");
        for (key, kind) in &self.0 {
            let is_known = rows.iter().any(|row| is_of(row, key, kind));
            assert!(is_known, "the page does not know the {kind} {key}");
        }
    }
}

fn is_of(row: &[&str], key: &str, kind: &str) -> bool {
    is_named(key, row[0].trim_matches('`')) && row[1].contains(kind)
}

/// Whether a key has a name of the page's, in which what is in capitals is any text.
fn is_named(key: &str, name: &str) -> bool {
    let (mut parts, mut named) = (key.split(':'), name.split(':'));
    loop {
        match (parts.next(), named.next()) {
            (None, None) => return true,
            (Some(part), Some(name)) => {
                let is_any = name.chars().all(|c| c.is_ascii_uppercase());
                if part != name && !is_any {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

/// What the log says is looked for by whoever has that line.
#[test]
fn the_lines_of_the_log_are_those_of_the_program() {
    let program = concat!(
        include_str!("../../../pythia-redis/src/error.rs"),
        include_str!("../../../pythia-redis/src/error/words.rs")
    );
    let page = Page::open("troubleshoot.md");
    let rows = page.rows("The worker can't connect");
    assert!(rows.len() > 7);
    for row in rows {
        let line = row[0].trim_matches('`');
        let line = line.split(": ").next().unwrap_or(line);
        assert!(program.contains(line), "nobody says {line:?}");
    }
}

#[test]
fn every_code_of_the_doctor_has_its_row() {
    let page = Page::open("troubleshoot.md");
    let rows = page.rows("Ask the doctor");
    let rows: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(rows, codes);
}

/// The Python of the page is what `tests/clients` runs.
#[test]
fn frames_are_read_as_it_is_shown() {
    let page = Page::open("troubleshoot.md");
    let blocks = page.blocks("python");
    let (_, function) = blocks[0].split_once("\n\n\n").unwrap();
    assert!(include_str!("../clients/clients.py").contains(function));
}

/// These are there for a moment, or when somebody asks.
const BRIEF: [&str; 3] = [
    "`pythia:store:KEY`",
    "`pythia:{orders}:answer:ID`",
    "`pythia:{orders}:inbox`",
];
const STREAM: &str = "broker.type = 'stream'\nrunner.sample_interval = '20ms'";
