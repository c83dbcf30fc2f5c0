//! The third stage of a lane: dispositions to the broker, in batches. While one round trip flies, the next batch gathers:
//! no linger timer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::hold::{Hold, Session};
use super::lane::Lane;
use super::upkeep::Upkeep;
use crate::error::BrokerError;
use crate::message::Delivery;
use crate::observe::{Event, Observer, SettledCounts};
use crate::settlement::{Disposition, Settlement};

/// Dispositions of one fetched batch that finished together travel together: a batch settled whole is the cheapest.
pub(super) struct Unit {
    hold: Arc<Hold>,
    indexes: Vec<u32>,
    settlements: Vec<Settlement>,
    counts: SettledCounts,
    /// How many of them were started, and so hold a slot of the lane.
    slots: usize,
}

/// Where the process stage puts its dispositions. Unbounded in form; in fact the lane's slots bound it, because a slot
/// taken by a start is given back by the settle.
pub(super) struct Outbox {
    open: Vec<Unit>,
    sender: mpsc::UnboundedSender<Unit>,
}

impl Outbox {
    pub(super) const fn new(sender: mpsc::UnboundedSender<Unit>) -> Self {
        Self {
            open: Vec::new(),
            sender,
        }
    }

    /// Hands a delivery back that was not started.
    pub(super) fn push_unstarted(&mut self, hold: Arc<Hold>, index: u32, delivery: Delivery) {
        let unit = self.unit(hold);
        unit.counts.released += 1;
        unit.indexes.push(index);
        unit.settlements
            .push(Settlement::Release(Box::new(delivery)));
    }

    /// Puts the disposition of a delivery that was started.
    pub(super) fn push(
        &mut self,
        lane: &Lane,
        hold: Arc<Hold>,
        index: u32,
        delivery: Delivery,
        disposition: Disposition,
    ) {
        let unit = self.unit(hold);
        let settlement = match &disposition {
            Disposition::DeadLetter { reason } => {
                lane.observers.on_event(&Event::DeadLettered {
                    queue: &lane.queue,
                    id: &delivery.id,
                    attempts: delivery.attempt(),
                    reason,
                    kept: lane.keeps_dead_letters,
                });
                unit.counts.dead += 1;
                if lane.keeps_dead_letters {
                    Settlement::new(delivery, disposition)
                } else {
                    Settlement::Ack(delivery.receipt)
                }
            }
            _ => {
                *match &disposition {
                    Disposition::Release => &mut unit.counts.released,
                    Disposition::Retry { .. } => &mut unit.counts.retried,
                    Disposition::Snooze { .. } => &mut unit.counts.snoozed,
                    _ => &mut unit.counts.acked,
                } += 1;
                Settlement::new(delivery, disposition)
            }
        };
        unit.slots += 1;
        unit.indexes.push(index);
        unit.settlements.push(settlement);
    }

    pub(super) fn flush(&mut self) {
        for unit in self.open.drain(..) {
            // The settle stage outlives this one: it ends when this sender is dropped.
            let _sent = self.sender.send(unit);
        }
    }

    fn unit(&mut self, hold: Arc<Hold>) -> &mut Unit {
        let at = self
            .open
            .iter()
            .rposition(|unit| Arc::ptr_eq(&unit.hold, &hold))
            .unwrap_or_else(|| {
                self.open.push(Unit {
                    hold,
                    indexes: Vec::new(),
                    settlements: Vec::new(),
                    counts: SettledCounts::default(),
                    slots: 0,
                });
                self.open.len() - 1
            });
        &mut self.open[at]
    }
}

/// Runs the stage until all senders are gone and everything is settled, or the drain time is over and the broker does
/// not answer.
pub(super) async fn run(lane: &Lane, upkeep: &Upkeep, mut units: mpsc::UnboundedReceiver<Unit>) {
    let mut gathered = Vec::new();
    while units.recv_many(&mut gathered, MAX_UNITS).await > 0 {
        // Nearly always one session, hence one call; a second one only after a stalled subscription was given up.
        while let Some(first) = gathered.first() {
            let session = Arc::clone(&first.hold.session);
            let ours: Vec<Unit> = gathered
                .extract_if(.., |unit| Arc::ptr_eq(&unit.hold.session, &session))
                .collect();
            settle(lane, upkeep, &session, ours).await;
        }
    }
}

async fn settle(lane: &Lane, upkeep: &Upkeep, session: &Session, mut units: Vec<Unit>) {
    let began = Instant::now();
    let mut counts = SettledCounts::default();
    let mut batch = Vec::new();
    for unit in &mut units {
        counts += unit.counts;
        match batch.is_empty() {
            true => batch = std::mem::take(&mut unit.settlements),
            false => batch.append(&mut unit.settlements),
        }
    }
    if let Some(soonest) = batch.iter().filter_map(Settlement::delay).min() {
        upkeep.due_in(soonest);
    }
    let mut backoff = lane.fault_backoff();
    let stale = loop {
        units
            .iter()
            .for_each(|unit| unit.hold.settling(&unit.indexes, true));
        match session.settler.settle(&batch).await {
            Ok(settled) => break Some(settled.stale),
            Err(error) => {
                units
                    .iter()
                    .for_each(|unit| unit.hold.settling(&unit.indexes, false));
                let retry_in = backoff.next_delay();
                report(lane, &error, retry_in);
                tokio::select! {
                    () = tokio::time::sleep(retry_in) => {}
                    // One last try was made; what is not settled comes back after its lease.
                    () = lane.phase.drain_is_over() => break None,
                }
            }
        }
    };
    for unit in &units {
        unit.hold.settled(unit.indexes.len());
    }
    lane.give_slots_back(units.iter().map(|unit| unit.slots).sum());
    if let Some(stale) = stale {
        counts.stale = stale;
        lane.totals.settled(counts);
        lane.observers.on_event(&Event::Settled {
            queue: &lane.queue,
            counts,
            took: Instant::now().saturating_duration_since(began),
        });
    }
}

fn report(lane: &Lane, error: &BrokerError, retry_in: Duration) {
    lane.observers.on_event(&Event::SettleFailed {
        queue: &lane.queue,
        error,
        retry_in,
    });
}

/// How many units one call takes: the lane's slots bound what they hold.
const MAX_UNITS: usize = 64;
