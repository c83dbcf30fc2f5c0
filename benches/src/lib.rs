//! What several measurements share: [`Prepared`], a broker that costs next to nothing, so that what is measured is the
//! runtime; and [`Scenario`], the ways of a message that are counted.

mod scenario;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use async_trait::async_trait;
use pythia_core::admin::Admin;
use pythia_core::broker::{
    Broker, Endpoint, Guarantee, Maintained, Published, Settled, Settler, Source, Subscription,
};
use pythia_core::observe::Observer;
use pythia_core::settlement::Settlement;
use pythia_core::store::KvStore;
use pythia_core::{BrokerError, Delivery, Message, MessageId, Payload, QueueName, Receipt};
use tokio::sync::Notify;

pub use scenario::{Failure, Scenario, drain};

/// Hands out a number of deliveries with the same body, as fast as they are asked for, and forgets what is settled.
#[derive(Clone)]
pub struct Prepared(Arc<Shared>);

struct Shared {
    id: MessageId,
    payload: Payload,
    messages: u64,
    handed_out: AtomicU64,
    due: Arc<Notify>,
}

impl Prepared {
    /// So many messages with that body.
    pub fn new(messages: u64, payload: impl Into<Payload>) -> Self {
        Self(Arc::new(Shared {
            id: "prepared".into(),
            payload: payload.into(),
            messages,
            handed_out: AtomicU64::new(0),
            due: Arc::default(),
        }))
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Prepared").field(&self.0.messages).finish()
    }
}

#[async_trait]
impl Broker for Prepared {
    fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::new("prepared")
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn is_fan_out(&self) -> bool {
        false
    }

    fn attach(&self, _: Arc<dyn Observer>) {}

    async fn subscribe(&self, _: &QueueName) -> Result<Subscription, BrokerError> {
        Ok(Subscription {
            source: Box::new(self.clone()),
            settler: Arc::new(self.clone()),
            lease: None,
            cancel_safe: true,
        })
    }

    async fn publish(&self, _: &QueueName, _: Vec<Message>) -> Result<Vec<Published>, BrokerError> {
        Ok(Vec::new())
    }

    async fn maintain(&self, _: &QueueName, _: u32) -> Result<Maintained, BrokerError> {
        Ok(Maintained::default())
    }

    fn due_earlier(&self, _: &QueueName) -> Arc<Notify> {
        Arc::clone(&self.0.due)
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        Ok(())
    }

    fn admin(&self) -> Option<&dyn Admin> {
        None
    }

    fn store(&self) -> Option<Arc<dyn KvStore>> {
        None
    }
}

#[async_trait]
impl Source for Prepared {
    async fn receive(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        // As a broker that waits for its server does: the other stages get their turn.
        tokio::task::yield_now().await;
        let Shared { messages, .. } = *self.0;
        let first = self.0.handed_out.fetch_add(max as u64, Relaxed);
        if first >= messages {
            std::future::pending::<()>().await;
        }
        let last = (first + max as u64).min(messages);
        into.reserve((last - first) as usize);
        into.extend((first..last).map(|number| {
            let receipt = Receipt(number.into());
            Delivery::new(self.0.id.clone(), self.0.payload.clone(), receipt)
        }));
        Ok(())
    }

    async fn close(&mut self, _: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        Ok(())
    }
}

#[async_trait]
impl Settler for Prepared {
    async fn settle(&self, _: &[Settlement]) -> Result<Settled, BrokerError> {
        tokio::task::yield_now().await;
        Ok(Settled::default())
    }

    async fn extend(&self, _: &[Receipt]) -> Result<Vec<Receipt>, BrokerError> {
        Ok(Vec::new())
    }
}
