//! What the probes see.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use pythia_core::broker::{Broker, Endpoint};
use pythia_core::resilience::BreakerState;
use pythia_core::testing::{EventLog, FaultyBroker, Operation, Record};
use pythia_core::{
    Health, Job, LaneState, LaneStatus, MemoryBroker, Message, QueueName, Route, Runner,
    RunnerConfig, WaitReason, WorkError, worker_fn,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

fn queue() -> QueueName {
    QueueName::new("orders").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_fails_the_liveness_probe_and_is_served_again_when_it_speaks() {
    let broker = Arc::new(FaultyBroker::new(MemoryBroker::new()));
    let publish = async |numbers: std::ops::Range<usize>| {
        let batch = numbers.map(|number| Message::new(number.to_string()));
        broker
            .inner()
            .publish(&queue(), batch.collect())
            .await
            .unwrap();
    };
    let log = Arc::new(EventLog::new());
    let worker = worker_fn(async |_: &Job<usize>| Ok(()));
    let runner = Runner::builder()
        .route(&broker, Route::new("orders", worker))
        .observer(Arc::clone(&log))
        .build()
        .unwrap();
    let health = runner.health();
    let drive = async {
        publish(0..1).await;
        log.wait_settled(1).await;
        broker.faults().fall_silent();
        publish(1..100).await;
        log.wait_for(|records| {
            records
                .iter()
                .any(|record| matches!(record, Record::Stalled { .. }))
        })
        .await;
        let silent_since = Instant::now();
        while health.live().is_ok() {
            assert!(
                Instant::now() - silent_since < Duration::from_secs(60),
                "it claims to be live"
            );
            sleep(Duration::from_secs(1)).await;
        }
        let problems = health.live().unwrap_err();
        assert!(problems[0].contains("\"orders\""), "{problems:?}");
        broker.faults().speak();
        // What was read and never heard of comes back after its lease.
        log.wait_settled(100).await;
        health.live().unwrap();
        health.ready().unwrap();
    };
    let summary = runner.run_until(drive).await.unwrap();
    assert_eq!(summary.settled.acked, 100, "{summary}");
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_results_are_refused_is_not_live() {
    let (broker, queue) = (Arc::new(FaultyBroker::new(MemoryBroker::new())), queue());
    let publish = async |count: usize| {
        let batch = (0..count).map(|number| Message::new(number.to_string()));
        broker
            .inner()
            .publish(&queue, batch.collect())
            .await
            .unwrap();
    };
    let worker = worker_fn(async |_: &Job<usize>| Ok(()));
    let runner = Runner::builder()
        .route(&broker, Route::new("orders", worker))
        .build()
        .unwrap();
    let health = runner.health();
    let limit = 2 * RunnerConfig::default().stall_after;
    let probe = async {
        publish(1).await;
        sleep(10 * limit).await;
        assert_eq!(health.live(), Ok(()), "idle");
        broker.faults().refuse(Operation::Settle);
        publish(10_000).await;
        sleep(limit - Duration::from_secs(1)).await;
        assert_eq!(health.live(), Ok(()), "not for long");
        sleep(Duration::from_secs(2)).await;
        let problems = health.live().unwrap_err();
        assert!(
            problems[0].contains("queue \"orders\", lane 0: the broker has taken no result"),
            "{problems:?}"
        );
        broker.faults().bring_up();
        sleep(limit).await;
        assert_eq!(health.live(), Ok(()), "well again");
    };
    let summary = runner.run_until(probe).await.unwrap();
    assert_eq!(summary.settled.acked, 10_001);
}

#[tokio::test(start_paused = true)]
async fn a_broker_is_pinged_once_for_all_its_queues_and_its_store_takes_a_value() {
    let (first, second) = (
        Arc::new(FaultyBroker::new(MemoryBroker::new())),
        Arc::new(FaultyBroker::new(MemoryBroker::new())),
    );
    let worker = || worker_fn(async |_: &Job<usize>| Ok(()));
    let runner = Runner::builder()
        .route(&first, Route::new("orders", worker()))
        .route(&second, Route::new("orders", worker()))
        .route(&first, Route::new("mail", worker()))
        .build()
        .unwrap();
    let health = runner.health();
    let queues: Vec<Vec<String>> = health
        .brokers()
        .iter()
        .map(|broker| broker.queues.iter().map(|status| status.queue.to_string()))
        .map(Iterator::collect)
        .collect();
    assert_eq!(queues, [vec!["orders", "mail"], vec!["orders"]]);

    let second_wait = Duration::from_secs(1);
    let pings = health.ping(second_wait).await;
    assert_eq!(pings.len(), 2);
    for ping in &pings {
        assert_eq!(ping.endpoint, Endpoint::new("memory"));
        assert!(ping.answered.is_ok(), "{ping:?}");
        assert!(matches!(ping.stored, Some(Ok(_))), "{ping:?}");
    }
    for broker in [&first, &second] {
        let mut asked = broker.faults().operations();
        asked.sort();
        assert_eq!(
            asked,
            [&[Operation::Ping][..], &[Operation::Store; 3]].concat()
        );
    }

    // The one that says nothing holds up no other, and nobody for longer than was asked for.
    first.faults().fall_silent();
    second.faults().refuse(Operation::Store);
    let began = Instant::now();
    let pings = health.ping(second_wait).await;
    assert_eq!(Instant::now() - began, second_wait);
    let silent = pings[0].answered.as_ref().unwrap_err();
    assert_eq!(
        silent.to_string(),
        "could not ping the broker: no answer within 1s"
    );
    assert!(silent.is_unavailable());
    assert!(matches!(pings[0].stored, Some(Err(_))), "{pings:?}");
    assert!(pings[1].answered.is_ok(), "{pings:?}");
    let refused = pings[1].stored.as_ref().unwrap().as_ref().unwrap_err();
    assert!(refused.to_string().contains("reach the store"), "{refused}");
}

/// With one thread, nobody but the job can look while it runs.
#[tokio::test(start_paused = true)]
async fn a_lane_whose_job_keeps_the_thread_is_known_to_wait() {
    let broker = MemoryBroker::new();
    let message = vec![Message::new("1")];
    broker.publish(&queue(), message).await.unwrap();
    let health = Arc::new(OnceLock::<Health>::new());
    let (seen, while_running) = oneshot::channel();
    let seen = Mutex::new(Some(seen));
    let looks = Arc::clone(&health);
    let worker = worker_fn(move |_: &Job<usize>| {
        let seen = seen.lock().unwrap().take().unwrap();
        let statuses = looks.get().unwrap().statuses();
        seen.send(only_lane(statuses)).unwrap();
        async { Ok(()) }
    });
    let route = Route::new("orders", worker).lanes(1);
    let runner = Runner::builder().route(&broker, route).build().unwrap();
    health.set(runner.health()).unwrap();
    let mut status = None;
    runner
        .run_until(async { status = while_running.await.ok() })
        .await
        .unwrap();
    let status = status.unwrap();
    assert_eq!(status.state, LaneState::Waiting);
    assert_eq!(status.waits_for, Some(WaitReason::Capacity));
}

fn only_lane(statuses: Vec<LaneStatus>) -> LaneStatus {
    let [status] = <[_; 1]>::try_from(statuses).unwrap();
    status
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_waits_says_for_what_and_when_it_has_read() {
    let broker = MemoryBroker::new();
    let publish = async |count: usize| {
        let batch = (0..count).map(|number| Message::new(number.to_string()));
        broker.publish(&queue(), batch.collect()).await.unwrap();
    };
    let worker = || worker_fn(async |_: &Job<usize>| Ok(()));
    let long = Duration::from_secs(3_600);

    // At the limit of running jobs: the lane has fetched ahead and can't pass it on.
    let slow = worker_fn(async |_: &Job<usize>| {
        sleep(Duration::from_secs(60)).await;
        Ok(())
    });
    let route = Route::new("orders", slow).lanes(1).concurrency(1).batch(1);
    let runner = Runner::builder().route(&broker, route).build().unwrap();
    let health = runner.health();
    assert_eq!(health.statuses(), [], "it has not started");
    let probe = async {
        while health.ready().is_err() {
            sleep(Duration::from_millis(1)).await;
        }
        let status = only_lane(health.statuses());
        assert_eq!((status.last_read, status.waits_for), (None, None));
        publish(3).await;
        sleep(Duration::from_secs(5)).await;
        let status = only_lane(health.statuses());
        assert_eq!(status.state, LaneState::Waiting);
        assert_eq!(status.waits_for, Some(WaitReason::Capacity));
        assert_eq!(status.last_read.unwrap().as_secs(), 5, "{status:?}");
    };
    runner.run_until(probe).await.unwrap();

    // The rate is used up.
    let route = Route::new("orders", worker())
        .lanes(1)
        .rate("1/h".parse().unwrap());
    let runner = Runner::builder().route(&broker, route).build().unwrap();
    let health = runner.health();
    let probe = async {
        sleep(Duration::from_secs(60)).await;
        let status = only_lane(health.statuses());
        assert_eq!(status.waits_for, Some(WaitReason::Rate), "{status:?}");
    };
    runner.run_until(probe).await.unwrap();

    // The breaker is open.
    publish(100).await;
    let fails = worker_fn(async |_: &Job<usize>| Err::<(), _>(WorkError::retryable("no")));
    let route = Route::new("orders", fails)
        .lanes(1)
        .configure(move |settings| {
            let breaker = &mut settings.breaker;
            (breaker.open_for, breaker.max_open_for) = (long, long);
        });
    let runner = Runner::builder().route(&broker, route).build().unwrap();
    let health = runner.health();
    let breaker = || health.brokers()[0].queues[0].breaker;
    assert_eq!(breaker(), Some(BreakerState::Closed));
    let probe = async {
        sleep(Duration::from_secs(60)).await;
        assert_eq!(breaker(), Some(BreakerState::Open));
        let status = only_lane(health.statuses());
        assert_eq!(status.waits_for, Some(WaitReason::Breaker), "{status:?}");
        assert_eq!(health.live(), Ok(()));
        assert_eq!(health.ready(), Ok(()));
    };
    runner.run_until(probe).await.unwrap();
    let stopped = only_lane(health.statuses());
    assert_eq!(
        (stopped.state, stopped.waits_for),
        (LaneState::Stopped, None)
    );
}
