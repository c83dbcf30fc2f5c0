//! A worker that takes many messages a call, as an `INSERT` of many rows does; each has a result of its own.
//!
//! ```sh
//! cargo run --example batch_worker
//! ```
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::time::Duration;

use pythia_core::{BatchRoute, BatchWorker, Job, MemoryBroker, Producer, Runner, WorkError};
use tokio::sync::mpsc::{self, UnboundedSender};

#[derive(serde::Deserialize, serde::Serialize)]
struct Reading {
    sensor: u32,
    celsius: f64,
}

struct Insert {
    inserted: UnboundedSender<usize>,
}

impl BatchWorker for Insert {
    type Input = Reading;
    type Output = ();

    /// One result for each job, in their order: what fails is tried again, or dead, by itself.
    async fn process(&self, jobs: &[Job<Reading>]) -> Vec<Result<(), WorkError>> {
        println!("inserting {} rows", jobs.len());
        // Where one statement stands for all, one error does: `jobs.iter().map(|_| Err(..))`.
        let results = jobs.iter().map(|job| match &job.input {
            Reading { sensor, celsius } if *celsius < -273.15 => {
                let problem = format!("sensor {sensor} can't have measured {celsius}");
                Err(WorkError::permanent(problem))
            }
            _ => Ok(()),
        });
        let results = results.collect();
        // Nobody counts any more once the example ends.
        let _counted = self.inserted.send(jobs.len());
        results
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = MemoryBroker::new();
    let readings: Vec<Reading> = (0..1_200)
        .map(|sensor| Reading {
            sensor,
            celsius: if sensor == 700 { -300.0 } else { 20.5 },
        })
        .collect();
    Producer::new(broker.clone())
        .send_all("readings", &readings)
        .await?;

    let (inserted, mut counts) = mpsc::unbounded_channel();
    let route = BatchRoute::new("readings", Insert { inserted })
        .lanes(1)
        .batch(500) // rows a call at most,
        .linger(Duration::from_millis(50)); // or what has come until then
    let runner = Runner::builder().route(&broker, route).build()?;
    let all = async {
        let mut left = readings.len();
        while left > 0 {
            left -= counts.recv().await.unwrap_or(left);
        }
    };
    println!("{}", runner.run_until(all).await?);
    Ok(())
}
