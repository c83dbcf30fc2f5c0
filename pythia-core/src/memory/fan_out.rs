//! The fan-out mode: every subscription gets every message that is published while it exists, at most once.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::dedupe::SeenKeys;
use super::{IDLE_WAIT, Incoming};
use crate::broker::{Published, Settled, Settler, Source};
use crate::error::BrokerError;
use crate::message::{Delivery, QueueName, Receipt};
use crate::observe::{Event, GapCause, Observer, Observers};
use crate::settlement::Settlement;

/// One channel and the buffers of its subscriptions.
#[derive(Debug)]
pub(super) struct Channel {
    name: QueueName,
    /// The broker's, who are told of losses.
    observers: Arc<Mutex<Observers>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    buffers: HashMap<u64, Buffer>,
    seen: SeenKeys,
}

/// What one subscription has not received yet.
#[derive(Debug)]
struct Buffer {
    deliveries: VecDeque<Delivery>,
    capacity: NonZeroUsize,
    /// Dropped since the last report, because the buffer was full.
    lost: u64,
    arrived: Arc<Notify>,
}

impl Channel {
    pub(super) fn new(name: &QueueName, observers: &Arc<Mutex<Observers>>) -> Self {
        Self {
            name: name.clone(),
            observers: Arc::clone(observers),
            state: Mutex::default(),
        }
    }

    /// Opens a subscription: it gets what is published from now on.
    pub(super) fn subscribe(self: &Arc<Self>, id: u64, capacity: NonZeroUsize) -> FanOutSource {
        let arrived = Arc::new(Notify::new());
        self.lock().buffers.insert(
            id,
            Buffer {
                deliveries: VecDeque::new(),
                capacity,
                lost: 0,
                arrived: Arc::clone(&arrived),
            },
        );
        FanOutSource {
            channel: Arc::clone(self),
            id,
            arrived,
            received: 0,
        }
    }

    /// Gives a batch to every subscription, in order; a full buffer drops what arrives.
    pub(super) fn publish(
        &self,
        batch: &[Incoming],
        now: Duration,
        window: Duration,
    ) -> Vec<Published> {
        let mut published = Vec::with_capacity(batch.len());
        let mut unheard = 0;
        {
            let State { buffers, seen } = &mut *self.lock();
            for incoming in batch {
                if incoming
                    .dedupe_key
                    .as_ref()
                    .is_some_and(|key| !seen.insert(key, now, window))
                {
                    published.push(Published::Deduplicated);
                    continue;
                }
                for buffer in buffers.values_mut() {
                    buffer.push(&incoming.delivery);
                }
                unheard += u64::from(buffers.is_empty());
                published.push(Published::Published(incoming.delivery.id.clone()));
            }
            for buffer in buffers.values() {
                buffer.arrived.notify_one();
            }
        }
        self.report(GapCause::NoReceiver, unheard);
        published
    }

    fn report(&self, cause: GapCause, lost: u64) {
        if lost > 0 {
            // Cloned, so that an observer that attaches another one does not meet a locked lock.
            let observers = self
                .observers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            observers.on_event(&Event::Gap {
                queue: &self.name,
                cause,
                lost: Some(lost),
                lasted: None,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    fn push(&mut self, delivery: &Delivery) {
        if self.deliveries.len() < self.capacity.get() {
            self.deliveries.push_back(delivery.clone());
        } else {
            self.lost += 1;
        }
    }
}

/// One subscription to a channel; dropping it ends the subscription.
#[derive(Debug)]
pub(super) struct FanOutSource {
    channel: Arc<Channel>,
    id: u64,
    arrived: Arc<Notify>,
    received: u128,
}

impl FanOutSource {
    /// Moves up to `max` deliveries out of the buffer; answers whether there were any.
    fn take(&mut self, max: usize, into: &mut Vec<Delivery>) -> bool {
        let (taken, lost) = {
            let mut state = self.channel.lock();
            let Some(buffer) = state.buffers.get_mut(&self.id) else {
                return false;
            };
            let count = max.min(buffer.deliveries.len());
            for mut delivery in buffer.deliveries.drain(..count) {
                self.received += 1;
                delivery.receipt = Receipt(self.received);
                into.push(delivery);
            }
            (count, std::mem::take(&mut buffer.lost))
        };
        self.channel.report(GapCause::BufferFull, lost);
        taken > 0
    }

    /// Ends the subscription. What it has not received is lost.
    fn end(&mut self) {
        let ended = self.channel.lock().buffers.remove(&self.id);
        if let Some(buffer) = ended {
            let unread = buffer.deliveries.len() as u64;
            self.channel.report(GapCause::BufferFull, buffer.lost);
            self.channel.report(GapCause::Shutdown, unread);
        }
    }
}

#[async_trait]
impl Source for FanOutSource {
    /// Cancel safe: it takes and appends without an `.await` between.
    async fn receive(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        tokio::task::consume_budget().await;
        let deadline = Instant::now() + IDLE_WAIT;
        while !self.take(max, into) {
            // A batch that came between the look and the wait has left its permit.
            if timeout_at(deadline, self.arrived.notified()).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn close(&mut self, rest: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        self.take(usize::MAX, rest);
        self.end();
        Ok(())
    }
}

impl Drop for FanOutSource {
    fn drop(&mut self) {
        self.end();
    }
}

/// Nothing is held, so there is nothing to settle: an ack is what has happened anyway, and all else comes too late.
#[derive(Debug)]
pub(super) struct FanOutSettler;

#[async_trait]
impl Settler for FanOutSettler {
    async fn settle(&self, batch: &[Settlement]) -> Result<Settled, BrokerError> {
        let late = |settlement: &&Settlement| !matches!(settlement, Settlement::Ack(_));
        Ok(Settled::stale(batch.iter().filter(late).count() as u64))
    }

    async fn extend(&self, _in_flight: &[Receipt]) -> Result<Vec<Receipt>, BrokerError> {
        Ok(Vec::new())
    }
}
