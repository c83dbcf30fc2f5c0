//! A layer of one's own around a worker: it refuses messages without a tenant, and writes an audit line for each attempt.
//!
//! ```sh
//! cargo run --example custom_layer
//! ```
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;

use pythia_core::{
    Job, Layer, MemoryBroker, Message, Producer, Route, Runner, WorkError, Worker, worker_fn,
};
use tokio::sync::mpsc::{self, UnboundedSender};

/// What `Route::layer` is given: the layer's settings.
struct Audit {
    ended: UnboundedSender<()>,
}

/// What comes out: a worker around a worker.
struct Audited<W> {
    inner: W,
    audit: Audit,
}

impl<W: Worker> Layer<W> for Audit {
    type Worker = Audited<W>;

    fn layer(self, inner: W) -> Audited<W> {
        Audited { inner, audit: self }
    }
}

impl<W: Worker> Worker for Audited<W> {
    type Input = W::Input;
    type Output = W::Output;

    async fn process(&self, job: &Job<W::Input>) -> Result<W::Output, WorkError> {
        let result = match job.headers().get("tenant") {
            Some(_) => self.inner.process(job).await,
            None => Err(WorkError::permanent("a message without a tenant")),
        };
        let (id, attempt) = (job.id(), job.attempt());
        match &result {
            Ok(_) => println!("audit: message {id}, attempt {attempt}: done"),
            Err(error) => println!("audit: message {id}, attempt {attempt}: {error}"),
        }
        self.audit.ended.send(())?;
        result
    }

    // Hooks go through a layer, or the worker's own would never be called.
    async fn start(&self) -> Result<(), WorkError> {
        self.inner.start().await
    }

    async fn stop(&self) {
        self.inner.stop().await;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = MemoryBroker::new();
    let producer = Producer::new(broker.clone());
    let ours = producer.message("a lamp")?.id("7").header("tenant", "acme");
    producer.publish("orders", ours).await?;
    let nobodys = Message::new("\"a chair\"").id("8");
    producer.publish("orders", nobodys).await?;

    let ship = worker_fn(async |job: &Job<String>| {
        println!("shipping {}", job.input);
        Ok(())
    });
    let (ended, mut attempts) = mpsc::unbounded_channel();
    // In `.layer(A).layer(B)`, B is the outermost; time limits, panic isolation and the breaker are around them all.
    let route = Route::new("orders", ship).layer(Audit { ended });
    let runner = Runner::builder().route(&broker, route).build()?;
    let both = async {
        for _ in 0..2 {
            attempts.recv().await;
        }
    };
    println!("{}", runner.run_until(both).await?);
    Ok(())
}
