//! What `docs/GUARANTEES.md` promises of the runner, as far as no other file here shows it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pythia_core::admin::Page;
use pythia_core::broker::Broker;
use pythia_core::observe::{Event, Observer};
use pythia_core::testing::{EventLog, FaultyBroker, Operation, Record};
use pythia_core::{
    BatchRoute, BatchWorker, Hurry, IntoRoute, Job, MemoryBroker, MemoryConfig, Message, QueueName,
    Route, Runner, RunnerConfig, Summary, WorkError, worker_fn,
};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

fn queue() -> QueueName {
    QueueName::new("orders").unwrap()
}

async fn publish(broker: &MemoryBroker, bodies: impl IntoIterator<Item = String>) {
    let batch = bodies.into_iter().map(Message::new).collect();
    broker.publish(&queue(), batch).await.unwrap();
}

async fn run(
    broker: &MemoryBroker,
    route: impl IntoRoute,
    log: &Arc<EventLog>,
    until: impl Future<Output = ()> + Send,
) -> Summary {
    let runner = Runner::builder()
        .route(broker, route)
        .observer(Arc::clone(log))
        .build()
        .unwrap();
    runner.run_until(until).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_decoded_never_counts_against_the_breaker() {
    let broker = MemoryBroker::new();
    // Five of six are of no use; the breaker opens when half of what it counts fails.
    let bodies = (0..600).map(|n| {
        if n % 6 == 0 {
            n.to_string()
        } else {
            format!("<{n}>")
        }
    });
    publish(&broker, bodies).await;
    let log = Arc::new(EventLog::new());
    let worker = worker_fn(async |_: &Job<usize>| Ok(()));
    let summary = run(
        &broker,
        Route::new("orders", worker),
        &log,
        log.wait_settled(600),
    )
    .await;
    assert_eq!(
        (summary.settled.acked, summary.settled.dead),
        (100, 500),
        "{summary}"
    );
    let records = log.records();
    let changes = records
        .iter()
        .filter(|record| matches!(record, Record::BreakerChanged { .. }));
    assert_eq!(changes.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_huge_error_is_kept_short_in_its_dead_letter() {
    let broker = MemoryBroker::new();
    publish(&broker, ["1".into()]).await;
    let log = Arc::new(EventLog::new());
    let worker = worker_fn(async |_: &Job<usize>| {
        Err::<(), _>(WorkError::permanent("the disk is full. ".repeat(1_000_000)))
    });
    run(
        &broker,
        Route::new("orders", worker),
        &log,
        log.wait_settled(1),
    )
    .await;
    let dead = broker
        .admin()
        .unwrap()
        .dead(&queue(), Page::first(1))
        .await
        .unwrap();
    let error = &dead[0].reason.as_ref().unwrap().error;
    assert!(error.starts_with("the disk is full. the disk"), "{error}");
    assert!(error.len() < 10_000, "{} bytes", error.len());
}

/// Real time, because a thread that blocks stops virtual time too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_blocks_its_thread_is_reported_keeps_its_lease_and_stops_nobody() {
    let mut config = MemoryConfig::default();
    config.lease = Duration::from_millis(500);
    let broker = MemoryBroker::with_config(config).unwrap();
    publish(&broker, (0..40).map(|n| n.to_string())).await;
    let log = Arc::new(EventLog::new());
    let (done, reported) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&log));
    let worker = worker_fn(move |job: &Job<usize>| {
        if job.input == 0 && job.attempt() == 1 {
            // Not an await in sight, until it has been reported several times, and the others are done but for those
            // that were fetched together with it.
            let is_over = || done.load(Ordering::SeqCst) >= 30 && blocked_reports(&reported) >= 3;
            let deadline = Instant::now() + Duration::from_secs(20);
            while !is_over() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        done.fetch_add(1, Ordering::SeqCst);
        let attempt = job.attempt();
        async move {
            assert_eq!(attempt, 1);
            Ok(())
        }
    });
    let route = Route::new("orders", worker).lanes(2).batch(4);
    let summary = run(&broker, route, &log, log.wait_settled(40)).await;
    assert_eq!(
        (summary.settled.acked, summary.settled.stale),
        (40, 0),
        "{summary}"
    );
    assert!(
        blocked_reports(&log) >= 3,
        "half a lease, a lease, one and a half"
    );
    let lost = log
        .records()
        .into_iter()
        .filter(|record| matches!(record, Record::LeasesLost { .. }));
    assert_eq!(lost.count(), 0);
}

fn blocked_reports(log: &EventLog) -> usize {
    let records = log.records();
    records
        .iter()
        .filter(|record| matches!(record, Record::LaneBlocked { .. }))
        .count()
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_before_it_began_is_left_to_its_new_owner() {
    let runs = Arc::new(Mutex::new(Vec::new()));
    let noting = Arc::clone(&runs);
    let worker = worker_fn(move |job: &Job<usize>| {
        noting.lock().unwrap().push(job.input);
        let cancellation = job.cancellation().clone();
        let is_first = job.input == 0 && job.attempt() == 1;
        async move {
            if is_first {
                cancellation.cancelled().await;
            }
            Ok(())
        }
    });
    lose_leases(Route::new("orders", worker).lanes(1).concurrency(1)).await;
    let mut runs = runs.lock().unwrap().clone();
    runs.sort_unstable();
    // The first one had begun, and is done again.
    assert_eq!(runs, [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
}

/// Runs the route over the numbers from 0 to 9, and lets the leases run out of all that is fetched first.
async fn lose_leases(route: impl IntoRoute) {
    let broker = Arc::new(FaultyBroker::new(MemoryBroker::new()));
    publish(broker.inner(), (0..10).map(|n| n.to_string())).await;
    let log = Arc::new(EventLog::new());
    let runner = Runner::builder()
        .route(&broker, route)
        .observer(Arc::clone(&log))
        .build()
        .unwrap();
    let drive = async {
        log.wait_for(|records| !records.is_empty()).await;
        broker.faults().refuse(Operation::Extend);
        // Upkeep finds the leases run out, and hands all of it to whoever fetches next.
        log.wait_for(|records| {
            records.iter().any(|record| matches!(record, Record::Maintained { maintained, .. } if maintained.recovered > 0))
        })
        .await;
        broker.faults().bring_up();
        let admin = broker.inner().admin().unwrap();
        loop {
            let depth = admin.depth(&queue()).await.unwrap();
            if (depth.ready, depth.pending) == (Some(0), Some(0)) {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    runner.run_until(drive).await.unwrap();
}

/// Notes what it is given; its first call waits until its lease is lost.
struct Noting(Arc<Mutex<Vec<usize>>>);

impl BatchWorker for Noting {
    type Input = usize;
    type Output = ();

    async fn process(&self, jobs: &[Job<usize>]) -> Vec<Result<(), WorkError>> {
        self.0
            .lock()
            .unwrap()
            .extend(jobs.iter().map(|job| job.input));
        if jobs[0].input == 0 && jobs[0].attempt() == 1 {
            jobs[0].cancellation().cancelled().await;
        }
        jobs.iter().map(|_| Ok(())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_before_its_batch_began_is_left_to_its_new_owner() {
    let runs = Arc::new(Mutex::new(Vec::new()));
    let route = BatchRoute::new("orders", Noting(Arc::clone(&runs)));
    lose_leases(route.batch(5).lanes(1).concurrency(5)).await;
    let mut runs = runs.lock().unwrap().clone();
    runs.sort_unstable();
    // The first five had begun, and are done again.
    assert_eq!(runs, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8, 9]);
}

/// What a user sends to say that it is enough.
struct Enough(Arc<Notify>);

impl Hurry for Enough {
    async fn hurry(self) {
        self.0.notified().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_skips_the_wait_and_hands_back_what_runs() {
    let broker = MemoryBroker::new();
    publish(&broker, (0..3).map(|n| n.to_string())).await;
    let started = Arc::new(Notify::new());
    let starting = Arc::clone(&started);
    let worker = worker_fn(move |_: &Job<usize>| {
        starting.notify_one();
        std::future::pending::<Result<(), WorkError>>()
    });
    let mut settings = RunnerConfig::default();
    settings.drain_timeout = Duration::from_secs(3_600);
    let runner = Runner::builder()
        .route(&broker, Route::new("orders", worker))
        .settings(settings)
        .build()
        .unwrap();
    let (second, signal) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let enough = Enough(Arc::clone(&second));
    let first = Arc::clone(&signal);
    let running = runner.run_until(async move {
        first.notified().await;
        enough
    });
    let signals = async {
        started.notified().await;
        signal.notify_one();
        sleep(Duration::from_secs(60)).await;
        second.notify_one();
        Instant::now()
    };
    let (summary, told_at) = tokio::join!(running, signals);
    assert!(
        Instant::now() - told_at < Duration::from_secs(1),
        "it went on waiting"
    );
    assert_eq!(summary.unwrap().settled.released, 3);
    let depth = broker.admin().unwrap().depth(&queue()).await.unwrap();
    assert_eq!((depth.ready, depth.pending), (Some(3), Some(0)));
}

#[tokio::test(start_paused = true)]
async fn what_an_at_most_once_worker_has_received_is_processed_while_there_is_time_and_else_counted()
 {
    for (drain_timeout, all) in [(200, true), (20, false)] {
        let mut config = MemoryConfig::default();
        config.fan_out = true;
        config.buffer = std::num::NonZeroUsize::new(1_000).unwrap();
        let broker = MemoryBroker::with_config(config).unwrap();
        let log = Arc::new(EventLog::new());
        let worker = worker_fn(async |_: &Job<usize>| {
            sleep(Duration::from_secs(1)).await;
            Ok(())
        });
        let mut settings = RunnerConfig::default();
        settings.drain_timeout = Duration::from_secs(drain_timeout);
        let runner = Runner::builder()
            .route(
                &broker,
                Route::new("orders", worker).concurrency(5).batch(10),
            )
            .settings(settings)
            .observer(Arc::clone(&log))
            .build()
            .unwrap();
        let health = runner.health();
        let summary = runner.run_until(async {
            while health.ready().is_err() {
                sleep(Duration::from_millis(1)).await;
            }
            publish(&broker, (0..500).map(|n| n.to_string())).await;
            log.wait_for(|records| !records.is_empty()).await;
        });
        let summary = summary.await.unwrap();
        assert_eq!(summary.received, 500, "{summary}");
        let lost = log.lost();
        assert_eq!(summary.settled.acked + lost, 500, "{summary}, lost {lost}");
        assert_eq!(lost == 0, all, "{lost} lost within {drain_timeout} s");
        assert_eq!(
            (summary.settled.released, summary.settled.stale),
            (0, 0),
            "nobody else has it"
        );
        // 5 a second.
        assert!(
            all || (90..=120).contains(&summary.settled.acked),
            "{summary}"
        );
    }
}

/// One that panics at every event.
struct Broken;

impl Observer for Broken {
    fn on_event(&self, event: &Event<'_>) {
        panic!("I was told of {event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_ends_nothing_and_keeps_nothing_from_the_others() {
    let broker = MemoryBroker::new();
    publish(&broker, (0..10).map(|n| n.to_string())).await;
    let log = Arc::new(EventLog::new());
    let worker = worker_fn(async |_: &Job<usize>| Ok(()));
    let runner = Runner::builder()
        .route(&broker, Route::new("orders", worker))
        .observer(Broken)
        .observer(Arc::clone(&log))
        .build()
        .unwrap();
    let summary = runner.run_until(log.wait_settled(10)).await.unwrap();
    assert_eq!(summary.settled.acked, 10);
    assert_eq!((log.received(), log.settled().acked), (10, 10));
}

/// When it heard of a round of upkeep, and of a sample.
#[derive(Default)]
struct Times {
    upkeep: Mutex<Vec<Instant>>,
    samples: Mutex<Vec<Instant>>,
}

impl Observer for Times {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Maintained { .. } => self.upkeep.lock().unwrap().push(Instant::now()),
            Event::Sampled { .. } => self.samples.lock().unwrap().push(Instant::now()),
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_done_regularly_is_spread_by_chance_and_never_late() {
    let mut settings = RunnerConfig::default();
    settings.maintain_interval = Duration::from_secs(100);
    settings.sample_interval = Duration::from_secs(100);
    let times = Arc::new(Times::default());
    let worker = worker_fn(async |_: &Job<usize>| Ok(()));
    let runner = Runner::builder()
        .route(&MemoryBroker::new(), Route::new("orders", worker))
        .settings(settings)
        .observer(Arc::clone(&times))
        .build()
        .unwrap();
    runner
        .run_until(sleep(Duration::from_secs(20_000)))
        .await
        .unwrap();
    // The one after the drain, which comes when it comes.
    times.samples.lock().unwrap().pop();
    for times in [&times.upkeep, &times.samples] {
        let times = times.lock().unwrap();
        let pauses: BTreeSet<u64> = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs())
            .collect();
        let (shortest, longest) = (pauses.first().unwrap(), pauses.last().unwrap());
        assert!(*shortest >= 75 && *longest <= 100, "{pauses:?}");
        // Of 200 pauses or more, each one of 25 whole seconds.
        assert!(pauses.len() > 15, "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_away_is_asked_less_and_less_often_and_by_chance() {
    let broker = Arc::new(FaultyBroker::new(MemoryBroker::new()));
    broker.faults().take_down();
    let log = Arc::new(EventLog::new());
    let worker = worker_fn(async |_: &Job<usize>| Ok(()));
    let runner = Runner::builder()
        .route(&broker, Route::new("orders", worker).lanes(1))
        .observer(Arc::clone(&log))
        .build()
        .unwrap();
    runner
        .run_until(sleep(Duration::from_secs(600)))
        .await
        .unwrap();
    let records = log.records().into_iter();
    let pauses = records.filter_map(|record| match record {
        Record::FetchFailed { retry_in, .. } => Some(retry_in),
        _ => None,
    });
    let pauses: Vec<_> = pauses.collect();
    // Half a second on average once they no longer grow: some 1,200 in ten minutes.
    assert!(
        (900..1_500).contains(&pauses.len()),
        "{} tries",
        pauses.len()
    );
    assert!(pauses[0] <= Duration::from_millis(50), "{:?}", pauses[0]);
    let later = &pauses[10..];
    let differ: BTreeSet<_> = later.iter().collect();
    assert!(differ.len() > later.len() / 2, "they are by chance");
    assert!(*later.iter().max().unwrap() <= Duration::from_secs(1));
    let mean = later.iter().sum::<Duration>() / later.len() as u32;
    assert!(
        (0.4..0.6).contains(&mean.as_secs_f64()),
        "{mean:?} on average"
    );
}
