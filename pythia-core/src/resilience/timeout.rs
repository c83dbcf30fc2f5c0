//! Time limits: a soft one that asks the worker to stop, and a hard one that stops it at its next `.await`.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use crate::error::{ConfigError, WorkError, WorkErrorKind};

/// Settings of the time limits: section `[timeout]`.
///
/// There are none by default: leases are renewed for as long as a worker lives, so a job may take hours. A limit counts
/// from the job's first `.await` that has to wait. It can't stop a worker that never awaits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TimeoutConfig {
    /// After that time the job's [`Cancellation`](crate::Cancellation) is cancelled, and the job goes on: it may stop
    /// where that is safe. Default: none; zero is none.
    #[serde(with = "humantime_serde")]
    pub soft: Option<Duration>,
    /// After that time the job is dropped where it stands, which is a failure of kind
    /// [`Timeout`](WorkErrorKind::Timeout). Default: none; zero is none.
    #[serde(with = "humantime_serde")]
    pub hard: Option<Duration>,
}

impl TimeoutConfig {
    /// The limits.
    pub(crate) fn checked(&self) -> Result<Limits, ConfigError> {
        let soft = self.soft.filter(|limit| !limit.is_zero());
        let hard = self.hard.filter(|limit| !limit.is_zero());
        if let (Some(soft), Some(hard)) = (soft, hard)
            && soft >= hard
        {
            return Err(ConfigError::new(format!(
                "timeout.soft is {soft:?}, it must be less than timeout.hard, which is {hard:?}"
            )));
        }
        Ok(Limits { soft, hard })
    }
}

/// The time limits of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    soft: Option<Duration>,
    hard: Option<Duration>,
}

/// Runs a call within its limits; `ask_to_stop` is called when the soft one is over.
///
/// No timer is made before the call has to wait: most calls of a fast worker never do, and a timer costs more than such
/// a call.
pub(super) async fn within<T, F>(
    limits: Limits,
    ask_to_stop: impl FnOnce(),
    call: impl FnOnce() -> F,
) -> Result<T, WorkError>
where
    F: Future<Output = Result<T, WorkError>>,
{
    let mut call = pin!(call());
    if limits == Limits::default() {
        return call.await;
    }
    if let Poll::Ready(result) = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await {
        return result;
    }
    let began = Instant::now();
    if let Some(soft) = limits.soft {
        if let Some(result) = until(began + soft, call.as_mut()).await {
            return result;
        }
        ask_to_stop();
    }
    let Some(hard) = limits.hard else {
        return call.await;
    };
    until(began + hard, call).await.unwrap_or_else(|| {
        let text = format!("not done within its hard time limit of {hard:?}");
        Err(WorkError::new(WorkErrorKind::Timeout, text))
    })
}

/// The output of a call that was polled just now and is pending, or `None` if the deadline comes first.
async fn until<F: Future>(deadline: Instant, mut call: Pin<&mut F>) -> Option<F::Output> {
    let mut timer = pin!(sleep_until(deadline));
    let mut just_polled = true;
    poll_fn(|cx| {
        // The call goes before the timer: what is done in time must not be dropped because the task was late.
        if !std::mem::take(&mut just_polled)
            && let Poll::Ready(output) = call.as_mut().poll(cx)
        {
            return Poll::Ready(Some(output));
        }
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use tokio::time::sleep;

    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn limits(soft: Option<u64>, hard: Option<u64>) -> Limits {
        let (soft, hard) = (soft.map(secs), hard.map(secs));
        TimeoutConfig { soft, hard }.checked().unwrap()
    }

    /// How a call of so many seconds ends within these limits, when it was asked to stop, and when all was over.
    async fn run(limits: Limits, call: u64) -> (Result<(), WorkErrorKind>, Option<u64>, u64) {
        let began = Instant::now();
        let elapsed = || (Instant::now() - began).as_secs();
        let asked = OnceLock::new();
        let result = within(
            limits,
            || asked.set(elapsed()).unwrap(),
            || async {
                sleep(secs(call)).await;
                Ok(())
            },
        );
        let result = result.await.map_err(|error| error.kind());
        (result, asked.get().copied(), elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_a_call_takes_its_time() {
        assert_eq!(
            run(limits(None, None), 1_000_000).await,
            (Ok(()), None, 1_000_000)
        );
        assert_eq!(
            run(limits(Some(0), Some(0)), 1_000_000).await,
            (Ok(()), None, 1_000_000)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_soft_limit_asks_and_the_call_goes_on() {
        assert_eq!(run(limits(Some(2), None), 1).await, (Ok(()), None, 1));
        assert_eq!(run(limits(Some(2), None), 9).await, (Ok(()), Some(2), 9));
        assert_eq!(run(limits(Some(2), Some(9)), 8).await, (Ok(()), Some(2), 8));
    }

    #[tokio::test(start_paused = true)]
    async fn the_hard_limit_ends_the_call() {
        let timed_out = Err(WorkErrorKind::Timeout);
        assert_eq!(run(limits(None, Some(5)), 4).await, (Ok(()), None, 4));
        assert_eq!(run(limits(None, Some(5)), 6).await, (timed_out, None, 5));
        assert_eq!(
            run(limits(Some(2), Some(5)), 6).await,
            (timed_out, Some(2), 5)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_at_the_last_moment_is_done() {
        assert_eq!(run(limits(None, Some(5)), 5).await, (Ok(()), None, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn the_error_names_the_limit() {
        let never = || std::future::pending::<Result<(), WorkError>>();
        let error = within(limits(None, Some(90)), || {}, never)
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "not done within its hard time limit of 90s"
        );
    }

    #[test]
    fn a_call_that_does_not_wait_needs_no_timer() {
        // Outside of a runtime a timer could not even be made.
        let result = within(limits(Some(1), Some(2)), || {}, || async { Ok(7) });
        assert_eq!(result.now_or_never().unwrap().unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_polled_when_it_was_woken_and_not_more_often() {
        let polls = AtomicUsize::new(0);
        let mut timer = Box::pin(sleep(secs(3)));
        let result = within(
            limits(Some(1), Some(5)),
            || {},
            || {
                poll_fn(|cx| {
                    polls.fetch_add(1, Ordering::Relaxed);
                    timer.as_mut().poll(cx).map(Ok)
                })
            },
        );
        result.await.unwrap();
        // At the start, at the soft limit (the task is woken as a whole), and at its end.
        assert_eq!(polls.into_inner(), 3);
    }

    #[test]
    fn limits_out_of_order_are_refused() {
        let config: TimeoutConfig =
            serde_json::from_str(r#"{"soft": "30s", "hard": "30s"}"#).unwrap();
        assert_eq!(
            config.checked().unwrap_err().to_string(),
            "timeout.soft is 30s, it must be less than timeout.hard, which is 30s"
        );
    }
}
