//! What a lane has fetched and not settled: so that leases can be renewed, jobs of lost leases cancelled, and the end of
//! a batch noticed.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedRwLockReadGuard};

use crate::broker::Settler;
use crate::job::{CancelReason, Cancellation, Tickets};
use crate::message::{Delivery, QueueName, Receipt};

/// One subscription of a lane and all that was fetched through it. A lane has one at a time, and more only while jobs of
/// a subscription that was given up are still running.
pub(crate) struct Session {
    queue: QueueName,
    pub(crate) settler: Arc<dyn Settler>,
    pub(crate) lease: Option<Duration>,
    holds: Mutex<Vec<Arc<Hold>>>,
    given_up: AtomicBool,
}

impl Session {
    pub(crate) fn new(
        queue: QueueName,
        settler: Arc<dyn Settler>,
        lease: Option<Duration>,
    ) -> Arc<Self> {
        Arc::new(Self {
            queue,
            settler,
            lease,
            holds: Mutex::new(Vec::new()),
            given_up: AtomicBool::new(false),
        })
    }

    /// Takes a fetched batch into the books. `presence` is given back when all of it is settled.
    pub(crate) fn hold(
        self: &Arc<Self>,
        deliveries: &[Delivery],
        presence: Option<OwnedRwLockReadGuard<()>>,
    ) -> Arc<Hold> {
        let hold = Arc::new(Hold {
            tickets: Arc::new(Tickets::new(
                self.queue.clone(),
                deliveries.iter().map(|delivery| delivery.receipt),
            )),
            session: Arc::clone(self),
            unsettled: AtomicUsize::new(deliveries.len()),
            settled: Notify::new(),
            presence: Mutex::new(presence),
        });
        lock(&self.holds).push(Arc::clone(&hold));
        hold
    }

    /// The receipts of all that is held, for a renewal.
    pub(crate) fn receipts(&self) -> Vec<Receipt> {
        let holds = lock(&self.holds);
        let held = holds.iter().flat_map(|hold| hold.tickets.iter());
        held.filter(|ticket| !ticket.is_settled())
            .map(|ticket| ticket.receipt)
            .collect()
    }

    /// Cancels the jobs whose leases went to others. Answers how many of them were still running.
    pub(crate) fn lose(&self, lost: &[Receipt]) -> u64 {
        let lost: std::collections::HashSet<Receipt> = lost.iter().copied().collect();
        let holds = lock(&self.holds);
        let held = holds.iter().flat_map(|hold| hold.tickets.iter());
        // What was settled while the renewal flew is not lost: the broker just knows it no longer.
        let lost = held.filter(|ticket| ticket.is_in_hand() && lost.contains(&ticket.receipt));
        lost.filter(|ticket| ticket.cancel(CancelReason::LeaseLost))
            .count() as u64
    }

    /// Tells all jobs that they are not waited for any longer.
    pub(crate) fn cancel(&self) {
        for ticket in lock(&self.holds)
            .iter()
            .flat_map(|hold| hold.tickets.iter())
        {
            ticket.cancel(CancelReason::Shutdown);
        }
    }

    /// Its source is gone.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    /// Whether its leases are to be renewed. Once its source is gone, only for as long as something is held through it:
    /// what the source has claimed and not passed on comes back when this sign of life ends, and only then.
    pub(crate) fn is_alive(&self) -> bool {
        !self.given_up.load(Ordering::Acquire) || !lock(&self.holds).is_empty()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("settler", &self.settler)
            .finish_non_exhaustive()
    }
}

/// One fetched batch, until all of it is settled.
pub(crate) struct Hold {
    tickets: Arc<Tickets>,
    pub(crate) session: Arc<Session>,
    unsettled: AtomicUsize,
    settled: Notify,
    presence: Mutex<Option<OwnedRwLockReadGuard<()>>>,
}

impl Hold {
    /// The way to the job of the delivery at that index.
    pub(crate) fn cancellation(&self, index: u32) -> Cancellation {
        Cancellation::new(&self.tickets, index as usize)
    }

    /// Notes that dispositions of these deliveries go out to the broker.
    pub(crate) fn sent(&self, indexes: &[u32]) {
        for &index in indexes {
            self.tickets[index as usize].sent();
        }
    }

    /// Notes that these deliveries are settled, or are left to their leases.
    pub(crate) fn settled(self: &Arc<Self>, indexes: &[u32]) {
        for &index in indexes {
            self.tickets[index as usize].settled();
        }
        let count = indexes.len();
        if self.unsettled.fetch_sub(count, Ordering::AcqRel) == count {
            lock(&self.session.holds).retain(|hold| !Arc::ptr_eq(hold, self));
            *lock(&self.presence) = None;
            self.settled.notify_one();
        }
    }

    /// How many of it are not settled yet.
    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::Relaxed)
    }

    /// Waits until all of it is settled. For one waiter; cancel safe.
    pub(crate) async fn all_settled(&self) {
        if self.unsettled.load(Ordering::Acquire) > 0 {
            self.settled.notified().await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
