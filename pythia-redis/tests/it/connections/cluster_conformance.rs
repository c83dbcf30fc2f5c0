//! The conformance suite on a cluster. All checks of a pattern share one, each behind a prefix of its own, so that their
//! queues lie in slots of all masters.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use pythia_core::QueueName;
use pythia_core::testing::conformance::{Capabilities, NamedCheck, Setup};
use pythia_redis::config::{PubSubMode, RedisConfig};
use pythia_redis::testing::Cluster;
use pythia_redis::{ListBroker, PubSubBroker, StreamBroker};

const LIMIT: usize = 100_000;
const BUFFER: usize = 300;

#[tokio::test]
async fn lists_keep_every_promise_on_a_cluster() {
    let cluster = Cluster::start().await;
    let next = AtomicUsize::new(0);
    let setup = async || {
        let mut capabilities = Capabilities::at_least_once();
        capabilities.fields = false;
        capabilities.max_message_bytes = Some(LIMIT);
        let broker = ListBroker::new(corner(&cluster, &next)).unwrap();
        Setup::new(Arc::new(broker), orders(), capabilities)
    };
    all_pass(pythia_core::conformance_checks!(setup)).await;
}

#[tokio::test]
async fn streams_keep_every_promise_on_a_cluster() {
    let cluster = Cluster::start().await;
    let next = AtomicUsize::new(0);
    let setup = async || {
        let mut capabilities = Capabilities::at_least_once();
        capabilities.returns_to_head = false;
        capabilities.max_message_bytes = Some(LIMIT);
        let mut ours = corner(&cluster, &next);
        "ours".clone_into(&mut ours.stream.group);
        let mut theirs = ours.clone();
        "theirs".clone_into(&mut theirs.stream.group);
        let broker = |config| Arc::new(StreamBroker::new(config).unwrap());
        Setup::new(broker(ours), orders(), capabilities).other_group(broker(theirs))
    };
    all_pass(pythia_core::conformance_checks!(setup)).await;
}

/// In its sharded form, whose channels have one master each. What is published otherwise travels from node to node, and may
/// reach a subscription that is younger than it.
#[tokio::test]
async fn sharded_pub_sub_keeps_every_promise_on_a_cluster() {
    let cluster = Cluster::start().await;
    let next = AtomicUsize::new(0);
    let setup = async || {
        let mut capabilities = Capabilities::at_most_once();
        capabilities.fan_out = true;
        capabilities.dedupe = true;
        capabilities.store = true;
        capabilities.buffer = Some(BUFFER);
        capabilities.max_message_bytes = Some(LIMIT);
        let mut config = corner(&cluster, &next);
        config.pubsub.mode = PubSubMode::Sharded;
        config.pubsub.buffer = BUFFER.try_into().unwrap();
        let broker = PubSubBroker::new(config).unwrap();
        Setup::new(Arc::new(broker), orders(), capabilities)
    };
    all_pass(pythia_core::conformance_checks!(setup)).await;
}

fn orders() -> QueueName {
    QueueName::new("orders").unwrap()
}

/// Settings that lead to the cluster, with a prefix that no other check has.
fn corner(cluster: &Cluster, next: &AtomicUsize) -> RedisConfig {
    let mut config = RedisConfig::from_url(&cluster.url()).unwrap();
    config.key_prefix = format!("{}:", next.fetch_add(1, Relaxed))
        .try_into()
        .unwrap();
    config.lease = Duration::from_secs(1);
    config.max_message_bytes = LIMIT;
    config
}

#[expect(
    clippy::future_not_send,
    reason = "the checks are as Send as the broker under test"
)]
async fn all_pass(checks: Vec<NamedCheck<'_>>) {
    let all = stream::iter(checks)
        .map(async |(name, check)| (name, AssertUnwindSafe(check).catch_unwind().await))
        .buffer_unordered(AT_ONCE);
    let failed: Vec<&str> = all
        .filter_map(async |(name, outcome)| outcome.is_err().then_some(name))
        .collect()
        .await;
    assert!(failed.is_empty(), "failed on a cluster: {failed:?}");
}

/// Most of a check is waiting for a lease; more of them at once would make each other look dead.
const AT_ONCE: usize = 4;
