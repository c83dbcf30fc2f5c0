//! Structured logs: what the runtime says at which level, as text or as JSON, and a worker's own lines within a span.
//!
//! ```sh
//! cargo run --example tracing                       # text
//! cargo run --example tracing -- json               # a JSON object a line
//! RUST_LOG=debug cargo run --example tracing        # also once a batch
//! ```
//!
//! error: something was lost, or needs a human; warn: it recovers by itself; info: life cycle, and failed attempts (ten a
//! second at most); debug: once a batch. Nothing is logged for each message above trace.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::time::Duration;

use pythia_core::resilience::RetryConfig;
use pythia_core::{Job, MemoryBroker, Producer, Route, Runner, WorkError, Worker};
use tokio::sync::mpsc::{self, UnboundedSender};
use tracing::Instrument;
use tracing_subscriber::EnvFilter;

struct Ship {
    ended: UnboundedSender<()>,
}

impl Worker for Ship {
    type Input = String;
    type Output = ();

    async fn process(&self, job: &Job<String>) -> Result<(), WorkError> {
        // What is logged on the way has the message's id, also from other crates.
        let span = tracing::info_span!("ship", id = %job.id(), attempt = job.attempt());
        let result = ship(&job.input, job.attempt()).instrument(span).await;
        let ends = match &result {
            Ok(()) => true,
            Err(error) => error.is_permanent(),
        };
        if ends {
            self.ended.send(())?;
        }
        result
    }
}

async fn ship(item: &str, attempt: u32) -> Result<(), WorkError> {
    match (item, attempt) {
        ("chair", 1) => Err(WorkError::retryable("the van is full")),
        ("anvil", _) => Err(WorkError::permanent("too heavy")),
        _ => {
            tracing::info!(item, "shipped");
            Ok(())
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter);
    match std::env::args().nth(1).as_deref() {
        Some("json") => logs.json().init(),
        _ => logs.with_ansi(false).init(),
    }

    let broker = MemoryBroker::new();
    let items = ["lamp", "chair", "anvil"];
    Producer::new(broker.clone())
        .send_all("orders", &items)
        .await?;

    let (ended, mut ends) = mpsc::unbounded_channel();
    let mut retry = RetryConfig::default();
    retry.initial_delay = Duration::from_millis(20);
    let runner = Runner::builder()
        .route(&broker, Route::new("orders", Ship { ended }).retry(retry))
        .build()?;
    let all = async {
        for _ in items {
            ends.recv().await;
        }
    };
    println!("{}", runner.run_until(all).await?);
    Ok(())
}
