//! The state of the Redis server, and of the connections to it.

use pythia_core::admin::ServerStats;

use crate::connection::{Args, Redis};
use crate::error::RedisError;

/// One `INFO memory`, and what the connections know by themselves.
pub(crate) async fn stats(redis: &Redis) -> Result<ServerStats, RedisError> {
    let info = redis
        .pool()
        .command("INFO", Args::new().arg("memory"))
        .await?
        .into_text()?;
    let mut stats = redis.stats();
    let url = &redis.config().url;
    let database = url.database.unwrap_or(0);
    stats.server = format!("{}:{}/{database}", url.host, url.port);
    let number = |name: &str| {
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().parse::<u64>().ok())
    };
    stats.memory_used = number("used_memory");
    // Zero stands for no limit.
    stats.memory_max = number("maxmemory").filter(|&limit| limit > 0);
    Ok(stats)
}
