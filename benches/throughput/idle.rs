//! Processor time of a worker that has nothing to do.

use std::time::Duration;

use pythia_core::{Route, Runner};
use pythia_redis::testing::RedisServer;

use crate::{Nothing, config, metrics};

pub(crate) async fn run(seconds: u64) -> Result<(), Box<dyn std::error::Error>> {
    println!("a worker with nothing to do for {seconds} s: percent of a core");
    for pattern in ["list", "stream", "pubsub", "memory"] {
        let server = RedisServer::start().await;
        let config = config(&server, pattern, 500)?;
        let broker = pythia_redis::from_config(&config)?;
        let runner = Runner::builder()
            .config(&config)
            .route(&broker, Route::new("payments", Nothing))
            .observer(metrics()?)
            .build()?;
        let health = runner.health();
        let mut percent = 0.0;
        runner
            .run_until(async {
                while health.ready().is_err() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                let before = ticks();
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                percent = (ticks() - before) / seconds as f64;
            })
            .await?;
        println!("{pattern:<10} {percent:>6.2} %");
    }
    Ok(())
}

/// User and system time of this process so far, in hundredths of a second: the clock ticks of Linux.
fn ticks() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name, in brackets, is the only field that may hold spaces.
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum()
}
