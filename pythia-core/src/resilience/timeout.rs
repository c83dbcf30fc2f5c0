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
    if let Poll::Ready(result) = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await {
        return result;
    }
    if limits == Limits::default() {
        return call.await;
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
