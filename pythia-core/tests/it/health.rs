//! What the probes see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pythia_core::admin::Admin;
use pythia_core::broker::{
    Broker, Guarantee, Maintained, Published, Settled, Settler, Subscription,
};
use pythia_core::observe::Observer;
use pythia_core::settlement::Settlement;
use pythia_core::store::KvStore;
use pythia_core::{
    BrokerError, BrokerErrorKind, Job, MemoryBroker, Message, QueueName, Receipt, Route, Runner,
    RunnerConfig, worker_fn,
};
use tokio::sync::Notify;
use tokio::time::sleep;

/// A broker that hands out as ever, and refuses all results while it is told to.
#[derive(Clone, Debug, Default)]
struct Stubborn {
    inner: MemoryBroker,
    refuses: Arc<AtomicBool>,
}

#[async_trait]
impl Broker for Stubborn {
    fn identity(&self) -> usize {
        self.inner.identity()
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
        let mut subscription = self.inner.subscribe(queue).await?;
        subscription.settler = Arc::new(StubbornSettler {
            inner: subscription.settler,
            refuses: Arc::clone(&self.refuses),
        });
        Ok(subscription)
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

    fn admin(&self) -> Option<&dyn Admin> {
        self.inner.admin()
    }

    fn store(&self) -> Option<Arc<dyn KvStore>> {
        self.inner.store()
    }
}

#[derive(Debug)]
struct StubbornSettler {
    inner: Arc<dyn Settler>,
    refuses: Arc<AtomicBool>,
}

#[async_trait]
impl Settler for StubbornSettler {
    async fn settle(&self, batch: &[Settlement]) -> Result<Settled, BrokerError> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(BrokerError::new(BrokerErrorKind::WrongType, "settle"));
        }
        self.inner.settle(batch).await
    }

    async fn extend(&self, in_flight: &[Receipt]) -> Result<Vec<Receipt>, BrokerError> {
        self.inner.extend(in_flight).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_results_are_refused_is_not_live() {
    let (broker, queue) = (Stubborn::default(), QueueName::new("orders").unwrap());
    let publish = async |count: usize| {
        let batch = (0..count).map(|number| Message::new(number.to_string()));
        broker.publish(&queue, batch.collect()).await.unwrap();
    };
    let worker = worker_fn(async |_: &Job<usize>| Ok(()));
    let runner = Runner::builder()
        .route(&broker, Route::new("orders", worker))
        .build()
        .unwrap();
    let health = runner.health();
    let limit = 2 * RunnerConfig::default().stall_after;
    let probe = async {
        publish(1).await;
        sleep(10 * limit).await;
        assert_eq!(health.live(), Ok(()), "idle");
        broker.refuses.store(true, Ordering::SeqCst);
        publish(10_000).await;
        sleep(limit - Duration::from_secs(1)).await;
        assert_eq!(health.live(), Ok(()), "not for long");
        sleep(Duration::from_secs(2)).await;
        let problems = health.live().unwrap_err();
        assert!(
            problems[0].contains("queue \"orders\", lane 0: the broker has taken no result"),
            "{problems:?}"
        );
        broker.refuses.store(false, Ordering::SeqCst);
        sleep(limit).await;
        assert_eq!(health.live(), Ok(()), "well again");
    };
    let summary = runner.run_until(probe).await.unwrap();
    assert_eq!(summary.settled.acked, 10_001);
}
