//! The first stage of a lane: wait until there is room and reason, read a batch, pass it on.

use tokio::sync::mpsc;

use super::hold::Session;
use super::lane::{Fetched, Lane};
use super::settle::Outbox;
use crate::broker::{Source, Subscription};
use crate::message::Delivery;
use crate::observe::{Event, Observer};

/// Runs the stage until the drain begins; then hands back and closes, after all that was fetched is settled.
pub(super) async fn run(lane: &Lane, room: mpsc::Sender<Fetched>, mut refused: Outbox) {
    let mut reader = None;
    while let Some(mut open) = lane.phase.until_drain(subscribe(lane)).await {
        match read_on(lane, &mut open, &room, &mut refused).await {
            End::Drain => {
                reader = Some(open);
                break;
            }
            // Its connection hangs, so there is nobody to say goodbye to: what it holds comes back after its lease.
            End::Replace => {}
        }
    }
    lane.health.stopped();
    drop((room, refused));
    lane.settled.cancelled().await;
    if let Some(mut reader) = reader
        && let Err(error) = reader.source.close().await
    {
        tracing::warn!(queue = %lane.queue, lane = lane.index, %error, "the subscription was not closed properly");
    }
}

/// A subscription in use.
struct Reader {
    source: Box<dyn Source>,
    session: std::sync::Arc<Session>,
    cancel_safe: bool,
    size: SizeEstimate,
}

/// Why reading has ended.
enum End {
    /// The runner stops.
    Drain,
    /// A new subscription is needed.
    Replace,
}

/// Subscribes, for as long as it takes.
async fn subscribe(lane: &Lane) -> Reader {
    lane.health.connecting();
    let mut backoff = lane.fault_backoff();
    loop {
        match lane.broker.subscribe(&lane.queue).await {
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
                lane.health.reading();
                return Reader {
                    cancel_safe,
                    source,
                    session: lane.open_session(settler, lease),
                    size: SizeEstimate::default(),
                };
            }
            Err(error) => {
                let retry_in = backoff.next_delay();
                lane.observers.on_event(&Event::FetchFailed {
                    queue: &lane.queue,
                    error: &error,
                    retry_in,
                });
                tokio::time::sleep(retry_in).await;
            }
        }
    }
}

/// Reads batch after batch. Every wait but the read itself ends when the drain begins; a read is bounded by the source.
async fn read_on(
    lane: &Lane,
    reader: &mut Reader,
    room: &mpsc::Sender<Fetched>,
    refused: &mut Outbox,
) -> End {
    let mut backoff = lane.fault_backoff();
    loop {
        let Some(Some((place, mut claim, presence))) = lane
            .phase
            .until_drain(admission(lane, room, &reader.size))
            .await
        else {
            return End::Drain;
        };
        lane.health.reading();
        let mut deliveries = Vec::new();
        let read = tokio::select! {
            biased;
            read = reader.source.receive(claim.max(), &mut deliveries) => read,
            () = lane.phase.drain_begins(), if reader.cancel_safe => return End::Drain,
            // The source bounds its reads by about a second, so this is one that will not come back.
            () = tokio::time::sleep(lane.stall_after) => {
                lane.observers.on_event(&Event::Stalled { queue: &lane.queue, lane: lane.index, silent: lane.stall_after });
                return End::Replace;
            }
        };
        claim.keep(deliveries.len());
        if let Err(error) = read {
            let retry_in = backoff.next_delay();
            lane.observers.on_event(&Event::FetchFailed {
                queue: &lane.queue,
                error: &error,
                retry_in,
            });
            if error.is_subscription_lost() {
                return End::Replace;
            }
            lane.health.connecting();
            if lane
                .phase
                .until_drain(tokio::time::sleep(retry_in))
                .await
                .is_none()
            {
                return End::Drain;
            }
            continue;
        }
        backoff = lane.fault_backoff();
        lane.health.reading();
        if deliveries.is_empty() {
            continue;
        }
        reader.size.learn(&deliveries);
        lane.totals.received(deliveries.len());
        lane.observers.on_event(&Event::Received {
            queue: &lane.queue,
            count: deliveries.len() as u64,
        });
        if deliveries[0].alone {
            drop(presence);
            run_alone(lane, &reader.session, deliveries, place, refused).await;
        } else {
            let hold = reader.session.hold(&deliveries, Some(presence));
            place.send(Fetched { deliveries, hold });
        }
    }
}

type Admission<'a> = (
    mpsc::Permit<'a, Fetched>,
    super::lane::Claim<'a>,
    tokio::sync::OwnedRwLockReadGuard<()>,
);

/// Waits until a batch has a place to go, the breaker and the rate let some through, and no suspect wants to be alone.
/// `None` if the process stage is gone. Cancel safe: what was granted is given back.
async fn admission<'a>(
    lane: &'a Lane,
    room: &'a mpsc::Sender<Fetched>,
    size: &SizeEstimate,
) -> Option<Admission<'a>> {
    let place = match room.try_reserve() {
        Ok(place) => place,
        Err(_) => {
            lane.health.waiting();
            room.reserve().await.ok()?
        }
    };
    let claim = lane
        .claim(size.limit(lane.appetite(), lane.batch_bytes))
        .await;
    let presence = lane.solitude.presence().await;
    Some((place, claim, presence))
}

/// Passes a suspect on with nothing beside it, and waits until it is settled; or hands it back, if another one is first.
async fn run_alone(
    lane: &Lane,
    session: &std::sync::Arc<Session>,
    deliveries: Vec<Delivery>,
    place: mpsc::Permit<'_, Fetched>,
    refused: &mut Outbox,
) {
    let hold = session.hold(&deliveries, None);
    lane.health.waiting();
    match lane.solitude.alone().await {
        Some(_alone) => {
            place.send(Fetched {
                deliveries,
                hold: std::sync::Arc::clone(&hold),
            });
            hold.all_settled().await;
        }
        None => {
            for (index, delivery) in (0..).zip(deliveries) {
                refused.push_unstarted(std::sync::Arc::clone(&hold), index, delivery);
            }
            refused.flush();
            hold.all_settled().await;
        }
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

/// The size of the first fetch of a subscription.
const CAUTIOUS: usize = 16;

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
