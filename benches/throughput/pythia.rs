//! The worker with every guard and metrics on, and its producer.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pythia_core::broker::Broker;
use pythia_core::observe::Observer;
use pythia_core::{
    Job, MemoryBroker, Message, Producer, QueueName, Route, Runner, WorkError, Worker,
};

use crate::Failure;
use crate::part::{Measured, Meter, Part, meanwhile};
use crate::payment::Payment;
use crate::progress::Progress;
use crate::redis::QUEUE;
use crate::settings::{Pattern, What};

/// Decodes, and does nothing, or sleeps.
struct Handler {
    progress: Progress,
    sleep: Duration,
}

impl Worker for Handler {
    type Input = Payment;
    type Output = ();

    async fn process(&self, job: &Job<Payment>) -> Result<(), WorkError> {
        self.progress.begin(std::hint::black_box(&job.input));
        if !self.sleep.is_zero() {
            tokio::time::sleep(self.sleep).await;
        }
        Ok(())
    }
}

/// Runs a worker until all is measured.
pub(crate) async fn work(
    part: &Part,
    progress: &Progress,
    meter: &mut Meter,
) -> Result<Measured, Failure> {
    let settings = &part.settings;
    let config = settings.config(&part.url)?;
    let broker: Arc<dyn Broker> = match settings.pattern {
        Pattern::Memory => Arc::new(memory()),
        _ => pythia_redis::from_config(&config)?,
    };
    if settings.pattern == Pattern::Memory && part.what == What::Drain {
        let bodies = (0..settings.messages).map(|id| Payment::number(id, settings.payload));
        publish(&memory(), bodies.map(|one| one.to_json()).collect()).await?;
    }
    let handler = Handler {
        progress: progress.clone(),
        sleep: Duration::from_millis(settings.sleep),
    };
    let runner = Runner::builder()
        .config(&config)
        .route(&broker, Route::new(QUEUE, handler))
        .observer(metrics()?)
        .observer(progress.clone())
        .build()?;
    let health = runner.health();
    // A full queue is drained from the first moment on.
    let waits_until_ready = part.what != What::Drain || settings.pattern == Pattern::Pubsub;
    meter.begin().await?;
    let mut measured = Err("the worker ended by itself".into());
    runner
        .run_until(async {
            while waits_until_ready && health.ready().is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            measured = meanwhile(part, progress, meter).await;
        })
        .await?;
    measured
}

/// Publishes one batch after the other, on one connection.
pub(crate) async fn enqueue(
    part: &Part,
    progress: &Progress,
    meter: &mut Meter,
) -> Result<Measured, Failure> {
    let settings = &part.settings;
    let config = settings.config(&part.url)?;
    let broker = pythia_redis::from_config(&config)?;
    let queue = QueueName::new(QUEUE)?;
    let producer = Producer::new(broker);
    // The bodies are made before: what is measured is the way from a message to Redis.
    let bodies = payloads(settings.batch, settings.payload);
    producer
        .publish(&queue, Message::new(bodies[0].clone()))
        .await?;
    meter.begin().await?;
    while !progress.is_over() {
        let count = match &bodies[..] {
            [body] => {
                producer.publish(&queue, Message::new(body.clone())).await?;
                1
            }
            bodies => {
                let batch = bodies.iter().cloned().map(Message::new).collect();
                producer.publish_all(&queue, batch).await?.len()
            }
        };
        progress.settled(count as u64);
    }
    meter.end(progress).await
}

/// So many bodies, that are cheap to clone.
pub(crate) fn payloads(count: usize, bytes: usize) -> Vec<bytes::Bytes> {
    let bodies = (0..count as u64).map(|id| Payment::number(id, bytes).to_json().into());
    bodies.collect()
}

/// The broker of this process.
pub(crate) fn memory() -> MemoryBroker {
    static BROKER: OnceLock<MemoryBroker> = OnceLock::new();
    BROKER.get_or_init(MemoryBroker::default).clone()
}

pub(crate) async fn publish(broker: &MemoryBroker, bodies: Vec<Vec<u8>>) -> Result<(), Failure> {
    let queue = QueueName::new(QUEUE)?;
    let batch = bodies.into_iter().map(Message::new).collect();
    broker.publish(&queue, batch).await?;
    Ok(())
}

/// A [`PrometheusObserver`](pythia_metrics::PrometheusObserver) as a service would have it.
fn metrics() -> Result<impl Observer, pythia_metrics::MetricsError> {
    pythia_metrics::PrometheusObserver::register(&prometheus::Registry::new())
}
