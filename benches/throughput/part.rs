//! One measured process: a worker or a publisher, and nothing else.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use fred::clients::Client;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::payment::Payment;
use crate::progress::{Progress, Tells, Waits};
use crate::redis::{self, Used};
use crate::settings::{Pattern, Settings, What};
use crate::{Failure, by_hand, pythia};

/// What a process is to measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) what: What,
    pub(crate) contender: Contender,
    pub(crate) url: String,
    pub(crate) settings: Settings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contender {
    Pythia,
    ByHand,
}

/// What it has found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) messages: u64,
    /// Not acknowledged: retried, dead, stale, lost.
    pub(crate) failed: u64,
    pub(crate) seconds: f64,
    /// Messages a second: of all the time; or, where the queue is filled again and again, without what is between fillings.
    pub(crate) rate: f64,
    /// How often it was full, and was drained.
    pub(crate) fillings: u64,
    /// Messages a second from the first job of a filling to its last settle.
    pub(crate) steady: Option<f64>,
    /// Processor time of this process, s.
    pub(crate) cpu: f64,
    /// Processor time of Redis, s. Not of one that fills the queue meanwhile.
    pub(crate) redis_cpu: Option<f64>,
    /// At its peak.
    pub(crate) rss_mib: f64,
    pub(crate) waits: Option<Waits>,
    /// Commands that Redis has carried out.
    pub(crate) calls: BTreeMap<String, u64>,
}

/// Reads what to do, does it, and prints what it has found.
pub(crate) fn run() -> Result<(), Failure> {
    let part: Part = serde_json::from_reader(std::io::stdin().lock())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(part.settings.threads)
        .enable_all()
        .build()?;
    // A task, as in a service: what is not one has a thread of its own, and wakes the others for each batch.
    let measured = runtime.block_on(runtime.spawn(async move { measure(&part).await }))??;
    println!("{}", serde_json::to_string(&measured)?);
    // What is still read by hand is not waited for.
    runtime.shutdown_background();
    Ok(())
}

async fn measure(part: &Part) -> Result<Measured, Failure> {
    let settings = &part.settings;
    let (wanted, one_in) = match part.what {
        // Those that fill the queue again are as old as the first.
        What::Drain if settings.waiting.is_some() => (settings.messages, None),
        What::Drain | What::Enqueue => (settings.messages, Some(64)),
        What::Latency => (settings.rate * settings.seconds, Some(1)),
        What::Idle => (u64::MAX, None),
    };
    let tells = match part.what {
        What::Drain if settings.pattern == Pattern::Pubsub => Tells::AtEachSettle,
        What::Drain if settings.waiting.is_some() => Tells::AtEachFilling,
        _ => Tells::Never,
    };
    let filling = settings.waiting.unwrap_or(wanted);
    let progress = Progress::new(wanted, filling, one_in, tells);
    let redis = match settings.pattern {
        Pattern::Memory => None,
        _ => Some(redis::connect(&part.url).await?),
    };
    let mut meter = Meter {
        redis,
        refilled: settings.waiting.is_some(),
        began: None,
    };
    match (part.what, part.contender) {
        (What::Enqueue, Contender::Pythia) => pythia::enqueue(part, &progress, &mut meter).await,
        (What::Enqueue, Contender::ByHand) => by_hand::enqueue(part, &progress, &mut meter).await,
        (_, Contender::Pythia) => pythia::work(part, &progress, &mut meter).await,
        (_, Contender::ByHand) => {
            meter.begin().await?;
            let consumers = by_hand::consume(part, &progress).await?;
            tokio::select! {
                measured = meanwhile(part, &progress, &mut meter) => measured,
                failed = consumers.failed() => Err(failed),
            }
        }
    }
}

/// What happens while a consumer runs that is ready, until all is measured.
pub(crate) async fn meanwhile(
    part: &Part,
    progress: &Progress,
    meter: &mut Meter,
) -> Result<Measured, Failure> {
    let settings = &part.settings;
    match part.what {
        What::Latency => {
            meter.begin().await?;
            let publisher = Publisher::to(part).await?;
            let mut beat = tokio::time::interval(Duration::from_micros(1_000_000 / settings.rate));
            for id in 0..settings.rate * settings.seconds {
                beat.tick().await;
                publisher.publish(id, settings).await?;
            }
        }
        What::Idle => {
            meter.begin().await?;
            tokio::time::sleep(Duration::from_secs(settings.seconds)).await;
            return meter.end(progress).await;
        }
        What::Drain if settings.pattern == Pattern::Pubsub => {
            meter.begin().await?;
            let mut out = std::io::stdout().lock();
            writeln!(out, "{READY}").and_then(|()| out.flush())?;
        }
        What::Drain | What::Enqueue => {}
    }
    progress.over().await;
    meter.end(progress).await
}

/// Who publishes at a steady rate: the same for both contenders, where Redis is.
enum Publisher {
    Redis(Client),
    Memory(pythia_core::MemoryBroker),
}

impl Publisher {
    async fn to(part: &Part) -> Result<Self, Failure> {
        Ok(match part.settings.pattern {
            Pattern::Memory => Self::Memory(pythia::memory()),
            _ => Self::Redis(redis::connect(&part.url).await?),
        })
    }

    async fn publish(&self, id: u64, settings: &Settings) -> Result<(), Failure> {
        let body = Payment::number(id, settings.payload).to_json();
        match self {
            Self::Redis(client) => redis::add_one(client, settings.pattern, body).await?,
            Self::Memory(broker) => pythia::publish(broker, vec![body]).await?,
        }
        Ok(())
    }
}

/// Time, processor time and memory.
pub(crate) struct Meter {
    redis: Option<Client>,
    /// Redis fills the queue meanwhile.
    refilled: bool,
    began: Option<Began>,
}

struct Began {
    at: Instant,
    cpu: Duration,
    used: Used,
}

impl Meter {
    /// Begins, or begins anew.
    pub(crate) async fn begin(&mut self) -> Result<(), Failure> {
        let used = self.used().await?;
        self.began = Some(Began {
            at: Instant::now(),
            cpu: cpu(),
            used,
        });
        Ok(())
    }

    pub(crate) async fn end(&mut self, progress: &Progress) -> Result<Measured, Failure> {
        let (now, cpu) = (Instant::now(), cpu());
        let used = self.used().await?;
        let began = self.began.take().ok_or("nothing was begun")?;
        let seconds = now.saturating_duration_since(began.at).as_secs_f64();
        let (messages, steady) = (progress.count(), progress.steady());
        let calls = used.calls.into_iter().filter_map(|(name, calls)| {
            let before = began.used.calls.get(&name).copied().unwrap_or(0);
            (calls > before && !self.refilled).then_some((name, calls - before))
        });
        Ok(Measured {
            messages,
            failed: progress.failed(),
            seconds,
            rate: steady
                .filter(|_| self.refilled)
                .unwrap_or(messages as f64 / seconds),
            fillings: progress.fillings(),
            steady,
            cpu: cpu.saturating_sub(began.cpu).as_secs_f64(),
            redis_cpu: (!self.refilled)
                .then(|| used.cpu.saturating_sub(began.used.cpu).as_secs_f64()),
            rss_mib: peak_rss_mib(),
            waits: progress.waits(),
            calls: calls.collect(),
        })
    }

    async fn used(&self) -> Result<Used, Failure> {
        Ok(match &self.redis {
            Some(client) => redis::used(client).await?,
            None => Used::default(),
        })
    }
}

/// Processor time of this process so far, of all its threads.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The most memory that this process has had at a time, as Linux counts it.
fn peak_rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1_024.0
}

/// The line that tells that a subscriber has subscribed.
pub(crate) const READY: &str = "ready";
