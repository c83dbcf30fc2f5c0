//! docs/failures.md

use std::num::NonZeroU32;
use std::time::Duration;

use pythia_core::Config;
use pythia_core::resilience::{Jitter, RetryConfig};

use crate::page::Page;

#[test]
fn the_schedule_outlives_what_the_page_says() {
    let page = Page::open("failures.md");
    let rows = page.rows("The schedule of retries");
    assert_eq!(rows.len(), 4);
    for row in rows {
        let attempts: u32 = row[0].split([',', ' ']).next().unwrap().parse().unwrap();
        let mut config = RetryConfig::default();
        config.jitter = Jitter::None;
        config.max_attempts = NonZeroU32::new(attempts).unwrap();
        let retry = config.checked().unwrap().unwrap();
        let waited: Duration = (1..attempts).map(|attempt| retry.delay(attempt)).sum();
        assert_eq!(written(waited), row[1]);
    }
}

/// As in settings: `1h 48m 31s`.
fn written(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 3600, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ];
    let parts = parts.iter().filter(|(number, _)| *number > 0);
    let parts: Vec<String> = parts
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    parts.join(" ")
}

#[test]
fn its_settings_are_settings() {
    let page = Page::open("failures.md");
    let blocks = page.blocks("toml");
    assert_eq!(blocks.len(), 2);
    for toml in blocks {
        let config = Config::from_toml(toml).unwrap();
        let route = pythia_core::worker_fn(async |_: &pythia_core::Job<u32>| Ok(()));
        pythia_core::Runner::builder()
            .config(&config)
            .route(
                &pythia_core::MemoryBroker::new(),
                pythia_core::Route::new("orders", route),
            )
            .build()
            .unwrap();
    }
}
