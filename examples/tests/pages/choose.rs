//! docs/choose.md

use pythia_core::Config;
use pythia_redis::testing::RedisServer;

use crate::page::Page;
use crate::service::{Service, tells_lag};
use crate::shell::Shell;

#[tokio::test]
async fn each_pattern_looks_from_outside_as_it_is_shown() {
    let mut page = Page::open("choose.md");

    let server = RedisServer::start().await;
    let shell = Shell::on(&server);
    page.run("List", &shell).await;
    let service = Service::start(&server.url(), "broker.type = 'list'").await;
    service.log.wait_settled(1).await;
    page.run("List", &shell).await;
    service.end().await;

    let server = RedisServer::start().await;
    let shell = Shell::on(&server);
    page.run("Stream", &shell).await;
    let service = Service::start(&server.url(), "broker.type = 'stream'").await;
    service.log.wait_settled(1).await;
    match tells_lag(&server).await {
        true => page.run("Stream", &shell).await,
        false => page.skip("Stream"),
    }
    service.end().await;

    let server = RedisServer::start().await;
    let shell = Shell::on(&server);
    let service = Service::start(&server.url(), "broker.type = 'pubsub'").await;
    let listening = || server.cli(&["PUBSUB", "NUMSUB", "orders"]);
    while !listening().await.ends_with('1') {}
    page.run("Pub/sub", &shell).await;
    service.log.wait_settled(1).await;
    service.end().await;
    page.end();
}

#[test]
fn its_settings_are_settings() {
    for toml in Page::open("choose.md").blocks("toml") {
        pythia_redis::from_config(&Config::from_toml(toml).unwrap()).unwrap();
    }
}

/// Figures are in the README, with what they were measured on; here they are repeated.
#[test]
fn the_figures_are_those_of_the_readme() {
    let page = Page::open("choose.md");
    let text = include_str!("../../../README.md");
    let (_, readme) = text.split_once("## How fast").unwrap();
    let measured = |name: &str| {
        let row = readme
            .lines()
            .find(|line| line.starts_with(&format!("| {name} |")))
            .unwrap();
        row.split(" | ").nth(1).unwrap().trim()
    };
    let last = page.table().pop().unwrap();
    let names = ["memory", "list", "list at most once", "stream"];
    assert!(last[0].starts_with("messages a second"), "{last:?}");
    assert_eq!(last[1..5], names.map(measured));
}
