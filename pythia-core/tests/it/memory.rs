//! What the in-memory broker does beyond the contract that all brokers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use pythia_core::broker::{Broker, Subscription};
use pythia_core::settlement::{Disposition, Settlement};
use pythia_core::{MemoryBroker, MemoryConfig, Message, QueueName};
use tokio::time::Instant;

fn queue() -> QueueName {
    QueueName::new("orders").unwrap()
}

async fn publish(broker: &MemoryBroker, messages: impl IntoIterator<Item = Message>) {
    broker
        .publish(&queue(), messages.into_iter().collect())
        .await
        .unwrap();
}

#[derive(Default)]
struct CountedWakes(AtomicUsize);

impl Wake for CountedWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn one_push_wakes_one_of_eight_idle_sources() {
    let broker = MemoryBroker::new();
    let mut sources = Vec::new();
    for _ in 0..8 {
        sources.push(broker.subscribe(&queue()).await.unwrap().source);
    }
    let wakes = Arc::new(CountedWakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut batches: Vec<Vec<_>> = sources.iter().map(|_| Vec::new()).collect();
    let mut waiting: Vec<_> = sources
        .iter_mut()
        .zip(&mut batches)
        .map(|(source, batch)| source.receive(10, batch))
        .collect();
    for receive in &mut waiting {
        assert!(
            receive
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
    }
    publish(&broker, [Message::new("1")]).await;
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    let served = waiting
        .iter_mut()
        .filter_map(|receive| {
            receive
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
                .then_some(())
        })
        .count();
    assert_eq!(served, 1);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_short_queue_is_shared_with_those_who_wait() {
    let broker = MemoryBroker::new();
    let (mut one, mut two) = (
        broker.subscribe(&queue()).await.unwrap().source,
        broker.subscribe(&queue()).await.unwrap().source,
    );
    let (mut first, mut second) = (Vec::new(), Vec::new());
    tokio::join!(
        async { one.receive(100, &mut first).await.unwrap() },
        async { two.receive(100, &mut second).await.unwrap() },
        publish(&broker, (0..10).map(|n| Message::new(n.to_string()))),
    );
    assert_eq!((first.len(), second.len()), (5, 5));
    publish(&broker, (0..10).map(|n| Message::new(n.to_string()))).await;
    first.clear();
    one.receive(100, &mut first).await.unwrap();
    assert_eq!(first.len(), 10, "nobody else waits");
}

#[tokio::test(start_paused = true)]
async fn a_week_of_delay_takes_no_time_and_no_upkeep() {
    let broker = MemoryBroker::new();
    let Subscription {
        mut source,
        settler,
        ..
    } = broker.subscribe(&queue()).await.unwrap();
    let week = Duration::from_secs(7 * 24 * 3_600);
    publish(&broker, [Message::new("x")]).await;
    let mut batch = Vec::new();
    source.receive(1, &mut batch).await.unwrap();
    let retry = Disposition::Retry { after: week };
    let published_at = batch[0].enqueued_at;
    settler
        .settle(&[Settlement::new(batch.remove(0), retry)])
        .await
        .unwrap();
    let due = Instant::now() + week;
    tokio::time::advance(week - Duration::from_millis(500)).await;
    source.receive(1, &mut batch).await.unwrap();
    assert_eq!(batch.len(), 1, "it waits for a due time within its second");
    let late = Instant::now().checked_duration_since(due).unwrap();
    assert!(late <= Duration::from_millis(1), "{late:?} late");
    assert_eq!(batch[0].enqueued_at, published_at);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_becomes_due_earlier_wakes_who_sleeps_to_a_later_one() {
    let broker = MemoryBroker::new();
    let mut source = broker.subscribe(&queue()).await.unwrap().source;
    let (later, sooner) = (Duration::from_millis(900), Duration::from_millis(100));
    publish(&broker, [Message::new("later").delay(later)]).await;
    let (start, mut batch) = (Instant::now(), Vec::new());
    tokio::join!(
        async { source.receive(1, &mut batch).await.unwrap() },
        publish(&broker, [Message::new("sooner").delay(sooner)]),
    );
    assert_eq!(&batch[0].payload.as_bytes().unwrap()[..], b"sooner");
    assert!((Instant::now() - start) <= sooner + Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn a_receive_dropped_while_it_waits_loses_nothing_and_waits_no_more() {
    let broker = MemoryBroker::new();
    let (mut one, mut two) = (
        broker.subscribe(&queue()).await.unwrap().source,
        broker.subscribe(&queue()).await.unwrap().source,
    );
    let mut batch = Vec::new();
    tokio::select! {
        biased;
        result = one.receive(10, &mut batch) => panic!("{result:?} from an empty queue"),
        () = publish(&broker, (0..4).map(|n| Message::new(n.to_string()))) => {}
    }
    assert!(batch.is_empty());
    two.receive(10, &mut batch).await.unwrap();
    assert_eq!(batch.len(), 4, "the dropped one is not shared with");
}

#[test]
fn settings_are_checked() {
    let mut config = MemoryConfig::default();
    config.lease = Duration::ZERO;
    let error = MemoryBroker::with_config(config).unwrap_err().to_string();
    assert!(error.contains("`lease` is zero"), "{error}");
    let read = |json| serde_json::from_str::<MemoryConfig>(json);
    assert_eq!(
        read(r#"{"lease": "2s"}"#).unwrap().lease,
        Duration::from_secs(2)
    );
    assert!(read(r#"{"leese": "2s"}"#).is_err());
    assert!(read(r#"{"lease": "-2s"}"#).is_err());
    assert!(read(r#"{"buffer": 0}"#).is_err());
}
