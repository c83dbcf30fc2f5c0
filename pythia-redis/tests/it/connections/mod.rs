//! Every way to reach a Redis: the same workers, wherever the URL leads.

mod access;
mod apart;
mod cluster;
mod cluster_conformance;
mod errors;
mod sentinel;
mod settings;
mod tls;
mod unix;

use std::time::Duration;

use tokio::time::timeout;

use crate::bench::Bench;

const PATTERNS: [&str; 3] = ["list", "stream", "pubsub"];

/// A worker of each pattern, all at once, is reached by what its own broker publishes.
async fn all_patterns_work(settings: &str) {
    let all = PATTERNS.map(|pattern| async move {
        let bench = Bench::with(settings, pattern).apart();
        let done = timeout(PATIENCE, bench.run(bench.reaches(0..20))).await;
        assert!(done.is_ok(), "{pattern} does not work with {settings}");
    });
    futures_util::future::join_all(all).await;
}

/// Why a worker with these settings, or whoever publishes, is told that Redis can't be had.
async fn refusal(settings: &str) -> String {
    let bench = Bench::with(settings, "list");
    let message = pythia_core::Message::new("1");
    let published = timeout(PATIENCE, bench.broker.publish(&bench.queue, vec![message])).await;
    let error = published
        .expect("a connection that can't be had is refused at once")
        .expect_err("it can't be published");
    format!("{error}")
}

const PATIENCE: Duration = Duration::from_secs(60);
