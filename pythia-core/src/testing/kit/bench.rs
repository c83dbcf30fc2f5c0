//! A runner under test, until there is nothing left to do.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::history::History;
use super::journal::{Journal, MOST_ATTEMPTS};
use crate::admin::Page;
use crate::broker::{Broker, Guarantee, Published};
use crate::message::{Message, QueueName};
use crate::runtime::{Runner, Summary};

/// What is made once worker, broker and settings are all known.
pub(super) struct Bench {
    pub(super) runner: Runner,
    pub(super) queue: QueueName,
    pub(super) journal: Arc<Journal>,
    pub(super) broker: Arc<dyn Broker>,
    /// For a broker that remembers nothing: published when the worker has subscribed.
    pub(super) held: Vec<Message>,
}

/// When a run is over.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Until {
    /// Nothing is ready, running or delayed.
    Idle,
    /// Nothing is ready or running.
    NoneReady,
}

impl Bench {
    /// One life of the worker: start hook, messages, stop hook.
    pub(super) async fn run(&mut self, until: Until, patience: Duration) -> Summary {
        self.journal.begin_run();
        match timeout(patience.max(LONGEST_JOB), self.runner.start()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => panic!("the worker under test: {error}"),
            Err(_) => panic!("the worker under test: its start hook does not end"),
        }
        if until == Until::NoneReady {
            self.promote().await;
        }
        let mut summary = self.run_lanes(until, patience).await;
        while let Some(due) = self.parked(until).await {
            // In parts, so that real time is not slept away; growing ones, because paused time has many.
            let mut part = LOOK.max(patience);
            while timeout_at(due, sleep(part)).await.is_ok() {
                self.assert_moves(patience).await;
                part *= 2;
            }
            summary += self.run_lanes(until, patience).await;
        }
        self.runner.stop().await;
        summary
    }

    /// Runs the lanes until there is nothing to do, now or soon.
    async fn run_lanes(&mut self, until: Until, patience: Duration) -> Summary {
        let held = std::mem::take(&mut self.held);
        let idle = async {
            if self.broker.is_fan_out() {
                let subscribed = async || self.journal.is_subscribed();
                self.wait(subscribed, patience).await;
            }
            for message in held {
                publish(&*self.broker, &self.queue, message).await;
            }
            let idle = async || match self.work().await {
                Work::Ready => false,
                Work::Delayed(count) => {
                    until == Until::NoneReady || self.far(count).await.is_some()
                }
                Work::None => true,
            };
            self.wait(idle, patience).await;
        };
        match self.runner.run_lanes(idle).await.0 {
            Ok(summary) => summary,
            Err(error) => panic!("the worker under test: {error}"),
        }
    }

    /// Makes ready what is due, which a broker does when it is asked.
    async fn promote(&self) {
        let max_attempts = self.runner.max_attempts();
        for _ in 0..ATTEMPTS {
            match self.broker.maintain(&self.queue, max_attempts).await {
                Ok(round) if round.more => {}
                Ok(_) => return,
                // The run will tell if it stays away.
                Err(_) => sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// When the lanes have something to do again, if they were stopped for want of it: under paused time each minute of
    /// idle lanes would cost some work.
    async fn parked(&self, until: Until) -> Option<Instant> {
        match self.work().await {
            Work::Delayed(count) if until == Until::Idle => self.far(count).await,
            _ => None,
        }
    }

    /// When the first of so many delayed messages is due, if that is known and not soon.
    async fn far(&self, delayed: u64) -> Option<Instant> {
        let due = match self.journal.next_due(delayed) {
            Some(due) => due,
            // Others than the kit have delayed some: the broker says when they are due, by its own clock.
            None => {
                let next = self
                    .broker
                    .admin()?
                    .delayed(&self.queue, Page::first(1))
                    .await;
                self.journal.instant(next.ok()?.first()?.due)?
            }
        };
        (due > Instant::now() + SOON).then_some(due)
    }

    async fn work(&self) -> Work {
        let all_ended = || match self.journal.all_ended() {
            true => Work::None,
            false => Work::Ready,
        };
        let Some(admin) = self.broker.admin() else {
            return all_ended();
        };
        let Ok(depth) = admin.depth(&self.queue).await else {
            // No event may follow: look again before long.
            sleep(LOOK_AGAIN).await;
            return Work::Ready;
        };
        let pending = depth.pending.unwrap_or(self.journal.in_hand() as u64);
        match (depth.ready, depth.delayed.unwrap_or(0)) {
            _ if pending > 0 => Work::Ready,
            (Some(0), 0) => Work::None,
            (Some(0), delayed) => Work::Delayed(delayed),
            (Some(_), _) => Work::Ready,
            (None, _) => all_ended(),
        }
    }

    /// Waits until it is so, looking again whenever something has happened to a message.
    async fn wait(&self, is_so: impl AsyncFn() -> bool, patience: Duration) {
        loop {
            // Made before the look, so that what happens between the look and the wait ends the wait.
            let changed = self.journal.changed();
            self.assert_ends();
            if is_so().await {
                return;
            }
            if timeout(LOOK.min(patience), changed).await.is_err() {
                self.assert_moves(patience).await;
            }
        }
    }

    /// Panics if a message is tried again and again: each attempt is a change, so patience never runs out.
    fn assert_ends(&self) {
        let Some(message) = self.journal.endless() else {
            return;
        };
        let History { queue, id, .. } = &message;
        let latest = message.attempts().last().map(ToString::to_string);
        panic!(
            "message {id:?} of queue {queue:?} has not come to its end in {MOST_ATTEMPTS} attempts, the latest: {}\n\
             let the worker give up at some time (`max_attempts` bounds retries; snoozes and releases burn no attempt), or \
             run it up to the next delay only, by `run_ready`",
            latest.unwrap_or_default()
        );
    }

    /// Panics if nothing has happened to any message for too long.
    async fn assert_moves(&self, patience: Duration) {
        let (virtually, really) = self.journal.progress().ago();
        let delayed = match self.broker.admin() {
            Some(admin) => admin.delayed(&self.queue, Page::first(1)).await,
            None => Ok(Vec::new()),
        };
        let next_due = delayed.iter().flatten().next();
        let hangs = next_due.is_none() && virtually >= LONGEST_JOB.max(patience);
        if really < patience && !hangs {
            return;
        }
        let mut reasons = String::new();
        if let Some(next) = next_due {
            reasons.push_str(&format!(
                "\nmessage {:?} is delayed: let time pass at once by `#[tokio::test(start_paused = true)]` on the in-memory \
                 broker, shorten the delay, or leave delayed messages by `run_ready`",
                next.delivery.id
            ));
        }
        if let Some(fault) = self.journal.fault() {
            reasons.push_str(&format!("\nthe broker fails: {fault}"));
        }
        let unended = self.journal.histories().into_iter();
        let unended = unended.filter(|message| !message.has_ended());
        let story: String = unended.map(|message| message.to_string()).collect();
        panic!(
            "nothing has happened to any message for {:?} (the limit is set by `patience`){reasons}\nthese have not come to their end:\n{story}",
            really.max(virtually)
        );
    }
}

/// What there is to do for the worker.
enum Work {
    /// So many messages wait for their time, and that is all.
    Delayed(u64),
    /// Nothing any more.
    None,
    /// Something is ready or running.
    Ready,
}

/// Publishes once, though a broker that fails on demand may have to be asked several times.
pub(super) async fn publish(broker: &dyn Broker, queue: &QueueName, mut message: Message) {
    let is_ours = message.dedupe_key.is_none() && broker.guarantee() == Guarantee::AtLeastOnce;
    if is_ours {
        message = message.dedupe_key(format!("test-{:x}", rand::random::<u128>()));
    }
    let mut asked = 1;
    loop {
        match broker.publish(queue, vec![message.clone()]).await {
            Ok(answers) if answers == [Published::Deduplicated] && !is_ours && asked == 1 => {
                panic!(
                    "not published: the broker remembers the dedupe key {:?}",
                    message.dedupe_key
                )
            }
            Ok(_) => return,
            Err(error) if error.is_unavailable() && asked < ATTEMPTS => asked += 1,
            Err(error) => panic!("{error}"),
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// The same by tokio's clock, at least: under paused time it shows at once what will never end.
const LONGEST_JOB: Duration = Duration::from_hours(2);
/// The lanes are not stopped for a message that is due within so long.
const SOON: Duration = Duration::from_secs(60);
/// How long is waited for an event before the clocks are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Between two tries at a broker that fails.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const ATTEMPTS: u32 = 10;
