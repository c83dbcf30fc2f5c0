//! What observers are told, where no other test looks at it on its way.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pythia_core::broker::Broker;
use pythia_core::resilience::{BreakerState, RetryConfig};
use pythia_core::testing::{EventLog, Record};
use pythia_core::{
    BatchRoute, BatchWorker, IntoRoute, Job, MemoryBroker, MemoryConfig, Message, QueueName, Route,
    Runner, WorkError, WorkErrorKind, Worker, worker_fn,
};

const SECOND: Duration = Duration::from_secs(1);

fn queue() -> QueueName {
    QueueName::new("orders").unwrap()
}

/// Each attempt fails in a way of its own, the third for good.
fn failing(job: &Job<u32>) -> Result<(), WorkError> {
    match job.attempt() {
        1 => Err(WorkError::retry_after(2 * SECOND, "gateway says 429")),
        2 => Err(WorkError::snooze(SECOND)),
        _ => Err(WorkError::permanent("sold")),
    }
}

/// An attempt that was snoozed does not count, so it comes again: as the last one.
fn worker() -> impl Worker<Input = u32, Output = ()> {
    let snoozed = AtomicBool::new(false);
    worker_fn(move |job: &Job<u32>| {
        let result = match job.attempt() {
            2 if snoozed.swap(true, Ordering::Relaxed) => Err(WorkError::permanent("sold")),
            _ => failing(job),
        };
        async move { result }
    })
}

#[derive(Default)]
struct Batches(AtomicBool);

impl BatchWorker for Batches {
    type Input = u32;
    type Output = ();

    async fn process(&self, jobs: &[Job<u32>]) -> Vec<Result<(), WorkError>> {
        let result = |job: &Job<u32>| match job.attempt() {
            2 if self.0.swap(true, Ordering::Relaxed) => Err(WorkError::permanent("sold")),
            _ => failing(job),
        };
        jobs.iter().map(result).collect()
    }
}

fn fan_out() -> MemoryBroker {
    let mut config = MemoryConfig::default();
    config.fan_out = true;
    MemoryBroker::with_config(config).unwrap()
}

fn three_attempts() -> RetryConfig {
    let mut retry = RetryConfig::default();
    retry.max_attempts = NonZeroU32::new(3).unwrap();
    retry
}

/// Runs a route over one message until it is dead; answers what was told of failed attempts.
async fn failures(broker: MemoryBroker, route: impl IntoRoute) -> Vec<Record> {
    let log = Arc::new(EventLog::new());
    let runner = Runner::builder()
        .route(&broker, route)
        .observer(Arc::clone(&log))
        .build()
        .unwrap();
    let is_subscribed = |record: &Record| matches!(record, Record::Subscribed { .. });
    let is_dead = |record: &Record| matches!(record, Record::DeadLettered { .. });
    let dead = async {
        log.wait_for(|records| records.iter().any(is_subscribed))
            .await;
        let batch = vec![Message::new("7")];
        broker.publish(&queue(), batch).await.unwrap();
        log.wait_for(|records| records.iter().any(is_dead)).await;
    };
    runner.run_until(dead).await.unwrap();
    let records = log.records().into_iter();
    records
        .filter(|record| matches!(record, Record::AttemptFailed { .. }))
        .collect()
}

/// The two attempts before the last one, which goes with the dead letter.
#[track_caller]
fn assert_told(failures: &[Record]) {
    let [
        Record::AttemptFailed {
            queue: of,
            id,
            attempt: 1,
            max_attempts: 3,
            kind: WorkErrorKind::Retryable { .. },
            error,
            retry_in,
        },
        Record::AttemptFailed {
            id: again,
            attempt: 2,
            max_attempts: 3,
            kind: WorkErrorKind::Snooze { delay: SECOND },
            retry_in: SECOND,
            ..
        },
    ] = failures
    else {
        panic!("{failures:#?}")
    };
    assert_eq!((of, error.as_str()), (&queue(), "gateway says 429"));
    assert_eq!((id, *retry_in), (again, 2 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_that_is_redelivered_tells_its_error() {
    let route = Route::new("orders", worker()).retry(three_attempts());
    assert_told(&failures(MemoryBroker::new(), route).await);
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_that_is_repeated_in_process_tells_its_error() {
    let route = Route::new("orders", worker()).retry(three_attempts());
    assert_told(&failures(fan_out(), route).await);
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_in_a_batch_tells_its_error() {
    let route = || BatchRoute::new("orders", Batches::default()).retry(three_attempts());
    assert_told(&failures(MemoryBroker::new(), route()).await);
    assert_told(&failures(fan_out(), route()).await);
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_known_from_the_start_and_so_is_its_breaker() {
    let log = Arc::new(EventLog::new());
    let worker = || worker_fn(async |_: &Job<u32>| Ok(()));
    let broker = MemoryBroker::new();
    let runner = Runner::builder()
        .route(&broker, Route::new("guarded", worker()))
        .route(
            &broker,
            Route::new("bare", worker()).configure(|config| config.breaker.enabled = false),
        )
        .observer(Arc::clone(&log))
        .build()
        .unwrap();
    runner.run_until(async {}).await.unwrap();
    for (queue, expected) in [("guarded", Some(BreakerState::Closed)), ("bare", None)] {
        let of = |record: &Record| match record {
            Record::Started {
                queue: of, breaker, ..
            } if of.as_str() == queue => Some(*breaker),
            _ => None,
        };
        let started: Vec<_> = log.records().iter().filter_map(of).collect();
        assert_eq!(started, [expected], "{queue}");
    }
}
