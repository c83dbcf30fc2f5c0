//! A thread that looks after the lanes from outside of tokio.
//!
//! A handler that blocks its thread stops more than its lane. One thread at a time waits for timers and sockets on behalf
//! of tokio's whole runtime; when it wakes for one task it runs that task, and others that are idle go on sleeping where
//! no timer wakes them (seen with tokio 1.54: of four threads, three slept through every renewal for as long as the
//! fourth was blocked). So a lane that is in one poll for too long has an idle thread woken, which then waits in its
//! stead. What this can't help: a task that the blocking handler itself has woken last waits in that thread's own slot,
//! from where no other thread takes it; and where every thread is blocked, none is left to wake.
#![expect(
    clippy::disallowed_types,
    reason = "how long a thread has been blocked is real time, which virtual time does not see"
)]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::lane::Lane;
use crate::observe::{Event, Observer};

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    running: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Watch {
    /// Begins to watch.
    pub(super) fn start(lanes: Vec<Arc<Lane>>) -> Self {
        let (stop, stopped) = channel();
        let runtime = Handle::current();
        let thread = std::thread::Builder::new()
            .name("pythia-watch".into())
            .spawn(move || watch(&lanes, &runtime, &stopped));
        match thread {
            Ok(thread) => Self {
                running: Some((stop, thread)),
            },
            Err(error) => {
                tracing::warn!(%error, "no thread could be started to watch for handlers that block");
                Self { running: None }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            let _ended = thread.join();
        }
    }
}

fn watch(lanes: &[Arc<Lane>], runtime: &Handle, stopped: &Receiver<()>) {
    let mut looks: Vec<Look> = lanes.iter().map(|_| Look::new(0)).collect();
    while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
        let mut any = false;
        for (lane, look) in lanes.iter().zip(&mut looks) {
            let Some(blocked) = look.blocked_for(lane.polls()) else {
                continue;
            };
            any = true;
            let patience = lane.lease().map_or(WITHOUT_LEASE, |lease| lease / 2);
            if blocked >= patience * (look.reports + 1) {
                look.reports += 1;
                lane.observers.on_event(&Event::LaneBlocked {
                    queue: &lane.queue,
                    lane: lane.index,
                    blocked,
                });
            }
        }
        if any {
            wake_an_idle_thread(runtime);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a task that ends with its first poll leaves nothing to be awaited"
)]
fn wake_an_idle_thread(runtime: &Handle) {
    drop(runtime.spawn(async {}));
}

/// One lane as it was when last looked at.
struct Look {
    polls: u64,
    since: Instant,
    /// How often the poll that it is in was reported.
    reports: u32,
}

impl Look {
    fn new(polls: u64) -> Self {
        Self {
            polls,
            since: Instant::now(),
            reports: 0,
        }
    }

    /// How long the poll that began and has not ended has been going on, if it did when last looked at. The number of
    /// beginnings and ends so far is odd during a poll.
    fn blocked_for(&mut self, polls: u64) -> Option<Duration> {
        if polls != self.polls {
            *self = Self::new(polls);
            return None;
        }
        (polls % 2 == 1).then(|| Instant::now().saturating_duration_since(self.since))
    }
}

/// Between looks. Short enough for a lease of half a second; twenty looks a second cost less than can be measured.
const PERIOD: Duration = Duration::from_millis(50);
/// How long a handler may block a lane that has no lease before it is reported.
const WITHOUT_LEASE: Duration = Duration::from_secs(5);
