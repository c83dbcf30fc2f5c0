//! From publishing to the start of the job, at a steady rate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pythia_core::{Job, Producer, Route, Runner, worker_fn};
use pythia_redis::testing::RedisServer;
use tokio::time::Instant;

use crate::{config, metrics};

pub(crate) async fn run(rate: u64, seconds: u64) -> Result<(), Box<dyn std::error::Error>> {
    println!("{rate} messages/s for {seconds} s, from publish to start, ms: p50 / p99 / maximum");
    for pattern in ["list", "stream", "pubsub", "memory"] {
        let server = RedisServer::start().await;
        let config = config(&server, pattern, 500)?;
        let broker = pythia_redis::from_config(&config)?;
        let epoch = Instant::now();
        let waits = Arc::new(Mutex::new(Vec::new()));
        let noting = Arc::clone(&waits);
        // The message is the time of its publishing, in microseconds since the start.
        let worker = worker_fn(move |job: &Job<u64>| {
            let now = Instant::now().saturating_duration_since(epoch).as_micros() as u64;
            noting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(now.saturating_sub(job.input));
            async { Ok(()) }
        });
        let runner = Runner::builder()
            .config(&config)
            .route(&broker, Route::new("payments", worker))
            .observer(metrics()?)
            .build()?;
        let health = runner.health();
        let producer = Producer::new(broker);
        let mut published = Ok(());
        runner
            .run_until(async {
                while health.ready().is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                let mut beat = tokio::time::interval(Duration::from_micros(1_000_000 / rate));
                for _ in 0..rate * seconds {
                    beat.tick().await;
                    let now = Instant::now().saturating_duration_since(epoch).as_micros() as u64;
                    if let Err(error) = producer.send("payments", &now).await {
                        published = Err(error);
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            })
            .await?;
        published?;
        let mut waits = waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.sort_unstable();
        let at = |share: f64| {
            waits
                .get((waits.len() as f64 * share) as usize)
                .or(waits.last())
                .map_or(f64::NAN, |&wait| wait as f64 / 1e3)
        };
        println!(
            "{pattern:<10} {:>8.3} {:>8.3} {:>8.3}   ({} messages)",
            at(0.5),
            at(0.99),
            at(1.0),
            waits.len()
        );
    }
    Ok(())
}
