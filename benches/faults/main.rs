//! The fault matrix: worker processes, real Redis servers and a network between them, to which everything happens that does;
//! what all of them did is written down outside of Redis, and checked for every single message.
//!
//! ```text
//! cargo run --release -p benches --bin faults                    # the whole matrix
//! cargo run --release -p benches --bin faults -- --quick         # the short part of it
//! cargo run --release -p benches --bin faults -- --only zombie --seed 7 --keep
//! ```
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its output is what it is for"
)]

mod cells;
mod checker;
mod clock;
mod death;
mod fleet;
mod history;
mod plan;
mod proxy;
mod publisher;
mod recorded;
mod report;
mod run;
mod scene;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs workers under faults, and checks that nothing is lost.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum Role {
    /// Is one of the worker processes.
    #[command(hide = true)]
    Worker(worker::Settings),
}

#[derive(clap::Args)]
struct Run {
    /// Only the short part, with fewer messages, and three times as long to recover: it runs beside other tests.
    #[arg(long)]
    quick: bool,
    /// Only cells with this text in their name.
    #[arg(long)]
    only: Option<String>,
    /// What is left to chance comes from this number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Names the cells, and does nothing.
    #[arg(long)]
    list: bool,
    /// Keeps the histories, logs and settings of each run, and says where.
    #[arg(long)]
    keep: bool,
    /// Writes the table into this Markdown file, between its markers.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.role {
        Some(Role::Worker(settings)) => worker::run(&settings).await.map(|()| true),
        None => run::run(&args.run).await.map_err(Into::into),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error}");
            ExitCode::FAILURE
        }
    }
}
