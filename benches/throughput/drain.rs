//! Messages per second from a full queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pythia_core::observe::{Event, Observer};
use pythia_core::{Message, QueueName, Route, Runner};
use pythia_redis::testing::RedisServer;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{Nothing, PATTERNS, Payment, by_hand, config, metrics};

pub(crate) async fn run(
    messages: usize,
    rounds: usize,
    only: Option<&str>,
    batch: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "{messages} messages, batch {batch}, 2 lanes, {rounds} rounds: messages/s, minimum / median / maximum"
    );
    for pattern in PATTERNS
        .into_iter()
        .filter(|pattern| only.is_none_or(|only| only == *pattern))
    {
        let (mut ours, mut by_hand) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(worker(pattern, messages, batch).await?);
            if let Some(rate) = ceiling(pattern, messages, batch).await? {
                by_hand.push(rate);
            }
        }
        report(&format!("{pattern}, worker"), &mut ours);
        if !by_hand.is_empty() {
            report(&format!("{pattern}, by hand"), &mut by_hand);
            println!(
                "{:<20} {:>10.2}",
                "  ratio of medians",
                median(&mut ours) / median(&mut by_hand)
            );
        }
    }
    Ok(())
}

/// The worker with every guard and metrics on, from its start to its last acknowledgement.
async fn worker(
    pattern: &str,
    messages: usize,
    batch: usize,
) -> Result<f64, Box<dyn std::error::Error>> {
    let server = RedisServer::start().await;
    let config = config(&server, pattern, batch)?;
    let broker = pythia_redis::from_config(&config)?;
    if pattern == "memory" {
        let queue = QueueName::new("payments")?;
        let all: Vec<Message> = (0..messages as u64)
            .map(|id| Message::new(Payment::number(id)))
            .collect();
        broker.publish(&queue, all).await?;
    } else {
        by_hand::fill(&by_hand::connect(&server.url()).await?, pattern, messages).await?;
    }
    let acked = Acked::new(messages);
    let runner = Runner::builder()
        .config(&config)
        .route(&broker, Route::new("payments", Nothing))
        .observer(metrics()?)
        .observer(acked.clone())
        .build()?;
    let began = Instant::now();
    let mut took = 0.0;
    let summary = runner
        .run_until(async {
            acked.all.notified().await;
            took = Instant::now()
                .saturating_duration_since(began)
                .as_secs_f64();
        })
        .await?;
    assert_eq!(summary.settled.acked as usize, messages, "{summary}");
    Ok(messages as f64 / took)
}

async fn ceiling(
    pattern: &str,
    messages: usize,
    batch: usize,
) -> Result<Option<f64>, Box<dyn std::error::Error>> {
    if !matches!(pattern, "list" | "stream") {
        return Ok(None);
    }
    let server = RedisServer::start().await;
    let url = server.url();
    by_hand::fill(&by_hand::connect(&url).await?, pattern, messages).await?;
    let began = Instant::now();
    match pattern {
        "list" => by_hand::list(&url, messages, batch).await?,
        _ => by_hand::stream(&url, messages, batch).await?,
    }
    Ok(Some(
        messages as f64
            / Instant::now()
                .saturating_duration_since(began)
                .as_secs_f64(),
    ))
}

/// Tells when all are acknowledged.
#[derive(Clone)]
struct Acked {
    left: Arc<AtomicUsize>,
    all: Arc<Notify>,
}

impl Acked {
    fn new(messages: usize) -> Self {
        Self {
            left: Arc::new(AtomicUsize::new(messages)),
            all: Arc::default(),
        }
    }
}

impl Observer for Acked {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Settled { counts, .. } = event {
            let acked = counts.acked as usize;
            if self.left.fetch_sub(acked, Ordering::Relaxed) <= acked {
                self.all.notify_one();
            }
        }
    }
}

fn report(name: &str, rates: &mut [f64]) {
    let middle = median(rates);
    let (low, high) = (
        rates.first().copied().unwrap_or(0.0),
        rates.last().copied().unwrap_or(0.0),
    );
    println!("{name:<20} {low:>10.0} {middle:>10.0} {high:>10.0}");
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
}
