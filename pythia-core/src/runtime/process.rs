//! The second stage of a lane: decode, the layers, the worker, and the decision. Everything between a fetched batch and
//! its dispositions happens here, in one task a lane: no spawn per message.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::hold::Hold;
use super::lane::{Fetched, Lane, Round};
use super::settle::Outbox;
use crate::codec::Codec;
use crate::error::{WorkError, WorkErrorKind};
use crate::job::{Cancellation, Job};
use crate::message::Delivery;
use crate::observe::{Event, GapCause, JobReport, Observer};
use crate::settlement::{Disposition, decide};
use crate::worker::Worker;

/// Runs the stage until the fetch stage has ended and all that it fetched has a disposition.
pub(super) async fn run<W, C>(
    worker: &W,
    codec: &C,
    lane: &Lane,
    mut fetched: mpsc::Receiver<Fetched>,
    outbox: Outbox,
) where
    W: Worker,
    C: Codec<W::Input>,
{
    let start =
        |delivery: Delivery, cancellation| attempt(worker, codec, lane, delivery, cancellation);
    let mut stage = Stage {
        lane,
        backlog: Backlog::default(),
        window: FuturesUnordered::new(),
        spare: None,
        reports: Vec::new(),
        outbox,
    };
    let mut open = true;
    let mut cut = false;
    while open || !stage.is_idle() {
        let can_start = !stage.backlog.is_empty() && stage.window.len() < lane.concurrency;
        // Cancel safety: `next` and `recv` lose nothing when dropped, and a dropped `acquire` only loses its place in a
        // queue of one.
        tokio::select! {
            biased;
            () = lane.phase.drain_is_over(), if !cut => {
                stage.cut_short();
                cut = true;
            }
            () = lane.unstarted_is_refused(), if !stage.backlog.is_empty() => stage.release_backlog(),
            Some(finished) = stage.window.next(), if !stage.window.is_empty() => {
                stage.collect(finished);
            }
            () = lane.startable(), if can_start => {
                std::future::poll_fn(|cx| {
                    stage.start_some(cx, &start);
                    Poll::Ready(())
                })
                .await;
                // A handler that computes without awaiting must not keep the window from being polled.
                tokio::task::consume_budget().await;
            }
            batch = fetched.recv(), if open && stage.backlog.is_empty() => match batch {
                Some(batch) => stage.backlog.fill(batch),
                None => open = false,
            },
        }
        stage.flush();
    }
}

/// The jobs of one lane.
struct Stage<'a, F> {
    lane: &'a Lane,
    /// Fetched and not started.
    backlog: Backlog,
    /// Started, and pending at their first poll.
    window: FuturesUnordered<Running<F>>,
    /// The allocation of a job that finished at its first poll, for the next one.
    spare: Option<Pin<Box<Option<F>>>>,
    reports: Vec<JobReport>,
    outbox: Outbox,
}

impl<F: Future<Output = Finished>> Stage<'_, F> {
    fn is_idle(&self) -> bool {
        self.backlog.is_empty() && self.window.is_empty()
    }

    /// Starts as many of the backlog as there is room for, each polled once in place: most handlers that don't wait are
    /// done by then, and never enter the window.
    fn start_some(&mut self, cx: &mut Context<'_>, start: &impl Fn(Delivery, Cancellation) -> F) {
        let began = Instant::now();
        let now = SystemTime::now();
        let mut round = Round::InPlace;
        while self.window.len() < self.lane.concurrency {
            if self.lane.refuses_unstarted() {
                return self.release_backlog();
            }
            if self.backlog.is_empty() || !self.lane.take_slot() {
                break;
            }
            let Some((hold, index, delivery)) = self.backlog.next() else {
                break;
            };
            let waited = delivery
                .enqueued_at
                .map(|at| now.duration_since(at).unwrap_or_default());
            let cancellation = hold.cancellation(index);
            let mut place = self.spare.take().unwrap_or_else(|| Box::pin(None));
            place.as_mut().set(Some(start(delivery, cancellation)));
            let mut running = Running {
                place,
                hold,
                index,
                waited,
            };
            match running.poll_unpin(cx) {
                Poll::Ready(ended) => {
                    let mut place = running.place;
                    place.as_mut().set(None);
                    self.spare = Some(place);
                    self.collect_one(ended);
                }
                Poll::Pending => {
                    self.window.push(running);
                    round = Round::Waiting;
                }
            }
            if Instant::now().saturating_duration_since(began) > SLICE {
                round = Round::Slow;
                break;
            }
        }
        self.lane.learn(round, self.window.len());
    }

    /// Takes a finished job and all others that are finished by now.
    fn collect(&mut self, first: Ended) {
        self.collect_one(first);
        while let Some(Some(ended)) = self.window.next().now_or_never() {
            self.collect_one(ended);
        }
    }

    fn collect_one(
        &mut self,
        Ended {
            finished,
            hold,
            index,
            waited,
        }: Ended,
    ) {
        let Finished {
            delivery,
            disposition,
            took,
            failure,
        } = finished;
        if let Some(took) = took {
            self.reports.push(JobReport {
                failure,
                took,
                waited,
            });
        }
        self.outbox
            .push(self.lane, hold, index, delivery, disposition);
    }

    /// Hands back what was fetched and not started: the breaker is open, or the runner stops.
    fn release_backlog(&mut self) {
        while let Some((hold, index, delivery)) = self.backlog.next() {
            self.outbox.push_unstarted(hold, index, delivery);
        }
    }

    /// The drain time is over: what still runs is cancelled and handed back, what was not started too.
    fn cut_short(&mut self) {
        self.lane.abort();
        // Their wakers know nothing of it, so each is polled once more: an aborted job ends without polling its worker.
        let mut cx = Context::from_waker(Waker::noop());
        let mut ended = Vec::new();
        for running in self.window.iter_mut() {
            if let Poll::Ready(end) = running.poll_unpin(&mut cx) {
                ended.push(end);
            }
        }
        self.window.clear();
        if self.lane.retries_in_process && !(ended.is_empty() && self.backlog.is_empty()) {
            let lost = Some((ended.len() + self.backlog.len()) as u64);
            let (queue, cause) = (&self.lane.queue, GapCause::Shutdown);
            self.lane.observers.on_event(&Event::Gap {
                queue,
                cause,
                lost,
                lasted: None,
            });
        }
        ended.into_iter().for_each(|end| self.collect_one(end));
        self.release_backlog();
    }

    fn flush(&mut self) {
        if !self.reports.is_empty() {
            self.lane.observers.on_event(&Event::Processed {
                queue: &self.lane.queue,
                jobs: &self.reports,
            });
            self.reports.clear();
        }
        self.outbox.flush();
    }
}

/// One message from its bytes to its disposition.
///
/// On an at-most-once broker nobody would hand it out again, so retries, snoozes and waiting for the breaker happen right
/// here.
async fn attempt<W, C>(
    worker: &W,
    codec: &C,
    lane: &Lane,
    delivery: Delivery,
    cancellation: Cancellation,
) -> Finished
where
    W: Worker,
    C: Codec<W::Input>,
{
    let input = match decode(codec, &delivery) {
        Ok(input) => input,
        Err(error) => {
            let disposition = decide::<()>(&Err(error), delivery.attempt(), None);
            return Finished {
                delivery,
                disposition,
                took: Some(Duration::ZERO),
                failure: Some(WorkErrorKind::Decode),
            };
        }
    };
    let mut job = Job::new(input, delivery, lane.queue.clone(), cancellation);
    loop {
        let began = Instant::now();
        let Some(result) = unless_aborted(&lane.aborted, worker.process(&job)).await else {
            return Finished {
                delivery: job.delivery,
                disposition: Disposition::Release,
                took: None,
                failure: None,
            };
        };
        let took = Instant::now().saturating_duration_since(began);
        let disposition = decide(&result, job.attempt(), lane.retry.as_ref());
        let failure = result.err().map(|error| error.kind());
        let wait = match disposition {
            Disposition::Retry { after } if lane.retries_in_process => {
                job.delivery.failures += 1;
                Some(after)
            }
            Disposition::Snooze { after } if lane.retries_in_process => Some(after),
            Disposition::Release if lane.retries_in_process => None,
            disposition => {
                return Finished {
                    delivery: job.delivery,
                    disposition,
                    took: Some(took),
                    failure,
                };
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
        let pause = async {
            match wait {
                Some(after) => tokio::time::sleep(after).await,
                None => lane.gate_opens().await,
            }
        };
        if unless_aborted(&lane.aborted, pause).await.is_none() {
            return Finished {
                delivery: job.delivery,
                disposition: Disposition::Release,
                took: None,
                failure: None,
            };
        }
    }
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
pub(super) async fn unless_aborted<F: Future>(
    aborted: &AtomicBool,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        if aborted.load(Ordering::Relaxed) {
            return Poll::Ready(None);
        }
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// What came of one message.
pub(super) struct Finished {
    delivery: Delivery,
    disposition: Disposition,
    took: Option<Duration>,
    failure: Option<WorkErrorKind>,
}

/// A started job in its place on the heap.
struct Running<F> {
    place: Pin<Box<Option<F>>>,
    hold: Arc<Hold>,
    index: u32,
    waited: Option<Duration>,
}

/// A finished job, and where it came from.
struct Ended {
    finished: Finished,
    hold: Arc<Hold>,
    index: u32,
    waited: Option<Duration>,
}

impl<F: Future<Output = Finished>> Future for Running<F> {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let Some(job) = self.place.as_mut().as_pin_mut() else {
            unreachable!("a place is emptied only after its job has ended")
        };
        job.poll(cx).map(|finished| Ended {
            finished,
            hold: Arc::clone(&self.hold),
            index: self.index,
            waited: self.waited,
        })
    }
}

/// What was fetched and not started.
#[derive(Default)]
pub(super) struct Backlog {
    hold: Option<Arc<Hold>>,
    deliveries: VecDeque<Delivery>,
    next: u32,
}

impl Backlog {
    pub(super) fn fill(&mut self, batch: Fetched) {
        *self = Self {
            hold: Some(batch.hold),
            deliveries: batch.deliveries.into(),
            next: 0,
        };
    }

    pub(super) fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.deliveries.len()
    }

    pub(super) fn next(&mut self) -> Option<(Arc<Hold>, u32, Delivery)> {
        let delivery = self.deliveries.pop_front()?;
        let index = self.next;
        self.next += 1;
        Some((Arc::clone(self.hold.as_ref()?), index, delivery))
    }
}

/// How long starts in place may take before the window is looked at again.
const SLICE: Duration = Duration::from_millis(5);
