//! Lease renewal, in a task of its own: a handler that blocks its lane's thread does not lose the lane's leases.

use std::time::Duration;

use super::hold::Session;
use super::jittered;
use super::lane::Lane;
use crate::observe::{Event, Observer};

/// Renews until the lane has settled everything.
pub(super) async fn run(lane: &Lane) {
    loop {
        let period = tick(lane).await;
        tokio::select! {
            () = lane.settled.cancelled() => return,
            () = tokio::time::sleep(jittered(period)) => {}
        }
    }
}

/// Renews once. Answers when the next time is, at most.
async fn tick(lane: &Lane) -> Duration {
    let mut period = Duration::MAX;
    for session in lane.sessions() {
        let Some(lease) = session.lease else { continue };
        // A third of a lease, so that two renewals may fail; after a failure at once a shorter one.
        period = period.min(if renew(lane, &session).await {
            lease / 3
        } else {
            lease / 12
        });
    }
    if period == Duration::MAX {
        period = WITHOUT_LEASE;
    }
    if let Some(blocked) = lane
        .blocked_for()
        .filter(|&blocked| blocked > period * 3 / 2)
    {
        lane.observers.on_event(&Event::LaneBlocked {
            queue: &lane.queue,
            lane: lane.index,
            blocked,
        });
    }
    period
}

async fn renew(lane: &Lane, session: &Session) -> bool {
    let in_flight = session.receipts();
    let lost = match session.settler.extend(&in_flight).await {
        Ok(lost) => lost,
        Err(error) => {
            lane.observers.on_event(&Event::ExtendFailed {
                queue: &lane.queue,
                error: &error,
            });
            return false;
        }
    };
    let count = if lost.is_empty() {
        0
    } else {
        session.lose(&lost)
    };
    if count > 0 {
        lane.observers.on_event(&Event::LeasesLost {
            queue: &lane.queue,
            count,
        });
    }
    true
}

/// How often a lane without leases is looked at.
const WITHOUT_LEASE: Duration = Duration::from_secs(5);
