//! Log lines from events: one place, one level for each, nothing per message but for dead letters.

use tracing::{debug, error, info, warn};

use crate::observe::{Event, Observer};
use crate::resilience::BreakerState;

/// The observer that every runner has.
pub(super) struct Log;

impl Observer for Log {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::BreakerChanged {
                queue,
                state: BreakerState::Open,
            } => {
                warn!(%queue, "the circuit breaker opened: messages wait in the broker");
            }
            Event::BreakerChanged { queue, state } => {
                info!(%queue, ?state, "the circuit breaker changed")
            }
            Event::DeadLettered {
                queue,
                id,
                attempts,
                reason,
                kept,
            } => {
                error!(%queue, %id, attempts, kept, "dead letter: {reason}");
            }
            Event::ExtendFailed { queue, error } => {
                warn!(%queue, %error, "leases were not renewed")
            }
            Event::FetchFailed {
                queue,
                error,
                retry_in,
            } => warn!(%queue, %error, ?retry_in, "nothing was fetched"),
            Event::Gap {
                queue,
                cause,
                lost,
                lasted,
            } => {
                error!(%queue, cause = cause.name(), lost, ?lasted, "messages were lost, or may have been");
            }
            Event::LaneBlocked {
                queue,
                lane,
                blocked,
            } => {
                warn!(%queue, lane, ?blocked, "a handler blocks its lane: await, or give the work to `Job::blocking`");
            }
            Event::LeasesLost { queue, count } => {
                warn!(%queue, count, "leases were lost; their jobs were cancelled")
            }
            Event::Maintained { queue, maintained } if maintained.dead > 0 => {
                error!(%queue, dead = maintained.dead, "dead letters: held in too many crashes");
            }
            Event::Maintained { queue, maintained } => match &maintained.over_limit {
                Some(over) => {
                    warn!(%queue, entries = over.entries, group = over.group, "the stream can't be trimmed")
                }
                None => debug!(%queue, ?maintained, "upkeep"),
            },
            Event::MaintainFailed { queue, error } => warn!(%queue, %error, "upkeep failed"),
            Event::Processed { queue, jobs } => debug!(%queue, count = jobs.len(), "processed"),
            Event::Received { queue, count } => debug!(%queue, count, "received"),
            Event::Settled {
                queue,
                counts,
                took,
            } => {
                if counts.stale > 0 {
                    warn!(%queue, stale = counts.stale, "others own what was to be settled");
                }
                debug!(%queue, ?counts, ?took, "settled");
            }
            Event::SettleFailed {
                queue,
                error,
                retry_in,
            } => warn!(%queue, %error, ?retry_in, "nothing was settled"),
            Event::Stalled {
                queue,
                lane,
                silent,
            } => {
                warn!(%queue, lane, ?silent, "no read completed; the subscription is made again");
            }
            Event::Subscribed { queue, lane } => info!(%queue, lane, "subscribed"),
            Event::Command { .. } | Event::Sampled { .. } | Event::ServerSampled { .. } => {}
        }
    }
}
