//! The consumer group: made when it is first needed, made again when it was removed, moved to replay.

use std::sync::atomic::Ordering::Relaxed;

use crate::config::{RedisConfig, StreamStart};
use crate::connection::{Args, Connection, Reader};
use crate::error::RedisError;
use crate::script::Script;

use super::queue::{Lane, Queue};

static ENSURE: Script = Script::new(
    "stream/ensure",
    concat!(
        include_str!("../scripts/stream/time.lua"),
        include_str!("../scripts/stream/id.lua"),
        include_str!("../scripts/stream/ensure.lua"),
    ),
);

static REPLAY: Script = Script::new(
    "stream/replay",
    include_str!("../scripts/stream/replay.lua"),
);

/// Why a group is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Occasion {
    /// It may never have been there: it begins where the settings say.
    First,
    /// It was there: it goes on where it was, or at the beginning of what there is now, and passes nothing over.
    Again,
}

impl Occasion {
    pub(super) fn of(queue: &Queue) -> Self {
        if queue.made.load(Relaxed) {
            Self::Again
        } else {
            Self::First
        }
    }
}

/// Makes the group if it is not there, and registers the lane's consumer. Answers whether it made the group.
pub(super) async fn ensure_by(
    reader: &mut Reader,
    lane: &Lane,
    config: &RedisConfig,
    occasion: Occasion,
) -> Result<bool, RedisError> {
    let queue = &lane.queue;
    let (mode, replay) = match occasion {
        Occasion::First => ("first", config.stream.replay_from.as_ref()),
        Occasion::Again => ("again", None),
    };
    let args = queue
        .args()
        .arg(&lane.consumer)
        .arg(config.lease.as_millis())
        .arg(config.stream.start.redis_id())
        .arg(mode)
        .arg(replay.map_or_else(String::new, StreamStart::redis_id));
    let keys = [&queue.consumers, &queue.floor, &queue.clock];
    let made = queue
        .eval_by(reader, &ENSURE, &keys, args)
        .await?
        .as_integer()?;
    queue.made.store(true, Relaxed);
    Ok(made == 1)
}

/// Moves the group to a point of its stream.
pub(super) async fn replay(
    connection: &Connection,
    queue: &Queue,
    from: &StreamStart,
) -> Result<(), RedisError> {
    let [stream, ..] = &queue.streams;
    let args = Args::new().arg(&queue.group).arg(from.redis_id());
    connection
        .eval(&REPLAY, &[stream, &queue.floor], args)
        .await?;
    Ok(())
}
