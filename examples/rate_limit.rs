//! At most so many messages are started in a given time, and at most so many run at once: what a service behind the worker
//! can take. The rest waits in the broker, where other workers can have it.
//!
//! ```sh
//! cargo run --example rate_limit
//! ```
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::time::Duration;

use pythia_core::{Job, MemoryBroker, Producer, Route, Runner, WorkError, worker_fn_with};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::{Instant, sleep};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = MemoryBroker::new();
    let numbers: Vec<u32> = (1..=12).collect();
    Producer::new(broker.clone())
        .send_all("mails", &numbers)
        .await?;

    let (sent, mut mails) = mpsc::unbounded_channel();
    let send = worker_fn_with(sent, async |sent: &UnboundedSender<u32>, job: &Job<u32>| {
        sleep(Duration::from_millis(5)).await;
        sent.send(job.input).map_err(WorkError::permanent)
    });
    let route = Route::new("mails", send)
        // By configuration: `rate = "20/s burst 2"` in [worker] or [routes.mails].
        .rate("20/s burst 2".parse()?)
        .concurrency(4);
    let runner = Runner::builder().route(&broker, route).build()?;

    let began = Instant::now();
    let all = async {
        for count in 1..=numbers.len() {
            let Some(mail) = mails.recv().await else {
                return;
            };
            let seconds = Instant::now()
                .saturating_duration_since(began)
                .as_secs_f64();
            println!(
                "mail {mail:>2} after {seconds:.1} s, {:.0} a second",
                count as f64 / seconds
            );
        }
    };
    println!("{}", runner.run_until(all).await?);
    Ok(())
}
