//! The whole contract between the runtime and a broker: [`Broker`], [`Source`], [`Settler`].
//!
//! A broker adapter implements these traits (and [`Admin`], [`KvStore`] where it can), and proves it by running the
//! conformance suite of the feature `testing`. Calls are made per batch, never per message, so they are `dyn`.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::admin::Admin;
use crate::error::BrokerError;
use crate::message::{Delivery, Message, MessageId, QueueName, Receipt};
use crate::observe::Observer;
use crate::settlement::Settlement;
use crate::store::KvStore;

/// What a broker promises about a message that it has handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// It stays in the broker until it is settled; whoever holds it and dies, it is handed out again.
    AtLeastOnce,
    /// It left the broker when it was handed out: retries happen in the process, and there are no dead letters.
    AtMostOnce,
}

/// A message broker, or one pattern of a broker that has several.
///
/// Creating one does not connect: [`subscribe`](Self::subscribe) and [`publish`](Self::publish) do, so that a worker
/// can start before its broker.
#[async_trait]
pub trait Broker: Debug + Send + Sync + 'static {
    /// Equal for all handles to one broker, different for different brokers: usually the address of what the handles
    /// share.
    fn identity(&self) -> usize;

    /// What it is and where, for probes and dashboards.
    fn endpoint(&self) -> Endpoint;

    /// What it promises; checked against what the routes ask when the runner is built.
    fn guarantee(&self) -> Guarantee;

    /// Whether every subscription gets every message. A route then has one lane, whatever is configured: a second one
    /// would do all the work again.
    fn is_fan_out(&self) -> bool;

    /// Reports what happens inside the broker (gaps, commands) to this observer too. The runner attaches its own, and they
    /// stay for as long as the broker does: of two runners on one broker each hears of everything, so metrics that both
    /// report to would count it twice. Give them a broker each.
    fn attach(&self, observer: Arc<dyn Observer>);

    /// Opens one lane's subscription to a queue.
    ///
    /// # Errors
    /// If the broker can't be reached or refuses; the runtime tries again, for as long as it takes.
    async fn subscribe(&self, queue: &QueueName) -> Result<Subscription, BrokerError>;

    /// Publishes a batch in one round trip where the broker can, all or nothing where it can. The answers are in the
    /// order of the messages.
    ///
    /// # Errors
    /// [`TooLarge`](crate::BrokerErrorKind::TooLarge) before anything was sent; otherwise the batch may have been
    /// published in part or whole, and may be published again: give messages a
    /// [`dedupe_key`](Message::dedupe_key) where that must not double them.
    async fn publish(
        &self,
        queue: &QueueName,
        batch: Vec<Message>,
    ) -> Result<Vec<Published>, BrokerError>;

    /// One bounded round of upkeep, by the broker's own clock: due messages become ready, messages of dead workers go
    /// back or, at `max_attempts` failures and crashes together, to the dead letters; trimming. Any number of workers
    /// may call it at the same time.
    ///
    /// # Errors
    /// If the broker can't be reached; the next round makes up for it.
    async fn maintain(
        &self,
        queue: &QueueName,
        max_attempts: u32,
    ) -> Result<Maintained, BrokerError>;

    /// Notified when a message has become due earlier than the last [`Maintained::next_due`] said, so that the next
    /// round comes at once. Never notified by a broker that needs no rounds for its delays.
    fn due_earlier(&self, queue: &QueueName) -> Arc<Notify>;

    /// Asks the server for a sign of life, and changes nothing. Succeeds at once where there is no server. Not on the
    /// connections that read and settle, so that it waits behind no message and no message behind it. The caller limits
    /// the time, and may drop the future.
    ///
    /// # Errors
    /// If the broker can't be reached, or refuses.
    async fn ping(&self) -> Result<(), BrokerError>;

    /// Inspection and operation of queues, where the broker has it.
    fn admin(&self) -> Option<&dyn Admin>;

    /// Small values with a time to live, where the broker has them.
    fn store(&self) -> Option<Arc<dyn KvStore>>;
}

/// Which broker it is, in words that may be shown: no credentials.
///
/// ```
/// use pythia_core::broker::Endpoint;
///
/// assert_eq!(Endpoint::new("memory").to_string(), "memory");
/// assert_eq!(Endpoint::new("list").at("redis-1:6379/0").to_string(), "list at redis-1:6379/0");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// The kind of broker: what `broker.type` calls it.
    pub kind: &'static str,
    /// The server, as [`ServerStats::server`](crate::admin::ServerStats::server) names it; `None` where there is none.
    pub server: Option<String>,
}

impl Endpoint {
    /// A broker of that kind, without a server.
    pub const fn new(kind: &'static str) -> Self {
        Self { kind, server: None }
    }

    /// Names its server.
    #[must_use]
    pub fn at(self, server: impl Into<String>) -> Self {
        Self {
            server: Some(server.into()),
            ..self
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            Some(server) => write!(f, "{} at {server}", self.kind),
            None => f.write_str(self.kind),
        }
    }
}

/// One lane's connection to a queue.
#[derive(Debug)]
pub struct Subscription {
    /// Hands out deliveries; owned by the lane's fetch stage.
    pub source: Box<dyn Source>,
    /// Takes dispositions and renews leases; shared by the lane's other stages.
    pub settler: Arc<dyn Settler>,
    /// How long a worker may be silent before its messages go to others. `None`: nothing is held, nothing is renewed.
    pub lease: Option<Duration>,
    /// Whether a [`receive`](Source::receive) that waits may be dropped without losing anything. Where it may not, a
    /// shutdown waits for it: about a second at most.
    pub cancel_safe: bool,
}

/// Where deliveries come from.
#[async_trait]
pub trait Source: Debug + Send + 'static {
    /// Appends up to `max` deliveries. Waits for the first, but not for long, then returns without any: up to about one
    /// second, or ten where it is [cancel safe](Subscription::cancel_safe).
    ///
    /// A delivery that must run alone ([`Delivery::alone`]) is appended alone. The runtime polls this future to its
    /// end, unless it gives the whole source up as stalled, or the runner stops and the source is cancel safe.
    ///
    /// # Errors
    /// Nothing was appended. The next call asks for the same claim again, so that a batch whose reply was lost is not:
    /// it belongs to a live worker, and nobody else would look for it.
    async fn receive(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<(), BrokerError>;

    /// Ends the subscription, and hands back what the source holds and has not appended. The runtime has settled what it
    /// was given before.
    ///
    /// At most once there is nobody to hand it back to: a source that has taken messages in ahead appends them to `rest`,
    /// whatever their number, and the runtime processes them while there is time. It closes such a source before it
    /// settles.
    ///
    /// # Errors
    /// If the broker can't be reached; what was held then comes back after one lease, and what is in `rest` counts.
    async fn close(&mut self, rest: &mut Vec<Delivery>) -> Result<(), BrokerError>;
}

/// Where dispositions go.
#[async_trait]
pub trait Settler: Debug + Send + Sync + 'static {
    /// Carries out a batch of dispositions, each of them atomically. What another worker owns by now is left alone and
    /// counted as stale. A call that is not answered for long is dropped and made again.
    ///
    /// # Errors
    /// The batch may have been carried out in part or whole; the runtime repeats it. What the first try had done must
    /// not be done twice, and may be counted as stale.
    async fn settle(&self, batch: &[Settlement]) -> Result<Settled, BrokerError>;

    /// Renews the leases of all that is held: the runtime calls it every third of a lease, also with nothing in hand,
    /// as a sign of life. Answers which of these are lost to others; their jobs are cancelled.
    ///
    /// # Errors
    /// If the broker can't be reached; the runtime tries again within the lease.
    async fn extend(&self, in_flight: &[Receipt]) -> Result<Vec<Receipt>, BrokerError>;
}

/// What became of a published message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// Its dedupe key was seen lately, so it was not published.
    Deduplicated,
    /// It is in the broker, under this id.
    Published(MessageId),
}

/// What a settled batch came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settled {
    /// How many were no longer ours to settle.
    pub stale: u64,
}

impl Settled {
    /// A batch of which that many were stale.
    pub const fn stale(stale: u64) -> Self {
        Self { stale }
    }
}

/// What one round of upkeep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Maintained {
    /// Delayed messages that became ready.
    pub promoted: u64,
    /// Messages of dead workers that went back.
    pub recovered: u64,
    /// Messages of dead workers that went to the dead letters.
    pub dead: u64,
    /// Entries that were trimmed.
    pub trimmed: u64,
    /// There was more to do than one bounded round does: call again at once.
    pub more: bool,
    /// Nothing will need a round for so long: it may come that much later than the runner's interval says.
    pub quiet_for: Option<Duration>,
    /// How long until the next delayed message is due, if this worker is the one to look after it.
    pub next_due: Option<Duration>,
    /// Entries beyond the configured length that could not be trimmed, and whose fault it is.
    pub over_limit: Option<OverLimit>,
}

/// A stream is longer than configured, because a group has not been given, or has not acknowledged, what is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// How many entries too many.
    pub entries: u64,
    /// The group that holds the floor.
    pub group: String,
}

#[async_trait]
#[deny(
    clippy::missing_trait_methods,
    reason = "a decorator that forgets a method changes its meaning"
)]
impl<B: Broker + ?Sized> Broker for Arc<B> {
    fn identity(&self) -> usize {
        (**self).identity()
    }

    fn endpoint(&self) -> Endpoint {
        (**self).endpoint()
    }

    fn guarantee(&self) -> Guarantee {
        (**self).guarantee()
    }

    fn is_fan_out(&self) -> bool {
        (**self).is_fan_out()
    }

    fn attach(&self, observer: Arc<dyn Observer>) {
        (**self).attach(observer);
    }

    async fn subscribe(&self, queue: &QueueName) -> Result<Subscription, BrokerError> {
        (**self).subscribe(queue).await
    }

    async fn publish(
        &self,
        queue: &QueueName,
        batch: Vec<Message>,
    ) -> Result<Vec<Published>, BrokerError> {
        (**self).publish(queue, batch).await
    }

    async fn maintain(
        &self,
        queue: &QueueName,
        max_attempts: u32,
    ) -> Result<Maintained, BrokerError> {
        (**self).maintain(queue, max_attempts).await
    }

    fn due_earlier(&self, queue: &QueueName) -> Arc<Notify> {
        (**self).due_earlier(queue)
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        (**self).ping().await
    }

    fn admin(&self) -> Option<&dyn Admin> {
        (**self).admin()
    }

    fn store(&self) -> Option<Arc<dyn KvStore>> {
        (**self).store()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_is_object_safe_and_its_futures_are_send() {
        fn send<T: Send>(_: T) {}
        fn check(broker: &dyn Broker, queue: &QueueName) {
            send(broker.subscribe(queue));
            send(broker.publish(queue, Vec::new()));
            send(broker.ping());
        }
        let _: fn(&dyn Broker, &QueueName) = check;
        let _: Option<Box<dyn Source>> = None;
        let _: Option<Arc<dyn Settler>> = None;
        let _: Option<&dyn Admin> = None;
        let _: Option<Arc<dyn KvStore>> = None;
    }
}
