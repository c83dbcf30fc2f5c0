//! Every example runs, ends by itself, and prints what it is for.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use pythia_redis::testing::RedisServer;
use tokio::time::timeout;

/// Runs an example on a clean environment, and answers what it prints.
async fn run_with(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let mut command = tokio::process::Command::new(program(name));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for (variable, _) in std::env::vars() {
        let is_ours = variable.starts_with("PYTHIA_") && !variable.starts_with("PYTHIA_REDIS_");
        if is_ours || ["CI", "REDIS_URL", "RUST_LOG"].contains(&&*variable) {
            command.env_remove(variable);
        }
    }
    command.envs(variables.iter().copied());
    let Ok(output) = timeout(LIMIT, command.output()).await else {
        panic!("{name} has not ended within {LIMIT:?}");
    };
    let output = output.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.success(), format!("{text}{errors}"))
}

async fn run(name: &str) -> String {
    let (succeeded, text) = run_with(name, &[], &[]).await;
    assert!(succeeded, "{name} failed:\n{text}");
    text
}

/// Cargo builds examples beside the folder of the tests.
fn program(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    let program = folder.parent().unwrap().join("examples").join(name);
    assert!(
        program.is_file(),
        "{} is not built: run `cargo build -p examples --examples`, or all tests of the package",
        program.display()
    );
    program
}

#[track_caller]
fn has_in_order(text: &str, lines: &[&str]) {
    let mut rest = text;
    for line in lines {
        match rest.find(line) {
            Some(at) => rest = &rest[at + line.len()..],
            None => panic!("{line:?} is missing, or in another place:\n{text}"),
        }
    }
}

#[tokio::test]
async fn batch_worker() {
    let text = run("batch_worker").await;
    assert!(text.contains("inserting 500 rows"), "{text}");
    has_in_order(&text, &["received 1200, acked 1199,", "dead 1,"]);
}

#[tokio::test]
async fn custom_layer() {
    let text = run("custom_layer").await;
    has_in_order(
        &text,
        &["shipping a lamp", "audit: message 7, attempt 1: done"],
    );
    assert!(text.contains("audit: message 8, attempt 1: a message without a tenant"));
    has_in_order(&text, &["received 2, acked 1,", "dead 1,"]);
}

#[tokio::test]
async fn doctor() {
    let text = run("doctor").await;
    has_in_order(
        &text,
        &[
            "a power cut loses everything",
            "warning [no-persistence]",
            "mend:  redis-cli CONFIG SET appendonly yes",
            "$ redis-cli CONFIG SET appendonly yes",
            "append-only file, flushed every second; a power cut loses the last 1 to 2 s",
            "0 critical, 0 warnings, 0 notes",
        ],
    );
    let server = RedisServer::start().await;
    server.cli(&["SET", "orders", "no queue"]).await;
    let stream = [("PYTHIA_BROKER_TYPE", "stream")];
    let (succeeded, text) = run_with("doctor", &[&server.url(), "orders", "mails"], &stream).await;
    assert!(!succeeded, "{text}");
    has_in_order(
        &text,
        &[
            "XREADGROUP",
            "critical [wrong-type] queue orders",
            "1 critical,",
        ],
    );
    assert_eq!(server.cli(&["TYPE", "orders"]).await, "string");
}

#[tokio::test]
async fn from_config() {
    let text = run("from_config").await;
    has_in_order(
        &text,
        &[
            "broker: Memory; orders: 50 at once in 1 lanes, up to 3 attempts, a hard limit of Some(30s)",
            "attempt 1 of 3 has failed",
            "attempt 3 of 3 has failed",
            "retried 2,",
            "dead 1,",
        ],
    );
    let variable = [("PYTHIA_RETRY__MAX_ATTEMPTS", "2")];
    let (succeeded, text) = run_with("from_config", &[], &variable).await;
    assert!(
        succeeded && text.contains("attempt 2 of 2 has failed"),
        "{text}"
    );
    let misspelt = [("PYTHIA_RETRY__MAX_ATTEMPT", "2")];
    let (succeeded, text) = run_with("from_config", &[], &misspelt).await;
    assert!(!succeeded && text.contains("did you mean"), "{text}");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/pythia.toml");
    let variables = [
        ("PYTHIA_CONFIG", file),
        ("PYTHIA_RETRY__INITIAL_DELAY", "1ms"),
    ];
    let (succeeded, text) = run_with("from_config", &[], &variables).await;
    assert!(
        succeeded && text.contains("orders: 100 at once in 2 lanes"),
        "{text}"
    );
}

#[tokio::test]
async fn graceful_shutdown() {
    let text = run("graceful_shutdown").await;
    has_in_order(
        &text,
        &[
            "start: connect",
            "page 1 begins",
            "$ kill ",
            "SIGTERM or Ctrl-C: finishing what runs",
            "is done",
            "stop: flush and close",
            "pages are done, ",
            "wait for the next worker, none is lost",
        ],
    );
}

#[tokio::test]
async fn health_checks() {
    let text = run("health_checks").await;
    has_in_order(
        &text,
        &[
            "with the database down, /livez says 200 OK",
            "with the database down, /readyz says 503 ",
            "database",
            "connection refused",
            "with the database down, /health says 503 ",
            "with the database up, /livez says 200 OK",
            "with the database up, /readyz says 200 OK",
            "with the database up, /health says 200 OK",
            "\"status\":\"degraded\"",
            "quota exceeded",
        ],
    );
}

#[tokio::test]
async fn metrics_endpoint() {
    let text = run("metrics_endpoint").await;
    has_in_order(
        &text,
        &[
            "metrics are at http://127.0.0.1:",
            "pythia_messages_received_total{queue=\"sales\"} 3",
            "shop_sales_cents_total 17899",
            "received 3, acked 3,",
        ],
    );
}

#[tokio::test]
async fn quickstart() {
    let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/quickstart");
    let (succeeded, text) = run_with("quickstart", &[tree], &[]).await;
    assert!(succeeded, "{text}");
    has_in_order(&text, &["/metrics", "files", "lines"]);
}

#[tokio::test]
async fn rate_limit() {
    let text = run("rate_limit").await;
    has_in_order(
        &text,
        &[
            "mail  1 after 0.0 s",
            "mail 12 after ",
            "received 12, acked 12,",
        ],
    );
}

#[tokio::test]
async fn redis_list() {
    let text = run("redis_list").await;
    has_in_order(
        &text,
        &[
            "$ redis-cli LPUSH example:orders '{\"id\":1,\"item\":\"lamp\"}'",
            "received 2, acked 2,",
            "0 orders are left in the list",
        ],
    );
    assert!(
        text.contains("order 1: shipping one lamp") && text.contains("order 2: shipping one chair")
    );
}

#[tokio::test]
async fn redis_stream() {
    let text = run("redis_stream").await;
    let visits = [
        "user 7 was on /home",
        "user 8 was on /prices",
        "user 7 was on /sign-up",
    ];
    let wanted: Vec<_> = ["the group `pages` reads:", "another group", "`pages` again"]
        .into_iter()
        .flat_map(|reads| [&[reads], &visits[..]].concat())
        .collect();
    has_in_order(&text, &wanted);
}

#[tokio::test]
async fn redis_pubsub() {
    let text = run("redis_pubsub").await;
    assert!(
        text.contains("asking for more than a channel has: "),
        "{text}"
    );
    for listener in ["till: a lamp is 49.00", "shop window: a lamp is 49.00"] {
        assert!(text.contains(listener), "{text}");
    }
    has_in_order(
        &text,
        &["redis-cli says: 2 listeners", "received 2, acked 2,"],
    );
}

#[tokio::test]
async fn redis_examples_say_how_to_install_redis() {
    for name in ["doctor", "redis_list", "redis_pubsub", "redis_stream"] {
        let nothing = [("PYTHIA_REDIS_SERVER", "/no/such/redis-server")];
        let (succeeded, text) = run_with(name, &[], &nothing).await;
        assert!(
            !succeeded && text.contains("apt-get install redis-server"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn retries_and_dead_letters() {
    let text = run("retries_and_dead_letters").await;
    has_in_order(
        &text,
        &[
            "attempt 2 at the card \"slow\"",
            "attempt 3 at the card \"slow\"",
            "acked 3, retried 3, snoozed 0, dead 3,",
            "dead letters, the newest first:",
            "requeued: 1",
            "attempt 1 at the card \"new\"",
            "dead letters left: 2",
        ],
    );
    for letter in [
        "\"stolen\": permanent: the card is stolen",
        "no JSON: decode: ",
    ] {
        assert!(text.contains(letter), "{text}");
    }
}

#[tokio::test]
async fn testing_a_worker() {
    let text = run("testing_a_worker").await;
    has_in_order(
        &text,
        &[
            "attempt 1: failed (retryable): the mailbox is full; again after",
            "attempt 3: acknowledged",
            "attempt 1: dead letter (permanent): nobody is not welcome",
            "operations of the broker failed, each in a run of its own, twice",
            "all tests passed",
        ],
    );
}

#[tokio::test]
async fn tracing() {
    let text = run("tracing").await;
    assert!(
        text.contains("ERROR") && text.contains("too heavy"),
        "{text}"
    );
    assert!(
        text.contains("INFO") && text.contains("the van is full"),
        "{text}"
    );
    assert!(!text.contains("DEBUG"), "{text}");
    let (_, text) = run_with("tracing", &["json"], &[("RUST_LOG", "debug")]).await;
    let levels = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let levels: Vec<String> = levels
        .map(|line: serde_json::Value| line["level"].as_str().unwrap_or_default().to_owned())
        .collect();
    for level in ["DEBUG", "INFO", "ERROR"] {
        assert!(
            levels.iter().any(|logged| logged == level),
            "{level}: {text}"
        );
    }
}

/// A program that nobody has written a test for would rot.
#[test]
fn every_example_is_run_here_and_named_in_the_readme() {
    let manifest = include_str!("../Cargo.toml");
    let readme = include_str!("../../README.md");
    let examples = manifest.split("[[example]]\nname = \"").skip(1);
    let names: Vec<_> = examples.filter_map(|rest| rest.split('"').next()).collect();
    assert!(names.len() > 12);
    for name in names {
        assert!(
            readme.contains(&format!("| `{name}` |")),
            "{name} is not in the README's table"
        );
        let test = format!("async fn {name}()");
        assert!(
            include_str!("programs.rs").contains(&test),
            "{name} has no test"
        );
    }
}

/// Far more than any of them takes.
const LIMIT: Duration = Duration::from_secs(60);
