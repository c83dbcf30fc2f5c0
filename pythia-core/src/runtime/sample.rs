//! Reads the depth of queues and the state of servers for metrics, on an interval: never at a scrape, never per message;
//! and once more when the runner has drained, so that what is scraped last is true.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::shutdown::Phase;
use super::{answer, jittered};
use crate::broker::Broker;
use crate::message::QueueName;
use crate::observe::{Event, Observer, Observers};

/// One broker and the queues of it that are worked on.
pub(super) struct Sampler {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) queues: Vec<QueueName>,
    pub(super) observers: Observers,
    pub(super) interval: Duration,
    /// How long an answer is waited for.
    pub(super) patience: Duration,
    /// Whether anybody but the log listens.
    pub(super) wanted: bool,
    /// Whether the broker did not answer when it was asked last.
    pub(super) unanswered: AtomicBool,
}

/// The state that is left behind, once everything is settled. A broker that does not answer holds up the end by a second
/// at most, and not at all if it did not answer before.
pub(super) async fn sample_last(samplers: &[Arc<Sampler>]) {
    let answering = samplers
        .iter()
        .filter(|sampler| sampler.samples() && !sampler.unanswered.load(Ordering::Relaxed));
    let samples = join_all(answering.map(|sampler| sampler.tick()));
    if timeout(LAST_SAMPLE, samples).await.is_err() {
        tracing::debug!(
            "a broker does not answer: what was sampled last is not what the runner left behind"
        );
    }
}

impl Sampler {
    /// Runs until the drain begins; not at all if the interval is zero, nobody listens, or the broker can't be looked
    /// into.
    pub(super) async fn run(&self, phase: &Phase) {
        while self.samples() {
            let began = Instant::now();
            let Some(answered) = phase.until_drain(self.tick()).await else {
                let waited = Instant::now().saturating_duration_since(began);
                if waited > PROMPT {
                    self.unanswered.store(true, Ordering::Relaxed);
                }
                return;
            };
            self.unanswered.store(!answered, Ordering::Relaxed);
            if phase
                .until_drain(tokio::time::sleep(jittered(self.interval)))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    fn samples(&self) -> bool {
        !self.interval.is_zero() && self.wanted && self.broker.admin().is_some()
    }

    /// Answers whether all could be read. What can't be is left out: that the broker is away is reported by those who
    /// need it.
    async fn tick(&self) -> bool {
        let Some(admin) = self.broker.admin() else {
            return false;
        };
        let mut answered = true;
        for queue in &self.queues {
            let depth = answer(admin.depth(queue), self.patience, "read the depth", queue);
            match depth.await {
                Ok(depth) => self.observers.on_event(&Event::Sampled {
                    queue,
                    depth: &depth,
                }),
                Err(error) => {
                    answered = false;
                    tracing::debug!(%queue, %error, "the depth can't be read");
                }
            }
        }
        match timeout(self.patience, admin.server()).await {
            Ok(Ok(Some(stats))) => self
                .observers
                .on_event(&Event::ServerSampled { stats: &stats }),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                answered = false;
                tracing::debug!(%error, "the server's state can't be read");
            }
            Err(_elapsed) => answered = false,
        }
        answered
    }
}

/// How long the last samples may take, all together.
const LAST_SAMPLE: Duration = Duration::from_secs(1);
/// A broker that has taken longer when the drain begins is taken to be away.
const PROMPT: Duration = Duration::from_millis(100);
