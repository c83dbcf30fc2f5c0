//! The first stage of a lane: wait until there is a spot and reason, read a batch, pass it on.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::OwnedRwLockReadGuard;

use super::health::WaitReason;
use super::hold::{Hold, Session};
use super::lane::{Claim, Lane};
use super::prefetch::{Feed, Spot};
use super::settle::Outbox;
use super::{FaultBackoff, answer};
use crate::broker::{Source, Subscription};
use crate::error::BrokerError;
use crate::message::Delivery;
use crate::observe::{Event, Observer};

/// Runs the stage until the drain begins; then hands back and closes, after all that was fetched is settled.
pub(super) async fn run(lane: &Lane, feed: Feed, mut refused: Outbox) {
    let mut backoff = lane.fault_backoff();
    let mut last = None;
    while let Some(mut reader) = lane.phase.until_drain(subscribe(lane, &mut backoff)).await {
        match read_on(lane, &mut reader, &mut backoff, &feed, &mut refused).await {
            End::Drain => {
                last = Some(reader);
                break;
            }
            End::Hung => break,
            End::Replace => {
                reader.session.give_up();
                // What its source has claimed and not passed on comes back when its lease ends, which is after the last
                // job that was fetched through it: until then its leases are renewed.
                if lane.retries_in_process {
                    end(lane, reader, &feed, &mut refused).await;
                }
            }
        }
    }
    lane.health.stopped();
    if lane.retries_in_process
        && let Some(reader) = last.take()
    {
        end(lane, reader, &feed, &mut refused).await;
    }
    drop((feed, refused));
    lane.settled.cancelled().await;
    if let Some(mut reader) = last {
        close(lane, &mut *reader.source, &mut Vec::new()).await;
    }
}

/// A subscription in use.
struct Reader {
    source: Box<dyn Source>,
    session: Arc<Session>,
    cancel_safe: bool,
    size: SizeEstimate,
}

/// Why reading has ended.
enum End {
    /// The runner stops.
    Drain,
    /// The runner stops, and the source did not answer until the drain time was over.
    Hung,
    /// A new subscription is needed.
    Replace,
}

/// Subscribes, for as long as it takes.
async fn subscribe(lane: &Lane, backoff: &mut FaultBackoff) -> Reader {
    lane.health.connecting();
    loop {
        match attempt(lane).await {
            Ok(Subscription {
                source,
                settler,
                lease,
                cancel_safe,
            }) => {
                lane.observers.on_event(&Event::Subscribed {
                    queue: &lane.queue,
                    lane: lane.index,
                });
                lane.health.subscribed();
                return Reader {
                    cancel_safe,
                    source,
                    session: lane.open_session(settler, lease),
                    size: SizeEstimate::default(),
                };
            }
            Err(error) => tokio::time::sleep(failed(lane, backoff, &error)).await,
        }
    }
}

/// Subscribes once. A connection that is neither made nor refused must not be waited for for ever.
async fn attempt(lane: &Lane) -> Result<Subscription, BrokerError> {
    let subscribed = lane.broker.subscribe(&lane.queue);
    answer(subscribed, lane.stall_after, "subscribe", &lane.queue).await
}

/// Reports a fault; answers how long to wait before the next try.
fn failed(lane: &Lane, backoff: &mut FaultBackoff, error: &BrokerError) -> Duration {
    let retry_in = backoff.next_delay();
    lane.observers.on_event(&Event::FetchFailed {
        queue: &lane.queue,
        error,
        retry_in,
    });
    retry_in
}

/// Ends a subscription to an at-most-once broker, and passes on what it has taken in ahead: nobody else will ever get it.
/// What there is no time for is lost, and reported.
async fn end(lane: &Lane, mut reader: Reader, feed: &Feed, refused: &mut Outbox) {
    let mut rest = Vec::new();
    let closed = close(lane, &mut *reader.source, &mut rest);
    if tokio::time::timeout(LAST_WORDS, closed).await.is_err() {
        tracing::warn!(queue = %lane.queue, lane = lane.index, "a subscription to an at-most-once broker could not be closed");
    }
    note_received(lane, &rest);
    let mut rest = rest.into_iter();
    while rest.len() > 0 {
        let admission = admission(lane, feed, &reader.size);
        // Cancel safety: what was granted is given back.
        let admission = tokio::select! {
            admission = admission => admission,
            () = lane.phase.drain_is_over() => None,
        };
        let Some(Admission {
            spot,
            mut claim,
            presence,
        }) = admission
        else {
            break;
        };
        let deliveries: Vec<_> = rest.by_ref().take(claim.max()).collect();
        claim.keep(deliveries.len());
        let hold = reader.session.hold(&deliveries, Some(presence));
        spot.send(deliveries, hold);
    }
    let lost: Vec<_> = rest.collect();
    let hold = reader.session.hold(&lost, None);
    for (index, delivery) in (0..).zip(lost) {
        refused.push_unstarted(&hold, index, delivery);
    }
    refused.flush();
}

fn note_received(lane: &Lane, deliveries: &[Delivery]) {
    if deliveries.is_empty() {
        return;
    }
    lane.totals.received(deliveries.len());
    lane.observers.on_event(&Event::Received {
        queue: &lane.queue,
        count: deliveries.len() as u64,
    });
}

async fn close(lane: &Lane, source: &mut dyn Source, rest: &mut Vec<Delivery>) {
    // Settling may have used up its grace: this has some of its own.
    tokio::select! {
        biased;
        closed = source.close(rest) => if let Err(error) = closed {
            tracing::warn!(queue = %lane.queue, lane = lane.index, %error, "the subscription was not closed properly");
        },
        () = lane.phase.over_for(LAST_CLOSE) => {
            tracing::warn!(queue = %lane.queue, lane = lane.index, "the subscription was not closed: no answer");
        }
    }
}

/// Reads batch after batch. Every wait but the read itself ends when the drain begins; a read is bounded by the source.
async fn read_on(
    lane: &Lane,
    reader: &mut Reader,
    backoff: &mut FaultBackoff,
    feed: &Feed,
    refused: &mut Outbox,
) -> End {
    loop {
        let reading = lane.begin_reading();
        let admission = lane.phase.until_drain(admission(lane, feed, &reader.size));
        let Some(Some(Admission {
            spot,
            mut claim,
            presence,
        })) = waiting(lane, admission).await
        else {
            return End::Drain;
        };
        lane.health.admitted();
        let mut presence = Some(presence);
        let mut deliveries = Vec::new();
        let max = claim.max();
        // Cancel safety: a read is dropped where the source says that it may be, or where the source is given up with it.
        let read = tokio::select! {
            biased;
            read = reader.source.receive(max, &mut deliveries) => read,
            () = lane.phase.drain_begins(), if reader.cancel_safe => return End::Drain,
            () = lane.phase.drain_is_over() => return End::Hung,
            () = lane.solitude.is_asked_for(), if reader.cancel_safe => continue,
            never = make_way(lane, &mut presence), if !reader.cancel_safe => match never {},
            // The source bounds its reads, so this is one that will not come back.
            () = tokio::time::sleep(lane.stall_after) => {
                lane.observers.on_event(&Event::Stalled { queue: &lane.queue, lane: lane.index, silent: lane.stall_after });
                return End::Replace;
            }
        };
        let is_large = deliveries.len() >= max.min(LARGE);
        claim.keep(deliveries.len());
        if let Err(error) = read {
            drop((spot, claim, presence, reading));
            lane.health.connecting();
            let pause = tokio::time::sleep(failed(lane, backoff, &error));
            if lane.phase.until_drain(pause).await.is_none() {
                return End::Drain;
            }
            if error.is_subscription_lost() {
                return End::Replace;
            }
            continue;
        }
        *backoff = lane.fault_backoff();
        lane.health.has_read();
        if deliveries.is_empty() {
            continue;
        }
        reader.size.learn(&deliveries);
        note_received(lane, &deliveries);
        if deliveries[0].alone {
            drop((presence, reading));
            run_alone(
                lane,
                &reader.session,
                deliveries,
                spot,
                claim,
                feed,
                refused,
            )
            .await;
        } else {
            // A read that has left the room may bring something while a suspect runs.
            let presence = presence.or_else(|| lane.solitude.presence().now_or_never());
            if presence.is_none() && !lane.retries_in_process {
                lane.health.waits_for(WaitReason::Suspect);
                lane.health.waiting();
                let hold = reader.session.hold(&deliveries, None);
                drop((spot, claim));
                hand_back(&hold, deliveries, feed, refused).await;
                continue;
            }
            let hold = reader.session.hold(&deliveries, presence);
            if is_large {
                spot.send_and_go_on(deliveries, hold);
            } else {
                spot.send(deliveries, hold);
            }
        }
    }
}

/// Leaves the room to a suspect that asks for it, if the read is not over soon: an idle one would keep the suspect, and
/// with it every other fetch of this process, waiting for as long as it lasts.
async fn make_way(lane: &Lane, presence: &mut Option<OwnedRwLockReadGuard<()>>) -> Infallible {
    lane.solitude.is_asked_for().await;
    tokio::time::sleep(ALMOST_DONE).await;
    *presence = None;
    std::future::pending().await
}

/// Hands back what would be held beside a suspect, and waits until the broker has it, so that an order is kept.
async fn hand_back(hold: &Arc<Hold>, deliveries: Vec<Delivery>, feed: &Feed, refused: &mut Outbox) {
    for (index, delivery) in (0..).zip(deliveries) {
        refused.push_unstarted(hold, index, delivery);
    }
    refused.flush();
    until_settled(hold, feed).await;
}

/// Cancel safe: notices. If the process stage is gone, nobody will settle it.
async fn until_settled(hold: &Hold, feed: &Feed) {
    tokio::select! {
        () = hold.all_settled() => {}
        () = feed.closed() => {}
    }
}

/// The future's output. If it can't be had at once, the lane is waiting meanwhile, and known to have reason to.
async fn waiting<F: Future>(lane: &Lane, future: F) -> F::Output {
    let mut future = pin!(future);
    match future.as_mut().now_or_never() {
        Some(output) => output,
        None => {
            lane.health.waiting();
            future.await
        }
    }
}

/// Leave to read.
struct Admission<'a> {
    /// Where the batch goes.
    spot: Spot<'a>,
    /// By the breaker and the rate.
    claim: Claim<'a>,
    /// No suspect runs.
    presence: OwnedRwLockReadGuard<()>,
}

/// Waits until there is a spot for a batch, the breaker and the rate let some through, and no suspect wants to be alone.
/// `None` if the process stage is gone. Cancel safe: what was granted is given back.
async fn admission<'a>(
    lane: &'a Lane,
    feed: &'a Feed,
    size: &SizeEstimate,
) -> Option<Admission<'a>> {
    lane.health.waits_for(WaitReason::Capacity);
    let spot = feed.spot().await?;
    let max = size.limit(lane.appetite(), lane.batch_bytes);
    let claim = lane.claim(max).await;
    lane.health.waits_for(WaitReason::Suspect);
    let presence = lane.solitude.presence().await;
    Some(Admission {
        spot,
        claim,
        presence,
    })
}

/// Passes a suspect on with nothing beside it, and waits until it is settled; or hands it back, if another one is first or
/// the runner stops.
async fn run_alone(
    lane: &Lane,
    session: &Arc<Session>,
    deliveries: Vec<Delivery>,
    spot: Spot<'_>,
    claim: Claim<'_>,
    feed: &Feed,
    refused: &mut Outbox,
) {
    let hold = session.hold(&deliveries, None);
    lane.health.waits_for(WaitReason::Suspect);
    lane.health.waiting();
    // Cancel safety: the first to ask for the room makes way for others when it is dropped.
    let alone = lane
        .phase
        .until_drain(lane.solitude.alone())
        .await
        .flatten();
    if alone.is_some() {
        spot.send(deliveries, Arc::clone(&hold));
        drop(claim);
        until_settled(&hold, feed).await;
    } else {
        drop((spot, claim));
        hand_back(&hold, deliveries, feed, refused).await;
        // Cancel safety: a notice, and a timer. It stands at the head of the queue again, and would be refused again.
        let free = tokio::time::timeout(RETURN, lane.solitude.is_left());
        lane.phase.until_drain(free).await;
    }
}

/// How large the messages of late were: a fetch of large ones is kept within the route's limit of bytes.
#[derive(Debug, Default)]
struct SizeEstimate {
    average: Option<usize>,
}

impl SizeEstimate {
    fn learn(&mut self, deliveries: &[Delivery]) {
        let bytes: usize = deliveries
            .iter()
            .map(|delivery| delivery.payload.len())
            .sum();
        let latest = bytes / deliveries.len().max(1);
        // Growth is believed at once, shrinking by and by.
        self.average = Some(
            self.average
                .map_or(latest, |average| latest.max((3 * average + latest) / 4)),
        );
    }

    /// As many messages as fit into so many bytes; before anything is known, a cautious few.
    fn limit(&self, messages: usize, bytes: usize) -> usize {
        match self.average {
            Some(average) => messages.min(bytes / average.max(1)).max(1),
            None => messages.min(CAUTIOUS),
        }
    }
}

/// So many jobs, at least, make a batch a large one: there is likely more, and they keep the thread for longer than it takes
/// to ask for that.
const LARGE: usize = 16;
/// The size of the first fetch of a subscription.
const CAUTIOUS: usize = 16;
/// How long a read may go on beside a suspect that asks for the room: one that brings something is over by then.
const ALMOST_DONE: Duration = Duration::from_millis(20);
/// How long a lane that had to hand a suspect back waits for the other suspect, at most, before it looks again.
const RETURN: Duration = Duration::from_secs(5);
/// How long an at-most-once source may take to end and say what is left.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a source may take to close after the drain time. Longer than the settle stage has.
const LAST_CLOSE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Receipt;

    #[test]
    fn large_messages_are_fetched_in_small_numbers() {
        let of = |size: usize| vec![Delivery::new("1", vec![0; size], Receipt(0)); 2];
        let mut size = SizeEstimate::default();
        assert_eq!(size.limit(100, 1_000), 16);
        size.learn(&of(10));
        assert_eq!(size.limit(100, 1_000), 100);
        size.learn(&of(500));
        assert_eq!(size.limit(100, 1_000), 2);
        size.learn(&of(5_000));
        assert_eq!(size.limit(100, 1_000), 1);
        for _ in 0..100 {
            size.learn(&of(1));
        }
        assert_eq!(size.limit(100, 1_000), 100);
    }
}
