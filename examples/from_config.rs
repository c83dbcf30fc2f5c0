//! Everything from TOML and the environment: the broker, the runner, each route. The program names none of it.
//!
//! ```sh
//! cargo run --example from_config
//! PYTHIA_RETRY__MAX_ATTEMPTS=2 cargo run --example from_config       # a variable wins over the file
//! PYTHIA_RETRY__MAX_ATTEMPT=2 cargo run --example from_config        # refused, with what was meant
//! PYTHIA_CONFIG=config/pythia.toml cargo run --example from_config   # a file of yours
//! ```
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::sync::Arc;

use pythia_core::{Config, Job, Producer, Route, RouteConfig, Runner, WorkError, worker_fn_with};
use tokio::sync::mpsc::{self, UnboundedSender};

/// What would be in a file. `config/pythia.toml` has every setting with its default and its reason.
const FILE: &str = r#"
[broker]
type = "memory"              # "list", "stream" or "pubsub" for Redis

[runner]
drain_timeout = "10s"

[worker]                     # all routes
concurrency = 50

[retry]
max_attempts = 3
initial_delay = "10ms"

[routes.orders]              # this one
lanes = 1
timeout.hard = "30s"
"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = match std::env::var_os("PYTHIA_CONFIG") {
        Some(_) => Config::load()?,
        None => Config::from_sources(Some(FILE), our_variables())?,
    };
    let orders: RouteConfig = config.route("orders")?;
    println!(
        "broker: {:?}; orders: {} at once in {} lanes, up to {} attempts, a hard limit of {:?}",
        config.broker_type()?,
        orders.concurrency,
        orders.lanes,
        orders.retry.max_attempts,
        orders.timeout.hard,
    );

    let broker = pythia_redis::from_config(&config)?;
    Producer::new(Arc::clone(&broker))
        .send("orders", "lamp")
        .await?;
    let (failed, mut attempts) = mpsc::unbounded_channel();
    let fail = worker_fn_with(
        failed,
        async |failed: &UnboundedSender<u32>, job: &Job<String>| {
            failed.send(job.attempt()).map_err(WorkError::permanent)?;
            Err::<(), _>(WorkError::retryable("out of stock"))
        },
    );
    let runner = Runner::builder()
        .config(&config) // of the runner, and of all routes
        .route(&broker, Route::new("orders", fail))
        .build()?;
    let last = orders.retry.max_attempts.get();
    let all = async {
        while let Some(attempt) = attempts.recv().await {
            println!("attempt {attempt} of {last} has failed");
            if attempt == last {
                return;
            }
        }
    };
    println!("{}", runner.run_until(all).await?);
    Ok(())
}

/// What `Config::load` reads besides the file.
fn our_variables() -> impl Iterator<Item = (String, String)> {
    let ours = |name: &str| name.starts_with("PYTHIA_") || name.starts_with("REDIS_");
    std::env::vars().filter(move |(name, _)| ours(name))
}
