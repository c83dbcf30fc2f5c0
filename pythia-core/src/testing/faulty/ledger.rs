//! What was published and what was processed: whether anything was lost.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::admin::Page;
use crate::broker::{Broker, Published};
use crate::message::{Message, MessageId, QueueName};

/// Keeps account of messages. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    accounts: Mutex<Accounts>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Accounts {
    published: HashSet<MessageId>,
    processed: HashMap<MessageId, u64>,
}

impl Ledger {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Publishes messages and takes note of their ids.
    ///
    /// # Panics
    /// If the broker fails: publish through the [`inner`](super::FaultyBroker::inner) one.
    pub async fn publish(&self, broker: &dyn Broker, queue: &QueueName, messages: Vec<Message>) {
        let answers = broker
            .publish(queue, messages)
            .await
            .expect("the ledger publishes where nothing fails");
        self.lock()
            .published
            .extend(answers.into_iter().filter_map(|answer| match answer {
                Published::Published(id) => Some(id),
                Published::Deduplicated => None,
            }));
    }

    /// Takes note that a message was processed to its end.
    pub fn processed(&self, id: &MessageId) {
        *self.lock().processed.entry(id.clone()).or_default() += 1;
        self.0.changed.notify_waiters();
    }

    /// How many runs were repetitions.
    pub fn doubles(&self) -> u64 {
        self.lock().processed.values().map(|runs| runs - 1).sum()
    }

    /// Waits until every published message was processed.
    ///
    /// # Panics
    /// If that takes longer than five minutes of tokio's time.
    pub async fn wait_all_processed(&self) {
        let all = async {
            loop {
                let changed = self.0.changed.notified();
                if self.unprocessed().is_empty() {
                    return;
                }
                changed.await;
            }
        };
        if timeout(PATIENCE, all).await.is_err() {
            let left = self.unprocessed();
            panic!("not processed within {PATIENCE:?}: {left:?}");
        }
    }

    /// Asserts that nothing was lost: what was not processed is still in the broker, ready, delayed, dead, or in hands
    /// that will lose it. Receives what is left, and counts on nobody else doing so.
    ///
    /// # Panics
    /// If something was lost: it was acknowledged and not processed, or it went astray. And if the broker fails.
    pub async fn verify(&self, broker: &dyn Broker, queue: &QueueName) {
        let mut missing = self.unprocessed();
        if missing.is_empty() {
            return;
        }
        if let Some(admin) = broker.admin() {
            let dead = admin.dead(queue, Page::first(usize::MAX)).await;
            for letter in dead.expect("nothing fails any more") {
                missing.remove(&letter.delivery.id);
            }
        }
        let mut lane = broker
            .subscribe(queue)
            .await
            .expect("nothing fails any more");
        let deadline = Instant::now() + PATIENCE;
        let mut left = Vec::new();
        while !missing.is_empty() {
            assert!(Instant::now() < deadline, "lost: {missing:?}");
            broker
                .maintain(queue, u32::MAX)
                .await
                .expect("nothing fails any more");
            lane.source
                .receive(1_000, &mut left)
                .await
                .expect("nothing fails any more");
            for delivery in left.drain(..) {
                missing.remove(&delivery.id);
            }
        }
    }

    fn unprocessed(&self) -> HashSet<MessageId> {
        let accounts = self.lock();
        accounts
            .published
            .iter()
            .filter(|id| !accounts.processed.contains_key(*id))
            .cloned()
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        self.0
            .accounts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long messages may take to turn up.
const PATIENCE: Duration = Duration::from_secs(300);
