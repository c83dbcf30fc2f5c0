//! What a message may cost, in instructions: a guard that no neighbour on the machine can disturb.
//!
//! ```text
//! cargo run --release -p benches --bin budgets              # counts, and compares with benches/budgets.json
//! cargo run --release -p benches --bin budgets -- --record  # counts, and writes that file
//! ```
//!
//! Each scenario drains two numbers of messages under `valgrind --tool=callgrind`; what the larger one takes more, divided
//! by the messages that it has more, is the cost of one. More than a hundredth above the budget fails; so does as much
//! below it, because a budget that is not true guards nothing. Another compiler or C library makes other instructions of
//! the same code: then nothing is compared.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its output is what it is for"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

use benches::{Failure, Scenario};
use clap::Parser;
use serde::{Deserialize, Serialize};

/// Counts the instructions that a message costs.
#[derive(Parser)]
struct Args {
    /// Writes down what is counted as the budgets from now on.
    #[arg(long)]
    record: bool,
    /// Is what is counted: drains so many messages.
    #[arg(long, hide = true, num_args = 2, value_names = ["SCENARIO", "MESSAGES"])]
    drain: Option<Vec<String>>,
}

/// What was recorded, and with which tools.
#[derive(Serialize, Deserialize)]
struct Budgets {
    tools: String,
    instructions_a_message: BTreeMap<String, f64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.drain {
        Some(drain) => play(drain).map(|()| true),
        None if args.record => record().map(|()| true),
        None => check(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn play(drain: &[String]) -> Result<(), Failure> {
    let scenario = Scenario::ALL.into_iter().find(|one| one.name() == drain[0]);
    scenario
        .ok_or("no such scenario")?
        .run(drain[1].parse()?, BATCH)
}

fn record() -> Result<(), Failure> {
    let mut budgets = Budgets {
        tools: tools()?,
        instructions_a_message: BTreeMap::new(),
    };
    for scenario in Scenario::ALL {
        let cost = count(scenario)?;
        println!("{:<10} {cost:>8.1} instructions a message", scenario.name());
        let cost = (cost * 10.0).round() / 10.0;
        budgets
            .instructions_a_message
            .insert(scenario.name().to_owned(), cost);
    }
    let json = serde_json::to_string_pretty(&budgets)?;
    std::fs::write(path(), json + "\n")?;
    Ok(())
}

fn check() -> Result<bool, Failure> {
    let budgets: Budgets = serde_json::from_str(&std::fs::read_to_string(path())?)?;
    let tools = tools()?;
    if tools != budgets.tools {
        println!(
            "the budgets are of {}, and this is {tools}: nothing is compared",
            budgets.tools
        );
        return Ok(true);
    }
    let mut all_fit = true;
    for scenario in Scenario::ALL {
        let name = scenario.name();
        let budget = budgets.instructions_a_message.get(name);
        let budget = *budget.ok_or_else(|| format!("no budget for {name}: run with --record"))?;
        let cost = count(scenario)?;
        let off = cost / budget - 1.0;
        let fits = off.abs() <= TOLERANCE;
        all_fit &= fits;
        println!(
            "{name:<10} {cost:>8.1} instructions a message, budget {budget:>8.1}: {:+.2} %{}",
            off * 100.0,
            if fits {
                ""
            } else {
                ", too far off: mend it, or run with --record and say why"
            }
        );
    }
    Ok(all_fit)
}

/// Instructions for one message.
fn count(scenario: Scenario) -> Result<f64, Failure> {
    let few = least_instructions(scenario, FEW)?;
    let many = least_instructions(scenario, MANY)?;
    Ok(many.saturating_sub(few) as f64 / (MANY - FEW) as f64)
}

/// Of some runs. Valgrind is slow, and a worker lives by the clock: each second has its maintenance, and a batch that a
/// neighbour on the processor holds up is cut. That comes on top; it never makes a run shorter.
fn least_instructions(scenario: Scenario, messages: u64) -> Result<u64, Failure> {
    let mut least = u64::MAX;
    for _ in 0..RUNS {
        least = least.min(instructions(scenario, messages)?);
    }
    Ok(least)
}

fn instructions(scenario: Scenario, messages: u64) -> Result<u64, Failure> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--drain", scenario.name(), &messages.to_string()])
        .output()
        .map_err(|error| format!("valgrind can't be run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    match collected.filter(|_| output.status.success()) {
        Some((_, count)) => Ok(count.trim().parse()?),
        None => Err(format!("valgrind ended with {}:\n{said}", output.status).into()),
    }
}

/// The compiler and the C library.
fn tools() -> Result<String, Failure> {
    let said = |program: &str, argument: &str| -> Result<String, Failure> {
        let output = Command::new(program).arg(argument).output()?;
        let text = String::from_utf8(output.stdout)?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    Ok(format!(
        "{}, {}",
        said("rustc", "--version")?,
        said("ldd", "--version")?
    ))
}

fn path() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/budgets.json"))
}

/// A worker cuts what takes longer than 5 ms. Under valgrind larger batches do, and how often would depend on the machine.
const BATCH: usize = 32;
const FEW: u64 = 20_000;
const MANY: u64 = 60_000;
/// Of each number of messages: the one that takes the fewest instructions counts.
const RUNS: usize = 5;
/// Of the budget.
const TOLERANCE: f64 = 0.01;
