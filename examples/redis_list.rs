//! A worker on a Redis list: what `LPUSH` writes is processed, at least once, and leaves the list when it is done.
//!
//! ```sh
//! cargo run --example redis_list                           # starts a redis-server of its own
//! cargo run --example redis_list redis://127.0.0.1:6379    # uses yours
//! ```
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod redis_url;

use std::error::Error;

use pythia_core::{Job, Producer, Route, Runner, WorkError, Worker};
use pythia_redis::ListBroker;
use pythia_redis::config::RedisConfig;
use tokio::sync::mpsc;

#[derive(serde::Deserialize, serde::Serialize)]
struct Order {
    id: u64,
    item: String,
}

struct Ship {
    shipped: mpsc::UnboundedSender<u64>,
}

impl Worker for Ship {
    type Input = Order;
    type Output = ();

    async fn process(&self, job: &Job<Order>) -> Result<(), WorkError> {
        let Order { id, item } = &job.input;
        println!("order {id}: shipping one {item}");
        self.shipped.send(*id)?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt::init();
    let (url, _server) = redis_url::given_or_started().await?;
    let broker = ListBroker::new(RedisConfig::from_url(&url)?)?;

    // Any client may write; no envelope is needed.
    let lamp = r#"{"id":1,"item":"lamp"}"#;
    redis_url::redis_cli(&url, &["LPUSH", "example:orders", lamp])?;
    // From Rust: with a delay, headers, a dedupe key where they are wanted.
    let chair = Order {
        id: 2,
        item: "chair".into(),
    };
    let producer = Producer::new(broker.clone());
    producer.send("example:orders", &chair).await?;

    let (shipped, mut reports) = mpsc::unbounded_channel();
    let runner = Runner::builder()
        .route(&broker, Route::new("example:orders", Ship { shipped }))
        .build()?;
    // A service gives `shutdown_signal()`; this one ends after two orders.
    let both = async {
        for _ in 0..2 {
            reports.recv().await;
        }
    };
    println!("{}", runner.run_until(both).await?);

    let left = redis_url::redis_cli(&url, &["LLEN", "example:orders"])?;
    println!("{left} orders are left in the list");
    Ok(())
}
