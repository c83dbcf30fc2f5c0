//! What a subscription brings: messages, and the gaps between them.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use bytestring::ByteString;
use pythia_core::broker::Source;
use pythia_core::envelope::Frame;
use pythia_core::observe::{Event, GapCause};
use pythia_core::{BrokerError, Delivery, MessageId, QueueName, Receipt};

use super::numbers::{NUMBER, Numbers};
use crate::connection::{Notice, Redis, Subscriber};

#[derive(Debug)]
pub(super) struct PubSubSource {
    redis: Redis,
    subscriber: Subscriber,
    queue: QueueName,
    /// The queue's name behind the prefix.
    subscribed: ByteString,
    numbers: Numbers,
    /// How many messages our own buffer has dropped that have not shown as missing numbers yet: they are counted.
    dropped: u64,
    received: u128,
}

impl PubSubSource {
    pub(super) fn new(
        redis: Redis,
        subscriber: Subscriber,
        queue: QueueName,
        subscribed: ByteString,
    ) -> Self {
        let numbers = Numbers::default();
        Self {
            redis,
            subscriber,
            queue,
            subscribed,
            numbers,
            dropped: 0,
            received: 0,
        }
    }

    fn take(&mut self, notice: Notice, into: &mut Vec<Delivery>) {
        match notice {
            Notice::Message { channel, payload } => {
                let delivery = self.delivery(&channel, payload);
                into.push(delivery);
            }
            Notice::Dropped(lost) => {
                self.dropped = self.dropped.saturating_add(lost);
                self.gap(GapCause::BufferFull, Some(lost), None);
            }
            Notice::Resubscribed { away } => self.gap(GapCause::Disconnected, None, Some(away)),
            Notice::Unreadable(why) => {
                tracing::error!(queue = %self.queue, why, "a message can't be read");
                self.gap(GapCause::Unreadable, Some(1), None);
            }
        }
    }

    fn delivery(&mut self, channel: &ByteString, payload: Bytes) -> Delivery {
        let mut frame = Frame::decode(payload);
        if let Some(number) = frame.headers.remove(NUMBER) {
            let missing = self.numbers.missing(channel, &number);
            let counted = missing.min(self.dropped);
            self.dropped -= counted;
            if missing > counted {
                self.gap(GapCause::MissingNumbers, Some(missing - counted), None);
            }
        }
        self.received += 1;
        // A plain client's message has no id of its own, and is seen once: any that is unique here will do.
        let id = frame
            .id
            .unwrap_or_else(|| MessageId::from(format!("{channel}/{}", self.received)));
        let mut delivery = Delivery::new(id, frame.payload, Receipt(self.received));
        delivery.enqueued_at = frame.enqueued_at;
        delivery.headers = frame.headers;
        if *channel != self.subscribed {
            delivery.headers.insert(CHANNEL, channel.clone());
        }
        delivery
    }

    fn gap(&self, cause: GapCause, lost: Option<u64>, lasted: Option<Duration>) {
        self.redis.report(&Event::Gap {
            queue: &self.queue,
            cause,
            lost,
            lasted,
        });
    }
}

#[async_trait]
impl Source for PubSubSource {
    /// Cancel safe: what has arrived is appended without an `.await` between.
    async fn receive(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        let first = self.subscriber.next(IDLE_WAIT).await;
        match first.map_err(|error| error.during("receive messages", &self.queue))? {
            Some(notice) => self.take(notice, into),
            None => return Ok(()),
        }
        while into.len() < max
            && let Some(notice) = self.subscriber.try_next()
        {
            self.take(notice, into);
        }
        Ok(())
    }

    /// Takes in all that was published until now; the subscription itself ends with its connection.
    async fn close(&mut self, rest: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        // First what is here, because a server that is away may not answer in the time there is.
        while let Some(notice) = self.subscriber.try_next() {
            self.take(notice, rest);
        }
        let caught_up = self.subscriber.catch_up().await;
        while let Some(notice) = self.subscriber.try_next() {
            self.take(notice, rest);
        }
        caught_up.map_err(|error| error.during("receive the last messages", &self.queue))
    }
}

impl Drop for PubSubSource {
    /// Without a close, what was taken in and not handed out is lost.
    fn drop(&mut self) {
        let mut rest = Vec::new();
        while let Some(notice) = self.subscriber.try_next() {
            self.take(notice, &mut rest);
        }
        if !rest.is_empty() {
            self.gap(GapCause::Shutdown, Some(rest.len() as u64), None);
        }
    }
}

/// The header that names the channel, where the queue is a pattern.
const CHANNEL: &str = "pythia-channel";
const IDLE_WAIT: Duration = Duration::from_secs(1);
