//! The test kit of workers on Redis: one test for all brokers.

use std::time::Duration;

use pythia_core::broker::Broker;
use pythia_core::resilience::{Jitter, RetryConfig};
use pythia_core::settlement::DeadKind;
use pythia_core::testing::TestWorker;
use pythia_core::{Job, MemoryBroker, Message, Route, WorkError, worker_fn};
use pythia_redis::testing::RedisServer;

/// A route whose messages succeed at the attempt that they say, if there is one; three are made.
fn on(broker: impl Broker) -> TestWorker {
    let worker = worker_fn(async |job: &Job<u32>| match job.input <= job.attempt() {
        true => Ok(()),
        false => Err(WorkError::retryable("not yet")),
    });
    let mut retry = RetryConfig::default();
    retry.max_attempts = 3.try_into().unwrap();
    retry.initial_delay = Duration::from_millis(20);
    retry.max_delay = Duration::from_millis(20);
    retry.jitter = Jitter::None;
    TestWorker::route(Route::new("numbers", worker).retry(retry)).on(broker)
}

async fn ends_as_it_should(mut test: TestWorker) {
    let first = test.send(&1).await;
    let second = test.send(&2).await;
    let never = test
        .publish(Message::new("9").header("tenant", "acme"))
        .await;
    let junk = test.publish(Message::new("junk")).await;
    test.run_until_idle().await;
    test.message(&first).assert_acked().assert_attempts(1);
    let second = test.message(&second);
    second.assert_acked().assert_attempts(2);
    assert_eq!(second.delays(), [Duration::from_millis(20)]);
    let never = test.message(&never);
    never.assert_dead(DeadKind::Exhausted).assert_attempts(3);
    assert_eq!(never.headers().get("tenant"), Some("acme"));
    test.message(&junk).assert_dead(DeadKind::Decode);

    let later = test.send(&1).await;
    test.run_until_idle().await;
    test.message(&later).assert_acked();
}

#[tokio::test]
async fn one_test_runs_on_every_broker() {
    ends_as_it_should(on(MemoryBroker::new())).await;
    let redis = RedisServer::start_if_installed().await.unwrap();
    tokio::join!(
        ends_as_it_should(on(redis.list())),
        ends_as_it_should(on(redis.stream())),
        ends_as_it_should(on(redis.pubsub())),
    );
}

#[tokio::test]
async fn what_waits_for_its_time_can_be_left_and_looked_at() {
    let redis = RedisServer::start().await;
    for mut test in [on(redis.list()), on(redis.stream())] {
        let hour = Duration::from_secs(3_600);
        let later = test.publish(Message::new("1").delay(hour)).await;
        let never = test.publish(Message::new("junk")).await;
        test.run_ready().await;
        assert_eq!(test.message(&later).outcome(), None);
        assert_eq!(test.delayed("numbers").await[0].delivery.id, later);
        let letters = test.dead_letters().await;
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].delivery.id, never);
        assert_eq!(letters[0].delivery.payload, "junk".into());
    }
}

#[tokio::test]
async fn what_the_worker_publishes_can_be_taken() {
    let redis = RedisServer::start().await;
    let broker = redis.list();
    let mut test = on(broker.clone());
    let mails = pythia_core::Producer::new(broker);
    mails.send_all("mails", &["a", "b"]).await.unwrap();
    let taken: Vec<String> = test.take_json("mails").await;
    assert_eq!(taken, ["a", "b"]);
    assert!(test.take("mails").await.is_empty());
}
