//! Publishes to all queues at a steady pace, whatever happens to them, and writes down what was confirmed.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pythia_core::broker::Broker;
use pythia_core::{Config, ConfigError, Message, QueueName};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::history::{Journal, Record, now};
use crate::plan::{Group, Kind, Number, Task};
use crate::worker::broker_settings;

/// A broker for each group, and the numbers.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    brokers: Arc<BTreeMap<Group, Arc<dyn Broker>>>,
    journal: Arc<Journal>,
    next: Arc<AtomicU64>,
}

/// The steady work of a run; it ends when this is stopped.
#[derive(Debug)]
pub(crate) struct Steady {
    going: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Publisher {
    /// Straight to Redis: what the network does is done to the workers.
    pub(crate) fn new(
        settings: &str,
        groups: &[Group],
        journal: Arc<Journal>,
    ) -> Result<Self, ConfigError> {
        // A command that is sent once can't double its messages.
        let settings = format!("{settings}redis.command_attempts = 1\n");
        let mut brokers = BTreeMap::new();
        for group in groups
            .iter()
            .copied()
            .filter(|group| *group != Group::Memory)
        {
            let config = Config::from_toml(&(broker_settings(group) + &settings))?;
            brokers.insert(group, pythia_redis::from_config(&config)?);
        }
        Ok(Self {
            brokers: Arc::new(brokers),
            journal,
            next: Arc::new(AtomicU64::new(1)),
        })
    }

    pub(crate) fn broker(&self, group: Group) -> Option<&Arc<dyn Broker>> {
        self.brokers.get(&group)
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = Group> {
        self.brokers.keys().copied()
    }

    /// Publishes so many alike, at once.
    pub(crate) async fn publish(
        &self,
        group: Group,
        kind: Kind,
        takes: &[u64],
        delay: Duration,
    ) -> bool {
        let first = self.next.fetch_add(takes.len() as u64, Relaxed);
        let numbers = first..first + takes.len() as Number;
        let batch = numbers.clone().zip(takes).map(|(number, takes_ms)| {
            let task = Task {
                number,
                kind,
                takes_ms: *takes_ms,
            };
            message(&task, delay)
        });
        let batch = batch.collect();
        let mut groups = vec![group];
        if group == Group::Stream && self.brokers.contains_key(&Group::Second) {
            groups.push(Group::Second);
        }
        self.journal.write(&Record::Publishing {
            at: now(),
            kind,
            groups,
            numbers: (numbers.start, numbers.end),
            delay: delay.as_micros() as u64,
        });
        let queue = QueueName::new(group.queue()).expect("a plain name");
        let published = self.brokers[&group].publish(&queue, batch).await;
        self.journal.write(&match published {
            Ok(_) => Record::Published { at: now(), first },
            Err(_) => Record::Unpublished { at: now(), first },
        });
        published.is_ok()
    }

    /// Begins to publish to all queues, so many messages a second in all.
    pub(crate) fn begin(&self, rate: u64, seed: u64) -> Steady {
        let (going, _) = watch::channel(true);
        let mut tasks = JoinSet::new();
        let queues = [
            (Group::List, 30),
            (Group::Stream, 30),
            (Group::Fleeting, 20),
            (Group::News, 15),
            (Group::Ordered, 5),
        ];
        for (group, percent) in queues {
            if self.brokers.contains_key(&group) {
                let rng = StdRng::seed_from_u64(seed ^ group as u64);
                let batch = rate * percent / 100 * TICK.as_millis() as u64 / 1_000;
                tasks.spawn(steady(
                    self.clone(),
                    group,
                    batch.max(1),
                    rng,
                    going.subscribe(),
                ));
            }
        }
        Steady { going, tasks }
    }
}

impl Steady {
    /// Stops, and waits until what is under way is.
    pub(crate) async fn stop(mut self) -> io::Result<()> {
        self.going.send_replace(false);
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// A message that is ready at once, or after a delay.
pub(crate) fn message(task: &Task, delay: Duration) -> Message {
    let message = Message::new(task.body());
    match delay.is_zero() {
        true => message,
        false => message.delay(delay),
    }
}

async fn steady(
    publisher: Publisher,
    group: Group,
    batch: u64,
    mut rng: StdRng,
    going: watch::Receiver<bool>,
) {
    let mut next = Instant::now();
    while *going.borrow() {
        let slowest = if group == Group::Ordered { 2 } else { 20 };
        let takes: Vec<_> = (0..batch).map(|_| rng.random_range(0..slowest)).collect();
        let mut published = publisher
            .publish(group, Kind::Plain, &takes, Duration::ZERO)
            .await;
        if matches!(group, Group::List | Group::Stream) {
            let few = &takes[..takes.len().div_ceil(8)];
            published &= match rng.random_range(0..6) {
                0 | 1 => {
                    publisher
                        .publish(group, Kind::Retry, few, Duration::ZERO)
                        .await
                }
                2 | 3 => {
                    let delay = Duration::from_millis(rng.random_range(100..2_000));
                    publisher.publish(group, Kind::Delayed, few, delay).await
                }
                4 => {
                    publisher
                        .publish(group, Kind::Dead, &few[..1], Duration::ZERO)
                        .await
                }
                _ => true,
            };
        }
        // A Redis that is away is not asked without a pause, and what was not published then is not made up for.
        next = match published {
            true => (next + TICK).max(Instant::now()),
            false => Instant::now() + TICK,
        };
        sleep_until(next).await;
    }
}

const TICK: Duration = Duration::from_millis(50);
