//! The signals that end a process.
#![cfg(unix)]

use std::process::Command;

use pythia_core::shutdown_signal;

#[tokio::test]
async fn a_signal_counts_from_the_call_on() {
    let shutdown = shutdown_signal();
    let pid = std::process::id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(sent.unwrap().success());
    shutdown.await;
}
