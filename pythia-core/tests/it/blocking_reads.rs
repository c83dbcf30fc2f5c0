//! Reads that take a while and must not be dropped: they hold up no suspect, and bring no disorder when a runner ends.

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
    MessageId, QueueName, Receipt, Route, Runner, WorkError, worker_fn, worker_fn_with,
};
use tokio::sync::Notify;
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
            settled: Arc::default(),
            released: Arc::default(),
        }
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

type Looks = (Blocking, Arc<Mutex<Vec<usize>>>);

/// Jobs that don't wait keep their thread until the batch is done: the broker would have nothing to do meanwhile.
#[tokio::test(start_paused = true)]
async fn the_next_read_begins_before_a_full_batch_and_after_a_small_one() {
    let broker = Blocking::new(0, None);
    let reads = [vec![0, 1], vec![2], vec![3]];
    let reads = reads.map(|numbers| (MS, numbers.into_iter().map(delivery).collect()));
    *broker.late.lock().unwrap() = reads.into();
    let left = Arc::<Mutex<Vec<usize>>>::default();
    let worker = worker_fn_with(
        (broker.clone(), Arc::clone(&left)),
        async |(broker, left): &Looks, _: &Job<u64>| {
            left.lock().unwrap().push(broker.late.lock().unwrap().len());
            Ok::<_, WorkError>(())
        },
    );
    let route = Route::new("idle", worker).lanes(1).batch(2);
    let runner = Runner::builder().route(&broker, route).build().unwrap();
    runner.run_until(sleep(50 * MS)).await.unwrap();
    assert_eq!(*left.lock().unwrap(), [1, 1, 1, 0], "reads not yet begun");
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
    let in_batches = BatchRoute::new("idle", Patient).lanes(1).concurrency(1);
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
    let runner = Runner::builder().route(&broker, route).build().unwrap();
    runner.run_until(sleep(50 * MS)).await.unwrap();
    let released = broker.released.lock().unwrap();
    let mut released: Vec<_> = released.iter().map(|(_, id)| id.to_string()).collect();
    released[1..].sort();
    assert_eq!(released, ids);
}

#[derive(Debug)]
struct Patient;

impl BatchWorker for Patient {
    type Input = u64;
    type Output = ();

    async fn process(&self, jobs: &[Job<u64>]) -> Vec<Result<(), WorkError>> {
        jobs.iter().map(|_| Ok(())).collect()
    }
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
                sleep(after).await;
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
