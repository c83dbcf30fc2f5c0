//! A worker process: all modes at once, everything written down.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use pythia_core::broker::Broker;
use pythia_core::observe::{Event, Observer};
use pythia_core::{
    CancelReason, Config, Job, MemoryBroker, QueueName, Route, Runner, WorkError, Worker,
    shutdown_signal,
};
use tokio::time::sleep;

use crate::death::{Death, Point, die};
use crate::history::{Journal, Outcome, Record, now};
use crate::plan::{Group, Kind, Number, Task};
use crate::publisher::message;
use crate::recorded::{Notes, Recorded};

/// What a worker process is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    /// The configuration.
    #[arg(long)]
    config: PathBuf,
    /// Where to write down what happens.
    #[arg(long)]
    journal: PathBuf,
    /// The groups to work for.
    #[arg(long, value_delimiter = ',')]
    groups: Vec<String>,
    /// Die at the n-th time at that point: `after-fetch:7`.
    #[arg(long)]
    die: Option<String>,
    /// The first of the numbers of the messages in memory.
    #[arg(long, default_value_t = 0)]
    memory_from: Number,
}

pub(crate) async fn run(
    settings: &Settings,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let text = std::fs::read_to_string(&settings.config)?;
    let config = Config::from_toml(&text)?;
    let journal = Arc::new(Journal::create(&settings.journal)?);
    let death = Arc::new(Death::parse(settings.die.as_deref())?);
    let notes = Notes::new(Arc::clone(&journal), death);
    let memory = MemoryBroker::new();
    let mut runner = Runner::builder().config(&config);
    let mut has_memory = false;
    for name in &settings.groups {
        let group = Group::from_name(name).ok_or_else(|| format!("no group is called {name:?}"))?;
        has_memory |= group == Group::Memory;
        let broker: Arc<dyn Broker> = match group {
            Group::Memory => Arc::new(memory.clone()),
            other => {
                pythia_redis::from_config(&Config::from_toml(&(broker_settings(other) + &text))?)?
            }
        };
        let broker = Recorded::new(broker, group, &notes);
        let worker = Tasks {
            group,
            notes: notes.clone(),
        };
        // Two groups of one stream have one queue, and so one name in logs; each is a broker of its own.
        let mut route = Route::new(group.queue(), worker);
        if group == Group::Ordered {
            route = route.lanes(1).concurrency(1);
        }
        runner = runner.route(&broker, route).observer(Gaps {
            group,
            journal: Arc::clone(&journal),
        });
    }
    let runner = runner.build()?;
    let published = has_memory
        .then(|| publish_in_memory(memory.clone(), Arc::clone(&journal), settings.memory_from));
    let shutdown = shutdown_signal();
    let until = async move {
        match published {
            // What is published last must be in the broker before the count of what is left there.
            Some(published) => tokio::select! {
                second = shutdown => second,
                never = published => never,
            },
            None => shutdown.await,
        }
    };
    runner.run_until(until).await?;
    let queue = QueueName::new(Group::Memory.queue())?;
    let depth = match memory.admin() {
        Some(admin) => admin.depth(&queue).await?,
        None => Default::default(),
    };
    let left = [depth.ready, depth.pending, depth.delayed]
        .into_iter()
        .flatten()
        .sum();
    journal.write(&Record::Left {
        at: now(),
        in_memory: left,
    });
    Ok(())
}

/// What makes a group's broker, on top of what all have in common.
pub(crate) fn broker_settings(group: Group) -> String {
    let (pattern, more) = match group {
        Group::List | Group::Ordered => ("list", ""),
        Group::Fleeting => ("list", "redis.list.delivery = \"at-most-once\"\n"),
        Group::Stream => ("stream", ""),
        Group::Second => ("stream", "redis.stream.group = \"second\"\n"),
        Group::News => ("pubsub", ""),
        Group::Memory => ("memory", ""),
    };
    format!("broker.type = {pattern:?}\n{more}")
}

/// Publishes to the broker in memory on and on, as nobody else can.
async fn publish_in_memory<T>(memory: MemoryBroker, journal: Arc<Journal>, from: Number) -> T {
    let queue = QueueName::new(Group::Memory.queue()).expect("a plain name");
    let kinds = [
        Kind::Plain,
        Kind::Retry,
        Kind::Plain,
        Kind::Delayed,
        Kind::Plain,
        Kind::Dead,
    ];
    for (number, kind) in (from..).zip(kinds.into_iter().cycle()) {
        let task = Task {
            number,
            kind,
            takes_ms: 5,
        };
        let delay = if kind == Kind::Delayed {
            Duration::from_millis(300)
        } else {
            Duration::ZERO
        };
        journal.write(&Record::Publishing {
            at: now(),
            kind,
            groups: vec![Group::Memory],
            numbers: (number, number + 1),
            delay: delay.as_micros() as u64,
        });
        let done = memory.publish(&queue, vec![message(&task, delay)]).await;
        let at = now();
        journal.write(&match done {
            Ok(_) => Record::Published { at, first: number },
            Err(_) => Record::Unpublished { at, first: number },
        });
        sleep(Duration::from_millis(50)).await;
    }
    std::future::pending().await
}

/// Does what a message says.
#[derive(Debug)]
struct Tasks {
    group: Group,
    notes: Notes,
}

impl Worker for Tasks {
    type Input = Task;
    type Output = ();

    async fn process(&self, job: &Job<Task>) -> Result<(), WorkError> {
        let Notes { journal, death, .. } = &self.notes;
        let Task {
            number,
            kind,
            takes_ms,
        } = job.input;
        let (group, attempt) = (self.group, job.attempt());
        journal.write(&Record::Begun {
            at: now(),
            group,
            number,
            attempt,
        });
        if kind == Kind::Poison {
            die();
        }
        if kind == Kind::Stuck && attempt == 1 {
            std::future::pending::<()>().await;
        }
        if takes_ms > 0 {
            tokio::select! {
                () = sleep(Duration::from_millis(takes_ms)) => {}
                () = is_lost(job) => return Err(WorkError::retryable("it is another's")),
            }
        }
        death.at(Point::DuringProcess);
        let (outcome, result) = match kind {
            Kind::Dead => (
                Outcome::Permanent,
                Err(WorkError::permanent("it is to fail")),
            ),
            Kind::Retry if attempt <= FAILURES => {
                (Outcome::Failed, Err(WorkError::retryable("not yet")))
            }
            _ => (Outcome::Done, Ok(())),
        };
        journal.write(&Record::Ended {
            at: now(),
            group,
            number,
            outcome,
        });
        result
    }
}

/// Waits until a renewal finds that the message is no longer this worker's.
async fn is_lost(job: &Job<Task>) {
    if job.cancellation().cancelled().await != CancelReason::LeaseLost {
        std::future::pending().await
    }
}

/// Writes down the gaps that at-most-once brokers report.
struct Gaps {
    group: Group,
    journal: Arc<Journal>,
}

impl Observer for Gaps {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::Gap {
            queue, cause, lost, ..
        } = event
            && queue.as_str() == self.group.queue()
            && !self.group.is_at_least_once()
        {
            self.journal.write(&Record::Gap {
                at: now(),
                group: self.group,
                cause: cause.name().to_owned(),
                lost: *lost,
            });
        }
    }
}

/// How many attempts at a message fail that is to be retried.
const FAILURES: u32 = 2;
