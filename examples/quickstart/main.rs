//! Pythia's main job on real input: index a directory tree, one message a file.
//!
//! ```text
//! cargo run --example quickstart                                   this project, on the in-memory broker
//! cargo run --example quickstart -- ~/src                          another tree
//! cargo run --example quickstart -- --redis redis://127.0.0.1:6379 --pattern stream
//! ```
//! Started several times with the same `--redis` and `--pattern`, the processes share one queue; `--work` only works, and
//! waits for others to publish.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod index;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use pythia_core::broker::{Broker, Guarantee};
use pythia_core::{Config, Health, Producer, QueueName, Route, Runner, shutdown_signal};
use pythia_metrics::prometheus::Registry;
use pythia_metrics::{MetricsConfig, MetricsServer, PrometheusObserver};

use crate::index::{FileJob, IndexFile};
use crate::report::{Progress, Report};

/// Indexes a directory tree: lines, words and a hash of every file.
#[derive(Parser)]
struct Args {
    /// The tree to index.
    #[arg(default_value = ".")]
    tree: PathBuf,
    /// Run on this Redis rather than on the in-memory broker.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// How to use Redis.
    #[arg(long, value_enum, default_value_t = Pattern::List, requires = "redis")]
    pattern: Pattern,
    /// The queue, stream or channel.
    #[arg(long, default_value = "files")]
    queue: String,
    /// Publish nothing, and work until Ctrl-C.
    #[arg(long, requires = "redis")]
    work: bool,
    /// Let each file take that long, to have something to look at.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    pace: u64,
    /// Where to serve /metrics, /livez and /readyz; port 0 chooses a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    metrics: std::net::SocketAddr,
    /// Keep serving them after the summary, until Ctrl-C.
    #[arg(long)]
    stay: bool,
}

/// The three ways of Redis.
#[derive(Clone, Copy, ValueEnum)]
enum Pattern {
    List,
    Stream,
    Pubsub,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into()),
        )
        .with_writer(std::io::stderr)
        .init();

    // The broker is a matter of configuration; the worker never learns which one it runs on.
    let config = Config::from_toml(&settings(&args))?;
    let broker = pythia_redis::from_config(&config)?;
    let queue = QueueName::new(&args.queue)?;

    let report = Arc::new(Report::default());
    let worker = IndexFile {
        report: Arc::clone(&report),
        pace: Duration::from_millis(args.pace),
    };
    let registry = Registry::new();
    let runner = Runner::builder()
        .config(&config)
        .route(&broker, Route::new(&queue, worker))
        .observer(PrometheusObserver::register(&registry)?)
        .observer(Arc::clone(&report))
        .build()?;

    let mut metrics = MetricsConfig::default();
    metrics.address = args.metrics;
    let server = MetricsServer::bind(&metrics, &registry)
        .await?
        .health(runner.health());
    let address = server.address();
    if let Some(address) = address {
        println!("metrics   http://{address}/metrics while it runs");
    }

    let progress = Progress::new(Arc::clone(&report));
    let (health, drive_broker) = (runner.health(), Arc::clone(&broker));
    let (work, tree) = (args.work, args.tree.clone());
    let drive = {
        let (report, progress) = (Arc::clone(&report), &progress);
        async move {
            if work {
                return shutdown(progress).await;
            }
            tokio::select! {
                result = publish_and_wait(&drive_broker, &queue, &tree, &health, &report, progress) => result,
                result = shutdown(progress) => result,
            }
        }
    };

    let mut driven = Ok(());
    let running = async {
        let summary = runner.run_until(async { driven = drive.await }).await?;
        progress.finish();
        report.print(&summary);
        if args.stay
            && let Some(address) = address
        {
            println!("still serving http://{address}/metrics; Ctrl-C ends it");
            shutdown_signal().await;
        }
        Ok::<_, pythia_core::RunError>(())
    };
    server.serve(running).await?;
    driven
}

/// What the command line says, in the form that a file would have.
fn settings(args: &Args) -> String {
    let broker = match (&args.redis, args.pattern) {
        (None, _) => "[broker]\ntype = \"memory\"\n".to_owned(),
        (Some(url), pattern) => {
            let kind = match pattern {
                Pattern::List => "list",
                Pattern::Stream => "stream",
                Pattern::Pubsub => "pubsub",
            };
            format!("[broker]\ntype = \"{kind}\"\n[redis]\nurl = \"{url}\"\n")
        }
    };
    // Three quick attempts: an unreadable file should be among the dead letters while somebody looks.
    format!("{broker}\n[retry]\nmax_attempts = 3\ninitial_delay = \"100ms\"\n")
}

async fn shutdown(progress: &Progress) -> Result<(), Box<dyn std::error::Error>> {
    shutdown_signal().await;
    progress.say("finishing what runs, handing back the rest");
    Ok(())
}

/// Publishes a message for each file, and waits until none is left.
async fn publish_and_wait(
    broker: &Arc<dyn Broker>,
    queue: &QueueName,
    tree: &std::path::Path,
    health: &Health,
    report: &Report,
    progress: &Progress,
) -> Result<(), Box<dyn std::error::Error>> {
    // A channel remembers nothing, so its subscribers have to be there first.
    while broker.guarantee() == Guarantee::AtMostOnce && health.ready().is_err() {
        tokio::time::sleep(TICK).await;
    }
    let files = index::files(tree)?;
    progress.expect(files.len());
    let jobs: Vec<FileJob> = files.into_iter().map(|path| FileJob { path }).collect();
    let producer = Producer::new(Arc::clone(broker));
    for jobs in jobs.chunks(500) {
        producer.send_all(queue, jobs).await?;
    }
    loop {
        tokio::time::sleep(TICK).await;
        progress.show();
        let left = match broker.admin() {
            Some(admin) if broker.guarantee() == Guarantee::AtLeastOnce => {
                let depth = admin.depth(queue).await?;
                depth.ready.unwrap_or(0) + depth.pending.unwrap_or(0) + depth.delayed.unwrap_or(0)
            }
            // What a channel has delivered is nowhere but in the workers' hands.
            _ => (jobs.len() as u64).saturating_sub(report.ended()),
        };
        if left == 0 {
            return Ok(());
        }
    }
}

const TICK: Duration = Duration::from_millis(20);
