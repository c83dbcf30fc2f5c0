//! What the checks work with: a subscription that renews its leases while it waits, as a runner's lane does.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::{PATIENCE, Setup};
use crate::broker::{Guarantee, Settled, Settler, Subscription};
use crate::message::{Delivery, Message, Receipt};
use crate::settlement::{DeadKind, DeadReason, Disposition, Settlement};

/// A lane in the hands of a check. Dropping it is the death of its process: nothing is closed, nothing handed back.
pub(super) struct Lane {
    pub(super) subscription: Subscription,
    /// Received and not settled yet.
    held: Vec<Receipt>,
}

impl Setup {
    pub(super) async fn lane(&self) -> Lane {
        let subscription = self.broker.subscribe(&self.queue).await;
        let mut lane = Lane::new(subscription.expect("the broker can be subscribed to"));
        if lane.subscription.lease.is_some() {
            // A sign of life before there is anything to lose: whatever the settler has to connect first is there then.
            lane.extend().await;
        }
        lane
    }

    /// Whether the broker holds what it has handed out. For the checks of how it does; one that does not is checked to
    /// hold nothing.
    pub(super) async fn holds(&self) -> bool {
        let holds = self.capabilities.guarantee == Guarantee::AtLeastOnce;
        if !holds {
            super::at_most_once_keeps_nothing(self).await;
        }
        holds
    }

    /// Waits until the lane has nothing more to receive but what is published now, and receives that.
    pub(super) async fn nothing_else_for(&self, lane: &mut Lane) {
        self.publish(vec![Message::new(MARKER)]).await;
        let deliveries = lane.receive(1).await;
        assert_eq!(
            text(&deliveries),
            [MARKER],
            "nothing but the marker is there"
        );
        lane.ack(deliveries).await;
        self.drained().await;
    }
}

impl Lane {
    pub(super) const fn new(subscription: Subscription) -> Self {
        Self {
            subscription,
            held: Vec::new(),
        }
    }

    /// Receives exactly so many deliveries, in as many batches as it takes.
    pub(super) async fn receive(&mut self, count: usize) -> Vec<Delivery> {
        let mut received = Vec::with_capacity(count);
        let deadline = Instant::now() + PATIENCE;
        while received.len() < count {
            assert!(
                Instant::now() < deadline,
                "waited {PATIENCE:?} for {count} deliveries, and received {received:?}"
            );
            self.receive_once(count - received.len(), &mut received)
                .await;
        }
        received
    }

    /// One call of the source; answers how many deliveries it appended.
    pub(super) async fn receive_once(&mut self, max: usize, into: &mut Vec<Delivery>) -> usize {
        let before = into.len();
        let Subscription {
            source,
            settler,
            lease,
            ..
        } = &mut self.subscription;
        let renewals = renewals(&**settler, *lease, &self.held);
        tokio::select! {
            biased;
            result = source.receive(max, into) => result.expect("messages can be received"),
            () = renewals => unreachable!("renewals go on for ever"),
        }
        self.held
            .extend(into[before..].iter().map(|delivery| delivery.receipt));
        into.len() - before
    }

    /// Renews the leases of all that is held while something else goes on.
    pub(super) async fn renewing<R>(&mut self, other: impl Future<Output = R> + Send) -> R {
        let lease = self.lease();
        let renewals = async {
            loop {
                let lost = self.extend().await;
                assert_eq!(lost, [], "a lane that renews in time loses nothing");
                sleep(lease / 3).await;
            }
        };
        tokio::select! {
            biased;
            result = other => result,
            () = renewals => unreachable!("renewals go on for ever"),
        }
    }

    /// Renews once; answers what is lost.
    pub(super) async fn extend(&mut self) -> Vec<Receipt> {
        self.subscription
            .settler
            .extend(&self.held)
            .await
            .expect("leases can be renewed")
    }

    pub(super) async fn settle(
        &mut self,
        deliveries: impl IntoIterator<Item = Delivery> + Send,
        disposition: Disposition,
    ) -> Settled {
        let batch: Vec<_> = deliveries
            .into_iter()
            .map(|delivery| Settlement::new(delivery, disposition.clone()))
            .collect();
        self.settle_as(&batch).await
    }

    pub(super) async fn settle_as(&mut self, batch: &[Settlement]) -> Settled {
        let Subscription { settler, lease, .. } = &self.subscription;
        let settled = tokio::select! {
            biased;
            settled = settler.settle(batch) => settled.expect("messages can be settled"),
            () = renewals(&**settler, *lease, &self.held) => unreachable!("renewals go on for ever"),
        };
        self.held
            .retain(|held| batch.iter().all(|settlement| settlement.receipt() != *held));
        settled
    }

    /// Acknowledges what must still be its own.
    pub(super) async fn ack(&mut self, deliveries: impl IntoIterator<Item = Delivery> + Send) {
        let settled = self.settle(deliveries, Disposition::Ack).await;
        assert_eq!(settled.stale, 0, "it was held all the time");
    }

    pub(super) fn lease(&self) -> Duration {
        self.subscription
            .lease
            .expect("an at-least-once broker has leases")
    }

    /// Closes; answers what could not be handed back.
    pub(super) async fn close(mut self) -> Vec<Delivery> {
        let mut rest = Vec::new();
        self.subscription
            .source
            .close(&mut rest)
            .await
            .expect("a source can be closed");
        rest
    }
}

/// Renews what is held, as a runner does beside whatever else goes on. What is lost shows in the check, by whatever it asserts.
async fn renewals(settler: &dyn Settler, lease: Option<Duration>, held: &[Receipt]) {
    let Some(lease) = lease else {
        return std::future::pending().await;
    };
    loop {
        sleep(lease / 3).await;
        settler.extend(held).await.expect("leases can be renewed");
    }
}

/// Messages with these bodies.
pub(super) fn messages<T: Into<Bytes>>(bodies: impl IntoIterator<Item = T>) -> Vec<Message> {
    bodies
        .into_iter()
        .map(|body| Message::new(body.into()))
        .collect()
}

/// So many messages whose bodies are their numbers.
pub(super) fn numbered(count: usize) -> Vec<Message> {
    messages((0..count).map(|n| n.to_string()))
}

/// The bodies of deliveries, as text.
pub(super) fn text(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries
        .iter()
        .map(|delivery| {
            let bytes = delivery.payload.as_bytes().expect("a body of bytes");
            std::str::from_utf8(bytes).expect("a body of text")
        })
        .collect()
}

/// A death by the worker's own word.
pub(super) fn dead_letter(error: &str) -> Disposition {
    Disposition::DeadLetter {
        reason: DeadReason {
            kind: DeadKind::Permanent,
            error: error.into(),
        },
    }
}

const MARKER: &str = "marker";
