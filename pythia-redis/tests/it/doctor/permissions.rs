//! Users with too few rights.

use pythia_core::Config;
use pythia_redis::doctor::{Code, Severity, rights};
use pythia_redis::testing::RedisServer;

use super::{config, mend, none_of, orders, report, the};
use crate::bench::Bench;

async fn with_user(rules: &[&str]) -> RedisServer {
    let server = RedisServer::start().await;
    let user = ["ACL", "SETUSER", "app", "reset", "on", ">secret"];
    assert_eq!(server.cli(&[&user[..], rules].concat()).await, "OK");
    server
}

fn url(server: &RedisServer) -> String {
    format!("redis://app:secret@127.0.0.1:{}", server.port())
}

/// What the doctor asks for, of each version.
const EXAMINED: [&str; 6] = [
    "+info",
    "+acl|dryrun",
    "+acl|getuser",
    "+acl|cat",
    "+config|get",
    "+time",
];

/// Whoever may nothing is given by the remedy what a worker needs.
#[tokio::test]
async fn what_is_missing_is_found_and_the_command_that_grants_it_is_enough() {
    for pattern in ["list", "stream", "pubsub"] {
        is_granted(pattern, "").await;
    }
}

#[tokio::test]
async fn it_is_enough_for_lists_that_are_popped() {
    is_granted("list", "redis.list.delivery = \"at-most-once\"").await;
}

#[tokio::test]
async fn it_is_enough_for_channels_that_are_patterns_or_sharded() {
    for mode in ["pattern", "sharded"] {
        is_granted("pubsub", &format!("redis.pubsub.mode = {mode:?}")).await;
    }
}

async fn is_granted(pattern: &str, more: &str) {
    let server = with_user(&EXAMINED).await;
    let settings = format!("redis.url = {:?}\n{more}", url(&server));
    let bench = Bench::with(&settings, pattern);
    let before = report(&bench.config).await;
    let finding = the(&before, Code::MissingPermission);
    assert_eq!(finding.severity(), Severity::Critical);
    mend(&server, finding);
    let after = report(&bench.config).await;
    none_of(&after, Code::MissingPermission);
    none_of(&after, Code::NotExamined);
    server.cli(&["ACL", "LOG", "RESET"]).await;
    bench.run(bench.reaches(0..20)).await;
    let store = bench.broker.store().expect("there is one");
    let set = store.set("k", "v".into(), None).await;
    set.expect("it is allowed");
    let log = server.cli(&["ACL", "LOG"]).await;
    let refused = log.split("object\n").skip(1);
    // What the client would like to know of its connection, and does without.
    let refused = refused.filter(|entry| !entry.starts_with("client"));
    assert_eq!(refused.count(), 0, "{pattern}: {log}");
}

#[tokio::test]
async fn one_right_that_is_missing_is_named() {
    for (pattern, taken, lacks) in [
        ("list", &["-lmove"][..], "lacks +lmove"),
        ("stream", &["-xpending"], "lacks +xpending"),
        ("pubsub", &["-psubscribe", "-subscribe"], "lacks +subscribe"),
        (
            "list",
            &["resetkeys", "~pythia:*"],
            "lacks ~orders ~pythia:{orders}:*",
        ),
        (
            "stream",
            &["resetkeys", "~orders", "~pythia:{*"],
            "lacks ~pythia:store:*",
        ),
        ("pubsub", &["resetchannels", "&pythia:*"], "lacks &orders"),
        (
            "list",
            &["resetchannels", "&orders"],
            "lacks &pythia:{orders}:control",
        ),
    ] {
        let all = ["allkeys", "allchannels", "+@all"];
        let server = with_user(&[&all[..], taken].concat()).await;
        let config = config(pattern, &url(&server), "");
        let before = report(&config).await;
        let finding = the(&before, Code::MissingPermission);
        assert!(
            finding.what().contains(lacks),
            "{pattern} {taken:?}: {finding}"
        );
        mend(&server, finding);
        none_of(&report(&config).await, Code::MissingPermission);
    }
}

/// What the documentation gives a worker is enough for its work; what the doctor sees less of by it is a note.
#[tokio::test]
async fn what_may_not_be_asked_is_a_note_and_mended_one_by_one() {
    let base = Config::from_toml("").expect("no settings");
    let rules = rights(&base, &orders()).expect("valid settings");
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let server = with_user(&rules).await;
    let config = config("list", &url(&server), "");
    let mut notes = 0;
    loop {
        let report = report(&config).await;
        none_of(&report, Code::MissingPermission);
        let Some(note) = report
            .findings()
            .iter()
            .find(|finding| finding.code() == Code::NotExamined)
        else {
            break;
        };
        assert_eq!(note.severity(), Severity::Note);
        assert!(note.what().starts_with("could not be examined: "), "{note}");
        mend(&server, note);
        notes += 1;
        assert!(notes < 10, "{report}");
    }
    assert_eq!(notes, 2);
    server
        .cli(&["ACL", "SETUSER", "app", "-info", "-time"])
        .await;
    let blind = report(&config).await;
    assert_eq!(blind.servers()[0].version, None);
    let notes = blind
        .findings()
        .iter()
        .filter(|finding| finding.code() == Code::NotExamined);
    assert_eq!(notes.count(), 2, "{blind}");
}
