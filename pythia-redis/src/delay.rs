//! Delayed messages: what tells two equal ones apart, who makes them ready, and when.
//!
//! A sorted set holds them by due time. Every worker looks at it now and then; one of them at a time, the promoter, also
//! sleeps to the next due time, and is told on the queue's control channel when a message comes in that is due earlier.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use pythia_core::Deliver;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::connection::{Args, Notice, Redis, Subscriber};
use crate::error::RedisError;
use crate::keys::Keys;
use crate::script::Script;

/// One worker's part in looking after the delayed messages of one queue.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    due_earlier: Arc<Notify>,
    promoter: Arc<AtomicBool>,
    /// Hears the control channel; ends when this is dropped.
    listener: Mutex<JoinSet<()>>,
}

/// What one round made ready.
#[derive(Debug)]
pub(crate) struct Promoted {
    pub(crate) count: u64,
    /// Further messages are due already.
    pub(crate) more: bool,
    /// How long until the next is due, if this worker is the promoter.
    pub(crate) next_due: Option<Duration>,
}

/// Mints the 16 bytes in front of each delayed message: members of a sorted set that are equal would be one, and those that
/// are due together are in the order of their bytes.
#[derive(Debug)]
pub(crate) struct Names {
    next: AtomicU64,
    publisher: u64,
}

impl Watch {
    /// Notified when the next round of promotion should come at once. Listens from the first call on.
    pub(crate) fn due_earlier(&self, redis: &Redis, control: &ByteString) -> Arc<Notify> {
        let mut listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a runtime nobody can wait for the notice either.
        if listener.is_empty() && Handle::try_current().is_ok() {
            listener.spawn(listen(
                redis.control(vec![control.clone()]),
                Arc::clone(&self.due_earlier),
                Arc::clone(&self.promoter),
            ));
        }
        Arc::clone(&self.due_earlier)
    }

    /// Makes due messages of a list ready.
    pub(crate) async fn promote(
        &self,
        redis: &Redis,
        keys: &Keys,
        worker: &ByteString,
    ) -> Result<Promoted, RedisError> {
        let args = Args::new()
            .arg(worker)
            .arg(PROMOTER_TTL_MS)
            .arg(redis.config().maintain.promote.get())
            .arg(PROMOTED_BYTES);
        let reply = redis
            .pool()
            .eval(
                &PROMOTE,
                &[&keys.delayed, &keys.ready, &keys.promoter],
                args,
            )
            .await?;
        let [count, more, promoter, next_due] = reply.into_tuple()?;
        let promoter = promoter.as_integer()? == 1;
        self.promoter.store(promoter, Relaxed);
        Ok(Promoted {
            count: count.as_count()?,
            more: more.as_integer()? == 1,
            next_due: u64::try_from(next_due.as_integer()?)
                .ok()
                .filter(|_| promoter)
                .map(Duration::from_millis),
        })
    }
}

impl Names {
    pub(crate) fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            // Later publishers sort behind earlier ones. The first byte is zero for the next two thousand years.
            next: AtomicU64::new(since_epoch.unwrap_or_default().as_micros() as u64),
            publisher: rand::random(),
        }
    }

    /// So many names, in ascending order.
    pub(crate) fn mint(&self, count: usize) -> Vec<Bytes> {
        let first = self.next.fetch_add(count as u64, Relaxed);
        let mut names = BytesMut::with_capacity(NAME_LEN * count);
        for name in first..first + count as u64 {
            names.put_u64(name);
            names.put_u64(self.publisher);
        }
        let mut names = names.freeze();
        (0..count).map(|_| names.split_to(NAME_LEN)).collect()
    }
}

/// The message of a member of the sorted set; all of it, if it has no name, as what somebody has put there by hand.
pub(crate) fn without_name(mut member: Bytes) -> Bytes {
    match member.first() {
        Some(0) if member.len() >= NAME_LEN => member.split_off(NAME_LEN),
        _ => member,
    }
}

/// Milliseconds as the scripts take them. What is further off than they can count is as far off as they can.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).map_or(MAX_MILLIS, |millis| millis.min(MAX_MILLIS))
}

/// When a message is due, as the publish scripts take it: nothing, from now, or an instant; the server's clock decides.
pub(crate) fn due(deliver: Deliver) -> String {
    // The scripts deal in milliseconds, and none of them may be early.
    let whole = |duration: Duration| millis(duration.saturating_add(Duration::from_nanos(999_999)));
    match deliver {
        Deliver::After(after) if !after.is_zero() => format!("+{}", whole(after)),
        Deliver::At(at) => match at.duration_since(UNIX_EPOCH) {
            Ok(since_epoch) => whole(since_epoch).to_string(),
            Err(_) => String::new(),
        },
        _ => String::new(),
    }
}

async fn listen(mut control: Subscriber, due_earlier: Arc<Notify>, promoter: Arc<AtomicBool>) {
    loop {
        match control.next(LISTEN_ROUND).await {
            Ok(None) => {}
            // A gap may have held a notice. Whoever is not the promoter leaves it to the one that is.
            Ok(Some(notice)) => {
                let other = matches!(&notice, Notice::Message { payload, .. } if payload != NOTICE);
                if !other && promoter.load(Relaxed) {
                    due_earlier.notify_one();
                }
            }
            // Notices save up to a second and nothing depends on them, so their channel is no reason for alarm.
            Err(error) => {
                tracing::debug!(%error, "control channel is down");
                sleep(RETRY.mul_f64(rand::random_range(0.5..1.5))).await;
            }
        }
    }
}

static PROMOTE: Script = Script::new(
    "delay/promote",
    concat!(
        include_str!("scripts/list/time.lua"),
        include_str!("scripts/delay/promote.lua")
    ),
);

/// What a script says on the control channel when a message is due before all others.
const NOTICE: &[u8] = b"due";
const NAME_LEN: usize = 16;
/// The promoter renews its part with each round; when it is gone, another one takes it after so long.
const PROMOTER_TTL_MS: u64 = 2_000;
/// About how many bytes one script makes ready, however few messages that are.
const PROMOTED_BYTES: u64 = 8 << 20;
const LISTEN_ROUND: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(2);
/// The year 9999. Scores and Lua's numbers are exact far beyond it.
const MAX_MILLIS: u64 = 253_402_300_799_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_sort_in_the_order_of_their_minting() {
        let names = Names::new();
        let minted = [names.mint(500), names.mint(0), names.mint(500)].concat();
        assert!(minted.is_sorted_by(|a, b| a < b));
        assert!(minted.iter().all(|name| name.len() == NAME_LEN));
        assert_ne!(Names::new().mint(1)[0][8..], minted[0][8..]);
    }

    #[test]
    fn a_delay_is_never_shortened() {
        for (deliver, text) in [
            (Deliver::Now, ""),
            (Deliver::After(Duration::ZERO), ""),
            (Deliver::After(Duration::from_micros(1)), "+1"),
            (Deliver::After(Duration::from_millis(250)), "+250"),
            (Deliver::After(Duration::from_micros(250_001)), "+251"),
            (Deliver::After(Duration::MAX), "+253402300799000"),
            (Deliver::At(UNIX_EPOCH + Duration::from_micros(1_500)), "2"),
            (Deliver::At(UNIX_EPOCH - Duration::from_secs(1)), ""),
        ] {
            assert_eq!(due(deliver), text, "{deliver:?}");
        }
    }

    #[test]
    fn a_message_stands_behind_its_name() {
        let name = &Names::new().mint(1)[0];
        let member = [name, "body".as_bytes()].concat();
        assert_eq!(without_name(member.into()), "body");
        assert_eq!(without_name(name.clone()), "");
        for by_hand in ["", "short", "{\"what\": \"somebody has put there\"}", "\0"] {
            assert_eq!(without_name(by_hand.into()), by_hand);
        }
    }
}
