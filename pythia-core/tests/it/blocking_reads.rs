//! Reads that take a while and must not be dropped: when they begin, that they hold up no suspect, and bring no disorder when
//! a runner ends. The tests have one thread, whose tasks take turns in the order in which they became ready.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pythia_core::admin::Admin;
use pythia_core::broker::{
    Broker, Endpoint, Guarantee, Maintained, Published, Settled, Settler, Source, Subscription,
};
use pythia_core::observe::Observer;
use pythia_core::settlement::Settlement;
use pythia_core::store::KvStore;
use pythia_core::{
    BatchRoute, BatchWorker, BrokerError, Delivery, IntoRoute, Job, MemoryBroker, Message,
    MessageId, QueueName, Receipt, Route, Runner, WorkError, Worker, worker_fn, worker_fn_with,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Which message began and ended when.
type Times = Arc<Mutex<Vec<(u64, Instant, Instant)>>>;

type State = (Duration, Times);
/// How long it takes, and what it brings.
type Read = (Duration, Vec<Delivery>);

const MS: Duration = Duration::from_millis(1);

/// A broker whose reads take a second if there is nothing, and must not be dropped: as Redis' do.
#[derive(Clone, Debug)]
struct Blocking {
    plain: MemoryBroker,
    suspects: Arc<Mutex<VecDeque<Delivery>>>,
    /// What the reads of the other queue bring, and after how long.
    late: Arc<Mutex<VecDeque<Read>>>,
    /// How many reads had not begun when a task got its turn that was ready before a read ended: one for each read.
    others: Arc<Mutex<Vec<usize>>>,
    /// How many reads have begun and were not written to the connection: a task of its own does that.
    unwritten: Arc<Mutex<usize>>,
    settled: Arc<Mutex<usize>>,
    /// When messages were handed back.
    released: Arc<Mutex<Vec<(Instant, MessageId)>>>,
}

impl Blocking {
    fn new(suspects: u64, late: Option<Duration>) -> Self {
        let suspects = (0..suspects).map(|number| {
            let mut suspect = delivery(number);
            suspect.alone = true;
            suspect.crashes = 2;
            suspect
        });
        Self {
            plain: MemoryBroker::new(),
            suspects: Arc::new(Mutex::new(suspects.collect())),
            late: Arc::new(Mutex::new(
                late.map(|after| (after, vec![delivery(99)]))
                    .into_iter()
                    .collect(),
            )),
            others: Arc::default(),
            unwritten: Arc::default(),
            settled: Arc::default(),
            released: Arc::default(),
        }
    }

    /// Its other queue has one message after the other, each read bringing so many, after so long.
    fn with_reads(reads: usize, each: u64, after: Duration) -> Self {
        let broker = Self::new(0, None);
        let numbers = |read: usize| read as u64 * each..(read as u64 + 1) * each;
        let read = |read| (after, numbers(read).map(delivery).collect());
        *broker.late.lock().unwrap() = (0..reads).map(read).collect();
        broker
    }

    /// How many reads of the other queue have not begun.
    fn left(&self) -> usize {
        self.late.lock().unwrap().len()
    }

    /// How many have begun, and lie in a queue of this process.
    fn unwritten(&self) -> usize {
        *self.unwritten.lock().unwrap()
    }

    /// Works everything off, each message for so long; answers when each began and ended.
    async fn run(&self, all: usize, takes: Duration) -> Vec<(u64, Instant, Instant)> {
        let times = Times::default();
        let route = |queue: &str| {
            let times = Arc::clone(&times);
            let worker = worker_fn_with(
                (takes, times),
                async |(takes, times): &State, job: &Job<u64>| {
                    let begun = Instant::now();
                    sleep(*takes).await;
                    let mut times = times.lock().unwrap();
                    times.push((job.input, begun, Instant::now()));
                    Ok::<_, WorkError>(())
                },
            );
            Route::new(queue, worker).lanes(1)
        };
        let runner = Runner::builder()
            .route(self, route("suspects"))
            .route(self, route("idle"))
            .build()
            .unwrap();
        let done = async {
            while *self.settled.lock().unwrap() < all {
                sleep(MS).await;
            }
        };
        runner.run_until(done).await.unwrap();
        let mut times = times.lock().unwrap();
        std::mem::take(&mut times)
    }
}

fn delivery(number: u64) -> Delivery {
    Delivery::new(
        number.to_string(),
        number.to_string(),
        Receipt(number.into()),
    )
}

#[tokio::test(start_paused = true)]
async fn idle_reads_do_not_hold_up_suspects() {
    let started = Instant::now();
    let times = Blocking::new(50, None).run(50, 10 * MS).await;
    let last = times.iter().map(|(.., ended)| *ended).max().unwrap();
    let took = last.saturating_duration_since(started);
    assert!(took < 50 * 11 * MS + 200 * MS, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_read_brings_while_a_suspect_runs_goes_back_at_once() {
    for (after, goes_back) in [(5, false), (15, false), (100, true), (400, true)] {
        let (after, started) = (after * MS, Instant::now());
        let broker = Blocking::new(1, Some(after));
        let times = broker.run(2, 500 * MS).await;
        let of = |wanted| *times.iter().find(|(number, ..)| *number == wanted).unwrap();
        let ((_, begun, ended), (_, late_begun, late_ended)) = (of(0), of(99));
        assert!(
            late_ended <= begun || ended <= late_begun,
            "read after {after:?}: {begun:?} to {ended:?}, and {late_begun:?} to {late_ended:?}"
        );
        let released = broker.released.lock().unwrap();
        let within = after..after + 5 * MS;
        let in_time = |(at, _): &(Instant, MessageId)| {
            within.contains(&at.saturating_duration_since(started))
        };
        assert_eq!(
            released.len(),
            usize::from(goes_back),
            "read after {after:?}"
        );
        assert!(released.iter().all(in_time), "{started:?}, {released:?}");
    }
}

/// Jobs that don't wait keep their thread until the batch is done: the broker would have nothing to do meanwhile.
#[tokio::test(start_paused = true)]
async fn the_next_read_begins_before_a_full_batch_and_after_a_small_one() {
    let broker = Blocking::new(0, None);
    let reads = [vec![0, 1], vec![2], vec![3]];
    let reads = reads.map(|numbers| (MS, numbers.into_iter().map(delivery).collect()));
    *broker.late.lock().unwrap() = reads.into();
    let (looks, seen) = Looks::at(&broker, Blocking::left);
    run_for_a_while(&broker, Route::new("idle", looks).lanes(1).batch(2)).await;
    assert_eq!(*seen.lock().unwrap(), [1, 1, 1, 0], "reads not yet begun");
}

/// What has waited for its turn is no reason to leave the broker idle for as long as it takes.
#[tokio::test(start_paused = true)]
async fn the_next_read_begins_before_a_batch_that_has_waited() {
    let broker = Blocking::with_reads(4, 2, Duration::ZERO);
    let (looks, seen) = Looks::at(&broker, Blocking::left);
    run_for_a_while(&broker, Route::new("idle", looks).lanes(1).batch(2)).await;
    let of_each_job = [2, 2, 1, 1, 0, 0, 0, 0];
    assert_eq!(*seen.lock().unwrap(), of_each_job, "reads not yet begun");
}

/// Or lanes that share a thread overtake each other until they all ask at the same time, and wait at the same time.
#[tokio::test(start_paused = true)]
async fn a_lane_asks_for_more_before_another_task_takes_its_turn() {
    let broker = Blocking::with_reads(3, 2, MS);
    let (looks, _) = Looks::at(&broker, Blocking::left);
    run_for_a_while(&broker, Route::new("idle", looks).lanes(1).batch(2)).await;
    let others = broker.others.lock().unwrap();
    assert_eq!(*others, [1, 0, 0], "reads not yet begun");
}

/// What has begun and lies in a queue of this process is no work for the broker.
#[tokio::test(start_paused = true)]
async fn the_next_read_is_written_before_a_full_batch_keeps_the_thread() {
    let broker = Blocking::with_reads(3, 2, MS);
    let (looks, seen) = Looks::at(&broker, Blocking::unwritten);
    run_for_a_while(&broker, Route::new("idle", looks).lanes(1).batch(2)).await;
    assert_eq!(*seen.lock().unwrap(), [0; 6], "reads not yet written");

    let broker = Blocking::with_reads(3, 2, MS);
    let (looks, seen) = Looks::at(&broker, Blocking::unwritten);
    let in_batches = BatchRoute::new("idle", looks).lanes(1).batch(2);
    run_for_a_while(&broker, in_batches).await;
    assert_eq!(*seen.lock().unwrap(), [0; 3], "reads not yet written");
}

#[tokio::test(start_paused = true)]
async fn one_batch_is_fetched_ahead_of_a_call_that_computes() {
    let broker = Blocking::with_reads(4, 2, Duration::ZERO);
    let (looks, seen) = Looks::at(&broker, Blocking::left);
    let route = BatchRoute::new("idle", looks).lanes(1).batch(2);
    run_for_a_while(&broker, route).await;
    assert_eq!(*seen.lock().unwrap(), [2, 1, 0, 0], "reads not yet begun");
}

/// What is fetched and can't be started is kept from other workers.
#[tokio::test(start_paused = true)]
async fn beside_what_waits_one_batch_is_ready_and_one_is_fetched_ahead() {
    let waits = worker_fn(async |_: &Job<u64>| {
        sleep(5_000 * MS).await;
        Ok::<_, WorkError>(())
    });
    let one_by_one = Route::new("idle", waits).lanes(1).concurrency(2).batch(2);
    let broker = Blocking::with_reads(9, 2, MS);
    assert_eq!(run_for_a_while(&broker, one_by_one).await, 9 - 3);

    let in_batches = BatchRoute::new("idle", Waits).lanes(1).concurrency(2);
    let broker = Blocking::with_reads(9, 2, MS);
    let left = run_for_a_while(&broker, in_batches.batch(2)).await;
    assert_eq!(left, 9 - 3);
}

/// Answers how many reads had not begun when the runner was told to stop.
async fn run_for_a_while(broker: &Blocking, route: impl IntoRoute) -> usize {
    let runner = Runner::builder().route(broker, route).build().unwrap();
    let mut left = 0;
    let stop = async {
        sleep(50 * MS).await;
        left = broker.left();
    };
    runner.run_until(stop).await.unwrap();
    left
}

/// Looks at the broker at each call.
#[derive(Debug)]
struct Looks {
    broker: Blocking,
    what: fn(&Blocking) -> usize,
    seen: Arc<Mutex<Vec<usize>>>,
}

impl Looks {
    fn at(broker: &Blocking, what: fn(&Blocking) -> usize) -> (Self, Arc<Mutex<Vec<usize>>>) {
        let seen = Arc::<Mutex<Vec<usize>>>::default();
        let broker = broker.clone();
        (
            Self {
                broker,
                what,
                seen: Arc::clone(&seen),
            },
            seen,
        )
    }

    fn look(&self) {
        self.seen.lock().unwrap().push((self.what)(&self.broker));
    }
}

impl Worker for Looks {
    type Input = u64;
    type Output = ();

    async fn process(&self, _: &Job<u64>) -> Result<(), WorkError> {
        self.look();
        Ok(())
    }
}

impl BatchWorker for Looks {
    type Input = u64;
    type Output = ();

    async fn process(&self, jobs: &[Job<u64>]) -> Vec<Result<(), WorkError>> {
        self.look();
        jobs.iter().map(|_| Ok(())).collect()
    }
}

#[derive(Debug)]
struct Waits;

impl BatchWorker for Waits {
    type Input = u64;
    type Output = ();

    async fn process(&self, jobs: &[Job<u64>]) -> Vec<Result<(), WorkError>> {
        sleep(5_000 * MS).await;
        jobs.iter().map(|_| Ok(())).collect()
    }
}

/// The last to go back is at the head of the queue.
#[tokio::test(start_paused = true)]
async fn what_the_last_read_brings_goes_back_before_what_is_older() {
    let worker = worker_fn(async |_: &Job<u64>| {
        sleep(500 * MS).await;
        Ok::<_, WorkError>(())
    });
    let one_by_one = Route::new("idle", worker).lanes(1).concurrency(1);
    goes_back(one_by_one, &["3", "1", "2"]).await;
    // The first call is waiting for more when the runner ends.
    let in_batches = BatchRoute::new("idle", Waits).lanes(1).concurrency(1);
    goes_back(
        in_batches.batch(10).linger(5_000 * MS),
        &["3", "0", "1", "2"],
    )
    .await;
}

/// Of one batch the broker keeps the order, however it goes back.
async fn goes_back(route: impl IntoRoute, ids: &[&str]) {
    let broker = Blocking::new(0, None);
    let reads = [(MS, vec![0, 1, 2]), (100 * MS, vec![3])];
    let reads = reads.map(|(after, numbers)| (after, numbers.into_iter().map(delivery).collect()));
    *broker.late.lock().unwrap() = reads.into();
    run_for_a_while(&broker, route).await;
    let released = broker.released.lock().unwrap();
    let mut released: Vec<_> = released.iter().map(|(_, id)| id.to_string()).collect();
    released[1..].sort();
    assert_eq!(released, ids);
}

#[async_trait]
impl Broker for Blocking {
    fn endpoint(&self) -> Endpoint {
        self.plain.endpoint()
    }

    fn identity(&self) -> usize {
        self.plain.identity()
    }

    fn guarantee(&self) -> Guarantee {
        self.plain.guarantee()
    }

    async fn subscribe(&self, queue: &QueueName) -> Result<Subscription, BrokerError> {
        Ok(Subscription {
            source: Box::new(BlockingSource {
                broker: self.clone(),
                of_suspects: queue.as_str() == "suspects",
                others: JoinSet::new(),
            }),
            settler: Arc::new(self.clone()),
            lease: None,
            cancel_safe: false,
        })
    }

    async fn publish(
        &self,
        queue: &QueueName,
        batch: Vec<Message>,
    ) -> Result<Vec<Published>, BrokerError> {
        self.plain.publish(queue, batch).await
    }

    async fn maintain(&self, queue: &QueueName, most: u32) -> Result<Maintained, BrokerError> {
        self.plain.maintain(queue, most).await
    }

    fn due_earlier(&self, queue: &QueueName) -> Arc<Notify> {
        self.plain.due_earlier(queue)
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        Ok(())
    }

    fn attach(&self, observer: Arc<dyn Observer>) {
        self.plain.attach(observer);
    }

    fn is_fan_out(&self) -> bool {
        false
    }

    fn admin(&self) -> Option<&dyn Admin> {
        None
    }

    fn store(&self) -> Option<Arc<dyn KvStore>> {
        None
    }
}

#[derive(Debug)]
struct BlockingSource {
    broker: Blocking,
    of_suspects: bool,
    others: JoinSet<()>,
}

#[async_trait]
impl Source for BlockingSource {
    async fn receive(&mut self, _: usize, into: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        if self.of_suspects {
            // The other read is under way by then.
            sleep(MS).await;
            let suspect = self.broker.suspects.lock().unwrap().pop_front();
            if let Some(suspect) = suspect {
                into.push(suspect);
                return Ok(());
            }
        } else {
            let late = self.broker.late.lock().unwrap().pop_front();
            if let Some((after, deliveries)) = late {
                let unwritten = Arc::clone(&self.broker.unwritten);
                *unwritten.lock().unwrap() += 1;
                self.others
                    .spawn(async move { *unwritten.lock().unwrap() -= 1 });
                if !after.is_zero() {
                    sleep(after).await;
                }
                let broker = self.broker.clone();
                self.others.spawn(async move {
                    let left = broker.left();
                    broker.others.lock().unwrap().push(left);
                });
                into.extend(deliveries);
                return Ok(());
            }
        }
        sleep(1_000 * MS).await;
        Ok(())
    }

    async fn close(&mut self, _: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        Ok(())
    }
}

#[async_trait]
impl Settler for Blocking {
    async fn settle(&self, batch: &[Settlement]) -> Result<Settled, BrokerError> {
        for one in batch {
            match one {
                Settlement::Release(delivery) => {
                    let released = (Instant::now(), delivery.id.clone());
                    self.released.lock().unwrap().push(released);
                    let again = (Duration::ZERO, vec![(**delivery).clone()]);
                    self.late.lock().unwrap().push_front(again);
                }
                _ => *self.settled.lock().unwrap() += 1,
            }
        }
        Ok(Settled::default())
    }

    async fn extend(&self, _: &[Receipt]) -> Result<Vec<Receipt>, BrokerError> {
        Ok(Vec::new())
    }
}
