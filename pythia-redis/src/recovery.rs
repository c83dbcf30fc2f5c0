//! Messages of workers that died or fell silent: back to the queue, or to the dead letters.

use crate::connection::{Args, Redis};
use crate::delay::millis;
use crate::error::RedisError;
use crate::keys::Keys;
use crate::script::Script;

/// What one round handed back.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) count: u64,
    /// How many went to the dead letters instead.
    pub(crate) dead: u64,
    pub(crate) more: bool,
}

/// Hands back what the consumers of a list held that have been silent for a lease.
pub(crate) async fn recover(
    redis: &Redis,
    keys: &Keys,
    max_attempts: u32,
) -> Result<Recovered, RedisError> {
    let config = redis.config();
    let args = Args::new()
        .arg(keys.base().to_owned())
        .arg(millis(config.lease))
        .arg(max_attempts)
        .arg(config.maintain.recover.get());
    let keys = [
        &keys.ready,
        &keys.inbox,
        &keys.consumers,
        &keys.dead,
        &keys.clock,
    ];
    let [count, dead, more] = redis
        .pool()
        .eval(&RECOVER, &keys, args)
        .await?
        .into_tuple()?;
    Ok(Recovered {
        count: count.as_count()?,
        dead: dead.as_count()?,
        more: more.as_integer()? == 1,
    })
}

static RECOVER: Script = Script::new(
    "list/recover",
    concat!(
        include_str!("scripts/list/time.lua"),
        include_str!("scripts/list/frame.lua"),
        include_str!("scripts/list/recover.lua")
    ),
);
