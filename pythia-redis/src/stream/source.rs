//! Where a lane reads: the stream and the group's retry stream at once, and the suspects one by one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pythia_core::broker::Source;
use pythia_core::{BrokerError, Delivery};
use tracing::{debug, warn};

use super::entry::Entry;
use super::group::{self, Occasion};
use super::id::{EntryId, Place, entry_of, id_text};
use super::queue::Lane;
use crate::config::RedisConfig;
use crate::connection::{Args, Connection, Reader, Reply};
use crate::error::{Kind, RedisError};
use crate::script::Script;

static RELEASE: Script = Script::new(
    "stream/release",
    concat!(
        include_str!("../scripts/stream/entry.lua"),
        include_str!("../scripts/stream/release.lua"),
    ),
);

/// Reads as one consumer of the group.
#[derive(Debug)]
pub(super) struct StreamSource {
    lane: Arc<Lane>,
    reader: Reader,
    settling: Connection,
    config: Arc<RedisConfig>,
    /// The last entry of each stream that arrived here, and the last that was handed out.
    received: [EntryId; 3],
    handed_out: [EntryId; 3],
    /// The answer to a read was lost, so entries may be pending for this consumer that it never saw.
    lost_answer: bool,
    lost_suspect: bool,
    /// What a read asks for at most: less after an answer that did not get through a slow link.
    limit: usize,
    /// The last read brought retries too.
    retries: bool,
    /// The last delivery was a suspect.
    after_suspect: bool,
}

impl StreamSource {
    pub(super) fn new(
        lane: Arc<Lane>,
        reader: Reader,
        settling: Connection,
        config: Arc<RedisConfig>,
    ) -> Self {
        Self {
            lane,
            reader,
            settling,
            config,
            received: [EntryId::default(); 3],
            handed_out: [EntryId::default(); 3],
            lost_answer: false,
            lost_suspect: false,
            limit: usize::MAX,
            retries: false,
            after_suspect: false,
        }
    }

    async fn fetch(&mut self, max: usize) -> Result<Vec<Delivery>, RedisError> {
        if self.lost_answer {
            return self.read_lost(max).await;
        }
        // Suspects take turns with the others, or many slow ones would stop this worker for long.
        if std::mem::take(&mut self.after_suspect) {
            let read = self.read_batch(max, None).await?;
            if !read.is_empty() {
                return Ok(read);
            }
        }
        let suspects = &self.lane.queue.suspects;
        if (self.lost_suspect || suspects.may_wait())
            && suspects.take_turn(self.lane.id)
            && let Some(suspect) = self.read_suspect().await?
        {
            self.after_suspect = true;
            return Ok(vec![suspect]);
        }
        self.read_batch(max, Some(WAIT)).await
    }

    async fn read_batch(
        &mut self,
        max: usize,
        wait: Option<Duration>,
    ) -> Result<Vec<Delivery>, RedisError> {
        let count = self.count(max);
        let reply = self.read(&BATCH, count, From::New, wait).await?;
        self.take_in(reply)
    }

    /// One suspect, if there is any, by a read that does not wait.
    async fn read_suspect(&mut self) -> Result<Option<Delivery>, RedisError> {
        let lane = Arc::clone(&self.lane);
        let found = self.find_suspect().await;
        match &found {
            Ok(Some(suspect)) => lane.queue.suspects.found(lane.id, suspect.receipt),
            Ok(None) => lane.queue.suspects.none_left(lane.id),
            Err(_) => {
                lane.queue.suspects.left(lane.id);
                self.lost_suspect = true;
            }
        }
        found
    }

    async fn find_suspect(&mut self) -> Result<Option<Delivery>, RedisError> {
        if self.lost_suspect {
            let reply = self.read(&[Place::Suspect], 1, From::Lost, None).await?;
            self.lost_suspect = false;
            if let Some(suspect) = self.take_in(reply)?.pop() {
                return Ok(Some(suspect));
            }
        }
        let reply = self.read(&[Place::Suspect], 1, From::New, None).await?;
        Ok(self.take_in(reply)?.pop())
    }

    /// What is pending for this consumer beyond the last entry that it saw. Nobody else would look for it before the lease
    /// ends, and then it would count as a crash.
    async fn read_lost(&mut self, max: usize) -> Result<Vec<Delivery>, RedisError> {
        let count = self.count(max);
        let reply = self.read(&BATCH, count, From::Lost, None).await?;
        let before = self.received;
        let deliveries = self.take_in(reply)?;
        self.lost_answer = self.received != before;
        Ok(deliveries)
    }

    async fn read(
        &mut self,
        places: &[Place],
        count: usize,
        from: From,
        wait: Option<Duration>,
    ) -> Result<Reply, RedisError> {
        let lane = &self.lane;
        let mut args = Args::with_capacity(12)
            .arg("GROUP")
            .arg(&lane.queue.group)
            .arg(&lane.consumer)
            .arg("COUNT")
            .arg(count);
        if let Some(wait) = wait {
            args = args.arg("BLOCK").arg(wait.as_millis());
        }
        args.push("STREAMS");
        for &place in places {
            args = args.key(lane.queue.key(place));
        }
        for &place in places {
            match from {
                From::New => args.push(">"),
                From::Lost => args.push(id_text(self.received[place as usize])),
            }
        }
        let answer = match wait {
            Some(wait) => self.reader.blocking("XREADGROUP", args, wait).await,
            None => self.reader.command("XREADGROUP", args).await,
        };
        if let Err(error) = &answer
            && error.kind() == Kind::TimedOut
        {
            self.limit = (count / 2).max(1);
        }
        answer
    }

    /// The messages of an answer. One that can't be read whole is taken for lost, and is asked for again.
    fn take_in(&mut self, reply: Reply) -> Result<Vec<Delivery>, RedisError> {
        let before = self.received;
        let deliveries = self.take_apart(reply);
        match &deliveries {
            Ok(deliveries) if deliveries.is_empty() => {}
            Ok(_) => self.limit = self.limit.saturating_mul(2),
            Err(_) => self.received = before,
        }
        deliveries
    }

    /// An answer is `[[key, [[id, [field, value, ..]], ..]], ..]`.
    fn take_apart(&mut self, reply: Reply) -> Result<Vec<Delivery>, RedisError> {
        let mut deliveries = Vec::new();
        for stream in reply.into_array()? {
            let [key, entries] = stream.into_tuple()?;
            let place = self.place_of(&key.into_bytes()?)?;
            let entries = entries.into_array()?;
            self.retries |= place == Place::Retry && !entries.is_empty();
            deliveries.reserve(entries.len());
            for entry in entries {
                let entry = Entry::read(entry)?;
                self.received[place as usize] = entry.id;
                // A pending one that somebody has deleted is cleared away by the next recovery.
                if !entry.is_deleted() {
                    deliveries.extend(entry.into_delivery(place));
                }
            }
        }
        Ok(deliveries)
    }

    fn place_of(&self, key: &[u8]) -> Result<Place, RedisError> {
        let queue = &self.lane.queue;
        Place::ALL
            .into_iter()
            .find(|&place| queue.key(place).as_bytes() == key)
            .ok_or_else(|| {
                RedisError::unexpected("the key of a stream that was asked for", "another key")
            })
    }

    /// `COUNT` holds for each of the streams, so each gets half while both have something.
    fn count(&mut self, max: usize) -> usize {
        let streams = 1 + usize::from(std::mem::take(&mut self.retries));
        max.min(self.limit).div_ceil(streams).clamp(1, MAX_COUNT)
    }

    /// Hands out up to `max`; the rest waits for the next call, under its lease.
    fn hand_out(&mut self, read: Vec<Delivery>, max: usize, into: &mut Vec<Delivery>) {
        let before = into.len();
        let mut ahead = self.lane.ahead();
        if ahead.is_empty() && read.len() <= max {
            match into.is_empty() {
                true => *into = read,
                false => into.extend(read),
            }
        } else {
            ahead.extend(read);
            let now = ahead.len().min(max);
            into.extend(ahead.drain(..now));
        }
        drop(ahead);
        for delivery in &into[before..] {
            let (place, id) = entry_of(delivery.receipt);
            self.handed_out[place as usize] = id;
        }
    }

    /// The stream or the group is gone, and with it what was pending: made again, the group gets from the stream all that
    /// was not done.
    async fn heal(&mut self, cause: &RedisError) -> Result<(), RedisError> {
        let lane = Arc::clone(&self.lane);
        let made = group::ensure_by(&mut self.reader, &lane, &self.config, Occasion::Again).await?;
        lane.ahead().clear();
        self.received = Default::default();
        self.handed_out = Default::default();
        self.lost_answer = false;
        self.lost_suspect = false;
        if made {
            warn!(queue = %lane.queue.name, group = %lane.queue.group, %cause, "made the consumer group again");
        } else {
            debug!(queue = %lane.queue.name, group = %lane.queue.group, "another worker has made the consumer group again");
        }
        Ok(())
    }
}

#[async_trait]
impl Source for StreamSource {
    async fn receive(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        let waiting = !self.lane.ahead().is_empty();
        let read = if waiting {
            Ok(Vec::new())
        } else {
            // Until it can be renewed and settled, nothing new is taken: others may be able to.
            let ready = self.reader.ready_beside(&[&self.settling]).await;
            ready.map_err(self.lane.queue.failed("read messages"))?;
            self.fetch(max).await
        };
        let outcome = match read {
            Ok(read) => {
                if read.is_empty() && !waiting {
                    // Nothing else to do, so it costs nothing to look.
                    self.lane.queue.suspects.tell();
                }
                self.hand_out(read, max, into);
                Ok(())
            }
            Err(error) if error.kind() == Kind::NoGroup => self.heal(&error).await,
            Err(error) => {
                self.lost_answer = true;
                Err(error)
            }
        };
        outcome.map_err(self.lane.queue.failed("read messages"))
    }

    async fn close(&mut self, _: &mut Vec<Delivery>) -> Result<(), BrokerError> {
        let lane = Arc::clone(&self.lane);
        let queue = &lane.queue;
        lane.ahead().clear();
        loop {
            let args = queue
                .args()
                .arg(&lane.consumer)
                .arg(self.config.maintain.recover.get());
            let args = args.args(self.handed_out.map(id_text));
            let reply = queue
                .eval_by(&mut self.reader, &RELEASE, &[&queue.consumers], args)
                .await;
            let more = match reply {
                Ok(reply) => reply.into_tuple().and_then(|[_, more]| more.as_integer()),
                // There is nothing to hand back to.
                Err(error) if error.kind() == Kind::NoGroup => return Ok(()),
                Err(error) => Err(error),
            };
            if more.map_err(queue.failed("hand back messages"))? == 0 {
                return Ok(());
            }
        }
    }
}

impl Drop for StreamSource {
    /// Without a close, what was read ahead is no longer renewed, and comes back after its lease.
    fn drop(&mut self) {
        self.lane.ahead().clear();
    }
}

/// From where a read begins.
#[derive(Clone, Copy, PartialEq)]
enum From {
    /// What nobody was given yet.
    New,
    /// What this consumer was given, and did not see.
    Lost,
}

/// What is read in batches; what is tried again comes first.
const BATCH: [Place; 2] = [Place::Retry, Place::Stream];
/// How long a read waits for the first message.
const WAIT: Duration = Duration::from_secs(1);
/// Entries in one answer at most, whatever is asked for.
const MAX_COUNT: usize = 1_000;
