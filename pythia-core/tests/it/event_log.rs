//! The observer that tests wait on.

use std::sync::Arc;
use std::time::Duration;

use pythia_core::QueueName;
use pythia_core::observe::{Event, Observer};
use pythia_core::testing::{EventLog, Record};

#[tokio::test(start_paused = true)]
async fn a_waiting_test_goes_on_with_the_event_that_it_waits_for() {
    let log = Arc::new(EventLog::new());
    let queue = QueueName::new("orders").unwrap();
    let reports = async {
        for count in 1..=3 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            log.on_event(&Event::Received {
                queue: &queue,
                count,
            });
        }
    };
    let waits = async {
        log.wait_for(|records| records.len() == 2).await;
        log.received()
    };
    let (received, ()) = tokio::join!(waits, reports);
    assert_eq!(received, 3, "after the second of three");
    assert_eq!(log.received(), 6);
    assert!(matches!(
        log.records()[0],
        Record::Received { count: 1, .. }
    ));
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "not satisfied within 60s by 0 records")]
async fn what_never_happens_is_not_waited_for_for_ever() {
    EventLog::new()
        .wait_for(|records| !records.is_empty())
        .await;
}
