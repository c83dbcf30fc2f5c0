//! `/metrics` for Prometheus, with metrics of one's own beside Pythia's.
//!
//! ```sh
//! cargo run --example metrics_endpoint
//! ```
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::sync::Arc;

use pythia_core::{Config, Job, Producer, Route, Runner, WorkError, Worker};
use pythia_metrics::prometheus::{IntCounter, Registry};
use pythia_metrics::{MetricsConfig, MetricsServer, PrometheusObserver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedSender};

struct Sell {
    /// What only this worker knows; the rest is counted by the framework.
    cents: IntCounter,
    sold: UnboundedSender<()>,
}

impl Worker for Sell {
    type Input = u64;
    type Output = ();

    async fn process(&self, job: &Job<u64>) -> Result<(), WorkError> {
        self.cents.inc_by(job.input);
        self.sold.send(())?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A service reads `Config::load()`; by default it listens on 127.0.0.1:9898. Port 0 is any that is free.
    let config = Config::from_toml("[metrics]\naddress = '127.0.0.1:0'")?;
    let metrics: MetricsConfig = config.section("metrics")?;
    let registry = Registry::new();
    let cents = IntCounter::new("shop_sales_cents_total", "What was sold, in cents.")?;
    registry.register(Box::new(cents.clone()))?;

    let broker = pythia_redis::from_config(&config)?; // In memory, unless it says otherwise.
    let producer = Producer::new(Arc::clone(&broker));
    producer.send_all("sales", &[4_900, 12_900, 99]).await?;

    let (sold, mut sales) = mpsc::unbounded_channel();
    let runner = Runner::builder()
        .config(&config)
        .route(&broker, Route::new("sales", Sell { cents, sold }))
        .observer(PrometheusObserver::register_with(&registry, &metrics)?)
        .build()?;
    // `/livez` and `/readyz` answer by whether messages are being consumed.
    let server = MetricsServer::bind(&metrics, &registry)
        .await?
        .health(runner.health());
    let address = server.address().ok_or("metrics are not enabled")?;
    println!("metrics are at http://{address}/metrics");

    let mut page = None;
    let scraped = async {
        for _ in 0..3 {
            sales.recv().await;
        }
        page = Some(get(address, "/metrics").await);
    };
    let summary = server.serve(runner.run_until(scraped)).await?;
    let text = page.ok_or("nothing was scraped")??;
    for line in text.lines() {
        let wanted = [
            "shop_sales_cents_total",
            "pythia_messages_received_total",
            "pythia_build",
        ];
        if wanted.iter().any(|name| line.starts_with(name)) {
            println!("{line}");
        }
    }
    println!("{summary}");
    Ok(())
}

/// What Prometheus does.
async fn get(address: std::net::SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
