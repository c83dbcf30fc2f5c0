//! Pythia's main job on real input: index a directory tree, one message a file.
//!
//! ```text
//! cargo run --example quickstart                                   this project, on the in-memory broker
//! cargo run --example quickstart -- ~/src                          another tree
//! cargo run --example quickstart -- --redis redis://127.0.0.1:6379 --pattern stream
//! ```
//! Started several times with the same `--redis` and the same `--pattern`, `list` or `stream`, the processes share one
//! queue; `--work` only works, and waits for others to publish. With `--pattern pubsub` they share nothing: a channel
//! gives each message to every process.
//!
//! `--stay` keeps `/metrics` up after the summary. Variables such as `PYTHIA_WORKER__CONCURRENCY` have their usual
//! effect, and the arguments above win over them. `RUST_LOG=debug` shows what the runtime does.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod args;
mod index;
mod progress;
mod report;

use std::error::Error;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use pythia_core::broker::{Broker, Guarantee};
use pythia_core::{
    BrokerError, BrokerErrorKind, Health, Hurry, Producer, PublishError, QueueName, Route, Runner,
    SecondSignal, shutdown_signal,
};
use pythia_metrics::prometheus::Registry;
use pythia_metrics::{MetricsConfig, MetricsServer, PrometheusObserver};
use tracing_subscriber::EnvFilter;

use crate::args::Args;
use crate::index::{FileJob, IndexFile};
use crate::progress::Progress;
use crate::report::Report;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let progress = Progress::new();
    let stderr_is_terminal = std::io::stderr().is_terminal();
    let log = progress.log();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| LOGGED.into()))
        .with_ansi(stderr_is_terminal)
        .with_writer(move || log.clone())
        .init();
    match run(&args, &progress).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress.clear();
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args, progress: &Progress) -> Result<(), Failure> {
    // The broker is a matter of configuration; the worker never learns which one it runs on.
    let config = args.config()?;
    let broker = pythia_redis::from_config(&config)?;
    let queue = args.queue()?;
    let tree = std::path::absolute(&args.tree)?;
    let files = match args.work {
        true => Vec::new(),
        false => index::files(&tree)?,
    };
    // A runner waits for a broker that is away, as a service should. Whoever tries it out wants to be told.
    reach(&broker, &queue).await?;

    let report = Arc::new(Report::default());
    let worker = IndexFile {
        report: Arc::clone(&report),
        pace: Duration::from_millis(args.pace),
    };
    let metrics: MetricsConfig = config.section("metrics")?;
    let registry = Registry::new();
    let runner = Runner::builder()
        .config(&config)
        .route(&broker, Route::new(&queue, worker))
        .observer(PrometheusObserver::register_with(&registry, &metrics)?)
        .observer(Arc::clone(&report))
        .build()?;
    let server = MetricsServer::bind(&metrics, &registry)
        .await?
        .health(runner.health());
    let address = server.address();
    if let Some(address) = address {
        println!("metrics   http://{address}/metrics while it runs");
    }

    let run = Run {
        broker,
        queue,
        health: runner.health(),
        report: Arc::clone(&report),
        progress,
    };
    let running = async {
        let mut published = Ok(());
        let mut is_interrupted = false;
        let end = async {
            // Whichever is dropped is over with: nobody waits for the signal, or for the files, any longer.
            tokio::select! {
                result = run.publish_and_wait(files), if !args.work => {
                    published = result;
                    End::Done
                }
                second = shutdown_signal() => {
                    is_interrupted = true;
                    progress.say("finishing; Ctrl-C again cuts it short");
                    End::Interrupted(second)
                }
            }
        };
        let summary = runner.run_until(end).await?;
        published?;
        let left = match is_interrupted {
            true => run.left().await? + report.lost(),
            false => 0,
        };
        progress.finish(left);
        report.print(&summary, &tree);
        if args.stay
            && !is_interrupted
            && let Some(address) = address
        {
            println!("still serving http://{address}/metrics; Ctrl-C ends it");
            shutdown_signal().await;
        }
        Ok(())
    };
    server.serve(running).await
}

/// Whatever failed: it is only printed.
type Failure = Box<dyn Error + Send + Sync>;

/// Asks the broker something, and says what to do if it can't answer.
async fn reach(broker: &Arc<dyn Broker>, queue: &QueueName) -> Result<(), String> {
    let advised = |error: BrokerError| match error.kind() {
        BrokerErrorKind::Unavailable => {
            format!(
                "{error}\nIs a redis-server running there? If not, start one, or check --redis."
            )
        }
        BrokerErrorKind::WrongType => {
            format!("{error}\nChoose another name with --queue.")
        }
        _ => error.to_string(),
    };
    if let Some(admin) = broker.admin() {
        admin.server().await.map_err(advised)?;
        admin.depth(queue).await.map_err(advised)?;
    }
    Ok(())
}

/// Why the runner is to stop.
enum End {
    Done,
    Interrupted(SecondSignal),
}

impl Hurry for End {
    async fn hurry(self) {
        match self {
            Self::Done => drop(shutdown_signal().await),
            Self::Interrupted(second) => second.hurry().await,
        }
    }
}

/// What goes on beside the runner.
struct Run<'a> {
    broker: Arc<dyn Broker>,
    queue: QueueName,
    health: Health,
    report: Arc<Report>,
    progress: &'a Progress,
}

impl Run<'_> {
    /// Publishes a message for each file, and waits until none is left.
    async fn publish_and_wait(&self, files: Vec<PathBuf>) -> Result<(), PublishError> {
        // A channel remembers nothing, so its subscribers have to be there first.
        while self.broker.guarantee() == Guarantee::AtMostOnce && self.health.ready().is_err() {
            tokio::time::sleep(TICK).await;
        }
        self.progress.expect(files.len());
        let jobs: Vec<FileJob> = files.into_iter().map(|path| FileJob { path }).collect();
        let producer = Producer::new(Arc::clone(&self.broker));
        for jobs in jobs.chunks(500) {
            producer.send_all(&self.queue, jobs).await?;
        }
        while self.left().await? > 0 {
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }

    /// How many files nobody is done with; the bar shows it.
    async fn left(&self) -> Result<u64, BrokerError> {
        // Before the depth: what ends in between must not be counted twice.
        let ended = self.report.ended();
        let left = match self.broker.admin() {
            Some(admin) if self.broker.guarantee() == Guarantee::AtLeastOnce => {
                let depth = admin.depth(&self.queue).await?;
                depth.ready.unwrap_or(0) + depth.pending.unwrap_or(0) + depth.delayed.unwrap_or(0)
            }
            // What a channel has delivered is nowhere but in the workers' hands.
            _ => self.progress.expected().saturating_sub(ended),
        };
        self.progress.show(ended, left);
        Ok(left)
    }
}

/// What is logged if `RUST_LOG` does not say. Dead letters (the events with a field `kept`) are in the summary, and a tree
/// may have thousands of binary files.
const LOGGED: &str = "warn,fred=error,pythia_core[{kept}]=off";
const TICK: Duration = Duration::from_millis(20);
