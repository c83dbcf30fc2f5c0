//! The second stage of a lane: starts what was fetched, and sees it through to its disposition. All of it happens in one
//! task a lane: no spawn per message. What happens to one message is in `attempt`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::attempt::{Finished, attempt};
use super::hold::Hold;
use super::lane::{Lane, Round};
use super::prefetch::{Backlog, Batches};
use super::settle::Outbox;
use crate::codec::Codec;
use crate::job::Cancellation;
use crate::message::Delivery;
use crate::observe::{Event, JobReport, Observer};
use crate::resilience::Guarded;
use crate::worker::Worker;

/// Runs the stage until the fetch stage has ended and all that it fetched has a disposition.
pub(super) async fn run<W, C>(
    worker: &Guarded<W>,
    codec: &C,
    lane: &Lane,
    mut fetched: Batches,
    outbox: Outbox,
) where
    W: Worker,
    C: Codec<W::Input>,
{
    let start =
        |delivery, cancellation, began| attempt(worker, codec, lane, delivery, cancellation, began);
    let mut stage = Stage {
        lane,
        backlog: Backlog::default(),
        window: FuturesUnordered::new(),
        remains: Remains {
            spare: Vec::new(),
            reports: Vec::new(),
            outbox,
        },
    };
    let mut open = true;
    let mut cut = false;
    while open || !stage.is_idle() {
        let has_room = stage.window.len() < lane.concurrency;
        let can_start = !stage.backlog.is_empty() && has_room && !lane.refuses_unstarted();
        // Cancel safety: `next` and `after` lose nothing when dropped, and a dropped `acquire` only loses its place in a
        // queue of one.
        tokio::select! {
            biased;
            () = lane.phase.drain_is_over(), if !cut => {
                stage.cut_short(&mut fetched);
                cut = true;
            }
            () = lane.unstarted_is_refused(), if !stage.backlog.is_empty() => {
                stage.hand_back(&mut fetched);
            }
            Some(finished) = stage.window.next(), if !stage.window.is_empty() => {
                stage.collect(finished);
            }
            () = lane.startable(), if can_start => {
                let round = std::future::poll_fn(|cx| Poll::Ready(stage.start_some(cx, &start))).await;
                // What has ended must not wait for what is started next, which may take its time.
                stage.flush();
                // Handlers that compute without awaiting must not keep this thread's other tasks from running, such as
                // the settle stage that the flush has woken.
                match round {
                    Round::Slow { .. } => tokio::task::yield_now().await,
                    Round::InPlace | Round::Waiting => tokio::task::consume_budget().await,
                }
            }
            next = fetched.after(&mut stage.backlog), if open && stage.backlog.is_empty() => match next {
                Some(backlog) => stage.backlog = backlog,
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
    window: FuturesUnordered<Waiting<F>>,
    remains: Remains<F>,
}

/// What is left of jobs that have ended.
struct Remains<F> {
    /// Their places, for the next ones.
    spare: Vec<Place<F>>,
    reports: Vec<JobReport>,
    outbox: Outbox,
}

impl<F: Future<Output = Finished>> Stage<'_, F> {
    fn is_idle(&self) -> bool {
        self.backlog.is_empty() && self.window.is_empty()
    }

    /// Starts as many of the backlog as there is room for, each polled once in place: most handlers that don't wait are
    /// done by then, and never enter the window.
    fn start_some(
        &mut self,
        cx: &mut Context<'_>,
        start: &impl Fn(Delivery, Cancellation, Instant) -> F,
    ) -> Round {
        let began = Instant::now();
        let mut now = began;
        let wall = SystemTime::now();
        let mut round = Round::InPlace;
        let mut started = 0;
        while self.window.len() < self.lane.concurrency {
            let may_start = !self.backlog.is_empty() && !self.lane.refuses_unstarted();
            if !may_start || !self.lane.take_slot() {
                break;
            }
            let Some((hold, index, delivery)) = self.backlog.next() else {
                break;
            };
            let cancellation = hold.cancellation(index);
            // Its lease is lost: another worker has it by now.
            if cancellation.is_cancelled() {
                self.lane.give_slots_back(1);
                self.remains.outbox.push_unstarted(hold, index, delivery);
                continue;
            }
            let waited = delivery
                .enqueued_at
                .map(|at| wall.duration_since(at).unwrap_or_default());
            let spare = self.remains.spare.pop();
            let mut place = spare.unwrap_or_else(|| Box::pin(None));
            place.as_mut().set(Some(start(delivery, cancellation, now)));
            match poll(&mut place, cx) {
                Poll::Ready(finished) => {
                    now = finished.run.ended;
                    self.remains.collect(finished, place, hold, index, waited);
                }
                Poll::Pending => {
                    self.window.push(Waiting(Some(Running {
                        place,
                        hold: Arc::clone(hold),
                        index,
                        waited,
                    })));
                    round = Round::Waiting;
                    now = Instant::now();
                }
            }
            started += 1;
            let took = now.saturating_duration_since(began);
            if took > SLICE {
                round = Round::Slow {
                    each: took / started,
                };
                break;
            }
        }
        if started > 0 {
            self.lane.learn(round, self.window.len());
        }
        round
    }

    /// Takes a finished job and all others that are finished by now.
    fn collect(&mut self, (finished, ran): (Finished, Running<F>)) {
        self.remains.collect_from_window(finished, ran);
        while let Some(Some((finished, ran))) = self.window.next().now_or_never() {
            self.remains.collect_from_window(finished, ran);
        }
    }

    /// Hands back what was fetched and not started, also what waits to be taken: the breaker is open, or the runner stops.
    fn hand_back(&mut self, fetched: &mut Batches) {
        let mut backlogs = vec![std::mem::take(&mut self.backlog)];
        backlogs.extend(std::iter::from_fn(|| fetched.try_next()));
        // The newest first: each goes before the head of the queue, where the oldest has to be in the end.
        for backlog in backlogs.iter_mut().rev() {
            while let Some((hold, index, delivery)) = backlog.next() {
                self.remains.outbox.push_unstarted(hold, index, delivery);
            }
        }
    }

    /// The drain time is over: what still runs is cancelled and handed back, what was not started too.
    fn cut_short(&mut self, fetched: &mut Batches) {
        self.lane.abort();
        self.hand_back(fetched);
        // Their wakers know nothing of it, so each is polled once more: an aborted job ends without polling its worker.
        let mut cx = Context::from_waker(Waker::noop());
        let mut ended = Vec::new();
        for running in self.window.iter_mut() {
            if let Poll::Ready(end) = running.poll_unpin(&mut cx) {
                ended.push(end);
            }
        }
        self.window.clear();
        for (finished, ran) in ended {
            self.remains.collect_from_window(finished, ran);
        }
    }

    fn flush(&mut self) {
        if !self.remains.reports.is_empty() {
            self.lane.observers.on_event(&Event::Processed {
                queue: &self.lane.queue,
                jobs: &self.remains.reports,
            });
            self.remains.reports.clear();
        }
        self.remains.outbox.flush();
    }
}

impl<F> Remains<F> {
    fn collect_from_window(&mut self, finished: Finished, ran: Running<F>) {
        self.collect(finished, ran.place, &ran.hold, ran.index, ran.waited);
    }

    fn collect(
        &mut self,
        finished: Finished,
        place: Place<F>,
        hold: &Arc<Hold>,
        index: u32,
        waited: Option<Duration>,
    ) {
        self.spare.push(place);
        if let Some(took) = finished.run.took {
            self.reports.push(JobReport {
                failure: finished.run.failure,
                took,
                waited,
            });
        }
        self.outbox.push_verdict(hold, index, finished.verdict);
    }
}

/// Where a job is while it runs: on the heap, so that it can be moved into the window, and used again.
type Place<F> = Pin<Box<Option<F>>>;

/// Polls the job in there. The place is empty when the job has ended.
fn poll<F: Future>(place: &mut Place<F>, cx: &mut Context<'_>) -> Poll<F::Output> {
    let Some(job) = place.as_mut().as_pin_mut() else {
        unreachable!("a job is not polled after its end")
    };
    let polled = job.poll(cx);
    if polled.is_ready() {
        place.as_mut().set(None);
    }
    polled
}

/// A started job, and where its message came from.
struct Running<F> {
    place: Place<F>,
    hold: Arc<Hold>,
    index: u32,
    waited: Option<Duration>,
}

/// A job in the window, until it has ended.
struct Waiting<F>(Option<Running<F>>);

impl<F: Future> Future for Waiting<F> {
    type Output = (F::Output, Running<F>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(running) = &mut self.0 else {
            unreachable!("a job is not polled after its end")
        };
        let Poll::Ready(output) = poll(&mut running.place, cx) else {
            return Poll::Pending;
        };
        let Some(ended) = self.0.take() else {
            unreachable!("it was there a moment ago")
        };
        Poll::Ready((output, ended))
    }
}

/// How long starts in place may take before the window is looked at again.
const SLICE: Duration = Duration::from_millis(5);
