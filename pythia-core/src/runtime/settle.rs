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
use crate::error::{BrokerError, BrokerErrorKind};
use crate::message::Delivery;
use crate::observe::{Event, GapCause, Observer, SettledCounts};
use crate::settlement::{Disposition, Settlement};

/// Dispositions of one fetched batch that finished together travel together: a batch settled whole is the cheapest.
///
/// The three lists are of one length: where each was in the batch, what becomes of it, and as what it is counted.
pub(super) struct Unit {
    hold: Arc<Hold>,
    indexes: Vec<u32>,
    settlements: Vec<Settlement>,
    fates: Vec<Fate>,
}

/// As what a settled delivery is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acked,
    Dead,
    Released,
    Retried,
    Snoozed,
    /// Released, too; but it was not started, so it holds no slot of the lane.
    Unstarted,
    /// Counted as a gap instead: an at-most-once broker takes nothing back.
    Lost {
        was_started: bool,
    },
}

/// What becomes of a delivery: as the broker is told, and as it is counted.
pub(super) struct Verdict {
    settlement: Settlement,
    fate: Fate,
}

impl Verdict {
    /// Says what becomes of a delivery that was started, and reports a dead letter.
    pub(super) fn give(lane: &Lane, delivery: Delivery, disposition: Disposition) -> Self {
        let fate = match &disposition {
            // Nearly all end so, and of these nothing is needed any more but where to settle them.
            Disposition::Ack => {
                return Self {
                    settlement: Settlement::Ack(delivery.receipt),
                    fate: Fate::Acked,
                };
            }
            Disposition::DeadLetter { reason } => {
                lane.observers.on_event(&Event::DeadLettered {
                    queue: &lane.queue,
                    id: &delivery.id,
                    attempts: delivery.attempt(),
                    reason,
                    kept: lane.keeps_dead_letters,
                });
                Fate::Dead
            }
            // Only what was aborted gets here on an at-most-once broker: an open breaker is waited for where the job runs.
            Disposition::Release if lane.retries_in_process => return Self::lost(&delivery, true),
            Disposition::Release => Fate::Released,
            Disposition::Retry { .. } => Fate::Retried,
            Disposition::Snooze { .. } => Fate::Snoozed,
        };
        let settlement = match disposition {
            Disposition::DeadLetter { .. } if !lane.keeps_dead_letters => {
                Settlement::Ack(delivery.receipt)
            }
            disposition => Settlement::new(delivery, disposition),
        };
        Self { settlement, fate }
    }

    /// There is no time for it, and nobody to hand it back to.
    fn lost(delivery: &Delivery, was_started: bool) -> Self {
        Self {
            settlement: Settlement::Ack(delivery.receipt),
            fate: Fate::Lost { was_started },
        }
    }
}

/// Where the process stage puts its dispositions. Unbounded in form; in fact the lane's slots bound it, because a slot
/// taken by a start is given back by the settle.
pub(super) struct Outbox {
    lane: Arc<Lane>,
    open: Vec<Unit>,
    /// How many the last unit had: the next one is made for as many.
    expected: usize,
    /// Not processed, and not to be handed out again by an at-most-once broker.
    lost: u64,
    sender: mpsc::UnboundedSender<Unit>,
}

impl Outbox {
    pub(super) const fn new(lane: Arc<Lane>, sender: mpsc::UnboundedSender<Unit>) -> Self {
        Self {
            lane,
            open: Vec::new(),
            expected: 0,
            lost: 0,
            sender,
        }
    }

    /// Hands a delivery back that was not started.
    pub(super) fn push_unstarted(&mut self, hold: &Arc<Hold>, index: u32, delivery: Delivery) {
        let verdict = match self.lane.retries_in_process {
            true => Verdict::lost(&delivery, false),
            false => Verdict {
                settlement: Settlement::Release(Box::new(delivery)),
                fate: Fate::Unstarted,
            },
        };
        self.push_verdict(hold, index, verdict);
    }

    /// Puts the disposition of a delivery that was started.
    pub(super) fn push(
        &mut self,
        hold: &Arc<Hold>,
        index: u32,
        delivery: Delivery,
        disposition: Disposition,
    ) {
        let verdict = Verdict::give(&self.lane, delivery, disposition);
        self.push_verdict(hold, index, verdict);
    }

    /// Puts what becomes of a delivery.
    pub(super) fn push_verdict(&mut self, hold: &Arc<Hold>, index: u32, verdict: Verdict) {
        let Verdict { settlement, fate } = verdict;
        self.lost += u64::from(matches!(fate, Fate::Lost { .. }));
        self.unit(hold).push(index, settlement, fate);
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
            self.expected = unit.len();
            // The settle stage outlives this one: it ends when this sender is dropped.
            let _sent = self.sender.send(unit);
        }
    }

    fn unit(&mut self, hold: &Arc<Hold>) -> &mut Unit {
        let at = self
            .open
            .iter()
            .rposition(|unit| Arc::ptr_eq(&unit.hold, hold))
            .unwrap_or_else(|| {
                let expected = self.expected.min(hold.unsettled());
                self.open.push(Unit::of(Arc::clone(hold), expected));
                self.open.len() - 1
            });
        &mut self.open[at]
    }
}

impl Unit {
    fn of(hold: Arc<Hold>, expected: usize) -> Self {
        Self {
            hold,
            indexes: Vec::with_capacity(expected),
            settlements: Vec::with_capacity(expected),
            fates: Vec::with_capacity(expected),
        }
    }

    fn push(&mut self, index: u32, settlement: Settlement, fate: Fate) {
        self.indexes.push(index);
        self.settlements.push(settlement);
        self.fates.push(fate);
    }

    const fn len(&self) -> usize {
        self.indexes.len()
    }

    /// How many of them were started, and so hold a slot of the lane.
    fn slots(&self) -> usize {
        let started =
            |fate: &&Fate| !matches!(fate, Fate::Unstarted | Fate::Lost { was_started: false });
        self.fates.iter().filter(started).count()
    }

    fn counts(&self) -> SettledCounts {
        let mut counts = SettledCounts::default();
        for fate in &self.fates {
            *match fate {
                Fate::Acked => &mut counts.acked,
                Fate::Dead => &mut counts.dead,
                Fate::Released | Fate::Unstarted => &mut counts.released,
                Fate::Retried => &mut counts.retried,
                Fate::Snoozed => &mut counts.snoozed,
                Fate::Lost { .. } => continue,
            } += 1;
        }
        counts
    }

    /// The second half of it.
    fn split_off(&mut self, at: usize) -> Self {
        Self {
            hold: Arc::clone(&self.hold),
            indexes: self.indexes.split_off(at),
            settlements: self.settlements.split_off(at),
            fates: self.fates.split_off(at),
        }
    }
}

/// Cuts a batch in two; one settlement stays one, and none is none.
fn parts(mut units: Vec<Unit>) -> impl Iterator<Item = Vec<Unit>> {
    let later = match &mut units[..] {
        [unit] if unit.len() > 1 => vec![unit.split_off(unit.len() / 2)],
        [] | [_] => Vec::new(),
        _ => units.split_off(units.len() / 2),
    };
    [units, later].into_iter().filter(|part| !part.is_empty())
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
            Some(Called { session, is_desks, refused }) = calls.next(), if !calls.is_empty() => {
                if is_desks && let Some(desk) = Desk::of(&mut desks, &session) {
                    desk.is_calling = false;
                }
                // What the broker refuses for one message must not hold up the others: the search for it goes on beside
                // the desk, which takes the next batch.
                for part in parts(refused) {
                    calls.push(call(lane, upkeep, Arc::clone(&session), part, false));
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
                calls.push(call(lane, upkeep, Arc::clone(&desk.session), batch, true));
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
            size += unit.len();
            size <= MAX_SETTLEMENTS
        };
        let count = self.waiting.iter().take_while(within).count().max(1);
        let later = self.waiting.split_off(count.min(self.waiting.len()));
        Some(std::mem::replace(&mut self.waiting, later))
    }
}

/// A call of a settler has ended.
struct Called {
    session: Arc<Session>,
    /// It was the one call that the session's desk makes at a time.
    is_desks: bool,
    /// Settlements, at least one of which the broker refuses.
    refused: Vec<Unit>,
}

async fn call(
    lane: &Lane,
    upkeep: &Upkeep,
    session: Arc<Session>,
    units: Vec<Unit>,
    is_desks: bool,
) -> Called {
    let refused = settle(lane, upkeep, &session, units, is_desks).await;
    Called {
        session,
        is_desks,
        refused,
    }
}

/// Settles some units of one session. Answers with them if the broker refuses one of them, and with none otherwise.
async fn settle(
    lane: &Lane,
    upkeep: &Upkeep,
    session: &Session,
    mut units: Vec<Unit>,
    is_desks: bool,
) -> Vec<Unit> {
    let began = Instant::now();
    let mut counts = SettledCounts::default();
    let mut batch = Vec::new();
    for unit in &mut units {
        counts += unit.counts();
        match batch.is_empty() {
            true => batch = std::mem::take(&mut unit.settlements),
            false => batch.append(&mut unit.settlements),
        }
        unit.hold.sent(&unit.indexes);
    }
    let may_be_refused = is_desks || batch.len() > 1;
    let outcome = deliver(lane, session, &batch, may_be_refused).await;
    if let Outcome::Refused = outcome {
        let mut settlements = batch.into_iter();
        for unit in &mut units {
            unit.settlements = settlements.by_ref().take(unit.len()).collect();
        }
        return units;
    }
    for unit in &units {
        unit.hold.settled(&unit.indexes);
    }
    lane.give_slots_back(units.iter().map(Unit::slots).sum());
    match outcome {
        Outcome::Settled { stale } => {
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
        _ => tracing::warn!(
            queue = %lane.queue,
            count = batch.len(),
            "the broker took no dispositions until the runner's end: these messages come back after their lease"
        ),
    }
    Vec::new()
}

/// What came of a batch.
enum Outcome {
    /// The drain time is over, and the broker still fails, or is silent. Or it refuses this one, and the runner is to end.
    GivenUp,
    /// The broker refuses at least one of them.
    Refused,
    Settled {
        stale: u64,
    },
}

/// Repeats the call until the broker has taken the batch; a refusal is repeated only if nothing else waits behind it.
async fn deliver(
    lane: &Lane,
    session: &Session,
    batch: &[Settlement],
    may_be_refused: bool,
) -> Outcome {
    let mut backoff = lane.fault_backoff();
    lane.health.settling();
    loop {
        let settled = session.settler.settle(batch);
        let error = tokio::select! {
            biased;
            settled = answer(settled, lane.stall_after, "settle messages", &lane.queue) => match settled {
                Ok(settled) => {
                    lane.health.settled();
                    return Outcome::Settled { stale: settled.stale };
                }
                Err(error) => error,
            },
            () = lane.phase.over_for(LAST_TRY) => return Outcome::GivenUp,
        };
        let is_refused = is_refusal(error.kind());
        if is_refused && may_be_refused {
            report(lane, &error, Duration::ZERO);
            return Outcome::Refused;
        }
        let retry_in = backoff.next_delay();
        report(lane, &error, retry_in);
        if is_refused && lane.phase.is_draining() {
            return Outcome::GivenUp;
        }
        tokio::select! {
            () = tokio::time::sleep(retry_in) => {}
            () = lane.phase.drain_begins(), if is_refused => {}
            // One last try was made.
            () = lane.phase.drain_is_over() => return Outcome::GivenUp,
        }
    }
}

/// Whether it may be one message that is refused, and not all of them: its dead letters can't be stored, say, because
/// another type of key has their name.
const fn is_refusal(kind: BrokerErrorKind) -> bool {
    match kind {
        BrokerErrorKind::Other
        | BrokerErrorKind::Permission
        | BrokerErrorKind::Protocol
        | BrokerErrorKind::TooLarge
        | BrokerErrorKind::Unsupported
        | BrokerErrorKind::WrongType => true,
        BrokerErrorKind::Authentication
        | BrokerErrorKind::OutOfMemory
        | BrokerErrorKind::ReadOnly
        | BrokerErrorKind::SubscriptionLost
        | BrokerErrorKind::Unavailable => false,
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
