//! The doctor against real servers: each state is provoked, found, mended by what the finding says, and gone.

mod backlog;
mod cluster;
mod permissions;
mod server;
mod start;

use std::process::Command;

use pythia_core::{Config, QueueName};
use pythia_redis::doctor::{Code, Finding, Report, Severity, examine};
use pythia_redis::testing::RedisServer;

/// Settings of a broker of this pattern, with further lines as in a file.
fn config(pattern: &str, url: &str, more: &str) -> Config {
    let text = format!("broker.type = {pattern:?}\nredis.url = {url:?}\n{more}");
    Config::from_toml(&text).expect("valid settings")
}

fn orders() -> [QueueName; 1] {
    [QueueName::new("orders").expect("a valid name")]
}

async fn report(config: &Config) -> Report {
    examine(config, &orders()).await.expect("redis runs")
}

/// A server that takes snapshots. (6.2 reads no more than one save point from its command line.)
async fn with_snapshots(points: &str) -> RedisServer {
    let server = RedisServer::start().await;
    assert_eq!(server.cli(&["CONFIG", "SET", "save", points]).await, "OK");
    server
}

/// What is found with that code: there has to be one.
#[track_caller]
fn the(report: &Report, code: Code) -> &Finding {
    let mut findings = report
        .findings()
        .iter()
        .filter(|finding| finding.code() == code);
    let finding = findings
        .next()
        .unwrap_or_else(|| panic!("no {code} in\n{report}"));
    assert_eq!(findings.next(), None, "in\n{report}");
    assert!(
        !finding.meaning().is_empty() && !finding.advice().is_empty(),
        "{finding}"
    );
    finding
}

#[track_caller]
fn none_of(report: &Report, code: Code) {
    let found = report
        .findings()
        .iter()
        .any(|finding| finding.code() == code);
    assert!(!found, "there is {code} in\n{report}");
}

/// Finds this, does what the finding says, and finds it no more.
async fn mends(server: &RedisServer, config: &Config, severity: Severity, code: Code) {
    let before = report(config).await;
    let finding = the(&before, code);
    assert_eq!(finding.severity(), severity, "{finding}");
    mend(server, finding);
    none_of(&report(config).await, code);
}

/// Runs what a finding says, as it is shown, in a shell.
#[track_caller]
fn mend(server: &RedisServer, finding: &Finding) {
    let command = finding
        .command()
        .unwrap_or_else(|| panic!("no command in {finding}"));
    let line = format!("redis-cli -p {} {command}", server.port());
    let output = Command::new("sh")
        .args(["-c", &line])
        .output()
        .expect("a shell");
    let answer = String::from_utf8(output.stdout).expect("text");
    let succeeded = ["OK", "1", "0", "Background saving started"].contains(&answer.trim());
    assert!(succeeded, "{line}: {answer}");
}
