//! The second stage of a lane for a [`BatchWorker`]: gather decoded jobs, call, decide for each.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::hold::Hold;
use super::lane::{Fetched, Lane};
use super::process::{Backlog, decode, unless_aborted};
use super::settle::Outbox;
use crate::codec::Codec;
use crate::error::WorkErrorKind;
use crate::job::Job;
use crate::observe::{Event, JobReport, Observer};
use crate::settlement::{Disposition, decide};
use crate::worker::BatchWorker;

/// Runs the stage until the fetch stage has ended and all that it fetched has a disposition.
pub(super) async fn run<W, C>(
    worker: &W,
    codec: &C,
    lane: &Lane,
    mut fetched: mpsc::Receiver<Fetched>,
    mut outbox: Outbox,
) where
    W: BatchWorker,
    C: Codec<W::Input>,
{
    let mut backlog = Backlog::default();
    let mut gathered: Vec<Gathered<W::Input>> = Vec::new();
    let mut calls = FuturesUnordered::new();
    let mut running = 0;
    // When the oldest gathered job has waited long enough.
    let mut due = Instant::now();
    let mut open = true;
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
                    let job = Job::new(
                        input,
                        delivery,
                        lane.queue.clone(),
                        hold.cancellation(index),
                    );
                    gathered.push(Gathered { job, hold, index });
                }
                Err(error) => {
                    let disposition = decide::<()>(&Err(error), delivery.attempt(), None);
                    report_all(
                        lane,
                        &[JobReport {
                            failure: Some(WorkErrorKind::Decode),
                            took: Duration::ZERO,
                            waited: None,
                        }],
                    );
                    outbox.push(lane, hold, index, delivery, disposition);
                }
            }
        }
        outbox.flush();
        let full = gathered.len() >= lane.batch || (gathered.len() >= lane.concurrency);
        let fits = running == 0 || running + gathered.len() <= lane.concurrency;
        let last = !open && backlog.is_empty();
        if !gathered.is_empty()
            && fits
            && (full || last || lane.linger.is_zero() || Instant::now() >= due)
        {
            running += gathered.len();
            calls.push(call(worker, lane, std::mem::take(&mut gathered)));
            continue;
        }
        // Cancel safety: `next` and `recv` lose nothing when dropped; the others are timers and notices.
        tokio::select! {
            biased;
            () = lane.phase.drain_is_over(), if !lane.aborted.load(Ordering::Relaxed) => {
                lane.abort();
                release(lane, &mut backlog, &mut gathered, &mut outbox);
            }
            () = lane.unstarted_is_refused(), if !backlog.is_empty() || !gathered.is_empty() => {
                release(lane, &mut backlog, &mut gathered, &mut outbox);
            }
            Some(ended) = calls.next(), if !calls.is_empty() => {
                running -= ended.len();
                finish(lane, ended, &mut outbox);
            }
            () = tokio::time::sleep_until(due), if !gathered.is_empty() && fits => {}
            () = lane.startable(), if !backlog.is_empty() && gathered.len() < lane.batch => {}
            batch = fetched.recv(), if open && backlog.is_empty() => match batch {
                Some(batch) => backlog.fill(batch),
                None => open = false,
            },
        }
        outbox.flush();
    }
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

/// One call, guarded as a whole; then a decision for each job. On an at-most-once broker the jobs to be tried again are
/// called again right here.
async fn call<W: BatchWorker>(
    worker: &W,
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
        let Some(results) = unless_aborted(&lane.aborted, worker.process(&jobs)).await else {
            break;
        };
        let took = Instant::now().saturating_duration_since(began);
        let mut again = (Vec::new(), Vec::new());
        let mut pause = Duration::ZERO;
        for ((mut job, place), result) in jobs.into_iter().zip(places).zip(results) {
            let waited = job
                .enqueued_at()
                .filter(|_| first)
                .map(|at| now.duration_since(at).unwrap_or_default());
            let disposition = decide(&result, job.attempt(), lane.retry.as_ref());
            let report = JobReport {
                failure: result.err().map(|error| error.kind()),
                took,
                waited,
            };
            let after = match disposition {
                Disposition::Retry { after } if lane.retries_in_process => {
                    job.delivery.failures += 1;
                    after
                }
                Disposition::Snooze { after } if lane.retries_in_process => after,
                Disposition::Release if lane.retries_in_process => Duration::ZERO,
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
                lane.gate_opens().await;
            };
            if unless_aborted(&lane.aborted, wait).await.is_none() {
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
        outbox.push(lane, hold, index, job.delivery, disposition);
    }
}

/// Hands back what was fetched and not given to a call.
fn release<T>(
    lane: &Lane,
    backlog: &mut Backlog,
    gathered: &mut Vec<Gathered<T>>,
    outbox: &mut Outbox,
) {
    for Gathered { job, hold, index } in gathered.drain(..) {
        outbox.push(lane, hold, index, job.delivery, Disposition::Release);
    }
    while let Some((hold, index, delivery)) = backlog.next() {
        outbox.push_unstarted(hold, index, delivery);
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
