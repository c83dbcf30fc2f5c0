//! The worker of the README.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use pythia_core::{Config, Job, Route, Runner, WorkError, Worker, shutdown_signal};

#[derive(serde::Deserialize)]
struct Order {
    id: u64,
    item: String,
}

struct Ship;

impl Worker for Ship {
    type Input = Order;
    type Output = ();

    async fn process(&self, job: &Job<Order>) -> Result<(), WorkError> {
        println!("order {}: shipping one {}", job.input.id, job.input.item);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt::init();
    let config = Config::load()?;
    let broker = pythia_redis::from_config(&config)?;
    let route = Route::new("orders", Ship);
    let runner = Runner::builder()
        .config(&config)
        .route(&broker, route)
        .build()?;
    println!("{}", runner.run_until(shutdown_signal()).await?);
    Ok(())
}
