//! The Redis server: its name, whether it answers, its state and that of the connections to it.

use pythia_core::admin::ServerStats;

use crate::connection::{Args, Redis};
use crate::error::RedisError;

/// Without credentials, and the same in metrics and probes.
pub(crate) fn name(redis: &Redis) -> String {
    redis.server().name()
}

/// One `PING`, on the connections that neither read nor settle. Of one that is lost it soon says why.
pub(crate) async fn ping(redis: &Redis) -> Result<(), RedisError> {
    redis
        .publisher()
        .command("PING", Args::new())
        .await
        .map(drop)
}

/// One `INFO memory`, and what the connections know by themselves.
pub(crate) async fn stats(redis: &Redis) -> Result<ServerStats, RedisError> {
    let info = redis
        .pool()
        .command("INFO", Args::new().arg("memory"))
        .await?
        .into_text()?;
    let mut stats = redis.stats();
    stats.server = name(redis);
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
