//! A broker that writes down what goes through it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::journal::Journal;
use crate::admin::Admin;
use crate::broker::{
    Broker, Endpoint, Guarantee, Maintained, Published, Settled, Settler, Source, Subscription,
};
use crate::error::BrokerError;
use crate::message::{Delivery, Message, MessageId, QueueName, Receipt};
use crate::observe::Observer;
use crate::settlement::Settlement;
use crate::store::KvStore;

/// The broker of a test, which notes in the journal what is received and settled.
#[derive(Debug)]
pub(super) struct Witness {
    pub(super) inner: Arc<dyn Broker>,
    pub(super) journal: Arc<Journal>,
    /// Each run attaches its observers anew, and they stay: twice told would be twice counted.
    pub(super) attached: Once,
}

/// What a subscription has received and not settled: which message, and which attempt at it.
type Held = Arc<Mutex<HashMap<Receipt, (MessageId, u32)>>>;

#[async_trait]
#[deny(
    clippy::missing_trait_methods,
    reason = "a decorator that forgets a method changes its meaning"
)]
impl Broker for Witness {
    fn identity(&self) -> usize {
        self.inner.identity()
    }

    fn endpoint(&self) -> Endpoint {
        self.inner.endpoint()
    }

    fn guarantee(&self) -> Guarantee {
        self.inner.guarantee()
    }

    fn is_fan_out(&self) -> bool {
        self.inner.is_fan_out()
    }

    fn attach(&self, observer: Arc<dyn Observer>) {
        self.attached.call_once(|| self.inner.attach(observer));
    }

    async fn subscribe(&self, queue: &QueueName) -> Result<Subscription, BrokerError> {
        let subscription = self.inner.subscribe(queue).await?;
        let held = Held::default();
        self.journal.subscribed();
        Ok(Subscription {
            source: Box::new(WitnessSource {
                inner: subscription.source,
                queue: queue.clone(),
                journal: Arc::clone(&self.journal),
                held: Arc::clone(&held),
            }),
            settler: Arc::new(WitnessSettler {
                inner: subscription.settler,
                journal: Arc::clone(&self.journal),
                held,
            }),
            ..subscription
        })
    }

    async fn publish(
        &self,
        queue: &QueueName,
        batch: Vec<Message>,
    ) -> Result<Vec<Published>, BrokerError> {
        self.inner.publish(queue, batch).await
    }

    async fn maintain(
        &self,
        queue: &QueueName,
        max_attempts: u32,
    ) -> Result<Maintained, BrokerError> {
        self.inner.maintain(queue, max_attempts).await
    }

    fn due_earlier(&self, queue: &QueueName) -> Arc<Notify> {
        self.inner.due_earlier(queue)
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        self.inner.ping().await
    }

    fn admin(&self) -> Option<&dyn Admin> {
        self.inner.admin()
    }

    fn store(&self) -> Option<Arc<dyn KvStore>> {
        self.inner.store()
    }
}

#[derive(Debug)]
struct WitnessSource {
    inner: Box<dyn Source>,
    queue: QueueName,
    journal: Arc<Journal>,
    held: Held,
}

impl WitnessSource {
    fn note(&self, received: &[Delivery]) {
        let mut held = lock(&self.held);
        for delivery in received {
            held.insert(delivery.receipt, (delivery.id.clone(), delivery.attempt()));
        }
        drop(held);
        self.journal.received(&self.queue, received);
    }
}

#[async_trait]
impl Source for WitnessSource {
    /// As cancel safe as what it wraps: it notes without an `.await` between.
    async fn receive(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        let before = into.len();
        self.inner.receive(max, into).await?;
        self.note(&into[before..]);
        Ok(())
    }

    async fn close(&mut self, rest: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        let before = rest.len();
        let closed = self.inner.close(rest).await;
        // What was appended counts, whether or not the close went well.
        self.note(&rest[before..]);
        closed
    }
}

#[derive(Debug)]
struct WitnessSettler {
    inner: Arc<dyn Settler>,
    journal: Arc<Journal>,
    held: Held,
}

#[async_trait]
impl Settler for WitnessSettler {
    async fn settle(&self, batch: &[Settlement]) -> Result<Settled, BrokerError> {
        let settled = self.inner.settle(batch).await?;
        for settlement in batch {
            let held = lock(&self.held).remove(&settlement.receipt());
            if let Some((id, attempt)) = held {
                self.journal.settled(&id, attempt, settlement);
            }
        }
        Ok(settled)
    }

    async fn extend(&self, in_flight: &[Receipt]) -> Result<Vec<Receipt>, BrokerError> {
        self.inner.extend(in_flight).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
