//! `/livez`, `/readyz` and `/health` for an orchestrator and for people, with checks of one's own: a database that the worker
//! can't do without, and a geocoder that it can.
//!
//! ```sh
//! cargo run --example health_checks
//! ```
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pythia_core::{Config, Job, Route, Runner, worker_fn};
use pythia_metrics::prometheus::Registry;
use pythia_metrics::{Check, MetricsConfig, MetricsServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A pool of connections, perhaps.
#[derive(Default)]
struct Database {
    is_up: AtomicBool,
}

impl Database {
    async fn ping(&self) -> io::Result<()> {
        match self.is_up.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(io::Error::other("connection refused")),
        }
    }
}

async fn reach_geocoder() -> Result<(), String> {
    Err("quota exceeded".into())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A service reads `Config::load()`; by default it listens on 127.0.0.1:9898. Port 0 is any that is free.
    let config = Config::from_toml("[metrics]\naddress = '127.0.0.1:0'")?;
    let metrics: MetricsConfig = config.section("metrics")?;
    let broker = pythia_redis::from_config(&config)?;
    let locate = worker_fn(async |_: &Job<String>| Ok(()));
    let runner = Runner::builder()
        .config(&config)
        .route(&broker, Route::new("addresses", locate))
        .build()?;

    let database = Arc::new(Database::default());
    let ping = async |database: &Arc<Database>| database.ping().await;
    let server = MetricsServer::bind(&metrics, &Registry::new())
        .await?
        // Whether messages are consumed, and lanes connected.
        .health(runner.health())
        // Required: without it the process is not ready. It is live all the same: a restart mends no database.
        .check(Check::with("database", Arc::clone(&database), ping))
        // Without it the service is degraded.
        .check(Check::new("geocoder", reach_geocoder).informational());
    let address = server.address().ok_or("metrics are not enabled")?;

    let mut answers = Vec::new();
    let asks = async {
        for is_up in [false, true] {
            database.is_up.store(is_up, Ordering::Relaxed);
            // What a check has found is good for a second.
            tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
            for path in ["/livez", "/readyz", "/health"] {
                answers.push((is_up, path, get(address, path).await));
            }
        }
    };
    server.serve(runner.run_until(asks)).await?;
    for (is_up, path, answer) in answers {
        let database = if is_up { "up" } else { "down" };
        println!("with the database {database}, {path} says {}", answer?);
    }
    Ok(())
}

/// What an orchestrator does; answers with the status line and the body.
async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.lines().next().unwrap_or_default();
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    Ok(format!(
        "{}\n{}",
        status.trim_start_matches("HTTP/1.1 "),
        body.trim()
    ))
}
