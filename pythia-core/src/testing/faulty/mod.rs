//! A broker that fails on demand.

mod drill;
mod faults;
mod ledger;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

pub use self::drill::{FaultRuns, for_every_fault};
pub use self::faults::{FaultWhen, Faults, Operation};
use self::faults::{Verdict, error};
pub use self::ledger::Ledger;
use crate::admin::{Admin, DeadLetter, Delayed, Depth, Page, Purge, ServerStats};
use crate::broker::{
    Broker, Endpoint, Guarantee, Maintained, Published, Settled, Settler, Source, Subscription,
};
use crate::error::{BrokerError, BrokerErrorKind};
use crate::memory::MemoryBroker;
use crate::message::{Delivery, Message, MessageId, QueueName, Receipt};
use crate::observe::Observer;
use crate::settlement::{Disposition, Settlement};
use crate::store::KvStore;

/// A broker whose operations are counted, and fail as its [`Faults`] say: before they have done anything, or after, with
/// only the reply lost; or never end.
///
/// A batch whose reply was lost is received by the next `receive`, as the contract demands of every source.
#[derive(Debug)]
pub struct FaultyBroker<B> {
    inner: B,
    faults: Faults,
}

impl FaultyBroker<MemoryBroker> {
    /// An in-memory broker; nothing fails yet.
    pub fn in_memory() -> Self {
        Self::new(MemoryBroker::new())
    }
}

impl<B: Broker> FaultyBroker<B> {
    /// Wraps a broker; nothing fails yet.
    pub fn new(inner: B) -> Self {
        Self {
            inner,
            faults: Faults::new(),
        }
    }

    /// What fails, and what has happened so far.
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The broker beneath, whose operations neither count nor fail.
    pub const fn inner(&self) -> &B {
        &self.inner
    }

    fn inner_admin(&self) -> Result<&dyn Admin, BrokerError> {
        self.inner.admin().ok_or_else(|| {
            BrokerError::new(BrokerErrorKind::Unsupported, Operation::Admin.attempted())
        })
    }
}

#[async_trait]
#[deny(
    clippy::missing_trait_methods,
    reason = "a decorator that forgets a method changes its meaning"
)]
impl<B: Broker> Broker for FaultyBroker<B> {
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
        self.inner.attach(observer);
    }

    async fn subscribe(&self, queue: &QueueName) -> Result<Subscription, BrokerError> {
        let Subscription {
            source,
            settler,
            lease,
            cancel_safe,
        } = self
            .faults
            .around(Operation::Subscribe, self.inner.subscribe(queue))
            .await?;
        Ok(Subscription {
            source: Box::new(FaultySource {
                inner: source,
                settler: Arc::clone(&settler),
                faults: self.faults.clone(),
                unread: Vec::new(),
            }),
            settler: Arc::new(FaultySettler {
                inner: settler,
                faults: self.faults.clone(),
            }),
            lease,
            cancel_safe,
        })
    }

    async fn publish(
        &self,
        queue: &QueueName,
        batch: Vec<Message>,
    ) -> Result<Vec<Published>, BrokerError> {
        self.faults
            .around(Operation::Publish, self.inner.publish(queue, batch))
            .await
    }

    async fn maintain(
        &self,
        queue: &QueueName,
        max_attempts: u32,
    ) -> Result<Maintained, BrokerError> {
        self.faults
            .around(
                Operation::Maintain,
                self.inner.maintain(queue, max_attempts),
            )
            .await
    }

    fn due_earlier(&self, queue: &QueueName) -> Arc<Notify> {
        self.inner.due_earlier(queue)
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        self.faults.around(Operation::Ping, self.inner.ping()).await
    }

    fn admin(&self) -> Option<&dyn Admin> {
        self.inner.admin().is_some().then_some(self)
    }

    fn store(&self) -> Option<Arc<dyn KvStore>> {
        let inner = self.inner.store()?;
        let faults = self.faults.clone();
        Some(Arc::new(FaultyStore { inner, faults }))
    }
}

#[derive(Debug)]
struct FaultySource {
    inner: Box<dyn Source>,
    /// Hands back, on `close`, what nobody has read.
    settler: Arc<dyn Settler>,
    faults: Faults,
    /// The batch whose reply was lost.
    unread: Vec<Delivery>,
}

#[async_trait]
#[deny(
    clippy::missing_trait_methods,
    reason = "a decorator that forgets a method changes its meaning"
)]
impl Source for FaultySource {
    /// Cancel safe if the source beneath is: what that one appended is kept without an `.await` between.
    async fn receive(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        let verdict = self.faults.begin(Operation::Receive);
        self.faults.answers().await;
        if verdict == Verdict::Fail {
            return Err(error(Operation::Receive, "the request was lost"));
        }
        if self.unread.is_empty() {
            self.inner.receive(max, &mut self.unread).await?;
        }
        self.faults.answers().await;
        if self.faults.loses_reply(verdict) {
            return Err(error(Operation::Receive, "the reply was lost"));
        }
        let count = max.min(self.unread.len());
        into.extend(self.unread.drain(..count));
        Ok(())
    }

    async fn close(&mut self, rest: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        let Self {
            inner,
            settler,
            faults,
            unread,
        } = self;
        let close = async {
            let released: Vec<_> = std::mem::take(unread)
                .into_iter()
                .map(|delivery| Settlement::new(delivery, Disposition::Release))
                .collect();
            settler.settle(&released).await?;
            inner.close(rest).await
        };
        faults.around(Operation::Close, close).await
    }
}

#[derive(Debug)]
struct FaultySettler {
    inner: Arc<dyn Settler>,
    faults: Faults,
}

#[async_trait]
#[deny(
    clippy::missing_trait_methods,
    reason = "a decorator that forgets a method changes its meaning"
)]
impl Settler for FaultySettler {
    async fn settle(&self, batch: &[Settlement]) -> Result<Settled, BrokerError> {
        self.faults
            .around(Operation::Settle, self.inner.settle(batch))
            .await
    }

    async fn extend(&self, in_flight: &[Receipt]) -> Result<Vec<Receipt>, BrokerError> {
        self.faults
            .around(Operation::Extend, self.inner.extend(in_flight))
            .await
    }
}

#[async_trait]
#[deny(
    clippy::missing_trait_methods,
    reason = "a decorator that forgets a method changes its meaning"
)]
impl<B: Broker> Admin for FaultyBroker<B> {
    async fn depth(&self, queue: &QueueName) -> Result<Depth, BrokerError> {
        let call = self.inner_admin()?.depth(queue);
        self.faults.around(Operation::Admin, call).await
    }

    async fn delayed(&self, queue: &QueueName, page: Page) -> Result<Vec<Delayed>, BrokerError> {
        let call = self.inner_admin()?.delayed(queue, page);
        self.faults.around(Operation::Admin, call).await
    }

    async fn dead(&self, queue: &QueueName, page: Page) -> Result<Vec<DeadLetter>, BrokerError> {
        let call = self.inner_admin()?.dead(queue, page);
        self.faults.around(Operation::Admin, call).await
    }

    async fn requeue(
        &self,
        queue: &QueueName,
        ids: Option<&[MessageId]>,
        limit: usize,
    ) -> Result<u64, BrokerError> {
        let call = self.inner_admin()?.requeue(queue, ids, limit);
        self.faults.around(Operation::Admin, call).await
    }

    async fn purge(&self, queue: &QueueName, state: Purge) -> Result<u64, BrokerError> {
        let call = self.inner_admin()?.purge(queue, state);
        self.faults.around(Operation::Admin, call).await
    }

    async fn server(&self) -> Result<Option<ServerStats>, BrokerError> {
        let call = self.inner_admin()?.server();
        self.faults.around(Operation::Admin, call).await
    }
}

#[derive(Debug)]
struct FaultyStore {
    inner: Arc<dyn KvStore>,
    faults: Faults,
}

#[async_trait]
#[deny(
    clippy::missing_trait_methods,
    reason = "a decorator that forgets a method changes its meaning"
)]
impl KvStore for FaultyStore {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, BrokerError> {
        self.faults
            .around(Operation::Store, self.inner.get(key))
            .await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<(), BrokerError> {
        self.faults
            .around(Operation::Store, self.inner.set(key, value, ttl))
            .await
    }

    async fn set_if_absent(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, BrokerError> {
        self.faults
            .around(Operation::Store, self.inner.set_if_absent(key, value, ttl))
            .await
    }

    async fn delete(&self, key: &str) -> Result<bool, BrokerError> {
        self.faults
            .around(Operation::Store, self.inner.delete(key))
            .await
    }
}
