//! The second stage of a lane for a [`BatchWorker`]: gather decoded jobs, call, decide for each.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::attempt::{decode, report_failure, unless_aborted};
use super::hold::Hold;
use super::lane::Lane;
use super::prefetch::{Backlog, Batches};
use super::settle::Outbox;
use crate::codec::Codec;
use crate::error::{WorkError, WorkErrorKind};
use crate::job::Job;
use crate::observe::{Event, JobReport, Observer};
use crate::resilience::{Guarded, discard};
use crate::settlement::{Disposition, decide};
use crate::worker::BatchWorker;

/// Runs the stage until the fetch stage has ended and all that it fetched has a disposition.
pub(super) async fn run<W, C>(
    worker: &Guarded<W>,
    codec: &C,
    lane: &Lane,
    mut fetched: Batches,
    mut outbox: Outbox,
) where
    W: BatchWorker,
    C: Codec<W::Input>,
{
    lane.wants_whole_batches();
    let mut backlog = Backlog::default();
    let mut gathered: Vec<Gathered<W::Input>> = Vec::new();
    let mut calls = FuturesUnordered::new();
    let mut running = 0;
    // When the oldest gathered job has waited long enough.
    let mut due = Instant::now();
    let mut open = true;
    let mut cut = false;
    while open || !backlog.is_empty() || !gathered.is_empty() || !calls.is_empty() {
        while gathered.len() < lane.batch && !lane.refuses_unstarted() && lane.take_slot() {
            let Some((hold, index, delivery)) = backlog.next() else {
                lane.give_slots_back(1);
                break;
            };
            if gathered.is_empty() {
                due = Instant::now() + lane.linger;
            }
            match decode(codec, &delivery) {
                Ok(input) => {
                    let job = Job::new(input, delivery, hold.cancellation(index));
                    let hold = Arc::clone(hold);
                    gathered.push(Gathered { job, hold, index });
                }
                Err(error) => {
                    let result = Err(error);
                    let disposition = decide::<()>(&result, delivery.attempt(), None);
                    discard(result);
                    report_all(
                        lane,
                        &[JobReport {
                            failure: Some(WorkErrorKind::Decode),
                            took: Duration::ZERO,
                            waited: None,
                        }],
                    );
                    outbox.push(hold, index, delivery, disposition);
                }
            }
        }
        outbox.flush();
        // One call may have a whole batch, whatever the concurrency; beside it others may run within that.
        let fits = running == 0 || running + gathered.len() <= lane.concurrency;
        let full = gathered.len() >= lane.batch;
        let last = !open && backlog.is_empty();
        let is_refused = lane.refuses_unstarted();
        let may_start = fits && !is_refused;
        if !gathered.is_empty() && may_start && (full || last || Instant::now() >= due) {
            leave_lost(&mut gathered, &mut outbox);
            if !gathered.is_empty() {
                running += gathered.len();
                calls.push(call(worker, lane, std::mem::take(&mut gathered)));
            }
            continue;
        }
        // No more is taken than the next call gets, so that it does not wait here while other workers are idle.
        let has_room = gathered.len() < lane.batch;
        let wants = open && backlog.is_empty() && has_room;
        // Cancel safety: `next` and `after` lose nothing when dropped; the others are timers and notices.
        tokio::select! {
            biased;
            () = lane.phase.drain_is_over(), if !cut => {
                cut = true;
                lane.abort();
                hand_back(&mut fetched, &mut backlog, &mut gathered, &mut outbox);
                for ended in poll_once_more(&mut calls) {
                    running -= ended.len();
                    finish(lane, ended, &mut outbox);
                }
            }
            () = lane.unstarted_is_refused(), if !backlog.is_empty() || !gathered.is_empty() => {
                hand_back(&mut fetched, &mut backlog, &mut gathered, &mut outbox);
            }
            Some(ended) = calls.next(), if !calls.is_empty() => {
                running -= ended.len();
                finish(lane, ended, &mut outbox);
            }
            () = tokio::time::sleep_until(due), if !gathered.is_empty() && may_start => {}
            () = lane.startable(), if !backlog.is_empty() && has_room && !is_refused => {}
            next = fetched.after(&mut backlog), if wants => match next {
                Some(next) => backlog = next,
                None => open = false,
            },
        }
        outbox.flush();
    }
}

/// Ends the calls of a lane whose jobs are aborted: their wakers know nothing of that, so each is polled once more, and
/// ends without polling its worker.
fn poll_once_more<F: Future>(calls: &mut FuturesUnordered<F>) -> Vec<F::Output> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut ended = Vec::new();
    for call in Pin::new(&mut *calls).iter_pin_mut() {
        if let Poll::Ready(jobs) = call.poll(&mut cx) {
            ended.push(jobs);
        }
    }
    calls.clear();
    ended
}

/// A decoded job that waits for its call.
struct Gathered<T> {
    job: Job<T>,
    hold: Arc<Hold>,
    index: u32,
}

/// A job whose call has ended.
struct Ended<T> {
    job: Job<T>,
    place: (Arc<Hold>, u32),
    disposition: Disposition,
    report: Option<JobReport>,
}

/// Lets go of what was gathered and has lost its lease since: another worker has it by now.
fn leave_lost<T>(gathered: &mut Vec<Gathered<T>>, outbox: &mut Outbox) {
    let is_lost = |gathered: &mut Gathered<T>| gathered.job.cancellation().is_cancelled();
    for Gathered { job, hold, index } in gathered.extract_if(.., is_lost) {
        outbox.push(&hold, index, job.into_delivery(), Disposition::Release);
    }
}

/// One call, guarded as a whole; then a decision for each job. On an at-most-once broker the jobs to be tried again are
/// called again right here.
async fn call<W: BatchWorker>(
    worker: &Guarded<W>,
    lane: &Lane,
    gathered: Vec<Gathered<W::Input>>,
) -> Vec<Ended<W::Input>> {
    let now = SystemTime::now();
    let (mut jobs, mut places): (Vec<_>, Vec<_>) = gathered
        .into_iter()
        .map(|Gathered { job, hold, index }| (job, (hold, index)))
        .unzip();
    let mut ended = Vec::with_capacity(jobs.len());
    let mut first = true;
    while !jobs.is_empty() {
        let began = Instant::now();
        let call = unless_aborted(&lane.aborted, pin!(worker.process_all(&jobs))).await;
        let Some((results, ended_at)) = call else {
            break;
        };
        let took = ended_at.saturating_duration_since(began);
        let mut again = (Vec::new(), Vec::new());
        let mut pause = Duration::ZERO;
        let mut refused = false;
        for ((mut job, place), result) in jobs.into_iter().zip(places).zip(results) {
            let waited = job
                .enqueued_at()
                .filter(|_| first)
                .map(|at| now.duration_since(at).unwrap_or_default());
            let disposition = decide(&result, job.attempt(), lane.retry.as_ref());
            let report = JobReport {
                failure: result.as_ref().err().map(WorkError::kind),
                took,
                waited,
            };
            report_failure(lane, &job, &result, &disposition);
            discard(result);
            let after = match disposition {
                Disposition::Retry { after } if lane.retries_in_process => {
                    job.delivery.failures += 1;
                    after
                }
                Disposition::Snooze { after } if lane.retries_in_process => after,
                Disposition::Release if lane.retries_in_process => {
                    refused = true;
                    Duration::ZERO
                }
                disposition => {
                    ended.push(Ended {
                        job,
                        place,
                        disposition,
                        report: Some(report),
                    });
                    continue;
                }
            };
            report_all(lane, &[report]);
            pause = pause.max(after);
            again.0.push(job);
            again.1.push(place);
        }
        (jobs, places) = again;
        first = false;
        if !jobs.is_empty() {
            let wait = async {
                tokio::time::sleep(pause).await;
                if refused {
                    lane.may_be_called_again().await;
                }
            };
            if unless_aborted(&lane.aborted, pin!(wait)).await.is_none() {
                break;
            }
        }
    }
    // What is left was aborted.
    let aborted = jobs.into_iter().zip(places);
    ended.extend(aborted.map(|(job, place)| Ended {
        job,
        place,
        disposition: Disposition::Release,
        report: None,
    }));
    ended
}

fn finish<T>(lane: &Lane, ended: Vec<Ended<T>>, outbox: &mut Outbox) {
    let reports: Vec<JobReport> = ended.iter().filter_map(|ended| ended.report).collect();
    report_all(lane, &reports);
    for Ended {
        job,
        place: (hold, index),
        disposition,
        ..
    } in ended
    {
        outbox.push(&hold, index, job.into_delivery(), disposition);
    }
}

/// Hands back what was fetched and not given to a call, also what waits to be taken. The newest first: each goes before
/// the head of the queue, where the oldest has to be in the end.
fn hand_back<T>(
    fetched: &mut Batches,
    backlog: &mut Backlog,
    gathered: &mut Vec<Gathered<T>>,
    outbox: &mut Outbox,
) {
    let mut backlogs = vec![std::mem::take(backlog)];
    backlogs.extend(std::iter::from_fn(|| fetched.try_next()));
    for backlog in backlogs.iter_mut().rev() {
        while let Some((hold, index, delivery)) = backlog.next() {
            outbox.push_unstarted(hold, index, delivery);
        }
    }
    for Gathered { job, hold, index } in gathered.drain(..).rev() {
        outbox.push(&hold, index, job.into_delivery(), Disposition::Release);
    }
}

fn report_all(lane: &Lane, jobs: &[JobReport]) {
    if !jobs.is_empty() {
        lane.observers.on_event(&Event::Processed {
            queue: &lane.queue,
            jobs,
        });
    }
}
