//! [`TestWorker`]: a worker under test, run by the real runtime.

mod history;
mod journal;
mod witness;

use std::fmt;
use std::sync::{Arc, Once};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub use self::history::{Attempt, History, Outcome};
use self::journal::Journal;
use self::witness::Witness;
use crate::admin::{Admin, DeadLetter, Delayed, Page};
use crate::broker::{Broker, Guarantee, Published};
use crate::codec::{Codec, Encode, Json};
use crate::config::Config;
use crate::error::BrokerError;
use crate::memory::MemoryBroker;
use crate::message::{Delivery, Message, MessageId, QueueName};
use crate::observe::Observer;
use crate::runtime::{BatchRoute, IntoRoute, Route, Runner, RunnerBuilder, RunnerConfig, Summary};
use crate::settlement::{Disposition, Settlement};
use crate::worker::{BatchWorker, Worker};

/// A worker, a batch worker or a route under test, on a broker of its own.
///
/// It is run by the real [`Runner`]. Each [`run_until_idle`](Self::run_until_idle) is a whole life of it: start hook,
/// messages, shutdown, stop hook; breakers and rates go on where they were. Between runs nothing happens, so what is
/// asserted then holds still. Under paused time (`#[tokio::test(start_paused = true)]`, on the in-memory broker) retries and
/// delays take no time, and each [`Attempt`] tells when it was.
///
/// ```
/// use std::time::Duration;
/// use pythia_core::resilience::RetryConfig;
/// use pythia_core::settlement::DeadKind;
/// use pythia_core::testing::TestWorker;
/// use pythia_core::{Job, Message, Route, WorkError, worker_fn};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// // #[tokio::test(start_paused = true)]
/// let charge = worker_fn(async |job: &Job<u64>| match job.headers().get("card") {
///     Some("stolen") => Err(WorkError::permanent("the card is stolen")),
///     Some("empty") => Err(WorkError::retryable("the card is declined")),
///     _ => Ok(()),
/// });
/// let mut week = RetryConfig::default();
/// (week.initial_delay, week.max_delay) = (Duration::from_hours(24), Duration::from_hours(24 * 7));
///
/// let mut test = TestWorker::route(Route::new("charges", charge).retry(week));
/// let stolen = test.publish(Message::new("7").header("card", "stolen")).await;
/// let empty = test.publish(Message::new("8").header("card", "empty")).await;
/// let junk = test.publish(Message::new("no number").delay(Duration::from_secs(60))).await;
/// test.run_until_idle().await;
///
/// test.message(&stolen).assert_dead(DeadKind::Permanent).assert_attempts(1);
/// test.message(&empty).assert_dead(DeadKind::Exhausted).assert_attempts(5);
/// test.message(&junk).assert_dead(DeadKind::Decode);
/// let letters = test.dead_letters().await; // the newest first, their bytes as they came
/// assert_eq!(letters[1].delivery.payload, "no number".into());
/// # }
/// ```
///
/// Everything here panics with a clear text when it can't do its work: a test has no use for an error.
pub struct TestWorker {
    broker: Arc<dyn Broker>,
    builder: RunnerBuilder,
    has_settings: bool,
    patience: Duration,
    route: Option<AddRoute>,
    bench: Option<Bench>,
}

type AddRoute = Box<dyn FnOnce(RunnerBuilder, &Arc<Witness>) -> RunnerBuilder + Send>;

/// What is made once worker, broker and settings are all known.
struct Bench {
    runner: Runner,
    queue: QueueName,
    journal: Arc<Journal>,
    broker: Arc<dyn Broker>,
    /// For a broker that remembers nothing: published when the worker has subscribed.
    held: Vec<Message>,
}

impl TestWorker {
    /// A worker on a queue named `test`, reading JSON.
    pub fn new(worker: impl Worker<Input: DeserializeOwned>) -> Self {
        Self::route(Route::new("test", worker))
    }

    /// A batch worker on a queue named `test`, reading JSON.
    pub fn batch(worker: impl BatchWorker<Input: DeserializeOwned>) -> Self {
        Self::route(BatchRoute::new("test", worker))
    }

    /// A route as it is in production: with its queue, codec, layers, limits and schedule.
    pub fn route(route: impl IntoRoute + Send + 'static) -> Self {
        Self {
            broker: Arc::new(MemoryBroker::new()),
            builder: Runner::builder(),
            has_settings: false,
            patience: PATIENCE,
            route: Some(Box::new(|builder, broker| builder.route(broker, route))),
            bench: None,
        }
    }

    /// Takes messages from this broker rather than from an in-memory one of its own: a clone of what the worker publishes to,
    /// a [`FaultyBroker`](super::FaultyBroker), Redis.
    ///
    /// # Panics
    /// If messages were sent already.
    #[must_use]
    pub fn on(mut self, broker: impl Broker) -> Self {
        self.assert_unused();
        self.broker = Arc::new(broker);
        self
    }

    /// Takes the settings of the runner and of the route from a configuration. What is set on the route wins.
    ///
    /// # Panics
    /// If messages were sent already.
    #[must_use]
    pub fn config(mut self, config: &Config) -> Self {
        self.assert_unused();
        self.builder = self.builder.config(config);
        self.has_settings = true;
        self
    }

    /// Tells this observer too what happens: metrics under test, an [`EventLog`](super::EventLog).
    ///
    /// # Panics
    /// If messages were sent already.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.assert_unused();
        self.builder = self.builder.observer(observer);
        self
    }

    /// How long nothing may happen to any message before a run panics, by the system's clock; under paused time it may be
    /// two hours, if that is more. Default: 60 s.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Publishes a value as JSON, and answers the message's id.
    ///
    /// # Panics
    /// If the value can't be written, if the route or its settings can't be used, or if the broker is away.
    pub async fn send<T: Serialize + Sync + ?Sized>(&mut self, value: &T) -> MessageId {
        self.send_as(&Json, value).await
    }

    /// Publishes a value by another codec than JSON, and answers the message's id.
    ///
    /// # Panics
    /// As [`send`](Self::send).
    pub async fn send_as<T, E>(&mut self, codec: &E, value: &T) -> MessageId
    where
        T: Sync + ?Sized,
        E: Encode<T>,
    {
        let payload = match codec.encode(value) {
            Ok(payload) => payload,
            Err(error) => panic!("the message {error}"),
        };
        self.publish(Message::new(payload)).await
    }

    /// Publishes a message as it is, bytes, headers, delay and all, and answers its id.
    ///
    /// A broker that fails for a moment is asked again, and the message is published once.
    ///
    /// # Panics
    /// As [`send`](Self::send); and if the broker remembers the message's dedupe key.
    pub async fn publish(&mut self, message: Message) -> MessageId {
        let bench = self.bench();
        let id = message.id.clone().unwrap_or_else(MessageId::random);
        let message = message.id(id.clone());
        bench.journal.sent(&bench.queue, &id, &message);
        if bench.broker.is_fan_out() {
            bench.held.push(message);
        } else {
            publish(&*bench.broker, &bench.queue, message).await;
        }
        id
    }

    /// Runs the worker until every message has come to its end: acknowledged or dead. What is delayed is waited for; under
    /// paused time that takes none.
    ///
    /// # Panics
    /// If nothing happens for too long (see [`patience`](Self::patience)), and the text says to which messages; if the start
    /// hook fails; if the route or its settings can't be used.
    pub async fn run_until_idle(&mut self) -> Summary {
        self.run(Until::Idle).await
    }

    /// Runs the worker until nothing is ready or running. What is delayed stays so.
    ///
    /// # Panics
    /// As [`run_until_idle`](Self::run_until_idle).
    pub async fn run_ready(&mut self) -> Summary {
        self.run(Until::NoneReady).await
    }

    /// What happened to a message so far.
    ///
    /// # Panics
    /// If no message of that id was seen.
    #[track_caller]
    pub fn message(&self, id: &MessageId) -> History {
        let journal = self.bench.as_ref().map(|bench| &bench.journal);
        match journal.and_then(|journal| journal.history(id)) {
            Some(history) => history,
            None => panic!("no message {id:?} was seen; these were:\n{}", self.story()),
        }
    }

    /// What happened to all messages so far, those of other publishers included, in the order in which they were first seen.
    pub fn messages(&self) -> Vec<History> {
        let bench = self.bench.as_ref();
        bench.map_or_else(Vec::new, |bench| bench.journal.histories())
    }

    /// Asserts that every message was processed.
    ///
    /// # Panics
    /// If one was not; the text tells its history.
    #[track_caller]
    pub fn assert_all_acked(&self) {
        for message in self.messages() {
            message.assert_acked();
        }
    }

    /// The dead letters, the newest first, as the broker keeps them: payload, headers and reason.
    ///
    /// # Panics
    /// If the broker keeps none, or is away.
    pub async fn dead_letters(&mut self) -> Vec<DeadLetter> {
        let bench = self.bench();
        let letters = admin(&*bench.broker)
            .dead(&bench.queue, Page::first(usize::MAX))
            .await;
        expect(letters)
    }

    /// What the worker has published to another queue of the broker and is ready there, oldest first. It is taken out.
    ///
    /// # Panics
    /// If the name is no queue's, or the broker is away or has no [`Admin`].
    pub async fn take(&mut self, queue: &str) -> Vec<Delivery> {
        let queue = named(queue);
        let broker = Arc::clone(&self.bench().broker);
        let ready = async || expect(admin(&*broker).depth(&queue).await).ready;
        let mut taken = Vec::new();
        while ready().await.is_some_and(|ready| ready > 0) {
            let mut lane = expect(broker.subscribe(&queue).await);
            let mut batch = Vec::new();
            expect(lane.source.receive(1_000, &mut batch).await);
            let settlements: Vec<_> = batch
                .iter()
                .map(|delivery| Settlement::new(delivery.clone(), Disposition::Ack))
                .collect();
            expect(lane.settler.settle(&settlements).await);
            expect(lane.source.close(&mut Vec::new()).await);
            taken.append(&mut batch);
        }
        taken
    }

    /// [`take`](Self::take), decoded as JSON.
    ///
    /// # Panics
    /// As `take`, and if a message is not a `T`.
    pub async fn take_json<T: DeserializeOwned>(&mut self, queue: &str) -> Vec<T> {
        let decode = |delivery: &Delivery| match Json.decode(&delivery.payload) {
            Ok(value) => value,
            Err(error) => panic!(
                "a message of queue {queue:?}, {:?}: {error}",
                delivery.payload
            ),
        };
        self.take(queue).await.iter().map(decode).collect()
    }

    /// What waits for its time in a queue of the broker, the next first: what the worker has published with a delay; in the
    /// worker's own queue, what waits for another attempt.
    ///
    /// # Panics
    /// If the name is no queue's, or the broker is away or has no [`Admin`].
    pub async fn delayed(&mut self, queue: &str) -> Vec<Delayed> {
        let queue = named(queue);
        let admin = admin(&*self.bench().broker);
        expect(admin.delayed(&queue, Page::first(usize::MAX)).await)
    }

    async fn run(&mut self, until: Until) -> Summary {
        let patience = self.patience;
        let bench = self.bench();
        bench.journal.begin_run();
        match timeout(patience.max(LONGEST_JOB), bench.runner.start()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => panic!("the worker under test: {error}"),
            Err(_) => panic!("the worker under test: its start hook does not end"),
        }
        if until == Until::NoneReady {
            bench.promote().await;
        }
        let mut summary = bench.run_lanes(until, patience).await;
        while let Some(due) = bench.parked(until).await {
            // In parts, so that real time is not slept away; growing ones, because paused time has many.
            let mut part = LOOK.max(patience);
            while timeout_at(due, sleep(part)).await.is_ok() {
                bench.assert_moves(patience).await;
                part *= 2;
            }
            summary += bench.run_lanes(until, patience).await;
        }
        bench.runner.stop().await;
        summary
    }

    fn story(&self) -> String {
        self.messages().iter().map(ToString::to_string).collect()
    }

    fn bench(&mut self) -> &mut Bench {
        let bench = match self.bench.take() {
            Some(bench) => bench,
            None => self.set_up(),
        };
        self.bench.insert(bench)
    }

    fn set_up(&mut self) -> Bench {
        let journal = Arc::new(Journal::new());
        let witness = Arc::new(Witness {
            inner: Arc::clone(&self.broker),
            journal: Arc::clone(&journal),
            attached: Once::new(),
        });
        let mut builder = std::mem::take(&mut self.builder).observer(Arc::clone(&journal));
        if !self.has_settings {
            // Nobody looks at gauges here.
            builder = builder.settings(RunnerConfig {
                sample_interval: Duration::ZERO,
                ..RunnerConfig::default()
            });
        }
        if let Some(add) = self.route.take() {
            builder = add(builder, &witness);
        }
        let runner = match builder.build() {
            Ok(runner) => runner,
            Err(error) => panic!("the worker under test: {error}"),
        };
        let queue = runner.queues().next().cloned();
        Bench {
            queue: queue.expect("a runner that is built has a route"),
            runner,
            journal,
            broker: Arc::clone(&self.broker),
            held: Vec::new(),
        }
    }

    fn assert_unused(&self) {
        assert!(
            self.bench.is_none(),
            "the broker and the settings of a test are chosen before its first message is sent"
        );
    }
}

impl fmt::Debug for TestWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestWorker")
            .field("broker", &self.broker)
            .field("messages", &self.messages())
            .finish_non_exhaustive()
    }
}

/// What there is to do for the worker.
enum Work {
    /// So many messages wait for their time, and that is all.
    Delayed(u64),
    /// Nothing any more.
    None,
    /// Something is ready or running.
    Ready,
}

/// When a run is over.
#[derive(Clone, Copy, PartialEq)]
enum Until {
    /// Nothing is ready, running or delayed.
    Idle,
    /// Nothing is ready or running.
    NoneReady,
}

impl Bench {
    /// Runs the lanes until there is nothing to do, now or soon.
    async fn run_lanes(&mut self, until: Until, patience: Duration) -> Summary {
        let held = std::mem::take(&mut self.held);
        let idle = async {
            if self.broker.is_fan_out() {
                let subscribed = async || self.journal.is_subscribed();
                self.wait(subscribed, patience).await;
            }
            for message in held {
                publish(&*self.broker, &self.queue, message).await;
            }
            let idle = async || match self.work().await {
                Work::Ready => false,
                Work::Delayed(count) => {
                    until == Until::NoneReady || self.far(count).await.is_some()
                }
                Work::None => true,
            };
            self.wait(idle, patience).await;
        };
        match self.runner.run_lanes(idle).await.0 {
            Ok(summary) => summary,
            Err(error) => panic!("the worker under test: {error}"),
        }
    }

    /// Makes ready what is due, which a broker does when it is asked.
    async fn promote(&self) {
        let max_attempts = self.runner.max_attempts();
        for _ in 0..ATTEMPTS {
            match self.broker.maintain(&self.queue, max_attempts).await {
                Ok(round) if round.more => {}
                Ok(_) => return,
                // The run will tell if it stays away.
                Err(_) => sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// When the lanes have something to do again, if they were stopped for want of it: under paused time each minute of
    /// idle lanes would cost some work.
    async fn parked(&self, until: Until) -> Option<Instant> {
        match self.work().await {
            Work::Delayed(count) if until == Until::Idle => self.far(count).await,
            _ => None,
        }
    }

    /// When the first of so many delayed messages is due, if that is known and not soon.
    async fn far(&self, delayed: u64) -> Option<Instant> {
        let due = match self.journal.next_due(delayed) {
            Some(due) => due,
            // Others than the kit have delayed some: the broker says when they are due, by its own clock.
            None => {
                let next = self
                    .broker
                    .admin()?
                    .delayed(&self.queue, Page::first(1))
                    .await;
                self.journal.instant(next.ok()?.first()?.due)?
            }
        };
        (due > Instant::now() + SOON).then_some(due)
    }

    async fn work(&self) -> Work {
        let all_ended = || match self.journal.all_ended() {
            true => Work::None,
            false => Work::Ready,
        };
        let Some(admin) = self.broker.admin() else {
            return all_ended();
        };
        let Ok(depth) = admin.depth(&self.queue).await else {
            // No event may follow: look again before long.
            sleep(LOOK_AGAIN).await;
            return Work::Ready;
        };
        let pending = depth.pending.unwrap_or(self.journal.in_hand() as u64);
        match (depth.ready, depth.delayed.unwrap_or(0)) {
            _ if pending > 0 => Work::Ready,
            (Some(0), 0) => Work::None,
            (Some(0), delayed) => Work::Delayed(delayed),
            (Some(_), _) => Work::Ready,
            (None, _) => all_ended(),
        }
    }

    /// Waits until it is so, looking again whenever something has happened to a message.
    async fn wait(&self, is_so: impl AsyncFn() -> bool, patience: Duration) {
        loop {
            // Made before the look, so that what happens between the look and the wait ends the wait.
            let changed = self.journal.changed();
            if is_so().await {
                return;
            }
            if timeout(LOOK, changed).await.is_err() {
                self.assert_moves(patience).await;
            }
        }
    }

    /// Panics if nothing has happened to any message for too long.
    async fn assert_moves(&self, patience: Duration) {
        let (virtually, really) = self.journal.progress().ago();
        let delayed = match self.broker.admin() {
            Some(admin) => admin.delayed(&self.queue, Page::first(1)).await,
            None => Ok(Vec::new()),
        };
        let next_due = delayed.iter().flatten().next();
        let hangs = next_due.is_none() && virtually >= LONGEST_JOB.max(patience);
        if really < patience && !hangs {
            return;
        }
        let mut reasons = String::new();
        if let Some(next) = next_due {
            reasons.push_str(&format!(
                "\nmessage {:?} is delayed: let time pass at once by `#[tokio::test(start_paused = true)]` on the in-memory \
                 broker, shorten the delay, or leave delayed messages by `run_ready`",
                next.delivery.id
            ));
        }
        if let Some(fault) = self.journal.fault() {
            reasons.push_str(&format!("\nthe broker fails: {fault}"));
        }
        let unended = self.journal.histories().into_iter();
        let unended = unended.filter(|message| !message.is_acked() && message.dead().is_none());
        let story: String = unended.map(|message| message.to_string()).collect();
        panic!(
            "nothing has happened to any message for {:?} (the limit is set by `patience`){reasons}\nthese have not come to their end:\n{story}",
            really.max(virtually)
        );
    }
}

/// Publishes once, though a broker that fails on demand may have to be asked several times.
async fn publish(broker: &dyn Broker, queue: &QueueName, mut message: Message) {
    let is_ours = message.dedupe_key.is_none() && broker.guarantee() == Guarantee::AtLeastOnce;
    if is_ours {
        message = message.dedupe_key(format!("test-{:x}", rand::random::<u128>()));
    }
    let mut asked = 1;
    loop {
        match broker.publish(queue, vec![message.clone()]).await {
            Ok(answers) if answers == [Published::Deduplicated] && !is_ours && asked == 1 => {
                panic!(
                    "not published: the broker remembers the dedupe key {:?}",
                    message.dedupe_key
                )
            }
            Ok(_) => return,
            Err(error) if error.is_unavailable() && asked < ATTEMPTS => asked += 1,
            Err(error) => panic!("{error}"),
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn admin(broker: &dyn Broker) -> &dyn Admin {
    match broker.admin() {
        Some(admin) => admin,
        None => panic!("{broker:?} can't look into its queues"),
    }
}

fn named(queue: &str) -> QueueName {
    match QueueName::new(queue) {
        Ok(queue) => queue,
        Err(error) => panic!("{error}"),
    }
}

fn expect<T>(answer: Result<T, BrokerError>) -> T {
    match answer {
        Ok(answer) => answer,
        Err(error) => panic!("{error}"),
    }
}

/// How long nothing may happen to any message, by the system's clock.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same by tokio's clock, at least: under paused time it shows at once what will never end.
const LONGEST_JOB: Duration = Duration::from_hours(2);
/// The lanes are not stopped for a message that is due within so long.
const SOON: Duration = Duration::from_secs(60);
/// How long is waited for an event before the clocks are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Between two tries at a broker that fails.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const ATTEMPTS: u32 = 10;
