//! A broker that writes down what it hands out and what is settled, and in which the process can be made to die.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use async_trait::async_trait;
use pythia_core::admin::Admin;
use pythia_core::broker::{
    Broker, Endpoint, Guarantee, Maintained, Published, Settled, Settler, Source, Subscription,
};
use pythia_core::observe::Observer;
use pythia_core::settlement::Settlement;
use pythia_core::store::KvStore;
use pythia_core::{BrokerError, Delivery, Message, QueueName, Receipt};
use tokio::sync::Notify;

use crate::death::{Death, Point};
use crate::history::{Answer, Disposition, Journal, Received, Record, now};
use crate::plan::{Group, number_in};

/// A broker and what is written down of it.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    inner: Arc<dyn Broker>,
    group: Group,
    notes: Notes,
}

/// What all sources and settlers of a process share.
#[derive(Clone, Debug)]
pub(crate) struct Notes {
    pub(crate) journal: Arc<Journal>,
    pub(crate) death: Arc<Death>,
    sources: Arc<AtomicU32>,
}

impl Notes {
    pub(crate) fn new(journal: Arc<Journal>, death: Arc<Death>) -> Self {
        Self {
            journal,
            death,
            sources: Arc::default(),
        }
    }
}

impl Recorded {
    pub(crate) fn new(inner: Arc<dyn Broker>, group: Group, notes: &Notes) -> Self {
        Self {
            inner,
            group,
            notes: notes.clone(),
        }
    }
}

#[async_trait]
impl Broker for Recorded {
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
        } = self.inner.subscribe(queue).await?;
        let lane = Lane {
            group: self.group,
            number: self.notes.sources.fetch_add(1, Relaxed),
            notes: self.notes.clone(),
        };
        Ok(Subscription {
            source: Box::new(RecordedSource {
                inner: source,
                lane: lane.clone(),
            }),
            settler: Arc::new(RecordedSettler {
                inner: settler,
                lane,
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
        self.inner.publish(queue, batch).await
    }

    async fn maintain(
        &self,
        queue: &QueueName,
        max_attempts: u32,
    ) -> Result<Maintained, BrokerError> {
        let call = self.inner.maintain(queue, max_attempts);
        // Of what is not in Redis, or not kept there, there is nothing to die in the midst of.
        let maintained = match self.group {
            Group::Memory | Group::News | Group::Fleeting => call.await?,
            _ => self.notes.death.during(Point::DuringMaintain, call).await?,
        };
        if maintained.promoted + maintained.recovered + maintained.dead > 0 {
            self.notes.journal.write(&Record::Maintained {
                at: now(),
                group: self.group,
                promoted: maintained.promoted,
                recovered: maintained.recovered,
                dead: maintained.dead,
            });
        }
        Ok(maintained)
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

/// One lane: in the history, who a message belongs to.
#[derive(Clone, Debug)]
struct Lane {
    group: Group,
    number: u32,
    notes: Notes,
}

#[derive(Debug)]
struct RecordedSource {
    inner: Box<dyn Source>,
    lane: Lane,
}

#[async_trait]
impl Source for RecordedSource {
    async fn receive(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        let before = into.len();
        self.inner.receive(max, into).await?;
        self.lane.received(&into[before..]);
        Ok(())
    }

    async fn close(&mut self, rest: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        let before = rest.len();
        let closed = self.inner.close(rest).await;
        self.lane.received(&rest[before..]);
        closed
    }
}

impl Lane {
    fn received(&self, deliveries: &[Delivery]) {
        if deliveries.is_empty() {
            return;
        }
        let deliveries = deliveries.iter().filter_map(|delivery| {
            Some(Received {
                number: number_in(delivery.payload.as_bytes()?)?,
                receipt: delivery.receipt.0,
                failures: delivery.failures,
                crashes: delivery.crashes,
            })
        });
        self.notes.journal.write(&Record::Received {
            at: now(),
            source: self.number,
            group: self.group,
            deliveries: deliveries.collect(),
        });
        self.notes.death.at(Point::AfterFetch);
    }
}

#[derive(Debug)]
struct RecordedSettler {
    inner: Arc<dyn Settler>,
    lane: Lane,
}

#[async_trait]
impl Settler for RecordedSettler {
    async fn settle(&self, batch: &[Settlement]) -> Result<Settled, BrokerError> {
        let Notes { journal, death, .. } = &self.lane.notes;
        death.at(Point::BeforeSettle);
        let sent = now();
        let unanswered = Unanswered {
            lane: &self.lane,
            batch,
            sent,
            answered: false,
        };
        let settled = death
            .during(Point::DuringSettle, self.inner.settle(batch))
            .await;
        unanswered.answered();
        let answer = match &settled {
            Ok(settled) => Answer::Stale(settled.stale),
            Err(_) => Answer::None,
        };
        journal.write(&record(&self.lane, batch, sent, answer));
        settled
    }

    async fn extend(&self, in_flight: &[Receipt]) -> Result<Vec<Receipt>, BrokerError> {
        let lost = self.inner.extend(in_flight).await?;
        if !lost.is_empty() {
            self.lane.notes.journal.write(&Record::Lost {
                at: now(),
                source: self.lane.number,
                receipts: lost.iter().map(|receipt| receipt.0).collect(),
            });
        }
        Ok(lost)
    }
}

/// A settle that is dropped before its answer may have been carried out too.
struct Unanswered<'a> {
    lane: &'a Lane,
    batch: &'a [Settlement],
    sent: u64,
    answered: bool,
}

impl Unanswered<'_> {
    fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let record = record(self.lane, self.batch, self.sent, Answer::None);
            self.lane.notes.journal.write(&record);
        }
    }
}

fn record(lane: &Lane, batch: &[Settlement], sent: u64, answer: Answer) -> Record {
    let disposition = |settlement: &Settlement| match settlement {
        Settlement::Ack(_) => Disposition::Ack,
        Settlement::DeadLetter { .. } => Disposition::Dead,
        Settlement::Release(_) => Disposition::Release,
        _ => Disposition::Retry,
    };
    Record::Settled {
        sent,
        at: now(),
        source: lane.number,
        answer,
        settled: batch
            .iter()
            .map(|one| (one.receipt().0, disposition(one)))
            .collect(),
    }
}
