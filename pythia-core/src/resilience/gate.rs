//! The gate before the fetch, which the circuit breaker opens and shuts: messages wait in the broker, not here.
//!
//! One gate is shared by all lanes of a route. Its breaker is a pure state machine; what is here makes it usable by many
//! at once: counting without a lock while it is closed, waking those who wait, and reporting each change of state once
//! and in order. No task and no timer belongs to it: whoever waits at an open breaker sleeps until it may be tried
//! again, and the first to wake makes it half open.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::breaker::{Admission, Breaker, BreakerPolicy, BreakerState, Position};
use super::window::{Tally, Window};

/// What the fetch stage waits at, and what the guard around the worker asks and tells.
pub(crate) struct Gate {
    policy: BreakerPolicy,
    window: Window,
    /// The breaker's generation while it is closed, otherwise [`NOT_CLOSED`]: what calls look at instead of the mutex.
    closed: AtomicU64,
    breaker: Mutex<Breaker>,
    position: watch::Sender<Position>,
    on_change: Box<dyn Fn(BreakerState) + Send + Sync>,
}

impl Gate {
    /// A gate that is open. `on_change` is called at each change of state, once and in order, inside a short critical
    /// section: it must not block, nor call the gate.
    pub(crate) fn new(
        policy: BreakerPolicy,
        on_change: impl Fn(BreakerState) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let breaker = Breaker::new(policy.clone(), StdRng::from_rng(&mut rand::rng()));
        Arc::new(Self {
            window: Window::new(policy.window, Instant::now()),
            policy,
            closed: AtomicU64::new(breaker.generation()),
            position: watch::Sender::new(breaker.position()),
            breaker: Mutex::new(breaker),
            on_change: Box::new(on_change),
        })
    }

    /// Waits while the gate is shut, then answers how many messages may be fetched: `max` if the breaker is closed, at
    /// most its free probes if it is half open. Cancel safe.
    pub(crate) async fn allowance(self: &Arc<Self>, max: usize) -> Allowance {
        let mut changes = None;
        loop {
            if self.is_open() {
                return Allowance::unlimited(max);
            }
            let reserved = self.change(|breaker| {
                breaker.pass_time(Instant::now());
                (breaker.reserve(max), breaker.generation())
            });
            if let (places @ 1.., generation) = reserved {
                return Allowance {
                    places,
                    of: Some((Arc::clone(self), generation)),
                };
            }
            self.change_or_deadline(&mut changes).await;
        }
    }

    /// Waits until a call has a chance to be let in, without reserving anything. Cancel safe.
    pub(crate) async fn opens(&self) {
        let mut changes = None;
        loop {
            if self.is_open() {
                return;
            }
            self.change(|breaker| breaker.pass_time(Instant::now()));
            if matches!(
                *self.position.borrow(),
                Position::Open | Position::Limited(1..)
            ) {
                return;
            }
            self.change_or_deadline(&mut changes).await;
        }
    }

    /// Waits until the gate is shut: what is fetched and not started is to be handed back then. Cancel safe.
    pub(crate) async fn shuts(&self) {
        let mut changes = self.position.subscribe();
        let shut = changes.wait_for(|position| matches!(position, Position::Shut(_)));
        if shut.await.is_err() {
            unreachable!("the sender is borrowed with self");
        }
    }

    /// What the breaker does. Open also when its time is over, until the next who comes tries it.
    pub(crate) fn state(&self) -> BreakerState {
        self.lock().state()
    }

    /// Whether the breaker is open, so that nothing may be started.
    pub(crate) fn is_shut(&self) -> bool {
        !self.is_open() && matches!(*self.position.borrow(), Position::Shut(_))
    }

    /// Lets a call in, or not: one load of an atomic while the breaker is closed. `now` is read only when it is not.
    pub(crate) fn admit(&self, now: impl FnOnce() -> Instant) -> Option<Permit<'_>> {
        let generation = self.closed.load(Ordering::Acquire);
        let admission = if generation == NOT_CLOSED {
            self.change(|breaker| breaker.admit(now()))?
        } else {
            Admission {
                generation,
                probe: false,
            }
        };
        Some(Permit {
            gate: self,
            admission: Some(admission),
        })
    }

    fn record(&self, now: Instant, admission: Admission, tally: Tally) {
        let generation = admission.generation;
        if admission.probe {
            return self.change(|breaker| breaker.probe_ended(now, generation, tally));
        }
        if tally.calls() == 0 || self.closed.load(Ordering::Acquire) != generation {
            return;
        }
        self.window.add(now, tally);
        if tally.failures > 0 {
            let tally = self.window.tally(now);
            if self.policy.trips(tally) {
                self.change(|breaker| breaker.trip(now, generation, tally));
            }
        }
    }

    /// Does something to the breaker, and publishes what comes of it. The only way to the breaker.
    fn change<R>(&self, change: impl FnOnce(&mut Breaker) -> R) -> R {
        let mut breaker = self.lock();
        let (state, generation) = (breaker.state(), breaker.generation());
        let answer = change(&mut breaker);
        if breaker.generation() != generation {
            let closed = breaker.state() == BreakerState::Closed;
            if closed {
                self.window.clear();
            }
            let generation = if closed {
                breaker.generation()
            } else {
                NOT_CLOSED
            };
            self.closed.store(generation, Ordering::Release);
        }
        let position = breaker.position();
        self.position
            .send_if_modified(|old| std::mem::replace(old, position) != position);
        if breaker.state() != state {
            (self.on_change)(breaker.state());
        }
        answer
    }

    /// Waits until the position may be another than when `changes` was last looked at. The first call only begins to look.
    async fn change_or_deadline(&self, changes: &mut Option<watch::Receiver<Position>>) {
        let Some(changes) = changes else {
            *changes = Some(self.position.subscribe());
            return;
        };
        let position = *changes.borrow();
        let changed = async {
            if changes.changed().await.is_err() {
                unreachable!("the sender is borrowed with self");
            }
        };
        match position {
            Position::Shut(until) => {
                // Cancel safety: neither of the two loses anything when dropped.
                tokio::select! {
                    () = changed => {}
                    () = sleep_until(until) => {}
                }
            }
            Position::Limited(_) | Position::Open => changed.await,
        }
    }

    fn is_open(&self) -> bool {
        self.closed.load(Ordering::Acquire) != NOT_CLOSED
    }

    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("breaker", &self.lock())
            .finish_non_exhaustive()
    }
}

/// Leave to fetch so many messages. While the breaker is half open these are places among its probes: hold it until the
/// messages have been passed on to be started, and drop it then, or when none came. Dropping it gives the places back;
/// each call takes its own when it is started, so nothing has to be counted.
#[derive(Debug)]
#[must_use = "dropped, it gives back what was allowed"]
pub(crate) struct Allowance {
    places: usize,
    of: Option<(Arc<Gate>, u64)>,
}

impl Allowance {
    /// Leave by no breaker.
    pub(crate) const fn unlimited(max: usize) -> Self {
        Self {
            places: max,
            of: None,
        }
    }

    /// How many messages may be fetched; at least one.
    pub(crate) const fn places(&self) -> usize {
        self.places
    }

    /// Gives back all but so many places, when fewer messages came.
    pub(crate) fn keep(&mut self, messages: usize) {
        let surplus = self.places.saturating_sub(messages);
        self.places -= surplus;
        self.give_back(surplus);
    }

    fn give_back(&self, places: usize) {
        if let Some((gate, generation)) = &self.of
            && places > 0
        {
            gate.change(|breaker| breaker.give_back(*generation, places));
        }
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        self.give_back(self.places);
    }
}

/// A call that was let in. Dropped without [`record`](Self::record), as when the call is dropped half-way, it counts
/// neither way and gives its place to another.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    gate: &'a Gate,
    admission: Option<Admission>,
}

impl Permit<'_> {
    /// Says how the call went, and when it ended.
    pub(crate) fn record(mut self, now: Instant, tally: Tally) {
        if let Some(admission) = self.admission.take() {
            self.gate.record(now, admission, tally);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // While closed there is nothing to give back, and the clock need not be read.
        if let Some(admission) = self.admission.take()
            && admission.probe
        {
            self.gate
                .record(Instant::now(), admission, Tally::default());
        }
    }
}

/// No generation: they count from zero.
const NOT_CLOSED: u64 = u64::MAX;

#[cfg(test)]
mod tests;
