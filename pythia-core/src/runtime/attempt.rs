//! One message from its bytes to its disposition: decode, the layers, the worker, and the decision.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::lane::Lane;
use super::settle::Verdict;
use crate::codec::Codec;
use crate::error::{WorkError, WorkErrorKind};
use crate::job::{Cancellation, Job};
use crate::message::Delivery;
use crate::observe::{Event, JobReport, Observer};
use crate::resilience::{Guarded, Retry, discard};
use crate::settlement::{Disposition, decide};
use crate::worker::Worker;

/// What came of one message.
pub(super) struct Finished {
    pub(super) verdict: Verdict,
    pub(super) run: Run,
}

/// How the latest run of a message went.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) failure: Option<WorkErrorKind>,
    /// `None` if it did not come to its end.
    pub(super) took: Option<Duration>,
    pub(super) ended: Instant,
}

/// Decodes a message, and makes the future that works on it.
///
/// That future is moved to its place and stays there for as long as the job runs, so it is kept small: what it holds is
/// borrowed where it is, because what is moved from one async function to the next takes its place in both.
pub(super) fn attempt<'a, W, C>(
    worker: &'a Guarded<W>,
    codec: &C,
    lane: &'a Lane,
    delivery: Delivery,
    cancellation: Cancellation,
    began: Instant,
) -> impl Future<Output = Finished> + use<'a, W, C>
where
    W: Worker,
    C: Codec<W::Input>,
{
    let mut prepared = match decode(codec, &delivery) {
        Ok(input) => Ok(Job::new(input, delivery, cancellation)),
        Err(error) => Err((error, delivery)),
    };
    async move {
        let (disposition, run) = match &mut prepared {
            Ok(job) => work(worker, lane, job, began).await,
            Err((error, delivery)) => undecodable(error, delivery),
        };
        let delivery = match prepared {
            Ok(job) => job.into_delivery(),
            Err((_, delivery)) => delivery,
        };
        let verdict = Verdict::give(lane, delivery, disposition);
        Finished { verdict, run }
    }
}

/// Calls the worker.
///
/// On an at-most-once broker nobody would hand the message out again, so retries, snoozes and waiting for the breaker
/// happen right here.
async fn work<W: Worker>(
    worker: &Guarded<W>,
    lane: &Lane,
    job: &mut Job<W::Input>,
    mut began: Instant,
) -> (Disposition, Run) {
    loop {
        let call = unless_aborted(&lane.aborted, pin!(worker.process(job))).await;
        let Some((result, ended)) = call else {
            return aborted();
        };
        let disposition = decide(&result, job.attempt(), lane.retry.as_ref());
        let failure = result.as_ref().err().map(WorkError::kind);
        report_failure(lane, job, &result, &disposition);
        discard(result);
        let took = ended.saturating_duration_since(began);
        let wait = match disposition {
            Disposition::Retry { after } if lane.retries_in_process => {
                job.delivery.failures += 1;
                Some(after)
            }
            Disposition::Snooze { after } if lane.retries_in_process => Some(after),
            Disposition::Release if lane.retries_in_process => None,
            disposition => {
                let run = Run {
                    failure,
                    took: Some(took),
                    ended,
                };
                return (disposition, run);
            }
        };
        let report = JobReport {
            failure,
            took,
            waited: None,
        };
        lane.observers.on_event(&Event::Processed {
            queue: &lane.queue,
            jobs: &[report],
        });
        // Boxed, because it is rare and would be the largest part of each job's future.
        let mut pause = Box::pin(async {
            match wait {
                Some(after) => tokio::time::sleep(after).await,
                None => lane.may_be_called_again().await,
            }
        });
        if unless_aborted(&lane.aborted, pause.as_mut())
            .await
            .is_none()
        {
            return aborted();
        }
        began = Instant::now();
    }
}

/// Reports an attempt that failed and is followed by another. The error of the last one goes with the dead letter.
pub(super) fn report_failure<T, O>(
    lane: &Lane,
    job: &Job<T>,
    result: &Result<O, WorkError>,
    disposition: &Disposition,
) {
    let (
        Disposition::Retry { after: retry_in } | Disposition::Snooze { after: retry_in },
        Err(error),
    ) = (disposition, result)
    else {
        return;
    };
    lane.observers.on_event(&Event::AttemptFailed {
        queue: &lane.queue,
        id: job.id(),
        attempt: job.attempt(),
        max_attempts: lane.retry.as_ref().map_or(1, Retry::max_attempts),
        error,
        retry_in: *retry_in,
    });
}

fn undecodable(error: &mut WorkError, delivery: &Delivery) -> (Disposition, Run) {
    let error = std::mem::replace(error, WorkError::new(WorkErrorKind::Decode, ""));
    let result = Err(error);
    let disposition = decide::<()>(&result, delivery.attempt(), None);
    discard(result);
    let run = Run {
        failure: Some(WorkErrorKind::Decode),
        took: Some(Duration::ZERO),
        ended: Instant::now(),
    };
    (disposition, run)
}

fn aborted() -> (Disposition, Run) {
    let run = Run {
        failure: None,
        took: None,
        ended: Instant::now(),
    };
    (Disposition::Release, run)
}

/// Decodes, and takes a panic of the user's `Deserialize` for what it is: these bytes can't be read.
pub(super) fn decode<T, C: Codec<T>>(codec: &C, delivery: &Delivery) -> Result<T, WorkError> {
    match catch_unwind(AssertUnwindSafe(|| codec.decode(&delivery.payload))) {
        Ok(Ok(input)) => Ok(input),
        Ok(Err(error)) => Err(WorkError::new(WorkErrorKind::Decode, error)),
        Err(_) => Err(WorkError::new(WorkErrorKind::Decode, "decoding panicked")),
    }
}

/// The future's output, or `None` once the lane's jobs are aborted.
pub(super) fn unless_aborted<F: Future>(
    aborted: &AtomicBool,
    mut future: Pin<&mut F>,
) -> impl Future<Output = Option<F::Output>> {
    std::future::poll_fn(move |cx| {
        if aborted.load(Ordering::Relaxed) {
            return Poll::Ready(None);
        }
        future.as_mut().poll(cx).map(Some)
    })
}
