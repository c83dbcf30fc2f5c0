//! A worker process to kill: it notes each message that it has processed in a file, so that whoever ends it, by whatever
//! signal, can count afterwards what was lost and what was done twice.
//!
//! ```text
//! cargo run --bin tally -- --redis redis://127.0.0.1:6379 --pattern stream --queue numbers --file /tmp/numbers.1
//! redis-cli XADD numbers '*' number 7
//! ```
//! A message is `{"number": 7}`; `{"poison": true}` takes the whole process with it. SIGTERM hands back what has not been
//! started and ends; started again with the same file, it goes on where the file ends.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use pythia_core::{Config, Job, Route, Runner, WorkError, Worker, shutdown_signal};

/// Processes numbers, and notes each in a file.
#[derive(Parser)]
struct Args {
    /// Where Redis is.
    #[arg(long, value_name = "URL", default_value = "redis://127.0.0.1:6379")]
    redis: String,
    /// How to use Redis.
    #[arg(long, value_enum, default_value_t = Pattern::List)]
    pattern: Pattern,
    /// The queue or stream.
    #[arg(long, default_value = "numbers")]
    queue: String,
    /// Where to note what was processed, a line for each number; made if it is not there. Each process needs its own.
    #[arg(long)]
    file: PathBuf,
    /// Messages that one fetch takes at most.
    #[arg(long, default_value = "100")]
    batch: NonZeroUsize,
    /// Readers of the queue.
    #[arg(long, default_value = "2")]
    lanes: NonZeroUsize,
    /// Messages in work at once.
    #[arg(long, default_value = "100")]
    concurrency: NonZeroUsize,
    /// How long this process may be silent before its messages go to others.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    lease: String,
    /// Attempts before a message is dead, crashes included.
    #[arg(long, default_value = "5")]
    max_attempts: NonZeroUsize,
    /// Let each message take that long.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    pace: u64,
}

/// The ways of Redis that survive a crash.
#[derive(Clone, Copy, ValueEnum)]
enum Pattern {
    List,
    Stream,
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
    let config = Config::from_toml(&settings(&args))?;
    let broker = pythia_redis::from_config(&config)?;
    let worker = Tally {
        // Each write goes to the end of the file, wherever that is by then: a restart appends.
        file: OpenOptions::new()
            .create(true)
            .append(true)
            .open(&args.file)?,
        pace: Duration::from_millis(args.pace),
    };
    let runner = Runner::builder()
        .config(&config)
        .route(&broker, Route::new(args.queue.as_str(), worker))
        .build()?;
    println!("{}", runner.run_until(shutdown_signal()).await?);
    Ok(())
}

#[derive(serde::Deserialize)]
struct Item {
    #[serde(default)]
    number: u64,
    #[serde(default)]
    poison: bool,
}

/// Notes what was processed.
struct Tally {
    file: File,
    pace: Duration,
}

impl Worker for Tally {
    type Input = Item;
    type Output = ();

    async fn process(&self, job: &Job<Item>) -> Result<(), WorkError> {
        if job.input.poison {
            // No unwinding, no destructors, no goodbye to Redis: to everyone else it looks like the OOM killer's work.
            std::process::abort();
        }
        if !self.pace.is_zero() {
            tokio::time::sleep(self.pace).await;
        }
        // One write of the whole line, without a buffer of ours: once it returns, the line is the kernel's, and no kill
        // of this process can lose it. A few bytes into the page cache take microseconds, so the lane may wait for them.
        (&self.file).write_all(format!("{}\n", job.input.number).as_bytes())?;
        Ok(())
    }
}

/// The arguments as a configuration: what a file would say.
fn settings(args: &Args) -> String {
    let pattern = match args.pattern {
        Pattern::List => "list",
        Pattern::Stream => "stream",
    };
    // Debug writes a text with quotes and escapes, which TOML reads the same way.
    format!(
        "[broker]\n\
         type = {pattern:?}\n\
         [redis]\n\
         url = {:?}\n\
         lease = {:?}\n\
         [worker]\n\
         batch = {}\n\
         lanes = {}\n\
         concurrency = {}\n\
         [retry]\n\
         max_attempts = {}\n",
        args.redis, args.lease, args.batch, args.lanes, args.concurrency, args.max_attempts,
    )
}
