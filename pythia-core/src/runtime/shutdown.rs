//! The phases of a runner's end, and the signals that begin them.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Running, then draining, then over: each begins once and stays. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Phase(Arc<Phases>);

#[derive(Debug, Default)]
struct Phases {
    /// What the token says too, but only under a lock: this is looked at for each message.
    is_draining: AtomicBool,
    draining: CancellationToken,
    over: CancellationToken,
    over_since: OnceLock<Instant>,
}

impl Phase {
    /// Fetch no more; finish what runs; hand back what has not been started.
    pub(super) fn begin_drain(&self) {
        self.0.is_draining.store(true, Ordering::Release);
        self.0.draining.cancel();
    }

    /// Nothing is waited for any longer.
    pub(super) fn end_drain(&self) {
        self.begin_drain();
        self.0.over_since.get_or_init(Instant::now);
        self.0.over.cancel();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.0.is_draining.load(Ordering::Acquire)
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.over_since.get().is_some()
    }

    /// Waits for the drain to begin. Cancel safe.
    pub(super) async fn drain_begins(&self) {
        self.0.draining.cancelled().await;
    }

    /// Waits for the drain to be over. Cancel safe.
    pub(super) async fn drain_is_over(&self) {
        self.0.over.cancelled().await;
    }

    /// Waits until the drain has been over for so long: a call to a broker that is still not answered is given up then.
    /// Cancel safe.
    pub(super) async fn over_for(&self, grace: Duration) {
        self.drain_is_over().await;
        if let Some(&over_since) = self.0.over_since.get() {
            tokio::time::sleep_until(over_since + grace).await;
        }
    }

    /// The future's output, or `None` if the drain begins first; the future is dropped then, so it must be one that
    /// can be.
    pub(super) async fn until_drain<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            () = self.drain_begins() => None,
            output = future => Some(output),
        }
    }
}

/// What the future given to [`Runner::run_until`](super::Runner::run_until) may yield: a plain `()`, or what says when
/// to stop waiting for running jobs.
pub trait Hurry: Send {
    /// Resolves when the wait for running jobs is to be cut short; never, for `()`.
    fn hurry(self) -> impl Future<Output = ()> + Send;
}

impl Hurry for () {
    async fn hurry(self) {
        std::future::pending().await
    }
}

/// What [`shutdown_signal`] yields: it waits for a second signal.
#[derive(Debug)]
pub struct SecondSignal(Signals);

impl Hurry for SecondSignal {
    async fn hurry(mut self) {
        self.0.recv().await;
    }
}

/// Waits for the process to be told to end: SIGTERM or SIGINT (Ctrl-C; elsewhere than on Unix, only that). Given to
/// [`Runner::run_until`](super::Runner::run_until), a second signal skips the wait for running jobs.
///
/// Signals are caught from the call on, not only once the future is polled.
///
/// # Panics
/// If the operating system refuses to install a signal handler, or outside of a tokio runtime with I/O enabled.
pub fn shutdown_signal() -> impl Future<Output = SecondSignal> + Send {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => panic!("signal handlers can't be installed: {error}"),
    };
    async move {
        signals.recv().await;
        tracing::info!("shutdown began; a second signal skips the wait for running jobs");
        SecondSignal(signals)
    }
}

#[cfg(unix)]
#[derive(Debug)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
#[derive(Debug)]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn recv(&mut self) {
        let _received = tokio::signal::ctrl_c().await;
    }
}
