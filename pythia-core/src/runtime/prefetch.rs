//! The way of a batch from the fetch stage to the process stage. It has two spots: one for the batch that is worked on, one
//! for the batch that is read meanwhile or waits for its turn.
//!
//! A spot is taken before a batch is asked for, goes with the batch, and comes back when the process stage has started all
//! of it and wants the next one. So there is a free one while the process stage waits, and the fetch stage asks for more in
//! the same breath as it passes a large batch on: no other task runs in between. Where several lanes share a thread, that
//! keeps their reads apart. Lanes that pass on first and ask later are overtaken by the answer of another lane, ask
//! together with it, and are answered together ever after, while nobody works.
//!
//! While a job that was started before keeps the thread, and none is left to start, both spots may hold a batch that waits.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::hold::Hold;
use crate::message::Delivery;

/// The two ends of the way.
pub(super) fn prefetch() -> (Feed, Batches) {
    let spots = Arc::new(Semaphore::new(SPOTS));
    let (sender, ready) = mpsc::unbounded_channel();
    let feed = Feed {
        spots: Arc::clone(&spots),
        sender,
    };
    let batches = Batches {
        spots,
        ready,
        next: None,
    };
    (feed, batches)
}

/// The fetch stage's end of the way.
pub(super) struct Feed {
    spots: Arc<Semaphore>,
    /// Unbounded in form, and bounded by the spots.
    sender: mpsc::UnboundedSender<Ready>,
}

impl Feed {
    /// Waits for a spot to put the next batch in. `None` if the process stage is gone. Cancel safe.
    pub(super) async fn spot(&self) -> Option<Spot<'_>> {
        let permit = Arc::clone(&self.spots).acquire_owned().await.ok()?;
        Some(Spot { feed: self, permit })
    }

    /// Waits until the process stage is gone. Cancel safe.
    pub(super) async fn closed(&self) {
        self.sender.closed().await;
    }
}

/// Room for one batch. It is free again when it is dropped.
pub(super) struct Spot<'a> {
    feed: &'a Feed,
    permit: OwnedSemaphorePermit,
}

impl Spot<'_> {
    /// Passes on a few jobs, which are not to wait for the next read to begin: if the process stage waits for them, no spot
    /// is free until it has taken them over.
    pub(super) fn send(self, deliveries: Vec<Delivery>, hold: Arc<Hold>) {
        let other = Arc::clone(&self.feed.spots).try_acquire_owned().ok();
        self.pass_on(deliveries, hold, Size::Small { _other: other });
    }

    /// Passes on a batch that keeps the thread for longer than it takes to ask for more. If the process stage waits for it,
    /// a spot is free at once; if not, as soon as it wants this batch, and more is asked for before it begins with it.
    pub(super) fn send_and_go_on(self, deliveries: Vec<Delivery>, hold: Arc<Hold>) {
        self.pass_on(deliveries, hold, Size::Large);
    }

    fn pass_on(self, deliveries: Vec<Delivery>, hold: Arc<Hold>, size: Size) {
        let backlog = Backlog {
            hold: Some(hold),
            deliveries: deliveries.into(),
            next: 0,
            spot: Some(self.permit),
        };
        // If nobody is there to take it, nobody will settle it either: its lease ends.
        let _sent = self.feed.sender.send(Ready { backlog, size });
    }
}

/// A batch that the process stage has not taken over.
struct Ready {
    backlog: Backlog,
    size: Size,
}

enum Size {
    /// With the other spot, if it was free: so it is again when the batch is taken over.
    Small {
        _other: Option<OwnedSemaphorePermit>,
    },
    Large,
}

/// The process stage's end of the way.
pub(super) struct Batches {
    spots: Arc<Semaphore>,
    ready: mpsc::UnboundedReceiver<Ready>,
    /// The next batch, for which others were given a turn.
    next: Option<Ready>,
}

impl Batches {
    /// Waits for the batch after this one, of which all is started. `None` if the fetch stage has ended. Cancel safe; the
    /// spot of the last one is given back in any case.
    pub(super) async fn after(&mut self, last: &mut Backlog) -> Option<Backlog> {
        last.spot = None;
        if self.next.is_none() {
            let next = self.next.insert(self.ready.recv().await?);
            // What asks for more is to get as far as the wire before the batch keeps the thread: the fetch stage, if this
            // batch has waited for its turn, and the task that writes to the broker's connection.
            if matches!(next.size, Size::Large) {
                tokio::task::yield_now().await;
            }
        }
        self.try_next()
    }

    /// The next batch, if it is there.
    pub(super) fn try_next(&mut self) -> Option<Backlog> {
        let next = self.next.take().or_else(|| self.ready.try_recv().ok());
        Some(next?.backlog)
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.spots.close();
    }
}

/// What was fetched and not started.
#[derive(Default)]
pub(super) struct Backlog {
    hold: Option<Arc<Hold>>,
    deliveries: VecDeque<Delivery>,
    next: u32,
    spot: Option<OwnedSemaphorePermit>,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    pub(super) fn next(&mut self) -> Option<(&Arc<Hold>, u32, Delivery)> {
        let delivery = self.deliveries.pop_front()?;
        let index = self.next;
        self.next += 1;
        Some((self.hold.as_ref()?, index, delivery))
    }
}

/// One batch is worked on, one is fetched ahead.
const SPOTS: usize = 2;

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use futures_util::FutureExt;

    use super::*;
    use crate::broker::Broker;
    use crate::memory::MemoryBroker;
    use crate::message::{QueueName, Receipt};
    use crate::runtime::hold::Session;

    /// Some deliveries, booked.
    async fn batch() -> (Vec<Delivery>, Arc<Hold>) {
        let queue = QueueName::new("orders").unwrap();
        let subscription = MemoryBroker::new().subscribe(&queue).await.unwrap();
        let deliveries = vec![Delivery::new("1", "a body", Receipt(1))];
        let session = Session::new(queue, subscription.settler, None);
        let hold = session.hold(&deliveries, None);
        (deliveries, hold)
    }

    fn is_free(feed: &Feed) -> bool {
        feed.spot().now_or_never().is_some()
    }

    #[tokio::test]
    async fn no_spot_is_free_until_a_few_jobs_are_taken_over_and_one_is_beside_a_large_batch() {
        let (feed, mut batches) = prefetch();
        let mut last = Backlog::default();

        let (deliveries, hold) = batch().await;
        feed.spot().await.unwrap().send(deliveries, hold);
        assert!(!is_free(&feed));
        last = batches.after(&mut last).await.unwrap();
        assert!(is_free(&feed));

        let (deliveries, hold) = batch().await;
        feed.spot().await.unwrap().send(deliveries, hold);
        drop(last);
        assert!(
            is_free(&feed),
            "there was none to hold when it was passed on"
        );
        last = batches.try_next().unwrap();

        let (deliveries, hold) = batch().await;
        feed.spot().await.unwrap().send_and_go_on(deliveries, hold);
        assert!(!is_free(&feed), "one is worked on, one waits");
        last = batches.after(&mut last).await.unwrap();
        assert!(is_free(&feed));
        drop(last);
    }

    #[tokio::test]
    async fn a_batch_is_not_lost_with_the_wait_for_it() {
        let (feed, mut batches) = prefetch();
        let (deliveries, hold) = batch().await;
        feed.spot().await.unwrap().send_and_go_on(deliveries, hold);
        let mut last = Backlog::default();
        // It is there, and others are given a turn.
        assert!(batches.after(&mut last).now_or_never().is_none());
        assert!(batches.after(&mut last).now_or_never().is_some());

        let (deliveries, hold) = batch().await;
        feed.spot().await.unwrap().send_and_go_on(deliveries, hold);
        assert!(batches.after(&mut last).now_or_never().is_none());
        assert!(batches.try_next().is_some_and(|next| !next.is_empty()));
        assert!(batches.try_next().is_none());
    }

    /// What it would have read is left to others, at once.
    #[tokio::test]
    async fn the_fetch_stage_learns_that_nobody_takes_its_batches() {
        let (feed, batches) = prefetch();
        let (first, _second) = (feed.spot().await, feed.spot().await);
        let mut third = Box::pin(feed.spot());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(third.as_mut().poll(&mut cx).is_pending());
        drop(batches);
        assert!(matches!(third.as_mut().poll(&mut cx), Poll::Ready(None)));
        feed.closed().await;
        let (deliveries, hold) = batch().await;
        first.unwrap().send(deliveries, hold);
    }
}
