//! Where a lane's dispositions go.

use std::sync::Arc;

use async_trait::async_trait;

use super::shared::SharedQueue;
use crate::broker::{Settled, Settler};
use crate::error::BrokerError;
use crate::message::Receipt;
use crate::settlement::Settlement;

/// Settles what one source has received.
#[derive(Debug)]
pub(super) struct MemorySettler {
    pub(super) queue: Arc<SharedQueue>,
    /// Whose leases it renews.
    pub(super) holder: u64,
}

#[async_trait]
impl Settler for MemorySettler {
    async fn settle(&self, batch: &[Settlement]) -> Result<Settled, BrokerError> {
        let wall = self.queue.clock.now();
        Ok(Settled::stale(
            self.queue.with(|queue, now| queue.settle(batch, now, wall)),
        ))
    }

    async fn extend(&self, in_flight: &[Receipt]) -> Result<Vec<Receipt>, BrokerError> {
        let lease = self.queue.lease;
        Ok(self
            .queue
            .with(|queue, now| queue.extend(self.holder, in_flight, now, lease)))
    }
}
