//! A message that was held in two crashes or more runs with nothing beside it in this process, so that it takes no
//! neighbour to the dead letters if it is what kills the process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

/// Shared by all lanes of a runner. Every fetched batch holds its presence until it is settled, and every read until it
/// is back, or has to make way; a suspect waits until nobody is present, and keeps others out while it runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Solitude {
    room: Arc<RwLock<()>>,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    suspect: Suspect,
    /// How many suspects have left, so that who waits for one to leave notices, even if the next one is there at once.
    left: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Suspect {
    #[default]
    None,
    /// It is handed out, alone or, after its wait, not.
    Runs,
    /// It waits for the room.
    Waits,
}

impl Solitude {
    /// Enters the room, after a suspect that waits or runs has left. Cancel safe.
    pub(super) async fn presence(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.room).read_owned().await
    }

    /// Waits until a suspect asks for the room: who is present without need leaves. Cancel safe.
    pub(super) async fn is_asked_for(&self) {
        self.until(|state| state.suspect == Suspect::Waits).await;
    }

    /// Waits until the suspect that waits or runs has left, if there is one. Cancel safe.
    pub(super) async fn is_left(&self) {
        let left = self.state.borrow().left;
        self.until(|state| state.suspect == Suspect::None || state.left != left)
            .await;
    }

    /// Has the room to oneself. `None`, at once, if another suspect waits or runs: the caller hands its own back, because
    /// it would be held beside that one.
    ///
    /// Waits at most five seconds for the others to finish: a job of hours must not keep a suspect, and with it every
    /// fetch of this process, for hours. Cancel safe.
    pub(super) async fn alone(&self) -> Option<Alone> {
        let is_first = self.state.send_if_modified(|state| {
            let is_first = state.suspect == Suspect::None;
            if is_first {
                state.suspect = Suspect::Waits;
            }
            is_first
        });
        if !is_first {
            return None;
        }
        let place = Place(self.state.clone());
        let room = tokio::time::timeout(PATIENCE, Arc::clone(&self.room).write_owned()).await;
        self.state
            .send_modify(|state| state.suspect = Suspect::Runs);
        Some(Alone {
            _room: room.ok(),
            _place: place,
        })
    }

    async fn until(&self, wanted: impl Fn(&State) -> bool) {
        let mut state = self.state.subscribe();
        if state.wait_for(wanted).await.is_err() {
            unreachable!("the sender is borrowed with self");
        }
    }
}

/// The room to oneself, until dropped.
#[derive(Debug)]
pub(super) struct Alone {
    _room: Option<OwnedRwLockWriteGuard<()>>,
    _place: Place,
}

/// The place of the one suspect.
#[derive(Debug)]
struct Place(watch::Sender<State>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.send_modify(|state| {
            state.suspect = Suspect::None;
            state.left += 1;
        });
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
    async fn those_who_are_present_without_need_learn_that_a_suspect_waits() {
        let solitude = Solitude::default();
        assert!(solitude.is_asked_for().now_or_never().is_none());
        solitude.is_left().await;
        let presence = solitude.presence().await;
        let waiting = async {
            let alone = solitude.alone().await;
            assert!(solitude.is_left().now_or_never().is_none());
            drop(alone);
        };
        let leaving = async {
            solitude.is_asked_for().await;
            drop(presence);
        };
        tokio::join!(waiting, leaving);
        solitude.is_left().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_suspect_to_leave_does_not_wait_for_the_next() {
        let solitude = Solitude::default();
        let first = solitude.alone().await;
        let mut waiting = std::pin::pin!(solitude.is_left());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        let _next = solitude.alone().await.expect("the first has left");
        waiting.now_or_never().expect("the first has left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspect_does_not_wait_for_ever() {
        let solitude = Solitude::default();
        let _presence = solitude.presence().await;
        let _alone = solitude.alone().await.expect("the first one");
        assert!(
            solitude.is_asked_for().now_or_never().is_none(),
            "nobody needs to leave for a suspect that waits no longer"
        );
        assert!(solitude.presence().now_or_never().is_some());
    }
}
