//! What becomes of messages that fail: retries by the schedule, a delay that the worker names, and dead letters, which are
//! listed, looked into, and requeued once their cause is mended.
//!
//! ```sh
//! cargo run --example retries_and_dead_letters
//! ```
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::time::Duration;

use pythia_core::admin::Page;
use pythia_core::broker::Broker;
use pythia_core::observe::{Event, Observer};
use pythia_core::resilience::RetryConfig;
use pythia_core::{Job, MemoryBroker, Message, Producer, Route, Runner, WorkError, Worker};
use tokio::sync::mpsc::{self, UnboundedSender};

struct Bank {
    knows_new_cards: bool,
}

impl Worker for Bank {
    type Input = String;
    type Output = ();

    async fn process(&self, job: &Job<String>) -> Result<(), WorkError> {
        let (card, attempt) = (&*job.input, job.attempt());
        println!("attempt {attempt} at the card {card:?}");
        match (card, attempt) {
            // Any error by `?`, or said so: tried again by the route's schedule.
            ("slow", 1 | 2) => Err(WorkError::retryable("the bank does not answer")),
            // When the other side says when. This counts as an attempt; `WorkError::snooze` would not.
            ("busy", 1) => {
                let after = Duration::from_millis(50);
                Err(WorkError::retry_after(after, "come back later"))
            }
            // No further try can help: to the dead letters at once.
            ("stolen", _) => Err(WorkError::permanent("the card is stolen")),
            ("new", _) if !self.knows_new_cards => Err(WorkError::permanent("no such card")),
            _ => Ok(()),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = MemoryBroker::new();
    let producer = Producer::new(broker.clone());
    let cards = ["good", "slow", "busy", "stolen", "new"];
    producer.send_all("charges", &cards).await?;
    producer.publish("charges", Message::new("no JSON")).await?;
    let knows_new_cards = false;
    run(&broker, Bank { knows_new_cards }, 6).await?;

    let admin = broker.admin().ok_or("this broker has no administration")?;
    let queue = "charges".try_into()?;
    println!("dead letters, the newest first:");
    let mut mended = Vec::new();
    for letter in admin.dead(&queue, Page::first(50)).await? {
        let body = letter.delivery.payload.text_lossy(); // as it came, whatever it is
        let reason = letter.reason.map(|reason| reason.to_string());
        println!("  {body}: {}", reason.unwrap_or_default());
        if body == "\"new\"" {
            mended.push(letter.delivery.id.clone());
        }
    }

    let requeued = admin.requeue(&queue, Some(&mended), 50).await?;
    println!("the bank knows new cards now; requeued: {requeued}");
    let knows_new_cards = true;
    run(&broker, Bank { knows_new_cards }, 1).await?;
    let left = admin.depth(&queue).await?.dead.unwrap_or(0);
    println!("dead letters left: {left}");
    Ok(())
}

/// Runs a worker until so many messages have come to their end.
async fn run(broker: &MemoryBroker, bank: Bank, mut messages: u64) -> Result<(), Box<dyn Error>> {
    let mut retry = RetryConfig::default();
    retry.initial_delay = Duration::from_millis(20); // A second by default.
    let (ended, mut ends) = mpsc::unbounded_channel();
    let runner = Runner::builder()
        .route(broker, Route::new("charges", bank).retry(retry))
        .observer(Ends(ended))
        .build()?;
    let all = async {
        while messages > 0 {
            messages -= ends.recv().await.unwrap_or(messages);
        }
    };
    println!("{}", runner.run_until(all).await?);
    Ok(())
}

/// Tells how many messages were acknowledged, or are dead. Observers are how metrics are made, too.
struct Ends(UnboundedSender<u64>);

impl Observer for Ends {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Settled { counts, .. } = event {
            // Nobody counts any more once the runner stops.
            let _counted = self.0.send(counts.acked + counts.dead);
        }
    }
}
