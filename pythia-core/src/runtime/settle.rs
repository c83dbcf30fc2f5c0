//! The third stage of a lane: dispositions to the broker, in batches. While one round trip flies, the next batch gathers:
//! no linger timer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::answer;
use super::hold::{Hold, Session};
use super::lane::Lane;
use super::upkeep::Upkeep;
use crate::error::BrokerError;
use crate::message::Delivery;
use crate::observe::{Event, GapCause, Observer, SettledCounts};
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
    lane: Arc<Lane>,
    open: Vec<Unit>,
    /// Not processed, and not to be handed out again by an at-most-once broker.
    lost: u64,
    sender: mpsc::UnboundedSender<Unit>,
}

impl Outbox {
    pub(super) const fn new(lane: Arc<Lane>, sender: mpsc::UnboundedSender<Unit>) -> Self {
        Self {
            lane,
            open: Vec::new(),
            lost: 0,
            sender,
        }
    }

    /// Hands a delivery back that was not started.
    pub(super) fn push_unstarted(&mut self, hold: Arc<Hold>, index: u32, delivery: Delivery) {
        self.lost += u64::from(self.lane.retries_in_process);
        let unit = self.unit(hold);
        unit.counts.released += 1;
        unit.indexes.push(index);
        unit.settlements
            .push(Settlement::Release(Box::new(delivery)));
    }

    /// Puts the disposition of a delivery that was started.
    pub(super) fn push(
        &mut self,
        hold: Arc<Hold>,
        index: u32,
        delivery: Delivery,
        disposition: Disposition,
    ) {
        let keeps_dead_letters = self.lane.keeps_dead_letters;
        match &disposition {
            Disposition::DeadLetter { reason } => {
                self.lane.observers.on_event(&Event::DeadLettered {
                    queue: &self.lane.queue,
                    id: &delivery.id,
                    attempts: delivery.attempt(),
                    reason,
                    kept: keeps_dead_letters,
                });
            }
            // Only what was aborted gets here on an at-most-once broker: an open breaker is waited for where the job runs.
            Disposition::Release => self.lost += u64::from(self.lane.retries_in_process),
            _ => {}
        }
        let unit = self.unit(hold);
        *match &disposition {
            Disposition::DeadLetter { .. } => &mut unit.counts.dead,
            Disposition::Release => &mut unit.counts.released,
            Disposition::Retry { .. } => &mut unit.counts.retried,
            Disposition::Snooze { .. } => &mut unit.counts.snoozed,
            Disposition::Ack => &mut unit.counts.acked,
        } += 1;
        unit.slots += 1;
        unit.indexes.push(index);
        unit.settlements.push(match disposition {
            Disposition::DeadLetter { .. } if !keeps_dead_letters => {
                Settlement::Ack(delivery.receipt)
            }
            disposition => Settlement::new(delivery, disposition),
        });
    }

    /// Sends what was put, in that order: what is handed back goes before the head of the queue, so the newest batch is to
    /// be put first.
    pub(super) fn flush(&mut self) {
        if self.lost > 0 {
            self.lane.observers.on_event(&Event::Gap {
                queue: &self.lane.queue,
                cause: GapCause::Shutdown,
                lost: Some(std::mem::take(&mut self.lost)),
                lasted: None,
            });
        }
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
    let mut arrived = Vec::new();
    let mut desks: Vec<Desk> = Vec::new();
    let mut calls = FuturesUnordered::new();
    let mut open = true;
    while open || !calls.is_empty() {
        // Cancel safety: `next` and `recv_many` lose nothing when dropped.
        tokio::select! {
            biased;
            Some(session) = calls.next(), if !calls.is_empty() => {
                if let Some(desk) = Desk::of(&mut desks, &session) {
                    desk.is_calling = false;
                }
            }
            received = units.recv_many(&mut arrived, MAX_UNITS), if open => open = received > 0,
        }
        for unit in arrived.drain(..) {
            match Desk::of(&mut desks, &unit.hold.session) {
                Some(desk) => desk.waiting.push(unit),
                None => desks.push(Desk::new(unit)),
            }
        }
        for desk in &mut desks {
            if let Some(batch) = desk.next_batch() {
                calls.push(settle(lane, upkeep, Arc::clone(&desk.session), batch));
            }
        }
        desks.retain(|desk| desk.is_calling);
    }
}

/// Where the dispositions of one session wait while its settler is called. Nearly always there is one session; another
/// only after a subscription was given up, whose settler may hang and must not hold up the new one's.
struct Desk {
    session: Arc<Session>,
    waiting: Vec<Unit>,
    is_calling: bool,
}

impl Desk {
    fn new(unit: Unit) -> Self {
        Self {
            session: Arc::clone(&unit.hold.session),
            waiting: vec![unit],
            is_calling: false,
        }
    }

    fn of<'a>(desks: &'a mut [Self], session: &Arc<Session>) -> Option<&'a mut Self> {
        desks
            .iter_mut()
            .find(|desk| Arc::ptr_eq(&desk.session, session))
    }

    /// What the next call takes, if one is due: all that waits, in bounds.
    fn next_batch(&mut self) -> Option<Vec<Unit>> {
        if self.is_calling || self.waiting.is_empty() {
            return None;
        }
        self.is_calling = true;
        let mut size = 0;
        let within = |unit: &&Unit| {
            size += unit.settlements.len();
            size <= MAX_SETTLEMENTS
        };
        let count = self.waiting.iter().take_while(within).count().max(1);
        let later = self.waiting.split_off(count.min(self.waiting.len()));
        Some(std::mem::replace(&mut self.waiting, later))
    }
}

/// Settles some units of one session, and answers with the session.
async fn settle(
    lane: &Lane,
    upkeep: &Upkeep,
    session: Arc<Session>,
    mut units: Vec<Unit>,
) -> Arc<Session> {
    let began = Instant::now();
    let mut counts = SettledCounts::default();
    let mut batch = Vec::new();
    for unit in &mut units {
        counts += unit.counts;
        match batch.is_empty() {
            true => batch = std::mem::take(&mut unit.settlements),
            false => batch.append(&mut unit.settlements),
        }
        unit.hold.sent(&unit.indexes);
    }
    let settled = deliver(lane, &session, &batch).await;
    for unit in &units {
        unit.hold.settled(&unit.indexes);
    }
    lane.give_slots_back(units.iter().map(|unit| unit.slots).sum());
    match settled {
        Some(stale) => {
            // Not before: by the broker's clock they are due so long after the answer at the latest.
            upkeep.due_in(batch.iter().filter_map(Settlement::delay));
            counts.stale = stale;
            lane.totals.settled(counts);
            lane.observers.on_event(&Event::Settled {
                queue: &lane.queue,
                counts,
                took: Instant::now().saturating_duration_since(began),
            });
        }
        None => tracing::warn!(
            queue = %lane.queue,
            count = batch.len(),
            "the broker took no dispositions until the runner's end: these messages come back after their lease"
        ),
    }
    session
}

/// Repeats the call until the broker has taken the batch; answers how many were stale. `None` if the drain time is over
/// and the broker still fails, or is silent.
async fn deliver(lane: &Lane, session: &Session, batch: &[Settlement]) -> Option<u64> {
    let mut backoff = lane.fault_backoff();
    lane.health.settling();
    loop {
        let settled = session.settler.settle(batch);
        let error = tokio::select! {
            biased;
            settled = answer(settled, lane.stall_after, "settle messages", &lane.queue) => match settled {
                Ok(settled) => {
                    lane.health.settled();
                    return Some(settled.stale);
                }
                Err(error) => error,
            },
            () = lane.phase.over_for(LAST_TRY) => return None,
        };
        let retry_in = backoff.next_delay();
        report(lane, &error, retry_in);
        tokio::select! {
            () = tokio::time::sleep(retry_in) => {}
            // One last try was made.
            () = lane.phase.drain_is_over() => return None,
        }
    }
}

fn report(lane: &Lane, error: &BrokerError, retry_in: Duration) {
    lane.observers.on_event(&Event::SettleFailed {
        queue: &lane.queue,
        error,
        retry_in,
    });
}

/// How many units are taken from the channel at once.
const MAX_UNITS: usize = 256;
/// How many settlements one call takes, unless a single fetched batch has more.
const MAX_SETTLEMENTS: usize = 1_000;
/// How long an answer is waited for after the drain time.
const LAST_TRY: Duration = Duration::from_secs(2);
