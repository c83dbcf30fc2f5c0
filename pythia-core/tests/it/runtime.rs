//! The runner from outside: on the in-memory broker, under virtual time unless a test says otherwise.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pythia_core::admin::{Depth, Page};
use pythia_core::broker::Broker;
use pythia_core::observe::{Event, Observer};
use pythia_core::resilience::{BreakerState, RateLimit, RetryConfig};
use pythia_core::settlement::DeadKind;
use pythia_core::{
    BatchRoute, BatchWorker, CancelReason, Job, Layer, MemoryBroker, MemoryConfig, Message,
    QueueName, Route, Runner, RunnerConfig, Summary, WorkError, Worker, worker_fn,
};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

fn queue() -> QueueName {
    QueueName::new("orders").unwrap()
}

async fn publish(broker: &MemoryBroker, numbers: impl IntoIterator<Item = usize>) {
    let batch = numbers
        .into_iter()
        .map(|number| Message::new(number.to_string()))
        .collect();
    broker.publish(&queue(), batch).await.unwrap();
}

async fn depth(broker: &MemoryBroker) -> Depth {
    broker.admin().unwrap().depth(&queue()).await.unwrap()
}

/// Resolves once the queue is empty in every state but dead.
async fn idle(broker: MemoryBroker) {
    let mut pause = Duration::from_millis(10);
    loop {
        let depth = depth(&broker).await;
        if (depth.ready, depth.pending, depth.delayed) == (Some(0), Some(0), Some(0)) {
            return;
        }
        tokio::time::sleep(pause).await;
        // Virtual time: a test that spans weeks should not look every ten milliseconds.
        pause = pause.mul_f64(1.05).min(Duration::from_secs(60));
    }
}

/// How often each number was worked on.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<usize, usize>>>);

impl Seen {
    fn note(&self, number: usize) {
        *self.0.lock().unwrap().entry(number).or_default() += 1;
    }

    fn counts(&self) -> BTreeMap<usize, usize> {
        self.0.lock().unwrap().clone()
    }
}

fn quick_retry(attempts: u32) -> RetryConfig {
    let mut retry = RetryConfig::default();
    retry.max_attempts = std::num::NonZeroU32::new(attempts).unwrap();
    retry
}

async fn run_idle(broker: &MemoryBroker, route: impl pythia_core::IntoRoute) -> Summary {
    Runner::builder()
        .route(broker, route)
        .build()
        .unwrap()
        .run_until(idle(broker.clone()))
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_message_is_worked_on_and_acknowledged() {
    let broker = MemoryBroker::new();
    publish(&broker, 0..1_000).await;
    let seen = Seen::default();
    let noting = seen.clone();
    let worker = worker_fn(move |job: &Job<usize>| {
        noting.note(job.input);
        async { Ok(()) }
    });
    let summary = run_idle(&broker, Route::new("orders", worker)).await;
    assert_eq!(
        (
            summary.received,
            summary.settled.acked,
            summary.settled.total()
        ),
        (1_000, 1_000, 1_000)
    );
    assert_eq!(
        seen.counts(),
        (0..1_000).map(|number| (number, 1)).collect()
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_jobs_run_concurrently_up_to_the_limit_of_the_route() {
    let broker = MemoryBroker::new();
    publish(&broker, 0..100).await;
    let running = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let noting = Arc::clone(&running);
    let worker = worker_fn(move |_: &Job<usize>| {
        let running = Arc::clone(&noting);
        async move {
            let now = running.0.fetch_add(1, Ordering::SeqCst) + 1;
            running.1.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            running.0.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    });
    let began = Instant::now();
    let route = Route::new("orders", worker).concurrency(7).lanes(2);
    assert_eq!(run_idle(&broker, route).await.settled.acked, 100);
    assert_eq!(running.1.load(Ordering::SeqCst), 7);
    // 100 jobs of one second, seven at a time.
    let took = began.elapsed_rounded();
    assert!((15..=17).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn one_lane_and_a_concurrency_of_one_keep_the_order() {
    let broker = MemoryBroker::new();
    publish(&broker, 0..300).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let noting = Arc::clone(&order);
    let worker = worker_fn(move |job: &Job<usize>| {
        let (noting, number) = (Arc::clone(&noting), job.input);
        async move {
            if number % 3 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            noting.lock().unwrap().push(number);
            Ok(())
        }
    });
    run_idle(&broker, Route::new("orders", worker).concurrency(1)).await;
    assert_eq!(*order.lock().unwrap(), (0..300).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_retried_by_the_schedule_and_then_dead() {
    let broker = MemoryBroker::new();
    publish(&broker, 0..2).await;
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let noting = Arc::clone(&attempts);
    let worker = worker_fn(move |job: &Job<usize>| {
        noting.lock().unwrap().push((job.input, job.attempt()));
        let number = job.input;
        async move {
            if number == 0 {
                Ok(())
            } else {
                Err(WorkError::retryable("out of stock"))
            }
        }
    });
    let summary = run_idle(&broker, Route::new("orders", worker).retry(quick_retry(3))).await;
    assert_eq!(
        (
            summary.settled.acked,
            summary.settled.retried,
            summary.settled.dead
        ),
        (1, 2, 1)
    );
    let mut attempts = attempts.lock().unwrap().clone();
    attempts.sort_unstable();
    assert_eq!(attempts, [(0, 1), (1, 1), (1, 2), (1, 3)]);
    let dead = broker
        .admin()
        .unwrap()
        .dead(&queue(), Page::first(9))
        .await
        .unwrap();
    let reason = dead[0].reason.clone().unwrap();
    assert_eq!(
        (reason.kind, reason.error.as_str()),
        (DeadKind::Exhausted, "out of stock")
    );
    assert_eq!(dead[0].delivery.payload.as_bytes().unwrap(), "1");
}

#[tokio::test(start_paused = true)]
async fn a_week_of_backoff_takes_no_time_to_test() {
    let mut config = MemoryConfig::default();
    config.lease = WEEK; // fewer renewals, or they would take most of the test's time
    let broker = MemoryBroker::with_config(config).unwrap();
    publish(&broker, [7]).await;
    let began = Instant::now();
    let worker = worker_fn(move |job: &Job<usize>| {
        let first = job.attempt() == 1;
        async move {
            if first {
                return Err(WorkError::retry_after(WEEK, "closed for the holidays"));
            }
            let late = Instant::now().saturating_duration_since(began) - WEEK;
            assert!(late < Duration::from_secs(1), "{late:?} late");
            Ok(())
        }
    });
    assert_eq!(
        run_idle(&broker, Route::new("orders", worker))
            .await
            .settled
            .acked,
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_snooze_burns_no_attempt() {
    let broker = MemoryBroker::new();
    publish(&broker, [7]).await;
    let snoozes = AtomicUsize::new(0);
    let worker = worker_fn(move |job: &Job<usize>| {
        assert_eq!(job.attempt(), 1);
        let snoozed = snoozes.fetch_add(1, Ordering::SeqCst);
        async move {
            if snoozed < 20 {
                Err(WorkError::snooze(Duration::from_secs(60)))
            } else {
                Ok(())
            }
        }
    });
    let summary = run_idle(&broker, Route::new("orders", worker).retry(quick_retry(2))).await;
    assert_eq!((summary.settled.snoozed, summary.settled.acked), (20, 1));
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_decoded_is_dead_with_its_bytes_and_the_loop_goes_on() {
    let broker = MemoryBroker::new();
    let bad: [&[u8]; 5] = [b"", b"{\"a\":", b"\xFF\xFE", b"\"text\"", b"-1"];
    let mut batch: Vec<Message> = bad.iter().map(|&bytes| Message::new(bytes)).collect();
    batch.push(Message::new("7"));
    broker.publish(&queue(), batch).await.unwrap();
    let summary = run_idle(
        &broker,
        Route::new("orders", worker_fn(async |_: &Job<usize>| Ok(()))),
    )
    .await;
    assert_eq!((summary.settled.dead, summary.settled.acked), (5, 1));
    let dead = broker
        .admin()
        .unwrap()
        .dead(&queue(), Page::first(9))
        .await
        .unwrap();
    for (letter, bytes) in dead.iter().rev().zip(bad) {
        assert_eq!(letter.delivery.payload.as_bytes().unwrap(), bytes);
        assert_eq!(letter.reason.as_ref().unwrap().kind, DeadKind::Decode);
    }
}

#[tokio::test(start_paused = true)]
async fn panics_and_endless_waits_are_failures_of_their_message_only() {
    let broker = MemoryBroker::new();
    publish(&broker, 0..10).await;
    let worker = worker_fn(|job: &Job<usize>| {
        let number = job.input;
        async move {
            match number {
                3 => panic!("three is too much"),
                4 => std::future::pending().await,
                _ => Ok(()),
            }
        }
    });
    let route = Route::new("orders", worker)
        .hard_limit(Duration::from_secs(1))
        .retry(quick_retry(2));
    let summary = run_idle(&broker, route).await;
    assert_eq!(
        (
            summary.settled.acked,
            summary.settled.retried,
            summary.settled.dead
        ),
        (8, 2, 2)
    );
    let dead = broker
        .admin()
        .unwrap()
        .dead(&queue(), Page::first(9))
        .await
        .unwrap();
    let mut errors: Vec<_> = dead
        .into_iter()
        .map(|letter| letter.reason.unwrap().error)
        .collect();
    errors.sort();
    assert!(
        errors
            .iter()
            .any(|error| error.contains("three is too much")),
        "{errors:?}"
    );
    assert!(
        errors.iter().any(|error| error.contains("1s")),
        "{errors:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn without_isolation_a_panic_ends_the_runner_and_loses_nothing() {
    let broker = MemoryBroker::new();
    publish(&broker, [1]).await;
    let worker = worker_fn(|job: &Job<usize>| {
        assert_eq!(job.input, 0, "as the test wants");
        async { Ok(()) }
    });
    let route = Route::new("orders", worker).configure(|config| config.isolate_panics = false);
    let runner = Runner::builder().route(&broker, route).build().unwrap();
    let error = runner
        .run_until(std::future::pending::<()>())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("panic"), "{error}");
    assert_eq!(depth(&broker).await.pending, Some(1));
}

#[tokio::test(start_paused = true)]
async fn the_soft_limit_tells_the_job_and_lets_it_finish() {
    let broker = MemoryBroker::new();
    publish(&broker, [1]).await;
    let worker = worker_fn(async |job: &Job<usize>| {
        assert_eq!(
            job.cancellation().cancelled().await,
            CancelReason::SoftLimit
        );
        Ok(())
    });
    assert_eq!(
        run_idle(
            &broker,
            Route::new("orders", worker).soft_limit(Duration::from_secs(3600))
        )
        .await
        .settled
        .acked,
        1
    );
}

#[tokio::test(start_paused = true)]
async fn slow_is_not_dead() {
    let broker = MemoryBroker::new();
    publish(&broker, [1]).await;
    let worker = worker_fn(async |job: &Job<usize>| {
        assert_eq!(job.attempt(), 1);
        tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
        Ok(())
    });
    let summary = run_idle(&broker, Route::new("orders", worker)).await;
    assert_eq!(
        (
            summary.received,
            summary.settled.acked,
            summary.settled.stale
        ),
        (1, 1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_finishes_what_runs_and_hands_the_rest_back_at_once() {
    let broker = MemoryBroker::new();
    publish(&broker, 0..50).await;
    let started = Arc::new(Notify::new());
    let starting = Arc::clone(&started);
    let worker = worker_fn(move |_: &Job<usize>| {
        starting.notify_one();
        async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(())
        }
    });
    let route = Route::new("orders", worker).concurrency(4).lanes(1);
    let runner = Runner::builder()
        .route(&broker, route)
        .build()
        .unwrap()
        .run_until(async move { started.notified().await });
    // The jobs run for five seconds; the others are in the broker again long before.
    let back = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(depth(&broker).await.ready, Some(46));
        assert_eq!(depth(&broker).await.pending, Some(4));
    };
    let (summary, ()) = tokio::join!(runner, back);
    assert_eq!(summary.unwrap().settled.acked, 4);
    let depth = depth(&broker).await;
    assert_eq!(
        (depth.ready, depth.pending, depth.delayed, depth.dead),
        (Some(46), Some(0), Some(0), Some(0))
    );
}

#[tokio::test(start_paused = true)]
async fn jobs_that_outlast_the_drain_time_are_cancelled_and_handed_back() {
    let broker = MemoryBroker::new();
    publish(&broker, 0..3).await;
    let (told, hear) = oneshot::channel();
    let told = Mutex::new(Some(told));
    let worker = worker_fn(move |job: &Job<usize>| {
        if job.input == 2 {
            told.lock().unwrap().take().map(|told| told.send(()));
        }
        std::future::pending::<Result<(), WorkError>>()
    });
    let mut settings = RunnerConfig::default();
    settings.drain_timeout = Duration::from_secs(3);
    let began = Instant::now();
    let runner = Runner::builder()
        .route(&broker, Route::new("orders", worker).lanes(1))
        .settings(settings)
        .build();
    let summary = runner
        .unwrap()
        .run_until(async { hear.await.unwrap() })
        .await
        .unwrap();
    assert_eq!((summary.settled.released, summary.settled.acked), (3, 0));
    assert_eq!(began.elapsed_rounded(), 3);
    let depth = depth(&broker).await;
    assert_eq!((depth.ready, depth.pending), (Some(3), Some(0)));
}

/// Counts breaker changes.
#[derive(Clone, Default)]
struct Changes(Arc<Mutex<Vec<BreakerState>>>);

impl Observer for Changes {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::BreakerChanged { state, .. } = event {
            self.0.lock().unwrap().push(*state);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_leaves_messages_in_the_broker_and_burns_nothing() {
    let broker = MemoryBroker::new();
    publish(&broker, 0..500).await;
    let down_until = Instant::now() + Duration::from_secs(300);
    let worker = worker_fn(move |_: &Job<usize>| async move {
        if Instant::now() < down_until {
            return Err(WorkError::retryable("the service is down"));
        }
        Ok(())
    });
    let changes = Changes::default();
    let route = Route::new("orders", worker).retry(quick_retry(60));
    let runner = Runner::builder()
        .route(&broker, route)
        .observer(changes.clone())
        .build()
        .unwrap();
    let summary = runner.run_until(idle(broker.clone())).await.unwrap();
    let settled = summary.settled;
    assert_eq!((settled.acked, settled.dead), (500, 0));
    // Without the breaker each of the 500 would have been tried many times in those five minutes.
    assert!(settled.retried < 500, "{summary}");
    let changes = changes.0.lock().unwrap();
    assert_eq!(
        (changes.first(), changes.last()),
        (Some(&BreakerState::Open), Some(&BreakerState::Closed))
    );
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_holds_in_all_lanes_together() {
    let broker = MemoryBroker::new();
    publish(&broker, 0..100).await;
    let began = Instant::now();
    let rate: RateLimit = "10/s".parse().unwrap();
    let route = Route::new("orders", worker_fn(async |_: &Job<usize>| Ok(()))).rate(rate);
    run_idle(&broker, route).await;
    let took = began.elapsed_rounded();
    assert!((9..=11).contains(&took), "{took} s");
}

struct Bulk(Arc<Mutex<Vec<Vec<usize>>>>);

impl BatchWorker for Bulk {
    type Input = usize;
    type Output = ();

    async fn process(&self, jobs: &[Job<usize>]) -> Vec<Result<(), WorkError>> {
        self.0
            .lock()
            .unwrap()
            .push(jobs.iter().map(|job| job.input).collect());
        tokio::time::sleep(Duration::from_millis(1)).await;
        let fails = |job: &Job<usize>| job.input % 10 == 9 && job.attempt() == 1;
        jobs.iter()
            .map(|job| {
                if fails(job) {
                    Err(WorkError::retryable("no"))
                } else {
                    Ok(())
                }
            })
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_worker_gets_full_batches_and_answers_for_each() {
    let broker = MemoryBroker::new();
    publish(&broker, 0..100).await;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let route = BatchRoute::new("orders", Bulk(Arc::clone(&calls)))
        .batch(25)
        .lanes(1)
        .linger(Duration::from_secs(1));
    let summary = run_idle(&broker, route).await;
    assert_eq!((summary.settled.acked, summary.settled.retried), (100, 10));
    let calls = calls.lock().unwrap();
    assert!(
        calls.iter().filter(|call| call.len() == 25).count() >= 3,
        "{:?}",
        calls.iter().map(Vec::len).collect::<Vec<_>>()
    );
    assert!(calls.iter().all(|call| call.len() <= 25));
}

#[tokio::test(start_paused = true)]
async fn a_batch_worker_is_called_with_what_came_within_the_linger() {
    let broker = MemoryBroker::new();
    publish(&broker, 0..3).await;
    let calls = Arc::new(Mutex::new(Vec::new()));
    let route = BatchRoute::new("orders", Bulk(Arc::clone(&calls)))
        .batch(25)
        .lanes(1)
        .linger(Duration::from_secs(2));
    let began = Instant::now();
    let (broker, idle) = (&broker, idle(broker.clone()));
    let lingered = async {
        idle.await;
        assert_eq!(began.elapsed_rounded(), 2);
    };
    Runner::builder()
        .route(broker, route)
        .build()
        .unwrap()
        .run_until(lingered)
        .await
        .unwrap();
    assert_eq!(*calls.lock().unwrap(), [[0, 1, 2]]);
}

/// A layer and a worker that note their lifecycle.
struct Noting(Arc<Mutex<Vec<&'static str>>>);

impl Worker for Noting {
    type Input = usize;
    type Output = ();

    async fn process(&self, _: &Job<usize>) -> Result<(), WorkError> {
        self.0.lock().unwrap().push("process");
        Ok(())
    }

    async fn start(&self) -> Result<(), WorkError> {
        self.0.lock().unwrap().push("start");
        Ok(())
    }

    async fn stop(&self) {
        self.0.lock().unwrap().push("stop");
    }
}

impl BatchWorker for Noting {
    type Input = usize;
    type Output = ();

    async fn process(&self, jobs: &[Job<usize>]) -> Vec<Result<(), WorkError>> {
        self.0.lock().unwrap().push("process");
        jobs.iter().map(|_| Ok(())).collect()
    }

    async fn start(&self) -> Result<(), WorkError> {
        Worker::start(self).await
    }

    async fn stop(&self) {
        Worker::stop(self).await;
    }
}

struct Around(Arc<Mutex<Vec<&'static str>>>, &'static str);

struct Wrapped<W>(W, Around);

impl<W: Worker> Layer<W> for Around {
    type Worker = Wrapped<W>;

    fn layer(self, inner: W) -> Wrapped<W> {
        Wrapped(inner, self)
    }
}

impl<W: Worker> Worker for Wrapped<W> {
    type Input = W::Input;
    type Output = W::Output;

    async fn process(&self, job: &Job<W::Input>) -> Result<W::Output, WorkError> {
        self.1.0.lock().unwrap().push(self.1.1);
        self.0.process(job).await
    }

    async fn start(&self) -> Result<(), WorkError> {
        self.0.start().await
    }

    async fn stop(&self) {
        self.0.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn hooks_frame_the_work_and_the_last_layer_is_outermost() {
    let broker = MemoryBroker::new();
    publish(&broker, [1]).await;
    let notes = Arc::new(Mutex::new(Vec::new()));
    let layer = |name| Around(Arc::clone(&notes), name);
    let route = Route::new("orders", Noting(Arc::clone(&notes)))
        .layer(layer("inner"))
        .layer(layer("outer"));
    run_idle(&broker, route).await;
    assert_eq!(
        *notes.lock().unwrap(),
        ["start", "outer", "inner", "process", "stop"]
    );
}

#[tokio::test(start_paused = true)]
async fn hooks_of_a_batch_worker_frame_its_work() {
    let broker = MemoryBroker::new();
    publish(&broker, [1]).await;
    let notes = Arc::new(Mutex::new(Vec::new()));
    let route = BatchRoute::new("orders", Noting(Arc::clone(&notes)));
    run_idle(&broker, route).await;
    assert_eq!(*notes.lock().unwrap(), ["start", "process", "stop"]);
}

#[tokio::test(start_paused = true)]
async fn an_at_most_once_broker_retries_in_the_process() {
    let mut config = MemoryConfig::default();
    config.fan_out = true;
    let broker = MemoryBroker::with_config(config).unwrap();
    let attempts = Seen::default();
    let noting = attempts.clone();
    let done = Arc::new(Notify::new());
    let doing = Arc::clone(&done);
    let worker = worker_fn(move |job: &Job<usize>| {
        noting.note(job.input);
        let (attempt, done) = (job.attempt(), Arc::clone(&doing));
        async move {
            if attempt < 3 {
                return Err(WorkError::retryable("not yet"));
            }
            done.notify_one();
            Ok(())
        }
    });
    let runner = Runner::builder()
        .route(&broker, Route::new("orders", worker).lanes(1))
        .build()
        .unwrap();
    let health = runner.health();
    let drive = async {
        while health.ready().is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        publish(&broker, [5]).await;
        done.notified().await;
    };
    let summary = runner.run_until(drive).await.unwrap();
    assert_eq!(
        (summary.settled.acked, summary.settled.retried),
        (1, 0),
        "{summary}"
    );
    assert_eq!(attempts.counts(), [(5, 3)].into());
}

#[test]
fn what_can_not_be_kept_is_refused_when_it_is_built() {
    let mut config = MemoryConfig::default();
    config.fan_out = true;
    let fan_out = MemoryBroker::with_config(config).unwrap();
    let broker = MemoryBroker::new();
    let worker = || worker_fn(async |_: &Job<usize>| Ok(()));
    let refused = |builder: pythia_core::RunnerBuilder, why: &str| {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(Runner::builder(), "no routes");
    refused(
        Runner::builder().route(&broker, Route::new("two words", worker())),
        "white space",
    );
    let twice = Runner::builder()
        .route(&broker, Route::new("orders", worker()))
        .route(&broker, Route::new("orders", worker()));
    refused(twice, "two routes");
    refused(
        Runner::builder().route(&fan_out, Route::new("orders", worker()).at_least_once()),
        "at-most-once",
    );
    let keep = Route::new("orders", worker()).dead_letters(pythia_core::DeadLetters::Keep);
    refused(Runner::builder().route(&fan_out, keep), "dead letters");
}

#[test]
fn a_count_of_zero_is_refused_by_its_name() {
    let broker = MemoryBroker::new();
    let route = || Route::new("orders", worker_fn(async |_: &Job<usize>| Ok(())));
    for (route, setting) in [
        (route().batch(0), "batch"),
        (route().lanes(0), "lanes"),
        (route().concurrency(0).lanes(0), "concurrency"),
    ] {
        let error = Runner::builder().route(&broker, route).build().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("queue \"orders\": {setting} is 0, it must be at least 1")
        );
    }
}

trait Rounded {
    fn elapsed_rounded(&self) -> u64;
}

impl Rounded for Instant {
    fn elapsed_rounded(&self) -> u64 {
        Self::now()
            .saturating_duration_since(*self)
            .as_secs_f64()
            .round() as u64
    }
}

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
