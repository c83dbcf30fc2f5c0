//! Whatever is lost on the way, and whoever dies: no message is.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::future::join_all;

use super::*;
use crate::relay::Relay;

const MESSAGES: usize = 5_000;
const WORKERS: usize = 4;

/// What the workers know of each message, by its body, and how many batches they were given.
#[derive(Debug, Default)]
struct Ledger {
    seen: Mutex<HashMap<String, Seen>>,
    batches: AtomicUsize,
}

#[derive(Debug, Default)]
struct Seen {
    times: usize,
    done: bool,
    crashed: bool,
}

impl Ledger {
    /// What a worker does with a message: done only when it was seen so often that each way back was taken by some.
    fn decide(&self, delivery: &Delivery) -> Disposition {
        let mut seen = self.seen.lock().unwrap();
        let body = bodies(std::slice::from_ref(delivery)).remove(0);
        let number: usize = body[1..].parse().expect("a number");
        let seen = seen.entry(body).or_default();
        seen.times += 1;
        seen.crashed |= delivery.crashes > 0;
        let after = Duration::from_millis(rand::random_range(0..20));
        match (number % 10, seen.times) {
            (0, 1..=2) => retry(after),
            (1, 1) => Disposition::Release,
            (2, 1) => Disposition::Snooze { after },
            _ => {
                seen.done = true;
                Disposition::Ack
            }
        }
    }

    /// Whether the worker dies that was given a batch: with every twentieth.
    fn kills(&self) -> bool {
        (self.batches.fetch_add(1, Relaxed) + 1).is_multiple_of(20)
    }

    fn count(&self, which: impl Fn(&Seen) -> bool) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.values().filter(|seen| which(seen)).count()
    }

    fn done(&self) -> usize {
        self.count(|seen| seen.done)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_answers_are_and_workers_die() {
    let server = RedisServer::start().await;
    let relay = Relay::to(server.port()).await;
    let (ledger, broker) = (Ledger::default(), on(&server));
    let sent = numbered(MESSAGES).into_iter().map(Message::new);
    publish(&broker, sent).await;
    relay.lose_one_answer_in(40);
    let workers = (0..WORKERS).map(|_| work(&relay, &ledger));
    let upkeep = async {
        // Any number of crashes is innocent here.
        while let Ok(_round) = broker.maintain(&orders(), u32::MAX).await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let patience = Instant::now() + Duration::from_secs(100);
    let drained = async {
        let admin = broker.admin().expect("it has one");
        loop {
            let depth = admin.depth(&orders()).await.expect("redis runs");
            let left = depth.ready.max(depth.pending).max(depth.delayed);
            if left == Some(0) {
                return;
            }
            assert!(
                Instant::now() < patience,
                "{} done, {depth:?}",
                ledger.done()
            );
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        _ = join_all(workers) => unreachable!("they work on"),
        () = upkeep => panic!("upkeep has a connection of its own"),
        () = drained => {}
    }
    assert_eq!(
        ledger.done(),
        MESSAGES,
        "the queue is empty, so all are done"
    );
    assert_eq!(server.cli(&["KEYS", "pythia:{orders}:batch:*"]).await, "");
    let dead = server.cli(&["EXISTS", "pythia:{orders}:dead"]).await;
    assert_eq!(dead, "0");
    let crashed = ledger.count(|seen| seen.crashed);
    assert!(crashed > 50, "only {crashed} were held by a dead worker");
}

/// A worker that dies now and then, and comes back as another.
async fn work(relay: &Relay, ledger: &Ledger) {
    loop {
        let broker = at(&relay.url(), |config| {
            config.command_timeout = Duration::from_secs(4);
        });
        let Ok(mut worker) = broker.subscribe(&orders()).await else {
            continue;
        };
        loop {
            let mut deliveries = Vec::new();
            let max = rand::random_range(1..40);
            if worker.source.receive(max, &mut deliveries).await.is_err() {
                continue;
            }
            if !deliveries.is_empty() && ledger.kills() {
                // With all of it in hand.
                break;
            }
            let in_flight: Vec<_> = deliveries.iter().map(|one| one.receipt).collect();
            let _renewed = worker.settler.extend(&in_flight).await;
            let batch: Vec<_> = deliveries
                .into_iter()
                .map(|one| {
                    let disposition = ledger.decide(&one);
                    Settlement::new(one, disposition)
                })
                .collect();
            // In one piece or in several, as jobs end together or do not.
            for part in batch.chunks(rand::random_range(1..60)) {
                while worker.settler.settle(part).await.is_err() {}
            }
        }
    }
}
