//! The samples for gauges at a runner's end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pythia_core::admin::{Admin, DeadLetter, Delayed, Depth, Page, Purge, ServerStats};
use pythia_core::broker::{Broker, Endpoint, Guarantee, Maintained, Published, Subscription};
use pythia_core::observe::Observer;
use pythia_core::store::KvStore;
use pythia_core::testing::{EventLog, Record};
use pythia_core::{
    BrokerError, Job, MemoryBroker, Message, MessageId, QueueName, Route, Runner, WorkError,
    worker_fn,
};
use tokio::sync::Notify;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn queue() -> QueueName {
    QueueName::new("orders").unwrap()
}

/// A broker whose administration stops answering.
#[derive(Clone, Debug, Default)]
struct Silenced {
    inner: MemoryBroker,
    silent: Arc<AtomicBool>,
}

impl Silenced {
    fn inner_admin(&self) -> &dyn Admin {
        self.inner.admin().expect("memory has one")
    }

    /// Runs a worker over some messages, of which one dies, and goes silent or not when they are done; answers the last
    /// depth that was sampled, and how long the end took.
    async fn run(&self, silent_from: SilentFrom) -> (Option<Depth>, Duration) {
        let log = Arc::new(EventLog::new());
        self.silent
            .store(silent_from == SilentFrom::Start, Ordering::Relaxed);
        let batch = (0..5).map(|number| Message::new(number.to_string()));
        self.publish(&queue(), batch.collect()).await.unwrap();
        let worker = worker_fn(async |job: &Job<u32>| {
            tokio::time::sleep(SECOND).await;
            match job.input {
                3 => Err(WorkError::permanent("never")),
                _ => Ok(()),
            }
        });
        let runner = Runner::builder()
            .route(self, Route::new("orders", worker))
            .observer(Arc::clone(&log))
            .build()
            .unwrap();
        let settled = |record: &Record| match record {
            Record::Settled { counts, .. } => counts.total(),
            _ => 0,
        };
        let mut ends = Instant::now();
        let done = async {
            log.wait_for(|records| records.iter().map(settled).sum::<u64>() == 5)
                .await;
            self.silent
                .store(silent_from != SilentFrom::Never, Ordering::Relaxed);
            ends = Instant::now();
        };
        runner.run_until(done).await.unwrap();
        let took = Instant::now().saturating_duration_since(ends);
        let sampled = |record| match record {
            Record::Sampled { depth, .. } => Some(depth),
            _ => None,
        };
        (log.records().into_iter().filter_map(sampled).last(), took)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum SilentFrom {
    Start,
    End,
    Never,
}

#[tokio::test(start_paused = true)]
async fn the_last_sample_is_what_a_runner_leaves_behind() {
    let (last, _) = Silenced::default().run(SilentFrom::Never).await;
    let last = last.unwrap();
    assert_eq!(
        (last.ready, last.pending, last.dead),
        (Some(0), Some(0), Some(1))
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_is_not_waited_for_at_the_end() {
    let (last, took) = Silenced::default().run(SilentFrom::End).await;
    assert_eq!(last.unwrap().pending, Some(5), "that of the beginning");
    assert!(took <= SECOND, "{took:?}");
    let (last, took) = Silenced::default().run(SilentFrom::Start).await;
    assert_eq!(last, None);
    assert!(took < SECOND / 100, "it was known to be silent: {took:?}");
}

#[async_trait]
impl Broker for Silenced {
    fn identity(&self) -> usize {
        self.inner.identity()
    }

    fn endpoint(&self) -> Endpoint {
        self.inner.endpoint()
    }

    fn guarantee(&self) -> Guarantee {
        self.inner.guarantee()
    }

    fn is_fan_out(&self) -> bool {
        self.inner.is_fan_out()
    }

    fn attach(&self, observer: Arc<dyn Observer>) {
        self.inner.attach(observer);
    }

    async fn subscribe(&self, queue: &QueueName) -> Result<Subscription, BrokerError> {
        self.inner.subscribe(queue).await
    }

    async fn publish(
        &self,
        queue: &QueueName,
        batch: Vec<Message>,
    ) -> Result<Vec<Published>, BrokerError> {
        self.inner.publish(queue, batch).await
    }

    async fn maintain(
        &self,
        queue: &QueueName,
        max_attempts: u32,
    ) -> Result<Maintained, BrokerError> {
        self.inner.maintain(queue, max_attempts).await
    }

    fn due_earlier(&self, queue: &QueueName) -> Arc<Notify> {
        self.inner.due_earlier(queue)
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        self.inner.ping().await
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }

    fn store(&self) -> Option<Arc<dyn KvStore>> {
        None
    }
}

/// Silent where the sampler asks; all else is as inside.
#[async_trait]
impl Admin for Silenced {
    async fn depth(&self, queue: &QueueName) -> Result<Depth, BrokerError> {
        if self.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        self.inner_admin().depth(queue).await
    }

    async fn delayed(&self, queue: &QueueName, page: Page) -> Result<Vec<Delayed>, BrokerError> {
        self.inner_admin().delayed(queue, page).await
    }

    async fn dead(&self, queue: &QueueName, page: Page) -> Result<Vec<DeadLetter>, BrokerError> {
        self.inner_admin().dead(queue, page).await
    }

    async fn requeue(
        &self,
        queue: &QueueName,
        ids: Option<&[MessageId]>,
        limit: usize,
    ) -> Result<u64, BrokerError> {
        self.inner_admin().requeue(queue, ids, limit).await
    }

    async fn purge(&self, queue: &QueueName, state: Purge) -> Result<u64, BrokerError> {
        self.inner_admin().purge(queue, state).await
    }

    async fn server(&self) -> Result<Option<ServerStats>, BrokerError> {
        self.inner_admin().server().await
    }
}
