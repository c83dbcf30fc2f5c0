//! What a worker is given: a decoded message, and a way to learn that its result is no longer wanted.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use crate::error::WorkError;
use crate::message::{Delivery, Headers, MessageId, Payload, QueueName, Receipt};
use crate::resilience::discard;

/// A message that was decoded, for one attempt.
pub struct Job<T> {
    /// What the codec made of the payload.
    pub input: T,
    pub(crate) delivery: Delivery,
    cancellation: Cancellation,
}

impl<T> Job<T> {
    pub(crate) const fn new(input: T, delivery: Delivery, cancellation: Cancellation) -> Self {
        Self {
            input,
            delivery,
            cancellation,
        }
    }

    /// The message, when the work on it has ended.
    pub(crate) fn into_delivery(self) -> Delivery {
        discard(self.input);
        self.delivery
    }

    /// A first attempt at this input on a queue named `test`, for calling a worker directly in a unit test.
    pub fn for_test(input: T) -> Self {
        let delivery = Delivery::new("test", Payload::from(""), Receipt(0));
        let queue =
            QueueName::new("test").unwrap_or_else(|_| unreachable!("a constant, well-formed name"));
        let tickets = Tickets::new(queue, std::iter::once(delivery.receipt));
        Self::new(input, delivery, Cancellation::new(&Arc::new(tickets), 0))
    }

    /// The message's id: the same at every attempt.
    pub const fn id(&self) -> &MessageId {
        &self.delivery.id
    }

    /// The queue that it came from.
    pub fn queue(&self) -> &QueueName {
        &self.cancellation.tickets.queue
    }

    /// Which attempt this is, from 1. Attempts that ended in a crash count.
    pub const fn attempt(&self) -> u32 {
        self.delivery.attempt()
    }

    /// The headers that it was published with.
    pub const fn headers(&self) -> &Headers {
        &self.delivery.headers
    }

    /// The payload before decoding.
    pub const fn payload(&self) -> &Payload {
        &self.delivery.payload
    }

    /// When it was published, where that is known.
    pub const fn enqueued_at(&self) -> Option<SystemTime> {
        self.delivery.enqueued_at
    }

    /// Tells whether, and when, the result is no longer wanted.
    pub const fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }

    /// Runs blocking or long computing work on tokio's blocking threads, so that the lane's other messages go on.
    ///
    /// A time limit abandons the work but can't stop its thread: let the closure look at a
    /// [`cancellation`](Self::cancellation) that it took along.
    ///
    /// # Errors
    /// The closure's own; a panic in it is retryable, like every panic.
    pub async fn blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<R, WorkError> + Send + 'static,
    ) -> Result<R, WorkError>
    where
        T: Sync,
    {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => Err(WorkError::retryable(error)),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("queue", self.queue())
            .field("id", &self.delivery.id)
            .field("attempt", &self.attempt())
            .field("input", &self.input)
            .finish_non_exhaustive()
    }
}

/// Why a job's result is no longer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelReason {
    /// The message's lease was lost: another worker owns it by now.
    LeaseLost,
    /// The soft time limit is over.
    SoftLimit,
    /// The runner shuts down and its drain time is over.
    Shutdown,
}

/// Tells a running job that its result is no longer wanted. Cheap to clone; costs nothing until it is asked for.
#[derive(Clone)]
pub struct Cancellation {
    tickets: Arc<Tickets>,
    index: usize,
}

impl Cancellation {
    /// Waits until the job is cancelled; for ever if it never is. Cancel safe.
    pub async fn cancelled(&self) -> CancelReason {
        self.token().cancelled().await;
        self.reason().unwrap_or(CancelReason::Shutdown)
    }

    /// Whether the job is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.reason().is_some()
    }

    /// Why it was cancelled, if it was. The first reason stays.
    pub fn reason(&self) -> Option<CancelReason> {
        self.ticket().reason()
    }

    /// A token for code that knows [`tokio_util`]'s.
    pub fn token(&self) -> CancellationToken {
        let ticket = self.ticket();
        let token = ticket.token.get_or_init(CancellationToken::new);
        // Whoever cancelled before the token was there has not seen it; whoever cancels from now on does.
        if ticket.reason().is_some() {
            token.cancel();
        }
        token.clone()
    }

    pub(crate) fn cancel(&self, reason: CancelReason) {
        self.ticket().cancel(reason);
    }

    pub(crate) fn new(tickets: &Arc<Tickets>, index: usize) -> Self {
        Self {
            tickets: Arc::clone(tickets),
            index,
        }
    }

    fn ticket(&self) -> &Ticket {
        &self.tickets[self.index]
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cancellation({:?})", self.reason())
    }
}

/// The tickets of a batch, which its jobs share: no job has anything of its own to let go of.
pub(crate) struct Tickets {
    queue: QueueName,
    all: Box<[Ticket]>,
}

impl Tickets {
    pub(crate) fn new(queue: QueueName, receipts: impl Iterator<Item = Receipt>) -> Self {
        Self {
            queue,
            all: receipts.map(Ticket::new).collect(),
        }
    }
}

impl Deref for Tickets {
    type Target = [Ticket];

    fn deref(&self) -> &[Ticket] {
        &self.all
    }
}

/// One fetched delivery, as those see it who renew its lease: what it is settled by, whether it is, and the way to its
/// job.
pub(crate) struct Ticket {
    pub(crate) receipt: Receipt,
    state: AtomicU8,
    place: AtomicU8,
    token: OnceLock<CancellationToken>,
}

impl Ticket {
    const fn new(receipt: Receipt) -> Self {
        Self {
            receipt,
            state: AtomicU8::new(HELD),
            place: AtomicU8::new(IN_HAND),
            token: OnceLock::new(),
        }
    }

    /// Whether no disposition of it was ever sent: if its lease is lost, a job is to be cancelled.
    pub(crate) fn is_in_hand(&self) -> bool {
        self.place.load(Ordering::Acquire) == IN_HAND
    }

    /// Whether the broker has its disposition, or will never get it: its lease is renewed no longer.
    pub(crate) fn is_settled(&self) -> bool {
        self.place.load(Ordering::Acquire) == SETTLED
    }

    /// A disposition goes out to the broker. Until its answer is here the lease is renewed, because the answer may be long
    /// in coming; and that the broker knows the message no longer says nothing, because the answer may be lost.
    pub(crate) fn sent(&self) {
        self.place.store(SENT, Ordering::Release);
    }

    pub(crate) fn settled(&self) {
        self.place.store(SETTLED, Ordering::Release);
    }

    /// The first reason stays. Answers whether this was the first.
    pub(crate) fn cancel(&self, reason: CancelReason) -> bool {
        let code = match reason {
            CancelReason::LeaseLost => LEASE_LOST,
            CancelReason::SoftLimit => SOFT_LIMIT,
            CancelReason::Shutdown => SHUTDOWN,
        };
        // SeqCst on both sides orders this store and the look at the token against `token()`'s making it and its look
        // at the state: one of the two sees the other.
        let first = self
            .state
            .compare_exchange(HELD, code, Ordering::SeqCst, Ordering::SeqCst);
        if let Some(token) = self.token.get() {
            token.cancel();
        }
        first.is_ok()
    }

    fn reason(&self) -> Option<CancelReason> {
        match self.state.load(Ordering::SeqCst) {
            LEASE_LOST => Some(CancelReason::LeaseLost),
            SOFT_LIMIT => Some(CancelReason::SoftLimit),
            SHUTDOWN => Some(CancelReason::Shutdown),
            _ => None,
        }
    }
}

const HELD: u8 = 0;
const LEASE_LOST: u8 = 1;
const SOFT_LIMIT: u8 = 2;
const SHUTDOWN: u8 = 3;

const IN_HAND: u8 = 0;
const SENT: u8 = 1;
const SETTLED: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_learns_that_it_is_cancelled_and_why() {
        let job = Job::for_test(());
        assert_eq!(job.cancellation().reason(), None);
        let early = job.cancellation().token();
        job.cancellation().cancel(CancelReason::LeaseLost);
        job.cancellation().cancel(CancelReason::Shutdown);
        assert!(early.is_cancelled());
        assert!(job.cancellation().token().is_cancelled());
        assert_eq!(
            job.cancellation().cancelled().await,
            CancelReason::LeaseLost
        );
    }

    #[tokio::test]
    async fn blocking_work_answers_and_its_error_comes_through() {
        let job = Job::for_test(());
        assert_eq!(job.blocking(|| Ok(7)).await.unwrap(), 7);
        assert!(
            job.blocking(|| Err::<(), _>(WorkError::permanent("no")))
                .await
                .unwrap_err()
                .is_permanent()
        );
    }
}
