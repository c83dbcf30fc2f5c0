//! Measures each contender in turn, each time on a server that holds the same messages.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use fred::clients::Client;
use pythia_redis::testing::RedisServer;
use tokio::sync::Notify;

use crate::part::{Contender, Measured, Part, READY};
use crate::payment::Payment;
use crate::progress::SETTLED;
use crate::report::Report;
use crate::settings::{Fsync, Pattern, SPAWN, Settings, WINDOW, What};
use crate::{Failure, link, redis};

pub(crate) fn run(what: What, settings: Settings) -> Result<(), Failure> {
    settings.check(what)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(measure(what, settings))?;
    report.print()
}

async fn measure(what: What, settings: Settings) -> Result<Report, Failure> {
    let mut shown = settings.clone();
    shown.redis = without_credentials(&settings.redis);
    let mut report = Report::new(what, shown);
    let mut contenders = vec![Contender::Pythia];
    contenders.extend(settings.compare.map(|_| Contender::ByHand));
    for _ in 0..settings.rounds {
        for &contender in &contenders {
            let measured = match settings.pattern {
                Pattern::Memory => one(what, contender, &settings, String::new(), None).await?,
                _ => on_redis(what, contender, &settings, &mut report).await?,
            };
            report.add(contender, measured);
        }
    }
    Ok(report)
}

async fn on_redis(
    what: What,
    contender: Contender,
    settings: &Settings,
    report: &mut Report,
) -> Result<Measured, Failure> {
    let server = match settings.redis.as_str() {
        SPAWN => Some(spawn(settings).await),
        _ => None,
    };
    let url = server
        .as_ref()
        .map_or(settings.redis.clone(), RedisServer::url);
    let client = redis::connect(&url)
        .await
        .map_err(|error| format!("no connection to {}: {error}", report.settings.redis))?;
    report.server = redis::version(&client).await?;
    redis::refuse_in_use(&client).await?;
    if what == What::Drain && settings.pattern != Pattern::Pubsub {
        redis::fill(&client, settings).await?;
    }
    let at = match settings.rtt {
        Some(ms) => lengthened(&url, ms)?,
        None => url,
    };
    let measured = one(what, contender, settings, at, Some(&client)).await;
    if server.is_none() {
        redis::empty(&client).await?;
    }
    measured
}

fn without_credentials(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
        _ => url.to_owned(),
    }
}

async fn spawn(settings: &Settings) -> RedisServer {
    let fsync = match settings.aof {
        Some(Fsync::Always) => "always",
        Some(Fsync::Everysec) => "everysec",
        Some(Fsync::No) => "no",
        None => return RedisServer::start_with(UNLIMITED).await,
    };
    let aof = ["--appendonly", "yes", "--appendfsync", fsync];
    RedisServer::start_with(&[UNLIMITED, &aof].concat()).await
}

fn lengthened(url: &str, ms: f64) -> Result<String, Failure> {
    let plain = url.strip_prefix("redis://");
    let (server, path) = match plain {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => return Err("--rtt needs a URL that begins with redis://".into()),
    };
    let (user, host) = match server.rsplit_once('@') {
        Some((user, host)) => (format!("{user}@"), host),
        None => (String::new(), server),
    };
    let host = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:6379")
    };
    let port = link::lengthen(&host, Duration::from_secs_f64(ms / 1e3))?;
    Ok(format!("redis://{user}127.0.0.1:{port}{path}"))
}

/// Runs one process, and publishes for it where it must not come before the subscriber.
async fn one(
    what: What,
    contender: Contender,
    settings: &Settings,
    url: String,
    client: Option<&Client>,
) -> Result<Measured, Failure> {
    let part = Part {
        what,
        contender,
        url,
        settings: settings.clone(),
    };
    let mut process = Process(
        Command::new(std::env::current_exe()?)
            .arg("part")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?,
    );
    if let Some(mut input) = process.0.stdin.take() {
        input.write_all(&serde_json::to_vec(&part)?)?;
    }
    let told = Arc::new(Told::default());
    let output = process
        .0
        .stdout
        .take()
        .ok_or("a process without an output")?;
    let listening = {
        let told = Arc::clone(&told);
        std::thread::spawn(move || told.listen(BufReader::new(output)))
    };
    if let Some(client) = client
        && what == What::Drain
    {
        match (settings.pattern, settings.waiting) {
            (Pattern::Pubsub, _) => publish(client, settings, &told).await?,
            (_, Some(_)) => refill(client, settings, &told).await?,
            (_, None) => {}
        }
    }
    let line = listening
        .join()
        .map_err(|_| "its output could not be read")??;
    let status = process.0.wait()?;
    match status.success() {
        true => Ok(serde_json::from_str(&line)?),
        false => Err(format!("a measured process ended with {status}").into()),
    }
}

/// Publishes as fast as the subscriber can take it.
async fn publish(client: &Client, settings: &Settings, told: &Told) -> Result<(), Failure> {
    let mut id = 0;
    while id < settings.messages && !told.has_ended.load(Relaxed) {
        let last = (id + 500).min(settings.messages);
        let is_full = last > told.settled.load(Relaxed) + WINDOW / 2;
        if is_full || !told.is_ready.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let bodies = (id..last).map(|id| Payment::number(id, settings.payload).to_json());
        redis::add(client, redis::QUEUE, settings.pattern, bodies.collect()).await?;
        id = last;
    }
    Ok(())
}

/// Fills the queue again and again, each time that all is settled that was there.
async fn refill(client: &Client, settings: &Settings, told: &Told) -> Result<(), Failure> {
    let filling = settings.filling();
    for fillings in 1..settings.messages / filling {
        while told.settled.load(Relaxed) < fillings * filling {
            if told.has_ended.load(Relaxed) {
                return Ok(());
            }
            told.more.notified().await;
        }
        redis::refill(client, settings.pattern).await?;
    }
    Ok(())
}

/// What a measured process has said so far.
#[derive(Default)]
struct Told {
    is_ready: AtomicBool,
    has_ended: AtomicBool,
    settled: AtomicU64,
    /// Something was said.
    more: Notify,
}

impl Told {
    /// To its end; answers the last line.
    fn listen(&self, output: impl BufRead) -> std::io::Result<String> {
        let mut last = String::new();
        for line in output.lines() {
            let line = line?;
            if line == READY {
                self.is_ready.store(true, Relaxed);
            } else if let Some(settled) = line.strip_prefix(SETTLED) {
                let settled = settled.parse().unwrap_or(0);
                self.settled.fetch_max(settled, Relaxed);
            } else {
                last = line;
            }
            self.more.notify_one();
        }
        self.has_ended.store(true, Relaxed);
        self.more.notify_one();
        Ok(last)
    }
}

/// Killed when it is not needed any more.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended, or it ends now.
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// A subscriber that falls behind is not to be cut off.
const UNLIMITED: &[&str] = &["--client-output-buffer-limit", "pubsub 0 0 0"];
