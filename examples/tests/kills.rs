//! Worker processes are killed, crash and are told to end, on a real server: what they held is processed by others.
//!
//! `PYTHIA_TEST_FULL=1` does it with many more messages. What was seen is printed: run with `--no-capture`.
#![expect(
    clippy::print_stdout,
    reason = "duplicates and times are worth reading"
)]

use std::collections::HashMap;
use std::fmt::Debug;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pythia_core::admin::{Depth, Page};
use pythia_core::broker::Broker;
use pythia_core::{Config, Producer, QueueName};
use pythia_redis::testing::RedisServer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

#[tokio::test]
async fn a_list_loses_nothing_when_processes_are_killed() {
    killed_midway("list").await;
}

#[tokio::test]
async fn a_stream_loses_nothing_when_processes_are_killed() {
    killed_midway("stream").await;
}

/// Four processes share a queue; two of them are killed while they work, and started again.
async fn killed_midway(pattern: &'static str) {
    const VICTIMS: [usize; 2] = [0, 2];
    let messages = scaled(5_000, 100_000);
    let limits = Limits {
        batch: 50,
        lanes: 2,
        concurrency: 40,
        // Longer than what a busy machine keeps a living process waiting: its messages would be done twice, too.
        lease: "2s",
        pace: 10,
    };
    let bench = Bench::new(pattern).await;
    bench.publish(&numbers(messages)).await;
    let started = Instant::now();
    let mut workers: Vec<_> = (0..4).map(|name| bench.start(name, limits)).collect();
    for (round, victim) in (1..).zip(VICTIMS) {
        let worker = &mut workers[victim];
        let (due, before) = (messages * round / 4, worker.processed());
        let mut patience = Patience::new();
        // The victim itself has to be at work, too: a kill before its first message would show nothing.
        while bench.processed() < due || worker.processed() == before {
            patience.look(&bench.processed()).await;
        }
        let status = worker.kill();
        assert_eq!(status.signal(), Some(SIGKILL));
        let all = bench.processed();
        assert!(all < messages, "all work was done before the kill");
        *worker = bench.start(victim, limits);
    }
    bench.drained().await;
    let summaries: Vec<_> = workers.iter_mut().map(Tally::terminate).collect();
    let tally = bench.tally();
    let duplicates = tally.duplicates();
    println!(
        "{pattern}: {messages} messages, {} kills, {duplicates} duplicates, {:.1?}",
        VICTIMS.len(),
        Instant::now().saturating_duration_since(started),
    );
    tally.assert_complete(messages);
    // A survivor that lost a lease of its own, for want of processor time, says so by what was stale.
    assert!(
        duplicates <= VICTIMS.len() * limits.held(),
        "{duplicates} duplicates: {summaries:#?}"
    );
    assert_eq!(counts(&bench.depth().await), EMPTY);
}

#[tokio::test]
async fn a_poison_message_is_the_only_dead_letter_of_a_list() {
    poisoned("list").await;
}

#[tokio::test]
async fn a_poison_message_is_the_only_dead_letter_of_a_stream() {
    poisoned("stream").await;
}

/// One message kills every process that runs it, and a supervisor starts the process again, for as long as it takes.
async fn poisoned(pattern: &'static str) {
    const MAX_ATTEMPTS: usize = 5; // the default
    let messages = scaled(2_000, 10_000);
    let limits = Limits {
        batch: 100,
        lanes: 2,
        concurrency: 100,
        lease: "1s",
        pace: 0,
    };
    let bench = Bench::new(pattern).await;
    let mut batch = numbers(messages);
    batch.insert(messages / 2, json!({ "poison": true }));
    bench.publish(&batch).await;
    let started = Instant::now();
    let mut deaths = 0;
    let mut worker = bench.start(0, limits);
    let dead_only = Counts {
        dead: Some(1),
        ..EMPTY
    };
    let mut patience = Patience::new();
    loop {
        if let Some(status) = worker.ended() {
            assert_eq!(status.signal(), Some(SIGABRT), "{status}");
            deaths += 1;
            worker = bench.start(0, limits);
        }
        let now = counts(&bench.depth().await);
        if now == dead_only {
            break;
        }
        // There is no way back from there.
        assert!(now.dead <= dead_only.dead, "the innocent died too: {now:?}");
        patience.look(&(deaths, bench.processed(), now)).await;
    }
    worker.terminate();
    let tally = bench.tally();
    println!(
        "{pattern}: {messages} messages and a poisonous one, {deaths} deaths, {} duplicates, {:.1?}",
        tally.duplicates(),
        Instant::now().saturating_duration_since(started),
    );
    tally.assert_complete(messages);
    assert_eq!(deaths, MAX_ATTEMPTS);
    assert_eq!(bench.dead_letters().await, [json!({ "poison": true })]);
}

#[tokio::test]
async fn sigterm_hands_back_what_a_list_has_not_started() {
    terminated("list").await;
}

#[tokio::test]
async fn sigterm_hands_back_what_a_stream_has_not_started() {
    terminated("stream").await;
}

/// A slow process holds more than it works on when it is told to end; another one gets that without waiting for a lease.
async fn terminated(pattern: &'static str) {
    const MESSAGES: usize = 400;
    let slow = Limits {
        batch: 50,
        lanes: 2,
        concurrency: 20,
        lease: "30s",
        pace: 500,
    };
    let bench = Bench::new(pattern).await;
    bench.publish(&numbers(MESSAGES)).await;
    let mut first = bench.start(0, slow);
    let mut patience = Patience::new();
    loop {
        let depth = counts(&bench.depth().await);
        if depth.pending > Some(slow.concurrency as u64) {
            break;
        }
        patience.look(&(first.processed(), depth)).await;
    }
    let started = Instant::now();
    let summary = first.terminate();
    let ended = Instant::now().saturating_duration_since(started);
    assert!(!summary.contains("released 0,"), "{summary}");
    let left = (MESSAGES - first.processed()) as u64;
    let handed_back = Counts {
        ready: Some(left),
        ..EMPTY
    };
    assert_eq!(counts(&bench.depth().await), handed_back, "{summary}");
    let mut second = bench.start(1, Limits { pace: 0, ..slow });
    bench.drained().await;
    let all_done = Instant::now().saturating_duration_since(started);
    second.terminate();
    println!(
        "{pattern}: {summary}; ended {ended:.1?} after SIGTERM, another has done the rest after {all_done:.1?}"
    );
    let tally = bench.tally();
    tally.assert_complete(MESSAGES);
    assert_eq!(tally.duplicates(), 0);
    // The lease is 30 s; on a machine without other work it is over in a second.
    assert!(all_done < Duration::from_secs(10), "{all_done:?}");
}

/// How a process works.
#[derive(Clone, Copy)]
struct Limits {
    batch: usize,
    lanes: usize,
    concurrency: usize,
    lease: &'static str,
    /// Milliseconds that each message takes.
    pace: u64,
}

impl Limits {
    /// The most that a process has in its hands: each lane works on a batch while it fetches the next.
    fn held(self) -> usize {
        self.lanes * (2 * self.batch + self.concurrency)
    }
}

/// A server, a queue on it, and the files of the processes that work on it.
struct Bench {
    pattern: &'static str,
    server: RedisServer,
    broker: Arc<dyn Broker>,
    queue: QueueName,
    files: TempDir,
}

impl Bench {
    async fn new(pattern: &'static str) -> Self {
        let server = RedisServer::start().await;
        let config = format!(
            "[broker]\ntype = {pattern:?}\n[redis]\nurl = {:?}\n",
            server.url()
        );
        let config = Config::from_toml(&config).unwrap();
        Self {
            pattern,
            server,
            broker: pythia_redis::from_config(&config).unwrap(),
            queue: QueueName::new("numbers").unwrap(),
            files: TempDir::new().unwrap(),
        }
    }

    async fn publish(&self, batch: &[Value]) {
        let producer = Producer::new(Arc::clone(&self.broker));
        for batch in batch.chunks(1_000) {
            producer.send_all(&self.queue, batch).await.unwrap();
        }
    }

    /// Starts a process; one of the same name goes on with the file of the one before.
    fn start(&self, name: usize, limits: Limits) -> Tally {
        let file = self.files.path().join(name.to_string());
        let child = Command::new(env!("CARGO_BIN_EXE_tally"))
            .args(["--redis", &self.server.url()])
            .args(["--pattern", self.pattern])
            .args(["--queue", self.queue.as_str()])
            .args(["--batch", &limits.batch.to_string()])
            .args(["--lanes", &limits.lanes.to_string()])
            .args(["--concurrency", &limits.concurrency.to_string()])
            .args(["--lease", limits.lease])
            .args(["--pace", &limits.pace.to_string()])
            .arg("--file")
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Tally { child, file }
    }

    async fn depth(&self) -> Depth {
        let admin = self.broker.admin().unwrap();
        admin.depth(&self.queue).await.unwrap()
    }

    async fn dead_letters(&self) -> Vec<Value> {
        let admin = self.broker.admin().unwrap();
        let letters = admin.dead(&self.queue, Page::first(10)).await.unwrap();
        letters
            .iter()
            .map(|letter| {
                serde_json::from_slice(letter.delivery.payload.as_bytes().unwrap()).unwrap()
            })
            .collect()
    }

    /// Waits until nothing is left in the queue, dead letters included.
    async fn drained(&self) {
        let mut patience = Patience::new();
        loop {
            let now = counts(&self.depth().await);
            if now == EMPTY {
                return;
            }
            patience.look(&(self.processed(), now)).await;
        }
    }

    /// How many messages were processed by all processes so far, duplicates included.
    fn processed(&self) -> usize {
        self.paths().map(|path| lines(&path)).sum()
    }

    fn tally(&self) -> Totals {
        let mut times = HashMap::new();
        for path in self.paths() {
            for line in std::fs::read_to_string(path).unwrap().lines() {
                *times.entry(line.parse().unwrap()).or_default() += 1;
            }
        }
        Totals(times)
    }

    fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let entries = std::fs::read_dir(self.files.path()).unwrap();
        entries.map(|entry| entry.unwrap().path())
    }
}

/// A process that works; killed when it is dropped.
struct Tally {
    child: Child,
    file: PathBuf,
}

impl Tally {
    /// How many messages this process, and those before it with the same file, have processed.
    fn processed(&self) -> usize {
        lines(&self.file)
    }

    /// How it has ended, if it has.
    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Ends it as a power cut does.
    fn kill(&mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }

    /// Ends it as a service manager does; answers its summary.
    fn terminate(&mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        let status = self.child.wait().unwrap();
        let summary = std::io::read_to_string(self.child.stdout.take().unwrap()).unwrap();
        assert!(status.success(), "{status}: {summary}");
        summary.trim_end().to_owned()
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// How often each number was processed.
struct Totals(HashMap<usize, usize>);

impl Totals {
    fn assert_complete(&self, messages: usize) {
        let lost: Vec<_> = (1..=messages)
            .filter(|number| !self.0.contains_key(number))
            .collect();
        assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
        assert_eq!(self.0.len(), messages, "numbers that nobody published");
    }

    fn duplicates(&self) -> usize {
        self.0.values().map(|times| times - 1).sum()
    }
}

/// What a depth says about where messages are, without what changes by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Counts {
    ready: Option<u64>,
    pending: Option<u64>,
    delayed: Option<u64>,
    dead: Option<u64>,
}

const EMPTY: Counts = Counts {
    ready: Some(0),
    pending: Some(0),
    delayed: Some(0),
    dead: Some(0),
};

fn counts(depth: &Depth) -> Counts {
    Counts {
        ready: depth.ready,
        pending: depth.pending,
        delayed: depth.delayed,
        dead: depth.dead,
    }
}

/// Waits for as long as something goes on.
struct Patience {
    seen: String,
    since: Instant,
}

impl Patience {
    fn new() -> Self {
        Self {
            seen: String::new(),
            since: Instant::now(),
        }
    }

    /// Pauses between two looks at the same thing; panics if it has been the same for too long.
    async fn look(&mut self, state: &(impl Debug + Sync)) {
        let (state, now) = (format!("{state:?}"), Instant::now());
        if state != self.seen {
            self.seen = state;
            self.since = now;
        }
        let still = now.saturating_duration_since(self.since);
        assert!(
            still < Duration::from_secs(60),
            "nothing has happened for {still:?}: {}",
            self.seen
        );
        sleep(Duration::from_millis(5)).await;
    }
}

/// The messages: every number from 1 to `count`.
fn numbers(count: usize) -> Vec<Value> {
    (1..=count)
        .map(|number| json!({ "number": number }))
        .collect()
}

/// How many complete lines a file has; none, if it is not there yet.
fn lines(path: &Path) -> usize {
    let text = std::fs::read(path).unwrap_or_default();
    text.iter().filter(|byte| **byte == b'\n').count()
}

fn scaled(quick: usize, full: usize) -> usize {
    match std::env::var("PYTHIA_TEST_FULL") {
        Ok(on) if on == "1" => full,
        _ => quick,
    }
}

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
