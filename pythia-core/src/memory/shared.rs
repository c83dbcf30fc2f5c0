//! A queue under its lock, and who is woken by which change.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::clock::Clock;
use super::queue::Queue;

/// A queue that sources, settlers and the broker share.
#[derive(Debug)]
pub(super) struct SharedQueue {
    queue: Mutex<Queue>,
    /// Wakes one source when messages are ready, and all that wait when one became due earlier.
    pub(super) arrived: Notify,
    pub(super) clock: Clock,
    pub(super) lease: Duration,
}

impl SharedQueue {
    pub(super) fn new(clock: Clock, lease: Duration) -> Self {
        Self {
            queue: Mutex::default(),
            arrived: Notify::new(),
            clock,
            lease,
        }
    }

    /// Reads or changes the queue at this moment, and wakes whom the change concerns.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Queue, Duration) -> R) -> R {
        let mut queue = self.lock();
        let (ready, due) = (queue.ready(), queue.next_due());
        let result = act(&mut queue, self.clock.elapsed());
        let (more_ready, someone_waits) = (queue.ready() > ready, queue.waiting > 0);
        let due_earlier = queue
            .next_due()
            .is_some_and(|new| due.is_none_or(|old| new < old));
        drop(queue);
        if someone_waits && due_earlier {
            // Each sleeps to the time that was the first one when it fell asleep.
            self.arrived.notify_waiters();
        } else if someone_waits && more_ready {
            self.arrived.notify_one();
        }
        result
    }

    /// No section panics half-way through a change, so a poisoned lock is still a sound queue.
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
