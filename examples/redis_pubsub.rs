//! Workers on a Redis channel: each of them gets every message that is published while it listens, at most once. Retries
//! happen in the process, and there are no dead letters; a route that asks for them is refused when the runner is built.
//!
//! ```sh
//! cargo run --example redis_pubsub                           # starts a redis-server of its own
//! cargo run --example redis_pubsub redis://127.0.0.1:6379    # uses yours
//! ```
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod redis_url;

use std::error::Error;

use pythia_core::observe::{Event, Observer};
use pythia_core::{Job, Route, Runner, WorkError, Worker};
use pythia_redis::PubSubBroker;
use pythia_redis::config::RedisConfig;
use tokio::sync::mpsc::{self, UnboundedSender};

#[derive(serde::Deserialize)]
struct Price {
    item: String,
    cents: u32,
}

struct Show {
    name: &'static str,
    shown: UnboundedSender<()>,
}

impl Worker for Show {
    type Input = Price;
    type Output = ();

    async fn process(&self, job: &Job<Price>) -> Result<(), WorkError> {
        let Price { item, cents } = &job.input;
        println!(
            "{}: a {item} is {}.{:02}",
            self.name,
            cents / 100,
            cents % 100
        );
        self.shown.send(())?;
        Ok(())
    }
}

/// Tells when a worker listens: what is published before is not for it.
struct Listening(UnboundedSender<()>);

impl Observer for Listening {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Subscribed { .. } = event {
            // Nobody waits for it any more once the example ends.
            let _heard = self.0.send(());
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt::init();
    let (url, _server) = redis_url::given_or_started().await?;
    let redis = RedisConfig::from_url(&url)?;
    // Two brokers, as two processes would have them: one queue has one route on a broker.
    let (till, window) = (PubSubBroker::new(redis.clone())?, PubSubBroker::new(redis)?);

    let (shown, mut messages) = mpsc::unbounded_channel();
    let (listening, mut listeners) = mpsc::unbounded_channel();
    let show = |name| {
        let shown = shown.clone();
        Route::new("example:prices", Show { name, shown })
    };
    let runner = Runner::builder()
        .route(&till, show("till"))
        .route(&window, show("shop window"))
        .observer(Listening(listening))
        .build()?;

    let refused = Runner::builder()
        .route(&till, show("till").at_least_once())
        .build();
    println!(
        "asking for more than a channel has: {}",
        refused.unwrap_err()
    );

    let all = async {
        for _ in 0..2 {
            listeners.recv().await;
        }
        let price = r#"{"item":"lamp","cents":4900}"#;
        let published = redis_url::redis_cli(&url, &["PUBLISH", "example:prices", price]);
        for _ in 0..2 {
            messages.recv().await;
        }
        println!(
            "redis-cli says: {} listeners",
            published.unwrap_or_default()
        );
    };
    println!("{}", runner.run_until(all).await?);
    Ok(())
}
