//! A message that was held in two crashes or more runs with nothing beside it in this process, so that it takes no
//! neighbour to the dead letters if it is what kills the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Shared by all lanes of a runner. Every fetched batch holds its presence until it is settled; a suspect waits until
/// nobody is present, and keeps others out while it runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Solitude {
    room: Arc<RwLock<()>>,
    taken: Arc<AtomicBool>,
}

impl Solitude {
    /// Enters the room, after a suspect that waits or runs has left. Cancel safe.
    pub(super) async fn presence(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.room).read_owned().await
    }

    /// Has the room to oneself. `None`, at once, if another suspect waits or runs: the caller hands its own back, because
    /// it would be held beside that one.
    ///
    /// Waits at most five seconds for the others to finish: a job of hours must not keep a suspect, and with it every
    /// fetch of this process, for hours.
    pub(super) async fn alone(&self) -> Option<Alone> {
        if self.taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        let taken = Taken(Arc::clone(&self.taken));
        let room = tokio::time::timeout(PATIENCE, Arc::clone(&self.room).write_owned())
            .await
            .ok();
        Some(Alone {
            _room: room,
            _taken: taken,
        })
    }
}

/// The room to oneself, until dropped.
#[derive(Debug)]
pub(super) struct Alone {
    _room: Option<OwnedRwLockWriteGuard<()>>,
    _taken: Taken,
}

#[derive(Debug)]
struct Taken(Arc<AtomicBool>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_suspect_waits_for_the_room_to_empty_and_keeps_it() {
        let solitude = Solitude::default();
        let presence = solitude.presence().await;
        let mut first = std::pin::pin!(solitude.alone());
        assert!(
            first.as_mut().now_or_never().is_none(),
            "somebody is present"
        );
        assert!(
            solitude.alone().await.is_none(),
            "a second suspect goes back"
        );
        assert!(
            solitude.presence().now_or_never().is_none(),
            "nobody enters while a suspect waits"
        );
        drop(presence);
        let alone = first.await.expect("nobody is present");
        assert!(
            solitude.presence().now_or_never().is_none(),
            "nobody enters while a suspect runs"
        );
        drop(alone);
        assert!(solitude.presence().now_or_never().is_some());
        assert!(solitude.alone().await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspect_does_not_wait_for_ever() {
        let solitude = Solitude::default();
        let _presence = solitude.presence().await;
        assert!(solitude.alone().await.is_some());
    }
}
