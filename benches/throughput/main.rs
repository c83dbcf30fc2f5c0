//! How fast workers are, end to end, on a redis-server that this program starts itself or on any other:
//!
//! ```text
//! cargo run --release -p benches -- drain --pattern stream --compare raw
//! cargo run --release -p benches -- latency --pattern list --rate 500 --json
//! ```
//!
//! Each measurement is a process of its own, so that its processor time and its memory are those of the worker alone;
//! figures of both contenders of a comparison are taken in turn, on the same messages. What they mean, and those that were
//! measured: `docs/PERFORMANCE.md`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its output is what it is for"
)]

mod by_hand;
mod link;
mod part;
mod payment;
mod progress;
mod pythia;
mod redis;
mod report;
mod run;
mod settings;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use settings::{Settings, What};

/// Why something could not be measured.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures workers.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Messages per second from a full queue, counted when they are settled.
    Drain(Settings),
    /// Messages per second into an empty queue.
    Enqueue(Settings),
    /// From publishing to the start of the job, at a steady rate.
    Latency(Settings),
    /// Processor time and commands of a worker that has nothing to do.
    Idle(Settings),
    /// Is one of the measured processes: reads what to do from its input.
    #[command(hide = true)]
    Part,
}

fn main() -> ExitCode {
    let done = match Args::parse().what {
        Command::Drain(settings) => run::run(What::Drain, settings),
        Command::Enqueue(settings) => run::run(What::Enqueue, settings),
        Command::Latency(settings) => run::run(What::Latency, settings),
        Command::Idle(settings) => run::run(What::Idle, settings),
        Command::Part => part::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
