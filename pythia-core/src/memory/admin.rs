//! Inspection and operation of the in-memory broker's queues.

use async_trait::async_trait;

use super::MemoryBroker;
use crate::admin::{Admin, DeadLetter, Delayed, Depth, Page, Purge, ServerStats};
use crate::error::BrokerError;
use crate::message::{MessageId, QueueName};

/// A queue that nobody has used is an empty one.
#[async_trait]
impl Admin for MemoryBroker {
    async fn depth(&self, queue: &QueueName) -> Result<Depth, BrokerError> {
        Ok(self.queue(queue).with(|queue, now| queue.depth(now)))
    }

    async fn delayed(&self, queue: &QueueName, page: Page) -> Result<Vec<Delayed>, BrokerError> {
        let clock = self.clock();
        Ok(self.queue(queue).with(|queue, _| {
            queue
                .delayed(page)
                .map(|(due, delivery)| Delayed {
                    delivery: delivery.clone(),
                    due: clock.wall(due),
                })
                .collect()
        }))
    }

    async fn dead(&self, queue: &QueueName, page: Page) -> Result<Vec<DeadLetter>, BrokerError> {
        Ok(self
            .queue(queue)
            .with(|queue, _| queue.dead(page).cloned().collect()))
    }

    async fn requeue(
        &self,
        queue: &QueueName,
        ids: Option<&[MessageId]>,
        limit: usize,
    ) -> Result<u64, BrokerError> {
        Ok(self
            .queue(queue)
            .with(|queue, now| queue.requeue(ids, limit, now)))
    }

    async fn purge(&self, queue: &QueueName, state: Purge) -> Result<u64, BrokerError> {
        Ok(self.queue(queue).with(|queue, _| queue.purge(state)))
    }

    async fn server(&self) -> Result<Option<ServerStats>, BrokerError> {
        Ok(None)
    }
}
