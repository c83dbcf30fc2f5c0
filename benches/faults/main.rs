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
mod trace;
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
    /// Only the cell of this name, or else all cells with this text in their name.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// When faults happen and what is published comes from this number. Counts differ from run to run all the same, because
    /// machines do; the verdict must not.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Names the cells, what each allows and how soon all has to be as before, and does nothing.
    #[arg(long)]
    list: bool,
    /// Keeps the histories, logs and settings of each run, and says where.
    #[arg(long)]
    keep: bool,
    /// Writes the table into this Markdown file, between its markers.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["quick", "only"])]
    table: Option<PathBuf>,
    /// Tells what became of a message, from the folder of a run that was kept; does nothing else.
    #[arg(long, num_args = 2, value_names = ["FOLDER", "NUMBER"])]
    trace: Option<Vec<String>>,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.role {
        Some(Role::Worker(settings)) => worker::run(&settings).await.map(|()| true),
        None => match args.run.trace.as_deref() {
            Some([folder, number]) => traced(folder, number).map(|()| true),
            _ => run::run(&args.run).await.map_err(Into::into),
        },
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

fn traced(folder: &str, number: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let number = number
        .parse()
        .map_err(|_| format!("{number:?} is not the number of a message"))?;
    Ok(trace::print(folder.as_ref(), number)?)
}
