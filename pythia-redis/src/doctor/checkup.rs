//! The examination at the start of a worker: beside it, once a broker, and ended with it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use pythia_core::QueueName;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::finding::{Finding, Severity};
use super::report::Report;
use super::{Examination, MAX_QUEUES};
use crate::acl::Pattern;
use crate::connection::Redis;

/// A broker's examination of its Redis.
#[derive(Debug, Default)]
pub(crate) struct Checkup {
    /// Ends when this is dropped.
    task: Mutex<JoinSet<()>>,
    queues: Arc<Mutex<BTreeSet<QueueName>>>,
    done: Arc<AtomicBool>,
}

impl Checkup {
    /// Called when a queue is subscribed to. The first time it starts the examination, and does not wait for it.
    pub(crate) fn begin(&self, redis: &Redis, pattern: Pattern, queue: &QueueName) {
        if !redis.config().doctor {
            return;
        }
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if queues.len() < MAX_QUEUES {
            queues.insert(queue.clone());
        }
        drop(queues);
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        while task.try_join_next().is_some() {}
        if task.is_empty() && !self.done.load(Relaxed) && Handle::try_current().is_ok() {
            let (queues, done) = (Arc::clone(&self.queues), Arc::clone(&self.done));
            task.spawn(examine(redis.apart(), pattern, queues, done));
        }
    }
}

async fn examine(
    redis: Redis,
    pattern: Pattern,
    queues: Arc<Mutex<BTreeSet<QueueName>>>,
    done: Arc<AtomicBool>,
) {
    let queues = || {
        let queues = queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.iter().cloned().collect()
    };
    let mut report = Report::default();
    let examination = Examination::new(redis.clone(), pattern, queues());
    let clock_skew = match examination.servers(&mut report).await {
        Ok(clock_skew) => clock_skew.unwrap_or(0),
        // The subscription fails as well, and says why; it is repeated, and this with it.
        Err(error) => return tracing::debug!(%error, "redis could not be examined"),
    };
    // Its connection is not held for what comes later.
    drop(examination);
    done.store(true, Relaxed);
    report.sort();
    report.findings().iter().for_each(log);

    // By then the upkeep of a healthy worker has taken back what dead ones had left.
    sleep(redis.config().lease.mul_f64(rand::random_range(4.0..5.0))).await;
    let mut report = Report::default();
    let examination = Examination::new(redis, pattern, queues());
    examination.backlog(clock_skew, &mut report).await;
    report.findings().iter().for_each(log);
}

fn log(finding: &Finding) {
    let (code, about) = (finding.code().as_str(), finding.about());
    let (what, meaning) = (finding.what(), finding.meaning());
    let mend = match (finding.command(), finding.advice()) {
        (Some(command), advice) => format!("redis-cli {command} ({advice})"),
        (None, advice) => advice.to_owned(),
    };
    match finding.severity() {
        Severity::Critical => tracing::error!(code, about, mend, "doctor: {what}: {meaning}"),
        Severity::Warning => tracing::warn!(code, about, mend, "doctor: {what}: {meaning}"),
        Severity::Note => tracing::debug!(code, about, mend, "doctor: {what}: {meaning}"),
    }
}
