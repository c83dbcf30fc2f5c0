//! [`Shared`]: one question for all who ask within a moment.

use std::future::Future;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// The latest answer, and when it came. Whoever finds it too old asks anew, and all who come meanwhile wait for that: many
/// probes at once are one ping.
pub(crate) struct Shared<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Shared<T> {
    /// The latest answer, or that to a new question. Dropped half-way, it leaves the question to the next who waits.
    pub(crate) async fn get(&self, question: impl Future<Output = T>) -> T {
        let mut latest = self.0.lock().await;
        if let Some((came, answer)) = &*latest
            && Instant::now().saturating_duration_since(*came) < FRESH
        {
            return answer.clone();
        }
        let answer = question.await;
        *latest = Some((Instant::now(), answer.clone()));
        answer
    }
}

/// How long an answer is good for: shorter than any sensible interval between probes.
const FRESH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::{advance, sleep, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_within_a_moment_share_one_answer() {
        let (shared, asked) = (Shared::default(), AtomicU32::new(0));
        let ask = || {
            shared.get(async {
                sleep(Duration::from_millis(300)).await;
                asked.fetch_add(1, Ordering::Relaxed) + 1
            })
        };
        assert_eq!(tokio::join!(ask(), ask(), ask()), (1, 1, 1));
        advance(FRESH - Duration::from_millis(1)).await;
        assert_eq!(ask().await, 1);
        advance(Duration::from_millis(1)).await;
        assert_eq!(tokio::join!(ask(), ask()), (2, 2));

        // Who gives up leaves the question to those who wait.
        advance(FRESH).await;
        let (given_up, answered) = tokio::join!(timeout(Duration::from_millis(100), ask()), ask());
        assert!(given_up.is_err());
        assert_eq!(answered, 3);
    }
}
