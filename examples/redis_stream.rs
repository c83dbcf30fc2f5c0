//! A worker on a Redis stream: the fields of a plain `XADD` become a struct, each consumer group gets every entry once, and
//! a group can be moved back to the beginning.
//!
//! ```sh
//! cargo run --example redis_stream                           # starts a redis-server of its own
//! cargo run --example redis_stream redis://127.0.0.1:6379    # uses yours
//! ```
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod redis_url;

use std::error::Error;

use pythia_core::{Config, Job, Route, Runner, WorkError, worker_fn_with};
use tokio::sync::mpsc;

/// What `XADD example:visits * user_id 7 page /home` writes.
#[derive(serde::Deserialize)]
struct Visit {
    user_id: u64,
    page: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt::init();
    let (url, _server) = redis_url::given_or_started().await?;
    redis_url::redis_cli(&url, &["DEL", "example:visits"])?;
    for (user_id, page) in [("7", "/home"), ("8", "/prices"), ("7", "/sign-up")] {
        let fields = ["user_id", user_id, "page", page];
        redis_url::redis_cli(
            &url,
            &[&["XADD", "example:visits", "*"], &fields[..]].concat(),
        )?;
    }

    // Without a limit, what every group has processed is removed, and there is nothing to replay.
    let settings = format!(
        "[broker]\ntype = 'stream'\n[redis]\nurl = '{url}'\n[redis.stream]\nmax_length = 1_000\n"
    );
    count(
        "the group `pages` reads",
        &format!("{settings}group = 'pages'"),
    )
    .await?;
    count(
        "another group has its own place",
        &format!("{settings}group = 'users'"),
    )
    .await?;
    let replay = format!("{settings}group = 'pages'\nreplay_from = '0'");
    count("`pages` again, from the beginning", &replay).await?;
    redis_url::redis_cli(&url, &["DEL", "example:visits"])?;
    Ok(())
}

/// Runs a worker until it has seen all three visits.
async fn count(what: &str, settings: &str) -> Result<(), Box<dyn Error>> {
    println!("{what}:");
    let config = Config::from_toml(settings)?;
    let broker = pythia_redis::from_config(&config)?;
    let (seen, mut visits) = mpsc::unbounded_channel();
    let note = worker_fn_with(
        seen,
        async |seen: &mpsc::UnboundedSender<()>, job: &Job<Visit>| {
            println!("  user {} was on {}", job.input.user_id, job.input.page);
            seen.send(()).map_err(WorkError::permanent)
        },
    );
    // One after the other, so that the order of the stream is kept.
    let route = Route::new("example:visits", note).lanes(1).concurrency(1);
    let runner = Runner::builder()
        .config(&config)
        .route(&broker, route)
        .build()?;
    let all = async {
        for _ in 0..3 {
            visits.recv().await;
        }
    };
    runner.run_until(all).await?;
    Ok(())
}
