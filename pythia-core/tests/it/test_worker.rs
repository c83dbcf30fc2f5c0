//! The kit that users test their workers with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pythia_core::broker::Broker;
use pythia_core::codec::{MessagePack, Raw};
use pythia_core::resilience::{BreakerConfig, Jitter, RetryConfig};
use pythia_core::settlement::DeadKind;
use pythia_core::testing::{
    EventLog, FaultyBroker, Operation, Outcome, TestWorker, for_every_fault,
};
use pythia_core::{
    BatchRoute, BatchWorker, Config, Job, Layer, MemoryBroker, MemoryConfig, Message, Producer,
    QueueName, Route, WorkError, WorkErrorKind, Worker, worker_fn, worker_fn_with,
};
use tokio::time::Instant;

const DAY: Duration = Duration::from_hours(24);

/// Succeeds at the attempt whose number is the input; at zero never, and says so at once.
struct SucceedsAt;

impl Worker for SucceedsAt {
    type Input = u32;
    type Output = ();

    async fn process(&self, job: &Job<u32>) -> Result<(), WorkError> {
        match job.input {
            0 => Err(WorkError::permanent("it is zero")),
            at if at <= job.attempt() => Ok(()),
            _ => Err(WorkError::retryable("not yet")),
        }
    }
}

/// The same delay before each attempt.
fn every(delay: Duration) -> RetryConfig {
    let mut retry = RetryConfig::default();
    retry.initial_delay = delay;
    retry.max_delay = delay;
    retry.jitter = Jitter::None;
    retry
}

#[tokio::test(start_paused = true)]
async fn each_message_has_its_history() {
    let mut test = TestWorker::route(Route::new("numbers", SucceedsAt).retry(every(7 * DAY)));
    let first = test.send(&1).await;
    let third = test.send(&3).await;
    let never = test.send(&9).await;
    let zero = test.send(&0).await;
    let junk = test.publish(Message::new("junk")).await;
    let summary = test.run_until_idle().await;

    assert_eq!((summary.settled.acked, summary.settled.dead), (2, 3));
    test.message(&first).assert_acked().assert_attempts(1);
    let third = test.message(&third);
    third.assert_acked().assert_attempts(3);
    assert_eq!(third.delays(), [7 * DAY, 7 * DAY]);
    let ended: Vec<_> = third
        .attempts()
        .iter()
        .map(|at| at.ended / 86_400)
        .collect();
    assert_eq!(
        ended.iter().map(Duration::as_secs).collect::<Vec<_>>(),
        [0, 7, 14]
    );
    let numbers: Vec<_> = third.attempts().iter().map(|at| at.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    test.message(&never)
        .assert_dead(DeadKind::Exhausted)
        .assert_attempts(5);
    test.message(&zero)
        .assert_dead(DeadKind::Permanent)
        .assert_attempts(1);
    let junk = test.message(&junk);
    junk.assert_dead(DeadKind::Decode);
    assert_eq!(junk.payload(), &"junk".into());

    let letters = test.dead_letters().await;
    assert_eq!(letters.len(), 3);
    assert_eq!(
        &letters[2].delivery.id,
        test.messages()[3].id(),
        "zero, or junk, died first"
    );
    assert_eq!(test.messages().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_is_delayed_stays_so_until_it_is_waited_for() {
    let start = Instant::now();
    let mut test = TestWorker::route(Route::new("numbers", SucceedsAt).retry(every(DAY)));
    let second = test.send(&2).await;
    let later = test.publish(Message::new("1").delay(2 * DAY)).await;
    test.run_ready().await;
    assert!(start.elapsed_virtual() < Duration::from_secs(1));
    test.message(&second).assert_delayed(DAY).assert_attempts(1);
    assert_eq!(test.message(&later).outcome(), None);
    assert_eq!(test.delayed("numbers").await.len(), 2);

    tokio::time::advance(DAY + Duration::from_secs(1)).await;
    test.run_ready().await;
    test.message(&second).assert_acked().assert_attempts(2);
    assert_eq!(test.message(&later).outcome(), None);

    test.run_until_idle().await;
    test.assert_all_acked();
    assert!(start.elapsed_virtual() >= 2 * DAY);
}

trait ElapsedVirtual {
    fn elapsed_virtual(&self) -> Duration;
}

impl ElapsedVirtual for Instant {
    fn elapsed_virtual(&self) -> Duration {
        Self::now().saturating_duration_since(*self)
    }
}

#[tokio::test(start_paused = true)]
async fn a_snooze_burns_no_attempt_and_a_worker_may_name_the_delay() {
    let seen = Arc::new(AtomicU32::new(0));
    let worker = worker_fn_with(seen, async |seen: &Arc<AtomicU32>, _: &Job<u32>| match seen
        .fetch_add(1, Ordering::Relaxed)
    {
        0 => Err(WorkError::snooze(Duration::from_secs(30))),
        1 => Err(WorkError::retry_after(Duration::from_secs(60), "busy")),
        _ => Ok(()),
    });
    let mut test = TestWorker::new(worker);
    let id = test.send(&1).await;
    test.run_until_idle().await;
    let message = test.message(&id);
    message.assert_acked().assert_attempts(2);
    assert_eq!(message.delays(), [30, 60].map(Duration::from_secs));
    let numbers: Vec<_> = message.attempts().iter().map(|at| at.number).collect();
    assert_eq!(numbers, [1, 1, 2]);
    let busy = Outcome::Retried {
        kind: WorkErrorKind::Retryable {
            after: Some(Duration::from_secs(60)),
        },
        error: "busy".into(),
        after: Duration::from_secs(60),
    };
    assert_eq!(message.attempts()[1].outcome, busy);
}

/// Answers for the tenant that a header names, and adds to what it is.
struct Tenant;
struct OfTenant<W>(W);

impl<W: Worker> Layer<W> for Tenant {
    type Worker = OfTenant<W>;

    fn layer(self, inner: W) -> OfTenant<W> {
        OfTenant(inner)
    }
}

impl<W: Worker> Worker for OfTenant<W> {
    type Input = W::Input;
    type Output = W::Output;

    async fn process(&self, job: &Job<W::Input>) -> Result<W::Output, WorkError> {
        match job.headers().get("tenant") {
            Some(_) => self.0.process(job).await,
            None => Err(WorkError::permanent("no tenant")),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_is_run_with_its_layers_codec_and_limits() {
    let slow = worker_fn(async |job: &Job<Bytes>| {
        if &job.input[..] == b"\xFFslow" {
            tokio::time::sleep(DAY).await;
        }
        Ok(())
    });
    let route = Route::new("bytes", slow)
        .codec(Raw)
        .layer(Tenant)
        .hard_limit(Duration::from_secs(10))
        .retry(RetryConfig::off());
    let mut test = TestWorker::route(route);
    let fast = test
        .publish(Message::new(&b"\xFF"[..]).header("tenant", "acme"))
        .await;
    let slow = test
        .publish(Message::new(&b"\xFFslow"[..]).header("tenant", "acme"))
        .await;
    let lost = test.send_as(&Raw, &Bytes::from_static(b"\xFF")).await;
    test.run_until_idle().await;
    test.message(&fast).assert_acked();
    test.message(&slow).assert_dead(DeadKind::Exhausted);
    assert_eq!(test.message(&slow).attempts()[0].ended.as_secs(), 10);
    test.message(&lost).assert_dead(DeadKind::Permanent);
    assert_eq!(test.message(&fast).headers().get("tenant"), Some("acme"));
}

#[tokio::test(start_paused = true)]
async fn a_value_can_be_sent_by_another_codec() {
    let route = Route::new("packed", SucceedsAt).codec(MessagePack);
    let mut test = TestWorker::route(route);
    let id = test.send_as(&MessagePack, &1_u32).await;
    test.run_until_idle().await;
    assert_eq!(test.message(&id).payload(), &(&b"\x01"[..]).into());
    test.assert_all_acked();
}

/// Takes even rows only.
struct Rows(Arc<AtomicU32>);

impl BatchWorker for Rows {
    type Input = u32;
    type Output = ();

    async fn process(&self, jobs: &[Job<u32>]) -> Vec<Result<(), WorkError>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let even = |job: &Job<u32>| match job.input % 2 {
            0 => Ok(()),
            _ => Err(WorkError::permanent("odd")),
        };
        jobs.iter().map(even).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_worker_is_run_by_batches() {
    let calls = Arc::new(AtomicU32::new(0));
    let route = BatchRoute::new("rows", Rows(Arc::clone(&calls)))
        .batch(10)
        .lanes(1);
    let mut test = TestWorker::route(route);
    let ids = [test.send(&2).await, test.send(&3).await];
    test.run_until_idle().await;
    test.message(&ids[0]).assert_acked();
    test.message(&ids[1]).assert_dead(DeadKind::Permanent);
    assert_eq!(calls.load(Ordering::Relaxed), 1);

    let mut test = TestWorker::batch(Rows(calls));
    test.send(&2).await;
    test.run_until_idle().await;
    test.assert_all_acked();
}

#[tokio::test(start_paused = true)]
async fn what_the_worker_publishes_can_be_looked_at() {
    let broker = MemoryBroker::new();
    let mails = Producer::new(broker.clone());
    let sign_up = worker_fn_with(mails, async |mails: &Producer, job: &Job<String>| {
        mails
            .send("mails", &format!("welcome, {}", job.input))
            .await?;
        let reminder = mails.message("how is it going?")?.delay(DAY);
        mails.publish("mails", reminder).await?;
        Ok(())
    });
    let mut test = TestWorker::new(sign_up).on(broker);
    test.send("Ada").await;
    test.run_until_idle().await;
    let mails: Vec<String> = test.take_json("mails").await;
    assert_eq!(mails, ["welcome, Ada"]);
    assert!(test.take("mails").await.is_empty(), "it was taken");
    assert_eq!(test.delayed("mails").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn messages_of_others_are_waited_for_and_told_of_too() {
    let broker = MemoryBroker::new();
    let again = Producer::new(broker.clone());
    let count_down = worker_fn_with(again, async |again: &Producer, job: &Job<u32>| {
        if job.input > 0 {
            let next = again.message(&(job.input - 1))?.delay(DAY);
            again.publish("test", next).await?;
        }
        Ok(())
    });
    let mut test = TestWorker::new(count_down).on(broker);
    let began = Instant::now();
    test.send(&3).await;
    test.run_until_idle().await;
    assert_eq!(began.elapsed_virtual().as_secs(), 3 * DAY.as_secs());
    assert_eq!(test.messages().len(), 4);
    test.assert_all_acked();
}

#[tokio::test(start_paused = true)]
async fn the_users_configuration_and_observers_are_used() {
    let config =
        Config::from_toml("[retry]\nmax_attempts = 2\n[routes.test]\nqueue = \"eu\"").unwrap();
    let log = Arc::new(EventLog::new());
    let mut test = TestWorker::new(SucceedsAt)
        .config(&config)
        .observer(Arc::clone(&log));
    let never = test.send(&9).await;
    test.run_until_idle().await;
    test.message(&never)
        .assert_dead(DeadKind::Exhausted)
        .assert_attempts(2);
    assert_eq!(log.settled().dead, 1);
    assert!(test.message(&never).to_string().contains("of queue \"eu\""));
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_the_broker_is_got_over() {
    let broker = FaultyBroker::in_memory();
    let faults = broker.faults().clone();
    let mut test = TestWorker::new(SucceedsAt).on(broker);
    faults.fail_next(Operation::Publish);
    let first = test.send(&1).await;
    faults.lose_reply(Operation::Publish);
    let second = test.send(&2).await;
    faults.fail_next(Operation::Subscribe);
    faults.lose_reply(Operation::Receive);
    faults.lose_reply(Operation::Settle);
    faults.fail_next(Operation::Admin);
    test.run_until_idle().await;
    test.message(&first).assert_acked().assert_attempts(1);
    test.message(&second).assert_acked().assert_attempts(2);
    assert_eq!(test.messages().len(), 2, "no publish was done twice");
    let operations = faults.operations();
    let count = |of| {
        operations
            .iter()
            .filter(|&&operation| operation == of)
            .count()
    };
    assert_eq!(count(Operation::Publish), 4, "each was asked for twice");
    assert_eq!(
        count(Operation::Subscribe),
        3,
        "by two lanes, one of them twice"
    );
    // Failed, acknowledged twice, and the lost reply's repeat.
    assert!(count(Operation::Settle) >= 3, "{operations:?}");
}

#[tokio::test(start_paused = true)]
async fn every_single_fault_is_got_over() {
    let runs = for_every_fault(MemoryBroker::new, async |broker| {
        let mut test = TestWorker::new(SucceedsAt).on(broker);
        let second = test.send(&2).await;
        let zero = test.send(&0).await;
        test.run_until_idle().await;
        test.message(&second).assert_acked();
        test.message(&zero).assert_dead(DeadKind::Permanent);
    })
    .await;
    assert!(runs.count(Operation::Settle) > 0);
}

#[tokio::test(start_paused = true)]
async fn on_a_broker_that_remembers_nothing_messages_wait_for_the_worker() {
    let mut config = MemoryConfig::default();
    config.fan_out = true;
    let broker = MemoryBroker::with_config(config).unwrap();
    let mut test = TestWorker::new(SucceedsAt).on(broker);
    let (third, never) = (test.send(&3).await, test.send(&9).await);
    test.run_until_idle().await;
    let third = test.message(&third);
    third.assert_acked().assert_attempts(3);
    let numbers: Vec<_> = third.attempts().iter().map(|at| at.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    test.message(&never)
        .assert_dead(DeadKind::Exhausted)
        .assert_attempts(5);
    // A second run subscribes again.
    let first = test.send(&1).await;
    test.run_until_idle().await;
    test.message(&first).assert_acked().assert_attempts(1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_requeued_begins_anew() {
    let mended = Arc::new(AtomicU32::new(0));
    let worker = worker_fn_with(
        Arc::clone(&mended),
        async |mended: &Arc<AtomicU32>, _: &Job<u32>| match mended.load(Ordering::Relaxed) {
            0 => Err(WorkError::permanent("broken")),
            _ => Ok(()),
        },
    );
    let broker = MemoryBroker::new();
    let mut test = TestWorker::new(worker).on(broker.clone());
    let id = test.send(&1).await;
    test.run_until_idle().await;
    test.message(&id).assert_dead(DeadKind::Permanent);
    mended.store(1, Ordering::Relaxed);
    let queue = QueueName::new("test").unwrap();
    assert_eq!(
        broker
            .admin()
            .unwrap()
            .requeue(&queue, None, 9)
            .await
            .unwrap(),
        1
    );
    test.run_until_idle().await;
    test.message(&id).assert_acked().assert_attempts(2);
    assert_eq!(test.message(&id).attempts()[1].number, 1);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_hands_back_and_is_waited_for() {
    let log = Arc::new(AtomicU32::new(0));
    let worker = worker_fn_with(
        log,
        async |calls: &Arc<AtomicU32>, _: &Job<u32>| match calls.fetch_add(1, Ordering::Relaxed) {
            0..20 => Err(WorkError::retryable("the service is down")),
            _ => Ok(()),
        },
    );
    let mut test = TestWorker::new(worker);
    for number in 0..40 {
        test.send(&number).await;
    }
    let summary = test.run_until_idle().await;
    test.assert_all_acked();
    assert!(summary.settled.released > 0, "{summary}");
    let released = |message: &pythia_core::testing::History| {
        message
            .attempts()
            .iter()
            .any(|at| at.outcome == Outcome::Released)
    };
    assert!(test.messages().iter().any(released));
}

/// What an assertion says when it fails.
#[expect(clippy::future_not_send, reason = "it stays on its test's thread")]
async fn said(test: impl AsyncFnOnce() + 'static) -> String {
    let panicked = tokio::task::LocalSet::new()
        .run_until(async {
            tokio::task::spawn_local(test())
                .await
                .unwrap_err()
                .into_panic()
        })
        .await;
    match panicked.downcast::<String>() {
        Ok(text) => *text,
        Err(panicked) => (*panicked.downcast::<&str>().unwrap()).to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn an_assertion_that_fails_tells_the_whole_story() {
    let text = said(async || {
        let mut test = TestWorker::route(Route::new("numbers", SucceedsAt).retry(every(DAY)));
        let id = test.publish(Message::new("9").id("nine")).await;
        test.run_until_idle().await;
        test.message(&id).assert_acked();
    })
    .await;
    assert_eq!(
        text,
        "expected to be acknowledged, but it is dead: exhausted: not yet\n\
         message \"nine\" of queue \"numbers\", 1 bytes: 9\n\
         \x20 +0ns      attempt 1: failed (retryable): not yet; again after 86400s\n\
         \x20 +86400s   attempt 2: failed (retryable): not yet; again after 86400s\n\
         \x20 +172800s  attempt 3: failed (retryable): not yet; again after 86400s\n\
         \x20 +259200s  attempt 4: failed (retryable): not yet; again after 86400s\n\
         \x20 +345600s  attempt 5: dead letter (exhausted): not yet\n"
    );
    for (input, asserted, expected) in [
        (
            "1",
            0,
            "expected to be dead (permanent), but it is acknowledged, by attempt 1\n",
        ),
        (
            "1",
            1,
            "expected 2 attempts, but it is acknowledged, by attempt 1\n",
        ),
        (
            "1",
            2,
            "expected to wait for 1s, but it is acknowledged, by attempt 1\n",
        ),
        (
            "2",
            0,
            "expected to be dead (permanent), but it waits for 86400s after attempt 1\n",
        ),
    ] {
        let text = said(async move || {
            let mut test = TestWorker::route(Route::new("numbers", SucceedsAt).retry(every(DAY)));
            let id = test.publish(Message::new(input)).await;
            test.run_ready().await;
            let message = test.message(&id);
            match asserted {
                0 => message.assert_dead(DeadKind::Permanent),
                1 => message.assert_attempts(2),
                _ => message.assert_delayed(Duration::from_secs(1)),
            };
        })
        .await;
        assert!(text.starts_with(expected), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_named() {
    let text = said(async || {
        let mut test = TestWorker::new(SucceedsAt);
        test.publish(Message::new("1").id("one")).await;
        test.message(&"two".into());
    })
    .await;
    assert_eq!(
        text,
        "no message \"two\" was seen; these were:\n\
         message \"one\" of queue \"test\", 1 bytes: 1\n  it was handed to no worker so far\n"
    );
    let text = said(async || {
        let mut test = TestWorker::new(SucceedsAt);
        for _ in 0..2 {
            test.publish(Message::new("1").dedupe_key("twin")).await;
        }
    })
    .await;
    assert!(
        text.contains("remembers the dedupe key Some(\"twin\")"),
        "{text}"
    );
    let text = said(async || {
        let mut test = TestWorker::route(Route::new("two words", SucceedsAt));
        test.send(&1).await;
    })
    .await;
    assert!(
        text.contains("\"two words\" contains white space"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_that_never_ends_is_named_at_once_under_paused_time() {
    let text = said(async || {
        let hangs = worker_fn(async |job: &Job<u32>| match job.input {
            0 => std::future::pending().await,
            _ => Ok(()),
        });
        let mut test = TestWorker::new(hangs);
        test.publish(Message::new("0").id("hangs")).await;
        test.publish(Message::new("1").id("ends")).await;
        test.run_until_idle().await;
    })
    .await;
    assert!(
        text.contains("these have not come to their end:\nmessage \"hangs\""),
        "{text}"
    );
    assert!(
        text.contains("it is in a worker's hands") && !text.contains("\"ends\""),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_that_never_ends_is_named() {
    // At once; within one run of the lanes; so late that they are stopped in between.
    for delay in [0, 1, 90].map(Duration::from_secs) {
        let seconds = delay.as_secs().to_string();
        let text = said(async move || {
            let snoozes = worker_fn(async |job: &Job<Option<u64>>| match job.input {
                Some(seconds) => Err(WorkError::snooze(Duration::from_secs(seconds))),
                None => Ok(()),
            });
            let mut test = TestWorker::route(Route::new("polls", snoozes));
            test.publish(Message::new(seconds).id("again")).await;
            test.publish(Message::new("null").id("ends")).await;
            test.run_until_idle().await;
        })
        .await;
        assert!(
            text.starts_with(
                "message \"again\" of queue \"polls\" has not come to its end in 10000 attempts"
            ),
            "{text}"
        );
        assert!(text.contains(&format!("snoozed for {delay:?}")), "{text}");
        assert!(text.contains("let the worker give up"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_attempts_are_not_endless() {
    const ATTEMPTS: u32 = 10_000;
    let mut retry = every(Duration::from_secs(1));
    retry.max_attempts = ATTEMPTS.try_into().unwrap();
    let mut breaker = BreakerConfig::default();
    breaker.enabled = false;
    let route = Route::new("numbers", SucceedsAt).retry(retry);
    let mut test = TestWorker::route(route.breaker(breaker));
    let last = test.send(&ATTEMPTS).await;
    test.run_until_idle().await;
    test.message(&last)
        .assert_acked()
        .assert_attempts(ATTEMPTS as usize);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_stays_away_is_named() {
    let text = said(async || {
        let broker = FaultyBroker::in_memory();
        let faults = broker.faults().clone();
        let mut test = TestWorker::new(SucceedsAt).on(broker);
        test.send(&1).await;
        faults.take_down();
        test.run_until_idle().await;
    })
    .await;
    assert!(text.contains("the broker fails: could not "), "{text}");
}

#[tokio::test]
async fn a_delay_in_real_time_is_not_waited_for_in_vain() {
    let text = said(async || {
        let mut test = TestWorker::new(SucceedsAt).patience(Duration::ZERO);
        test.publish(Message::new("1").id("later").delay(DAY)).await;
        tokio::time::pause();
        // The first look at the clocks comes after ten seconds, which need not be real for this.
        test.run_until_idle().await;
    })
    .await;
    assert!(
        text.contains("message \"later\" is delayed: let time pass at once by"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn hooks_are_called_once_a_run() {
    struct Hooked(Arc<AtomicU32>);

    impl Worker for Hooked {
        type Input = u32;
        type Output = ();

        async fn process(&self, _: &Job<u32>) -> Result<(), WorkError> {
            Ok(())
        }

        async fn start(&self) -> Result<(), WorkError> {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                3.. => Err(WorkError::permanent("no more")),
                _ => Ok(()),
            }
        }

        async fn stop(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let hooks = Arc::new(AtomicU32::new(0));
    let mut test = TestWorker::new(Hooked(Arc::clone(&hooks)));
    test.run_until_idle().await;
    assert_eq!(hooks.load(Ordering::Relaxed), 2);
    test.send(&1).await;
    test.run_ready().await;
    assert_eq!(hooks.load(Ordering::Relaxed), 4);
    test.assert_all_acked();
    let text = said(async move || {
        test.run_until_idle().await;
    })
    .await;
    assert_eq!(
        text,
        "the worker under test: the worker of queue \"test\" did not start: no more"
    );
}

#[tokio::test]
#[should_panic(expected = "no message has been seen")]
async fn nothing_is_not_all_acked() {
    let worker = TestWorker::new(worker_fn(async |_: &Job<u64>| Ok(())));
    worker.assert_all_acked();
}
