//! The Redis server: its name, whether it answers, its state and that of the connections to it.

use pythia_core::admin::ServerStats;

use crate::connection::{Args, Redis, Reply};
use crate::error::RedisError;

/// Without credentials, and the same in metrics and probes.
pub(crate) fn name(redis: &Redis) -> String {
    redis.server().name()
}

/// One `PING`, to every master of a cluster, on the connections that neither read nor settle. Of one that is lost it soon
/// says why.
pub(crate) async fn ping(redis: &Redis) -> Result<(), RedisError> {
    let answered = redis.publisher().on_each_master("PING", Args::new()).await;
    answered.map(drop)
}

/// One `INFO memory`, of every master of a cluster, and what the connections know by themselves.
pub(crate) async fn stats(redis: &Redis) -> Result<ServerStats, RedisError> {
    let memory = Args::new().arg("memory");
    let answers = redis.pool().on_each_master("INFO", memory).await?;
    let mut stats = redis.stats();
    stats.server = name(redis);
    let texts = answers.into_iter().map(Reply::into_text);
    let infos = texts.collect::<Result<Vec<_>, _>>()?;
    stats.memory_used = infos.iter().map(|info| number(info, "used_memory")).sum();
    // Zero stands for no limit, and one master without a limit leaves all of them without.
    let limit = |info| number(info, "maxmemory").filter(|&limit| limit > 0);
    stats.memory_max = infos.iter().map(|info| limit(info)).sum();
    Ok(stats)
}

fn number(info: &str, name: &str) -> Option<u64> {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|value| value.trim().parse().ok())
}
