//! Lease renewal, in a task of its own: a handler that blocks its lane's thread does not lose the lane's leases, as long as
//! the runtime has another thread left (see `watch`).

use std::time::Duration;

use futures_util::future::join_all;

use super::hold::Session;
use super::lane::Lane;
use super::{answer, jittered};
use crate::error::BrokerError;
use crate::message::Receipt;
use crate::observe::{Event, Observer};

/// Renews until the lane has settled everything.
pub(super) async fn run(lane: &Lane) {
    let renewals = async {
        loop {
            let pause = tick(lane).await;
            let elapsed = async {
                match pause {
                    Some(pause) => tokio::time::sleep(jittered(pause)).await,
                    None => std::future::pending().await,
                }
            };
            // Cancel safety: a timer and a notice. A new subscription may have a shorter lease than this pause.
            tokio::select! {
                () = elapsed => {}
                () = lane.session_opened() => {}
            }
        }
    };
    // A renewal that is dropped half-way was for what is settled by now.
    tokio::select! {
        () = lane.settled.cancelled() => {}
        () = renewals => {}
    }
}

/// Renews once. Answers when the next time is, at most; `None` if there is nothing to renew.
async fn tick(lane: &Lane) -> Option<Duration> {
    // Side by side: the connection of a subscription that was given up hangs as a rule, and the other one must not wait.
    let sessions = lane.sessions();
    let renewals = sessions.iter().filter_map(|session| {
        let lease = session.lease?;
        Some(async move {
            // A third of a lease, so that two renewals may fail; after a failure at once a shorter one.
            match renew(lane, session, lease).await {
                true => lease / 3,
                false => lease / 12,
            }
        })
    });
    join_all(renewals).await.into_iter().min()
}

async fn renew(lane: &Lane, session: &Session, lease: Duration) -> bool {
    let lost = match extend(lane, session, lease).await {
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

/// A renewal without an answer is given up while there is time for more than one other.
async fn extend(
    lane: &Lane,
    session: &Session,
    lease: Duration,
) -> Result<Vec<Receipt>, BrokerError> {
    let in_flight = session.receipts();
    let extended = session.settler.extend(&in_flight);
    answer(extended, lease / 5, "renew leases", &lane.queue).await
}
