//! [`TestWorker`]: a worker under test, run by the real runtime.

mod bench;
mod history;
mod journal;
mod witness;

use std::fmt;
use std::sync::{Arc, Once};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::bench::{Bench, Until, publish};
pub use self::history::{Attempt, History, Outcome};
use self::journal::Journal;
use self::witness::Witness;
use crate::admin::{Admin, DeadLetter, Delayed, Page};
use crate::broker::Broker;
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
    /// If nothing happens for too long (see [`patience`](Self::patience)), and the text says to which messages; if a message
    /// has had 10,000 attempts, snoozes and releases among them, and is still neither acknowledged nor dead; if the start hook
    /// fails; if the route or its settings can't be used.
    pub async fn run_until_idle(&mut self) -> Summary {
        let patience = self.patience;
        self.bench().run(Until::Idle, patience).await
    }

    /// Runs the worker until nothing is ready or running. What is delayed stays so.
    ///
    /// # Panics
    /// As [`run_until_idle`](Self::run_until_idle).
    pub async fn run_ready(&mut self) -> Summary {
        let patience = self.patience;
        self.bench().run(Until::NoneReady, patience).await
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

    /// Asserts that there were messages, and that every one was processed.
    ///
    /// # Panics
    /// If there was none, or one was not; the text tells its history.
    #[track_caller]
    pub fn assert_all_acked(&self) {
        assert!(
            !self.messages().is_empty(),
            "no message has been seen: send some, and run the worker"
        );
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
            .dead(&bench.queue, Page::first(LISTED))
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
        expect(admin.delayed(&queue, Page::first(LISTED)).await)
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
/// More than a test has messages in one state.
const LISTED: usize = 1_000_000;
