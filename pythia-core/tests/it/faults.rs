//! The broker that fails on demand: what it counts, how it fails, and that a drill with it finds a worker that loses
//! messages.

use std::sync::Arc;
use std::time::Duration;

use pythia_core::broker::{Broker, Subscription};
use pythia_core::settlement::{Disposition, Settlement};
use pythia_core::testing::{
    FaultRuns, FaultWhen, FaultyBroker, Ledger, Operation, for_every_fault,
};
use pythia_core::{Delivery, MemoryBroker, Message, QueueName};
use tokio::time::sleep;

type Faulty = Arc<FaultyBroker<MemoryBroker>>;

fn queue() -> QueueName {
    QueueName::new("orders").unwrap()
}

fn messages(count: usize) -> Vec<Message> {
    (0..count).map(|n| Message::new(n.to_string())).collect()
}

/// Repeats an operation until it succeeds.
macro_rules! until_ok {
    ($call:expr) => {
        loop {
            match $call {
                Ok(value) => break value,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    };
}

fn acks(deliveries: Vec<Delivery>) -> Vec<Settlement> {
    deliveries
        .into_iter()
        .map(|delivery| Settlement::new(delivery, Disposition::Ack))
        .collect()
}

/// A worker's bare life: fetch, process, settle, until all is processed; then upkeep, and away. With `ack_first` it is
/// the careless one that settles before it processes.
async fn work(broker: &Faulty, ledger: &Ledger, ack_first: bool) {
    let Subscription {
        mut source,
        settler,
        ..
    } = until_ok!(broker.subscribe(&queue()).await);
    let mut left = 10;
    while left > 0 {
        let mut batch = Vec::new();
        until_ok!(source.receive(4, &mut batch).await);
        left -= batch.len();
        let ids: Vec<_> = batch.iter().map(|delivery| delivery.id.clone()).collect();
        let settlements = acks(batch);
        if ack_first && settler.settle(&settlements).await.is_err() {
            continue;
        }
        ids.iter().for_each(|id| ledger.processed(id));
        if !ack_first {
            until_ok!(settler.settle(&settlements).await);
        }
    }
    until_ok!(settler.extend(&[]).await);
    until_ok!(broker.maintain(&queue(), 5).await);
    until_ok!(source.close(&mut Vec::new()).await);
}

async fn drill(ack_first: bool) -> FaultRuns {
    for_every_fault(MemoryBroker::new, async |broker: Faulty| {
        let ledger = Ledger::new();
        ledger.publish(broker.inner(), &queue(), messages(10)).await;
        work(&broker, &ledger, ack_first).await;
        ledger.verify(broker.inner(), &queue()).await;
        if !ack_first {
            ledger.wait_all_processed().await;
            assert_eq!(ledger.doubles(), 0, "a lost reply makes no second delivery");
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn no_single_fault_loses_a_message() {
    let runs = drill(false).await;
    for (operation, count) in [
        (Operation::Subscribe, 1),
        (Operation::Receive, 3),
        (Operation::Settle, 3),
        (Operation::Extend, 1),
        (Operation::Maintain, 1),
        (Operation::Close, 1),
    ] {
        assert_eq!(runs.count(operation), count, "{operation:?}");
    }
}

/// A reply lost after the ack, and the work not done: the drill has to see it.
#[tokio::test(start_paused = true)]
#[should_panic(expected = "lost: ")]
async fn a_worker_that_acks_what_it_has_not_processed_is_found_out() {
    drill(true).await;
}

#[tokio::test(start_paused = true)]
async fn an_operation_fails_before_or_after_it_was_carried_out() {
    let broker = Arc::new(FaultyBroker::new(MemoryBroker::new()));
    let admin = broker.inner().admin().unwrap();
    let ready = async || admin.depth(&queue()).await.unwrap().ready;
    broker.faults().fail(1, FaultWhen::Before);
    let error = broker.publish(&queue(), messages(1)).await.unwrap_err();
    assert!(error.is_unavailable());
    assert_eq!(ready().await, Some(0));
    broker.faults().fail(2, FaultWhen::After);
    broker.publish(&queue(), messages(1)).await.unwrap_err();
    assert_eq!(ready().await, Some(1));
    broker.publish(&queue(), messages(1)).await.unwrap();
    assert_eq!(ready().await, Some(2));
    assert_eq!(broker.faults().operations(), [Operation::Publish; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_down_answers_nothing_until_it_is_up() {
    let broker = Arc::new(FaultyBroker::new(MemoryBroker::new()));
    broker.publish(&queue(), messages(3)).await.unwrap();
    let mut lane = broker.subscribe(&queue()).await.unwrap();
    broker.faults().take_down();
    let mut batch = Vec::new();
    for _ in 0..3 {
        lane.source.receive(10, &mut batch).await.unwrap_err();
        lane.settler.extend(&[]).await.unwrap_err();
        broker.store().unwrap().get("key").await.unwrap_err();
        broker.admin().unwrap().depth(&queue()).await.unwrap_err();
    }
    assert!(batch.is_empty());
    broker.faults().bring_up();
    lane.source.receive(10, &mut batch).await.unwrap();
    assert_eq!(batch.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_read_under_way_when_the_broker_goes_down_loses_its_reply_and_no_message() {
    let broker = Arc::new(FaultyBroker::new(MemoryBroker::new()));
    let mut lane = broker.subscribe(&queue()).await.unwrap();
    let mut batch = Vec::new();
    let (received, ()) = tokio::join!(lane.source.receive(10, &mut batch), async {
        broker.faults().take_down();
        broker.inner().publish(&queue(), messages(3)).await.unwrap();
    });
    received.unwrap_err();
    assert!(batch.is_empty());
    broker.faults().bring_up();
    lane.source.receive(2, &mut batch).await.unwrap();
    assert_eq!(batch.len(), 2, "the same claim, no more than asked for");
    lane.settler.settle(&acks(batch)).await.unwrap();
    lane.source.close(&mut Vec::new()).await.unwrap();
    let depth = broker.inner().admin().unwrap().depth(&queue()).await;
    let depth = depth.unwrap();
    assert_eq!((depth.ready, depth.pending), (Some(1), Some(0)), "closed");
}
