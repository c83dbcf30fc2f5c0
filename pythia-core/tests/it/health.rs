//! What the probes see.

use std::sync::Arc;
use std::time::Duration;

use pythia_core::broker::Broker;
use pythia_core::testing::{EventLog, FaultyBroker, Operation, Record};
use pythia_core::{Job, MemoryBroker, Message, QueueName, Route, Runner, RunnerConfig, worker_fn};
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
