//! What the rows measure, each on a broker and a runner of its own.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pythia_core::broker::{Broker, Published, Source};
use pythia_core::config::BrokerType;
use pythia_core::observe::{Event, Observer};
use pythia_core::resilience::BreakerState;
use pythia_core::testing::FaultyBroker;
use pythia_core::{
    BatchRoute, BatchWorker, Config, IntoRoute, Job, MemoryBroker, Message, QueueName, Route,
    RunError, Runner, Summary, WorkError, worker_fn,
};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

pub(super) async fn streams(config: Config) -> u64 {
    u64::from(config.broker_type().unwrap() == BrokerType::Stream)
}

pub(super) async fn seconds_to_drain(config: Config) -> u64 {
    let bench = Bench::new(config);
    bench.publish(1).await;
    let started = Arc::new(Notify::new());
    let starting = Arc::clone(&started);
    let route = working(move |_| {
        starting.notify_one();
        pending()
    });
    bench.run(route, started.notified()).await.unwrap();
    bench.seconds()
}

pub(super) async fn upkeeps_a_minute(config: Config) -> u64 {
    idle_minute(config).await.count(&Noted::Maintained)
}

/// That after the drain included.
pub(super) async fn samples_a_minute(config: Config) -> u64 {
    idle_minute(config).await.count(&Noted::Sampled)
}

pub(super) async fn subscriptions(config: Config) -> u64 {
    idle_minute(config).await.count(&Noted::Subscribed)
}

pub(super) async fn seconds_to_stall(config: Config) -> u64 {
    let bench = Bench::new(config);
    let broker = Arc::new(FaultyBroker::new(bench.broker.clone()));
    let silence = async {
        bench.log.heard(&Noted::Subscribed).await;
        broker.faults().fall_silent();
        bench.log.heard(&Noted::Stalled).await;
    };
    bench.run_on(&broker, no_work(), silence).await.unwrap();
    bench.seconds()
}

pub(super) async fn taken_from_elsewhere(config: Config) -> u64 {
    let bench = Bench::new(config);
    let elsewhere = QueueName::new("elsewhere").unwrap();
    let message = vec![Message::new("1")];
    bench.broker.publish(&elsewhere, message).await.unwrap();
    bench
        .run(no_work(), sleep(MINUTE))
        .await
        .unwrap()
        .settled
        .acked
}

pub(super) async fn refused(config: Config) -> u64 {
    let bench = Bench::new(config);
    let runner = Runner::builder()
        .config(&bench.config)
        .route(&bench.broker, no_work());
    u64::from(runner.build().is_err())
}

/// Of a thousand messages of a thousand bytes.
pub(super) async fn largest_fetch(config: Config) -> u64 {
    let bench = Bench::new(config);
    let number = format!("{:1000}", 1);
    let batch = vec![Message::new(number); 1_000];
    bench.broker.publish(&orders(), batch).await.unwrap();
    bench.drain(no_work()).await;
    let noted = bench.log.all();
    let fetches = noted.iter().filter_map(|(_, noted)| match noted {
        Noted::Received(count) => Some(*count),
        _ => None,
    });
    fetches.max().unwrap_or(0)
}

pub(super) async fn most_jobs_at_once(config: Config) -> u64 {
    let bench = Bench::new(config);
    bench.publish(1_000).await;
    let running = Arc::new(Mutex::new((0, 0)));
    let counting = Arc::clone(&running);
    let route = working(move |_| {
        let running = Arc::clone(&counting);
        async move {
            {
                let mut running = running.lock().unwrap();
                running.0 += 1;
                running.1 = running.1.max(running.0);
            }
            sleep(Duration::from_secs(1)).await;
            running.lock().unwrap().0 -= 1;
            Ok(())
        }
    });
    bench.drain(route).await;
    let (_, most) = *running.lock().unwrap();
    most
}

pub(super) async fn letters_kept(config: Config) -> u64 {
    let bench = Bench::new(config);
    bench.publish(1).await;
    let route = working(async |_| Err(WorkError::permanent("no")));
    assert_eq!(bench.drain(route).await.settled.dead, 1);
    let depth = bench.broker.admin().unwrap().depth(&orders()).await;
    depth.unwrap().dead.unwrap()
}

pub(super) async fn ended_by_a_panic(config: Config) -> u64 {
    let bench = Bench::new(config);
    bench.publish(1).await;
    let route = working(async |_| panic!("as the test wants"));
    u64::from(bench.run(route, sleep(MINUTE)).await.is_err())
}

pub(super) async fn millis_to_a_batch(config: Config) -> u64 {
    struct Clerk(Arc<Mutex<Option<Instant>>>);

    impl BatchWorker for Clerk {
        type Input = u64;
        type Output = ();

        async fn process(&self, jobs: &[Job<u64>]) -> Vec<Result<(), WorkError>> {
            *self.0.lock().unwrap() = Some(Instant::now());
            jobs.iter().map(|_| Ok(())).collect()
        }
    }

    let bench = Bench::new(config);
    bench.publish(1).await;
    let called = Arc::default();
    bench
        .drain(BatchRoute::new("orders", Clerk(Arc::clone(&called))))
        .await;
    let called = called.lock().unwrap().unwrap();
    called.saturating_duration_since(bench.began).as_millis() as u64
}

pub(super) async fn seconds_for_a_hundred(config: Config) -> u64 {
    let bench = Bench::new(config);
    bench.publish(100).await;
    bench.drain(no_work()).await;
    bench.seconds()
}

pub(super) async fn attempts(config: Config) -> u64 {
    attempts_at_the_impossible(config).await.len() as u64
}

pub(super) async fn seconds_of_retries(config: Config) -> u64 {
    span(&attempts_at_the_impossible(config).await).as_secs()
}

pub(super) async fn millis_of_retries(config: Config) -> u64 {
    span(&attempts_at_the_impossible(config).await).as_millis() as u64
}

/// When each attempt at a message was made that always fails.
async fn attempts_at_the_impossible(config: Config) -> Vec<Instant> {
    let bench = Bench::new(config);
    bench.publish(1).await;
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let noting = Arc::clone(&attempts);
    let route = working(move |_| {
        noting.lock().unwrap().push(Instant::now());
        async { Err(WorkError::retryable("never")) }
    });
    bench.drain(route).await;
    let attempts = attempts.lock().unwrap();
    attempts.clone()
}

fn span(times: &[Instant]) -> Duration {
    match times {
        [first, .., last] => last.saturating_duration_since(*first),
        _ => Duration::ZERO,
    }
}

pub(super) async fn openings(config: Config) -> u64 {
    failing(config, 1_000, |_| true, MINUTE).await.count(&OPEN)
}

pub(super) async fn openings_if_two_of_five_fail(config: Config) -> u64 {
    let two_of_five = |number| number % 5 > 2;
    failing(config, 100, two_of_five, MINUTE).await.count(&OPEN)
}

pub(super) async fn openings_after_ten_calls(config: Config) -> u64 {
    failing(config, 10, |_| true, MINUTE).await.count(&OPEN)
}

pub(super) async fn openings_after_fifty_calls(config: Config) -> u64 {
    failing(config, 50, |_| true, MINUTE).await.count(&OPEN)
}

pub(super) async fn first_opening(config: Config) -> u64 {
    let log = failing(config, 1_000, |_| true, MINUTE).await;
    log.openings()[0].as_secs()
}

pub(super) async fn longest_opening(config: Config) -> u64 {
    let log = failing(config, 1_000, |_| true, 10 * MINUTE).await;
    log.openings().into_iter().max().unwrap().as_secs()
}

pub(super) async fn millis_of_four_openings(config: Config) -> u64 {
    let log = failing(config, 1_000, |_| true, 10 * MINUTE).await;
    let four: Duration = log.openings()[..4].iter().sum();
    four.as_millis() as u64
}

/// Calls fail until the breaker has opened, and succeed from then on.
pub(super) async fn successes_to_close(config: Config) -> u64 {
    let bench = Bench::new(config);
    bench.publish(1_000).await;
    let (log, calls) = (bench.log.clone(), Arc::new(Mutex::new(0)));
    let counting = Arc::clone(&calls);
    let route = working(move |_| {
        let state = log.breaker();
        *counting.lock().unwrap() += u64::from(state == BreakerState::HalfOpen);
        let fails = log.count(&OPEN) == 0;
        async move {
            if fails {
                Err(WorkError::retryable("down"))
            } else {
                Ok(())
            }
        }
    });
    let closed = bench.log.heard(&Noted::Breaker(BreakerState::Closed));
    bench.run(route, closed).await.unwrap();
    let calls = calls.lock().unwrap();
    *calls
}

/// Runs for so long on messages numbered from 0, some of which fail.
async fn failing(
    config: Config,
    messages: u64,
    fails: impl Fn(u64) -> bool + Send + Sync + 'static,
    time: Duration,
) -> Log {
    let bench = Bench::new(config);
    bench.publish(messages).await;
    let route = working(move |number| {
        let fails = fails(number);
        async move {
            if fails {
                Err(WorkError::retryable("down"))
            } else {
                Ok(())
            }
        }
    });
    bench.run(route, sleep(time)).await.unwrap();
    bench.log
}

pub(super) async fn seconds_of_a_job(config: Config) -> u64 {
    let bench = Bench::new(config);
    bench.publish(1).await;
    let worker = worker_fn(async |job: &Job<u64>| {
        tokio::select! {
            _ = job.cancellation().cancelled() => {}
            () = sleep(60 * MINUTE) => {}
        }
        Ok(())
    });
    bench.drain(Route::new("orders", worker)).await;
    let noted = bench.log.all();
    let took = noted.iter().find_map(|(_, noted)| match noted {
        Noted::Processed(took) => Some(took.as_secs()),
        _ => None,
    });
    took.unwrap()
}

pub(super) async fn held_for_a_slow_subscriber(config: Config) -> u64 {
    let bench = Bench::new(config);
    let mut source = bench.subscribe().await;
    bench.publish(100).await;
    received(&mut source).await
}

pub(super) async fn copies_for_two_subscribers(config: Config) -> u64 {
    let bench = Bench::new(config);
    let (mut one, mut other) = (bench.subscribe().await, bench.subscribe().await);
    bench.publish(1).await;
    received(&mut one).await + received(&mut other).await
}

pub(super) async fn taken_twice_in_half_an_hour(config: Config) -> u64 {
    let bench = Bench::new(config);
    let message = Message::new("1").dedupe_key("one");
    let batch = vec![message];
    bench
        .broker
        .publish(&orders(), batch.clone())
        .await
        .unwrap();
    sleep(30 * MINUTE).await;
    let again = bench.broker.publish(&orders(), batch).await.unwrap();
    u64::from(again != [Published::Deduplicated])
}

/// From the last sign of life of a worker until its message is back.
pub(super) async fn seconds_to_recovery(config: Config) -> u64 {
    let bench = Bench::new(config);
    bench.publish(1).await;
    let mut dead = bench.subscribe().await;
    let mut held = Vec::new();
    dead.receive(1, &mut held).await.unwrap();
    let admin = bench.broker.admin().unwrap();
    while admin.depth(&orders()).await.unwrap().ready == Some(0) {
        sleep(Duration::from_millis(100)).await;
        bench.broker.maintain(&orders(), 5).await.unwrap();
    }
    bench.seconds()
}

pub(super) async fn megabytes_refused(config: Config) -> u64 {
    let bench = Bench::new(config);
    let megabyte = vec![Message::new(vec![b' '; 1 << 20])];
    u64::from(bench.broker.publish(&orders(), megabyte).await.is_err())
}

/// A broker and a runner by a configuration, and what they report.
struct Bench {
    config: Config,
    broker: MemoryBroker,
    log: Log,
    began: Instant,
}

impl Bench {
    fn new(config: Config) -> Self {
        Self {
            broker: MemoryBroker::with_config(config.section("memory").unwrap()).unwrap(),
            config,
            log: Log::default(),
            began: Instant::now(),
        }
    }

    /// Messages numbered from 0.
    async fn publish(&self, messages: u64) {
        let batch = (0..messages).map(|number| Message::new(number.to_string()));
        let batch = batch.collect();
        self.broker.publish(&orders(), batch).await.unwrap();
    }

    async fn subscribe(&self) -> Box<dyn Source> {
        self.broker.subscribe(&orders()).await.unwrap().source
    }

    async fn run(
        &self,
        route: impl IntoRoute,
        until: impl Future<Output = ()> + Send,
    ) -> Result<Summary, RunError> {
        self.run_on(&self.broker, route, until).await
    }

    async fn run_on<B: Broker + Clone>(
        &self,
        broker: &B,
        route: impl IntoRoute,
        until: impl Future<Output = ()> + Send,
    ) -> Result<Summary, RunError> {
        let runner = Runner::builder()
            .config(&self.config)
            .route(broker, route)
            .observer(self.log.clone())
            .build()
            .unwrap();
        runner.run_until(until).await
    }

    /// Runs until nothing is left but dead letters.
    async fn drain(&self, route: impl IntoRoute) -> Summary {
        let nothing_left = async {
            let admin = self.broker.admin().unwrap();
            loop {
                let depth = admin.depth(&orders()).await.unwrap();
                if [depth.ready, depth.pending, depth.delayed] == [Some(0); 3] {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        self.run(route, nothing_left).await.unwrap()
    }

    fn seconds(&self) -> u64 {
        let elapsed = Instant::now().saturating_duration_since(self.began);
        elapsed.as_secs_f64().round() as u64
    }
}

/// What an observer has noted, and when.
#[derive(Clone, Default)]
struct Log(Arc<Notes>);

#[derive(Default)]
struct Notes {
    noted: Mutex<Vec<(Instant, Noted)>>,
    more: Notify,
}

#[derive(Clone, Debug, PartialEq)]
enum Noted {
    Breaker(BreakerState),
    Maintained,
    Processed(Duration),
    Received(u64),
    Sampled,
    Stalled,
    Subscribed,
}

impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        let noted = match event {
            Event::BreakerChanged { state, .. } => Noted::Breaker(*state),
            Event::Maintained { .. } => Noted::Maintained,
            Event::Processed { jobs, .. } => Noted::Processed(jobs[0].took),
            Event::Received { count, .. } => Noted::Received(*count),
            Event::Sampled { .. } => Noted::Sampled,
            Event::Stalled { .. } => Noted::Stalled,
            Event::Subscribed { .. } => Noted::Subscribed,
            _ => return,
        };
        self.0.noted.lock().unwrap().push((Instant::now(), noted));
        self.0.more.notify_waiters();
    }
}

impl Log {
    fn all(&self) -> Vec<(Instant, Noted)> {
        self.0.noted.lock().unwrap().clone()
    }

    fn count(&self, what: &Noted) -> u64 {
        let noted = self.0.noted.lock().unwrap();
        noted.iter().filter(|(_, noted)| noted == what).count() as u64
    }

    /// Resolves once that has been noted.
    async fn heard(&self, what: &Noted) {
        loop {
            let more = self.0.more.notified();
            if self.count(what) > 0 {
                return;
            }
            more.await;
        }
    }

    fn breaker(&self) -> BreakerState {
        let noted = self.0.noted.lock().unwrap();
        let latest = noted.iter().rev().find_map(|(_, noted)| match noted {
            Noted::Breaker(state) => Some(*state),
            _ => None,
        });
        latest.unwrap_or(BreakerState::Closed)
    }

    /// How long the breaker was open each time.
    fn openings(&self) -> Vec<Duration> {
        let mut changes = self.all();
        changes.retain(|(_, noted)| matches!(noted, Noted::Breaker(_)));
        let periods = changes.windows(2).filter(|pair| pair[0].1 == OPEN);
        periods
            .map(|pair| pair[1].0.saturating_duration_since(pair[0].0))
            .collect()
    }
}

fn orders() -> QueueName {
    QueueName::new("orders").unwrap()
}

fn working<F, Fut>(work: F) -> impl IntoRoute
where
    F: Fn(u64) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), WorkError>> + Send + 'static,
{
    let worker = worker_fn(move |job: &Job<u64>| work(job.input));
    Route::new("orders", worker)
}

fn no_work() -> impl IntoRoute {
    working(async |_| Ok(()))
}

async fn idle_minute(config: Config) -> Log {
    let bench = Bench::new(config);
    bench.run(no_work(), sleep(MINUTE)).await.unwrap();
    bench.log
}

/// All that comes, until nothing comes any more.
async fn received(source: &mut Box<dyn Source>) -> u64 {
    let mut all = Vec::new();
    loop {
        let before = all.len();
        source.receive(1_000, &mut all).await.unwrap();
        if all.len() == before {
            return all.len() as u64;
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const OPEN: Noted = Noted::Breaker(BreakerState::Open);
