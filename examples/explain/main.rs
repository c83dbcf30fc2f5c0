//! Prints every setting of this process's configuration, with its source: `cargo run --bin explain`.
#![expect(clippy::print_stdout, reason = "it prints")]

use pythia_core::Config;
use pythia_metrics::MetricsConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load()?;
    print!("{}", config.explain()?.section::<MetricsConfig>("metrics")?);
    Ok(())
}
