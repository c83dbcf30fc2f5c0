//! Where a lane's deliveries come from: a holder of leases that waits without polling.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::{Instant, timeout};

use super::shared::SharedQueue;
use super::{IDLE_WAIT, MOVES_A_ROUND};
use crate::broker::Source;
use crate::error::BrokerError;
use crate::message::Delivery;

/// One subscription to a queue.
#[derive(Debug)]
pub(super) struct MemorySource {
    pub(super) queue: Arc<SharedQueue>,
    /// Whose leases its claims are.
    pub(super) holder: u64,
}

#[async_trait]
impl Source for MemorySource {
    /// Cancel safe: it claims and appends without an `.await` between.
    async fn receive(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        // A queue that is never empty would otherwise never yield its lane's thread to others.
        tokio::task::consume_budget().await;
        let deadline = Instant::now() + IDLE_WAIT;
        loop {
            // Made before the look, so that what arrives between the look and the wait wakes it.
            let arrived = self.queue.arrived.notified();
            let (now, patience) = (
                self.queue.clock.elapsed(),
                deadline.saturating_duration_since(Instant::now()),
            );
            let wait = {
                let mut queue = self.queue.lock();
                queue.promote(now, MOVES_A_ROUND);
                if queue.claim(self.holder, max, now, self.queue.lease, into) > 0 {
                    let pass_on = queue.has_work_for_waiting();
                    drop(queue);
                    if pass_on {
                        self.queue.arrived.notify_one();
                    }
                    return Ok(());
                }
                if patience.is_zero() {
                    return Ok(());
                }
                queue.waiting += 1;
                queue
                    .next_due()
                    .map_or(patience, |due| patience.min(due.saturating_sub(now)))
            };
            let _waiting = Waiting(&self.queue);
            // Woken or not, the queue is looked at again.
            let _woken = timeout(wait, arrived).await;
        }
    }

    /// There is nothing to hand back, because what was claimed was appended; nor to deregister, because a source without
    /// unsettled messages is known nowhere.
    async fn close(&mut self, _: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        Ok(())
    }
}

/// A source that counts as waiting until this is dropped, even if its `receive` is dropped half-way.
struct Waiting<'a>(&'a SharedQueue);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}
