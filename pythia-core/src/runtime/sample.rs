//! Reads the depth of queues and the state of servers for metrics, on an interval: never at a scrape, never per message.

use std::sync::Arc;
use std::time::Duration;

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
}

impl Sampler {
    /// Runs until the drain begins; not at all if the interval is zero, nobody listens, or the broker can't be looked
    /// into.
    pub(super) async fn run(&self, phase: &Phase) {
        if self.interval.is_zero() || !self.wanted || self.broker.admin().is_none() {
            return;
        }
        while phase.until_drain(self.tick()).await.is_some() {
            if phase
                .until_drain(tokio::time::sleep(jittered(self.interval)))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    /// What can't be read is left out: that the broker is away is reported by those who need it.
    async fn tick(&self) {
        let Some(admin) = self.broker.admin() else {
            return;
        };
        for queue in &self.queues {
            let depth = answer(admin.depth(queue), self.patience, "read the depth", queue);
            match depth.await {
                Ok(depth) => self.observers.on_event(&Event::Sampled {
                    queue,
                    depth: &depth,
                }),
                Err(error) => tracing::debug!(%queue, %error, "the depth can't be read"),
            }
        }
        let stats = tokio::time::timeout(self.patience, admin.server()).await;
        match stats.unwrap_or(Ok(None)) {
            Ok(Some(stats)) => self
                .observers
                .on_event(&Event::ServerSampled { stats: &stats }),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "the server's state can't be read"),
        }
    }
}
