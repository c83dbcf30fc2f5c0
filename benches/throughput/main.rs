//! How fast workers are, end to end on a redis-server that this program starts itself: see `benches/README.md`.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod by_hand;
mod drain;
mod idle;
mod latency;

use clap::{Parser, Subcommand};
use pythia_core::observe::Observer;
use pythia_core::{Config, Job, WorkError, Worker};
use pythia_redis::testing::RedisServer;
use serde::{Deserialize, Serialize};

/// Measures workers on Redis.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Messages per second from a full queue, beside consumers written by hand.
    Drain {
        /// How many messages.
        #[arg(long, default_value_t = 500_000)]
        messages: usize,
        /// How often each is measured; the median is reported.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Only this pattern.
        #[arg(long)]
        only: Option<String>,
        /// The most that one fetch takes.
        #[arg(long, default_value_t = 500)]
        batch: usize,
    },
    /// Processor time of a worker that has nothing to do.
    Idle {
        /// For how long.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// From publishing to the start of the job.
    Latency {
        /// Messages per second.
        #[arg(long, default_value_t = 500)]
        rate: u64,
        /// For how long.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    match Args::parse().what {
        What::Drain {
            messages,
            rounds,
            only,
            batch,
        } => drain::run(messages, rounds, only.as_deref(), batch).await,
        What::Idle { seconds } => idle::run(seconds).await,
        What::Latency { rate, seconds } => latency::run(rate, seconds).await,
    }
}

/// The message: about 100 bytes of JSON.
#[derive(Serialize, Deserialize)]
struct Payment {
    id: u64,
    customer: String,
    amount_cents: i64,
    currency: String,
    note: String,
}

impl Payment {
    fn number(id: u64) -> Vec<u8> {
        let payment = Self {
            id,
            customer: format!("customer-{:08}", id % 9_973),
            amount_cents: 1_999,
            currency: "EUR".into(),
            note: "order of the day".into(),
        };
        serde_json::to_vec(&payment).unwrap_or_default()
    }
}

/// Decodes, and does nothing.
struct Nothing;

impl Worker for Nothing {
    type Input = Payment;
    type Output = ();

    async fn process(&self, job: &Job<Payment>) -> Result<(), WorkError> {
        std::hint::black_box((
            &job.input.customer,
            job.input.amount_cents,
            &job.input.currency,
            &job.input.note,
        ));
        Ok(())
    }
}

/// The patterns, by their names here: `list-once` is a list at most once.
const PATTERNS: [&str; 4] = ["list", "stream", "list-once", "memory"];

/// A configuration with every guard on.
fn config(
    server: &RedisServer,
    pattern: &str,
    batch: usize,
) -> Result<Config, pythia_core::ConfigError> {
    let (kind, more) = match pattern {
        "list-once" => ("list", "[redis.list]\ndelivery = \"at-most-once\""),
        pattern => (pattern, ""),
    };
    Config::from_toml(&format!(
        "[broker]\ntype = \"{kind}\"\n[redis]\nurl = \"{}\"\n{more}\n\
         [worker]\nbatch = {batch}\nconcurrency = {batch}\nlanes = 2\n[timeout]\nhard = \"30s\"\n",
        server.url()
    ))
}

/// A [`PrometheusObserver`](pythia_metrics::PrometheusObserver) as a service would have it.
fn metrics() -> Result<impl Observer, pythia_metrics::MetricsError> {
    pythia_metrics::PrometheusObserver::register(&prometheus::Registry::new())
}
