//! Prints every setting of this process's configuration, with its source: `cargo run --bin explain`.

use std::io::Write;

use pythia_core::Config;
use pythia_metrics::MetricsConfig;
use pythia_redis::config::RedisConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load()?;
    let explained = config
        .explain()?
        .section::<RedisConfig>("redis")?
        .section::<MetricsConfig>("metrics")?;
    // Not by `print!`, which panics when a pager is closed.
    std::io::stdout().write_all(explained.to_string().as_bytes())?;
    Ok(())
}
