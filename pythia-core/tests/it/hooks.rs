//! Hooks of workers that do not end: they keep nobody from ending the runner.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pythia_core::{Job, MemoryBroker, Route, Runner, RunnerConfig, WorkError, Worker};
use tokio::time::{Instant, sleep};

#[derive(Default)]
struct Hooks {
    start_hangs: bool,
    stop_hangs: bool,
    stopped: Arc<AtomicBool>,
}

impl Worker for Hooks {
    type Input = usize;
    type Output = ();

    async fn process(&self, _: &Job<usize>) -> Result<(), WorkError> {
        Ok(())
    }

    async fn start(&self) -> Result<(), WorkError> {
        if self.start_hangs {
            pending().await
        }
        Ok(())
    }

    async fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        if self.stop_hangs {
            pending().await
        }
    }
}

/// Runs workers with these hooks for a minute; answers for how many seconds they ran.
async fn run_for_a_minute(hooks: [Hooks; 2]) -> u64 {
    let broker = MemoryBroker::new();
    let [one, two] = hooks;
    let runner = Runner::builder()
        .route(&broker, Route::new("one", one))
        .route(&broker, Route::new("two", two))
        .build()
        .unwrap();
    let began = Instant::now();
    let run = runner.run_until(sleep(Duration::from_secs(60)));
    let hour = Duration::from_secs(3_600);
    let ended = tokio::time::timeout(hour, run).await;
    ended.expect("it ends").unwrap();
    (Instant::now() - began).as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_start_that_hangs_ends_with_the_shutdown_and_who_had_started_is_stopped() {
    let stopped = Arc::new(AtomicBool::new(false));
    let one = Hooks {
        stopped: Arc::clone(&stopped),
        ..Hooks::default()
    };
    let unstopped = Arc::new(AtomicBool::new(false));
    let two = Hooks {
        start_hangs: true,
        stopped: Arc::clone(&unstopped),
        ..Hooks::default()
    };
    assert_eq!(run_for_a_minute([one, two]).await, 60);
    assert!(stopped.load(Ordering::Relaxed));
    assert!(!unstopped.load(Ordering::Relaxed), "it had not started");
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_hangs_is_left_behind_at_the_end_of_the_drain_time() {
    let one = Hooks {
        stop_hangs: true,
        ..Hooks::default()
    };
    let drain = RunnerConfig::default().drain_timeout.as_secs();
    assert_eq!(run_for_a_minute([one, Hooks::default()]).await, 60 + drain);
}
