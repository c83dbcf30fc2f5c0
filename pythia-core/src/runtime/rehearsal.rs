//! A runner by its parts, for the test kit: hooks once, lanes as often as there is something to do.

use super::{LAST_TASK, RunError, Runner, start, stop};
use crate::message::QueueName;

impl Runner {
    /// The queues that it serves.
    pub(crate) fn queues(&self) -> impl Iterator<Item = &QueueName> {
        self.routes.iter().map(|route| &route.queue)
    }

    /// How many attempts its first route allows.
    pub(crate) fn max_attempts(&self) -> u32 {
        self.routes.first().map_or(1, |route| route.max_attempts)
    }

    /// Calls the start hooks; if one fails, also the stop hooks of those before it.
    pub(crate) async fn start(&self) -> Result<(), RunError> {
        let mut started = 0;
        let begun = start(&self.routes, &mut started).await;
        if begun.is_err() {
            stop(&self.routes[..started], LAST_TASK).await;
        }
        begun
    }

    /// Calls the stop hooks.
    pub(crate) async fn stop(&self) {
        stop(&self.routes, LAST_TASK).await;
    }
}
