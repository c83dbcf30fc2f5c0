//! Which Redis an example uses, and the plain client that it is written to with.

use std::error::Error;
use std::process::Command;

use pythia_redis::testing::RedisServer;

/// The URL that the first argument or `REDIS_URL` gives; without one a server is started for this run, and ends with it.
pub(crate) async fn given_or_started() -> Result<(String, Option<RedisServer>), Box<dyn Error>> {
    let given = std::env::args().nth(1);
    if let Some(url) = given.or_else(|| std::env::var("REDIS_URL").ok()) {
        return Ok((url, None));
    }
    let server = RedisServer::start_if_installed().await.ok_or(
        "redis-server is not installed: `apt-get install redis-server`, `brew install redis`, \
         or give the URL of one that runs, as an argument or as REDIS_URL",
    )?;
    Ok((server.url(), Some(server)))
}

/// Runs `redis-cli` as a user would, shows that, and answers what it says.
pub(crate) fn redis_cli(url: &str, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let shown: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
    println!("$ redis-cli {}", shown.join(" "));
    let output = Command::new("redis-cli")
        .args(["-u", url])
        .args(arguments)
        .output()
        .map_err(|error| format!("redis-cli can't be run: {error}"))?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ":/._-".contains(c);
    match word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{word}'"),
    }
}
