//! Code of the user's that panics outside of its `process`: no message is lost by it, and the runner goes on.

use std::fmt;
use std::time::Duration;

use pythia_core::broker::Broker;
use pythia_core::codec::{Codec, Json};
use pythia_core::{
    BatchRoute, BatchWorker, IntoRoute, Job, MemoryBroker, Message, QueueName, Route, Runner,
    Summary, WorkError, Worker, worker_fn,
};

/// Panics when it is dropped, if it is a three.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Grenade(u32);

impl Drop for Grenade {
    fn drop(&mut self) {
        assert_ne!(self.0, 3, "dropped");
    }
}

#[derive(Debug)]
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("no words")
    }
}

impl std::error::Error for Unspeakable {}

/// Runs the route over the numbers from 0 to 5; answers (acked, dead).
async fn run(route: impl IntoRoute) -> (u64, u64) {
    let (broker, queue) = (MemoryBroker::new(), QueueName::new("orders").unwrap());
    let batch = (0..6).map(|number| Message::new(number.to_string()));
    broker.publish(&queue, batch.collect()).await.unwrap();
    let runner = Runner::builder().route(&broker, route).build().unwrap();
    let drained = async {
        let admin = broker.admin().unwrap();
        loop {
            let depth = admin.depth(&queue).await.unwrap();
            if (depth.ready, depth.pending, depth.delayed) == (Some(0), Some(0), Some(0)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let Summary { settled, .. } = runner.run_until(drained).await.unwrap();
    (settled.acked, settled.dead)
}

async fn run_worker<W: Worker>(worker: W) -> (u64, u64)
where
    Json: Codec<W::Input>,
{
    run(Route::new("orders", worker)).await
}

#[tokio::test(start_paused = true)]
async fn in_the_drop_of_an_input() {
    let worker = worker_fn(async |_: &Job<Grenade>| Ok(()));
    assert_eq!(run_worker(worker).await, (6, 0));
}

#[tokio::test(start_paused = true)]
async fn in_the_drop_of_an_output() {
    let worker = worker_fn(async |job: &Job<u32>| Ok(Grenade(job.input)));
    assert_eq!(run_worker(worker).await, (6, 0));
}

#[tokio::test(start_paused = true)]
async fn in_the_text_of_an_error() {
    let worker = worker_fn(async |job: &Job<u32>| match job.input {
        3 => Err(WorkError::permanent(Unspeakable)),
        _ => Ok(()),
    });
    assert_eq!(run_worker(worker).await, (5, 1));
}

#[tokio::test(start_paused = true)]
async fn in_the_drop_of_what_a_panic_carries() {
    let worker = worker_fn(async |job: &Job<u32>| {
        if job.input == 3 && job.attempt() == 1 {
            std::panic::panic_any(Grenade(3));
        }
        Ok(())
    });
    assert_eq!(run_worker(worker).await, (6, 0));
}

struct Batch;

impl BatchWorker for Batch {
    type Input = Grenade;
    type Output = Grenade;

    async fn process(&self, jobs: &[Job<Grenade>]) -> Vec<Result<Grenade, WorkError>> {
        jobs.iter().map(|job| Ok(Grenade(job.input.0))).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn in_the_drops_of_a_batch() {
    assert_eq!(run(BatchRoute::new("orders", Batch)).await, (6, 0));
}
