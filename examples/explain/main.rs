//! Prints every setting of this process's configuration, with its source: `cargo run --bin explain`.
#![expect(clippy::print_stdout, reason = "it prints")]

use pythia_core::Config;
use pythia_metrics::MetricsConfig;
use pythia_redis::config::RedisConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load()?;
    let explained = config
        .explain()?
        .section::<RedisConfig>("redis")?
        .section::<MetricsConfig>("metrics")?;
    print!("{explained}");
    Ok(())
}
