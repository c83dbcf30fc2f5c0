//! What happens at SIGTERM or Ctrl-C: no more is fetched, running jobs finish within the drain time, what was not started
//! goes back at once, and the worker's hooks are called. A second signal skips the wait.
//!
//! ```sh
//! cargo run --example graceful_shutdown            # sends itself the signal
//! cargo run --example graceful_shutdown -- wait    # waits for yours: press Ctrl-C once, or twice
//! ```
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::process::Command;
use std::time::Duration;

use pythia_core::broker::Broker;
use pythia_core::{
    Job, MemoryBroker, Producer, QueueName, Route, Runner, RunnerConfig, WorkError, Worker,
    shutdown_signal,
};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::sleep;

struct Render {
    begun: UnboundedSender<u32>,
}

impl Worker for Render {
    type Input = u32;
    type Output = ();

    async fn start(&self) -> Result<(), WorkError> {
        println!("start: connect to what the worker needs");
        Ok(())
    }

    async fn process(&self, job: &Job<u32>) -> Result<(), WorkError> {
        let page = job.input;
        println!("page {page} begins");
        self.begun.send(page)?;
        // A long job may look at its cancellation and end where that is safe; this one is soon over.
        tokio::select! {
            () = sleep(Duration::from_millis(300)) => println!("page {page} is done"),
            _reason = job.cancellation().cancelled() => {
                println!("page {page} stops half-way");
                return Err(WorkError::snooze(Duration::ZERO)); // handed back, with no attempt burnt
            }
        }
        Ok(())
    }

    async fn stop(&self) {
        println!("stop: flush and close");
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = MemoryBroker::new();
    let pages: Vec<u32> = (1..=100).collect();
    Producer::new(broker.clone())
        .send_all("pages", &pages)
        .await?;

    let (begun, begins) = mpsc::unbounded_channel();
    let mut settings = RunnerConfig::default();
    settings.drain_timeout = Duration::from_secs(10); // 25 s by default, below the 30 s of Kubernetes
    let runner = Runner::builder()
        .settings(settings)
        .route(
            &broker,
            Route::new("pages", Render { begun }).concurrency(2),
        )
        .build()?;

    let shutdown = async {
        let (second_signal, ()) = tokio::join!(shutdown_signal(), terminate_self(begins));
        println!("SIGTERM or Ctrl-C: finishing what runs; once more skips that");
        second_signal // not `()`: it is what waits for the second signal
    };
    let summary = runner.run_until(shutdown).await?;
    println!("{summary}");

    let queue = QueueName::new("pages")?;
    let admin = broker.admin().ok_or("this broker has no administration")?;
    let ready = admin.depth(&queue).await?.ready.unwrap_or(0);
    println!(
        "{} pages are done, {ready} wait for the next worker, none is lost",
        summary.settled.acked
    );
    Ok(())
}

/// `kill PID`, once two pages are being rendered.
async fn terminate_self(mut begins: UnboundedReceiver<u32>) {
    if std::env::args().nth(1).is_some() {
        return;
    }
    for _ in 0..2 {
        begins.recv().await;
    }
    let pid = std::process::id().to_string();
    println!("$ kill {pid}");
    if let Err(error) = Command::new("kill").arg(&pid).status() {
        println!("kill can't be run ({error}): press Ctrl-C");
    }
}
