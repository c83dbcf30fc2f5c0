//! Which operation fails, and how.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{BrokerError, BrokerErrorKind};

/// Counts a broker's operations and makes them fail. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    log: Vec<Operation>,
    planned: Option<(usize, FaultWhen)>,
    /// What the next operation of a kind meets.
    next: BTreeMap<Operation, FaultWhen>,
    down: bool,
    /// Operations that fail.
    refused: BTreeSet<Operation>,
    silent: bool,
}

/// An operation of the broker contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Any call of [`Admin`](crate::admin::Admin).
    Admin,
    /// [`Source::close`](crate::broker::Source::close).
    Close,
    /// [`Settler::extend`](crate::broker::Settler::extend).
    Extend,
    /// [`Broker::maintain`](crate::broker::Broker::maintain).
    Maintain,
    /// [`Broker::ping`](crate::broker::Broker::ping).
    Ping,
    /// [`Broker::publish`](crate::broker::Broker::publish).
    Publish,
    /// [`Source::receive`](crate::broker::Source::receive).
    Receive,
    /// [`Settler::settle`](crate::broker::Settler::settle).
    Settle,
    /// Any call of [`KvStore`](crate::store::KvStore).
    Store,
    /// [`Broker::subscribe`](crate::broker::Broker::subscribe).
    Subscribe,
}

/// What a failed operation has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultWhen {
    /// Everything: only the reply was lost.
    After,
    /// Nothing: the request was lost.
    Before,
}

/// What becomes of an operation that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fail,
    LoseReply,
    Succeed,
}

impl Faults {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the n-th operation fail, counted from 1 since the beginning.
    pub fn fail(&self, n: usize, when: FaultWhen) {
        self.lock().planned = Some((n, when));
    }

    /// Lets the next operation of this kind fail, without having done anything.
    pub fn fail_next(&self, operation: Operation) {
        self.lock().next.insert(operation, FaultWhen::Before);
    }

    /// Lets the next operation of this kind do its work, and loses the reply.
    pub fn lose_reply(&self, operation: Operation) {
        self.lock().next.insert(operation, FaultWhen::After);
    }

    /// From now on every operation fails, and those under way lose their replies.
    pub fn take_down(&self) {
        self.lock().down = true;
    }

    /// From now on every operation of this kind fails, without having done anything.
    pub fn refuse(&self, operation: Operation) {
        self.lock().refused.insert(operation);
    }

    /// Ends [`take_down`](Self::take_down) and [`refuse`](Self::refuse).
    pub fn bring_up(&self) {
        let mut state = self.lock();
        state.down = false;
        state.refused.clear();
    }

    /// From now on nothing is answered, as over a connection whose packets vanish: operations that are under way, or begin
    /// before [`speak`](Self::speak), wait for ever.
    pub fn fall_silent(&self) {
        self.lock().silent = true;
    }

    /// Ends [`fall_silent`](Self::fall_silent) for operations that begin from now on.
    pub fn speak(&self) {
        self.lock().silent = false;
    }

    /// The operations so far, those that failed included.
    pub fn operations(&self) -> Vec<Operation> {
        self.lock().log.clone()
    }

    /// Counts an operation and says whether it may run.
    pub(super) fn begin(&self, operation: Operation) -> Verdict {
        let mut state = self.lock();
        state.log.push(operation);
        let n = state.log.len();
        let planned = state
            .planned
            .filter(|(planned, _)| *planned == n)
            .map(|(_, when)| when);
        let next = state.next.remove(&operation);
        match planned.or(next) {
            _ if state.down || state.refused.contains(&operation) => Verdict::Fail,
            Some(FaultWhen::Before) => Verdict::Fail,
            Some(FaultWhen::After) => Verdict::LoseReply,
            None => Verdict::Succeed,
        }
    }

    /// Whether the reply of an operation that began so is lost.
    pub(super) fn loses_reply(&self, verdict: Verdict) -> bool {
        verdict == Verdict::LoseReply || self.lock().down
    }

    /// Waits for ever if nothing is answered now.
    pub(super) async fn answers(&self) {
        if self.lock().silent {
            pending().await
        }
    }

    /// Carries out an operation, as far as it may.
    pub(super) async fn around<T>(
        &self,
        operation: Operation,
        call: impl Future<Output = Result<T, BrokerError>> + Send,
    ) -> Result<T, BrokerError> {
        let verdict = self.begin(operation);
        self.answers().await;
        if verdict == Verdict::Fail {
            return Err(error(operation, "the request was lost"));
        }
        let reply = call.await?;
        self.answers().await;
        if self.loses_reply(verdict) {
            return Err(error(operation, "the reply was lost"));
        }
        Ok(reply)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn error(operation: Operation, cause: &'static str) -> BrokerError {
    BrokerError::new(BrokerErrorKind::Unavailable, operation.attempted()).because(cause)
}

impl Operation {
    pub(super) const fn attempted(self) -> &'static str {
        match self {
            Self::Admin => "inspect the queue",
            Self::Close => "close the source",
            Self::Extend => "renew leases",
            Self::Maintain => "maintain the queue",
            Self::Ping => "ping the server",
            Self::Publish => "publish messages",
            Self::Receive => "receive messages",
            Self::Settle => "settle messages",
            Self::Store => "reach the store",
            Self::Subscribe => "subscribe",
        }
    }
}
