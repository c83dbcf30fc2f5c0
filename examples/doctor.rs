//! An examination of a Redis: what is wrong with it for queues, what that means, and the command that mends it.
//!
//! ```sh
//! cargo run --example doctor                                          # a server of its own, and mends it
//! cargo run --example doctor -- redis://127.0.0.1:6379 orders mails   # yours, and two queues; it changes nothing
//! PYTHIA_BROKER_TYPE=stream PYTHIA_REDIS__KEY_PREFIX=shop: cargo run --example doctor -- redis://127.0.0.1:6379 orders
//! ```
//!
//! It fails if something is critical, so that a deployment can be stopped by it.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod redis_url;

use std::error::Error;
use std::process::ExitCode;

use pythia_core::{Config, QueueName};
use pythia_redis::doctor::{self, Severity};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let (url, server) = redis_url::given_or_started().await?;
    let names: Vec<String> = std::env::args().skip(2).collect();
    let queues: Vec<QueueName> = names
        .iter()
        .map(|name| QueueName::new(name))
        .collect::<Result<_, _>>()?;
    // A service examines what it works with: `Config::load()`.
    let variables = std::env::vars().filter(|(name, _)| name.starts_with("PYTHIA_"));
    let variables = variables.chain([("REDIS_URL".to_owned(), url.clone())]);
    let config = Config::from_sources(Some("broker.type = \"list\""), variables)?;

    let mut report = doctor::examine(&config, &queues).await?;
    println!("{report}");
    // A tool would print `serde_json::to_string(&report)`.

    // Only what is ours is changed.
    if server.is_some() {
        for command in report
            .findings()
            .iter()
            .filter_map(|finding| finding.command())
        {
            let words: Vec<&str> = command.split(' ').collect();
            redis_url::redis_cli(&url, &words)?;
        }
        report = doctor::examine(&config, &queues).await?;
        println!("{report}");
    }
    Ok(match report.worst() {
        Some(Severity::Critical) => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}
