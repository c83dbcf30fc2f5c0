//! What the in-memory broker does beyond the contract that all brokers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use pythia_core::broker::{Broker, Subscription};
use pythia_core::settlement::{Disposition, Settlement};
use pythia_core::{MemoryBroker, MemoryConfig, Message, QueueName};
use tokio::time::Instant;

/// The broker's default.
const LEASE: Duration = Duration::from_secs(30);

fn numbered(count: usize) -> impl Iterator<Item = Message> {
    (0..count).map(|n| Message::new(n.to_string()))
}

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
    let mut context = Context::from_waker(&waker);
    let mut batches: Vec<Vec<_>> = sources.iter().map(|_| Vec::new()).collect();
    let mut waiting: Vec<_> = sources
        .iter_mut()
        .zip(&mut batches)
        .map(|(source, batch)| source.receive(10, batch))
        .collect();
    for receive in &mut waiting {
        assert!(receive.as_mut().poll(&mut context).is_pending());
    }
    publish(&broker, [Message::new("1")]).await;
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    let polled = waiting
        .iter_mut()
        .map(|receive| receive.as_mut().poll(&mut context));
    let served = polled.filter(Poll::is_ready).count();
    assert_eq!(served, 1);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_short_queue_is_shared_with_those_who_wait() {
    let broker = MemoryBroker::new();
    // Each future has a waker of its own in there, so who is not woken is not served.
    let lanes = FuturesUnordered::new();
    for _ in 0..4 {
        let mut source = broker.subscribe(&queue()).await.unwrap().source;
        lanes.push(async move {
            let (start, mut batch) = (Instant::now(), Vec::new());
            source.receive(100, &mut batch).await.unwrap();
            (batch.len(), Instant::now() - start)
        });
    }
    let shares = async { lanes.collect::<Vec<_>>().await };
    let (shares, ()) = tokio::join!(shares, publish(&broker, numbered(12)));
    assert_eq!(shares, [(3, Duration::ZERO); 4]);

    let mut source = broker.subscribe(&queue()).await.unwrap().source;
    publish(&broker, numbered(10)).await;
    let mut batch = Vec::new();
    source.receive(100, &mut batch).await.unwrap();
    assert_eq!(batch.len(), 10, "nobody else waits");
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
async fn everyone_who_sleeps_knows_the_earlier_due_time() {
    let broker = MemoryBroker::new();
    let (mut one, mut two) = (
        broker.subscribe(&queue()).await.unwrap().source,
        broker.subscribe(&queue()).await.unwrap().source,
    );
    let (later, sooner) = (Duration::from_secs(5), Duration::from_secs(1));
    publish(&broker, [Message::new("later").delay(later)]).await;
    let start = Instant::now();
    let (mut ones, mut twos) = (Vec::new(), Vec::new());
    let mut first = one.receive(1, &mut ones);
    let mut second = two.receive(1, &mut twos);
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut second).is_pending());
    publish(&broker, [Message::new("sooner").delay(sooner)]).await;
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(first);
    second.await.unwrap();
    assert_eq!(&twos[0].payload.as_bytes().unwrap()[..], b"sooner");
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
        () = publish(&broker, numbered(4)) => {}
    }
    assert!(batch.is_empty());
    two.receive(10, &mut batch).await.unwrap();
    assert_eq!(batch.len(), 4, "the dropped one is not shared with");
}

/// Nobody could renew while the broker was away, so nobody is dead yet when it is back.
#[tokio::test(start_paused = true)]
async fn after_an_outage_owners_first_get_half_a_lease_to_renew() {
    let broker = MemoryBroker::new();
    let mut owner = broker.subscribe(&queue()).await.unwrap();
    publish(&broker, [Message::new("x")]).await;
    broker.maintain(&queue(), 5).await.unwrap();
    let mut batch = Vec::new();
    owner.source.receive(1, &mut batch).await.unwrap();
    let receipts = [batch[0].receipt];
    tokio::time::advance(LEASE * 10).await;
    let back = broker.maintain(&queue(), 5).await.unwrap();
    assert_eq!(back.recovered, 0, "{back:?}");
    tokio::time::advance(LEASE / 3).await;
    assert_eq!(owner.settler.extend(&receipts).await.unwrap(), []);
    tokio::time::advance(LEASE / 3).await;
    let later = broker.maintain(&queue(), 5).await.unwrap();
    assert_eq!(later.recovered, 0, "{later:?}");
    assert_eq!(owner.settler.extend(&receipts).await.unwrap(), []);
}

/// Upkeep so rare that each round looks like the end of an outage must not keep a dead owner's messages for ever.
#[tokio::test(start_paused = true)]
async fn an_owner_is_pardoned_once() {
    let broker = MemoryBroker::new();
    let mut owner = broker.subscribe(&queue()).await.unwrap();
    publish(&broker, [Message::new("x")]).await;
    owner.source.receive(1, &mut Vec::new()).await.unwrap();
    drop(owner);
    let mut recovered = 0;
    for _ in 0..3 {
        tokio::time::advance(LEASE * 2 / 3).await;
        recovered += broker.maintain(&queue(), 5).await.unwrap().recovered;
    }
    assert_eq!(recovered, 1);
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
