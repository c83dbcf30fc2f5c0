//! Lists against a real Redis.

use std::sync::Arc;
use std::time::Duration;

use pythia_core::QueueName;
use pythia_core::testing::conformance::{Capabilities, Setup};
use pythia_redis::ListBroker;
use pythia_redis::config::{Delivery, RedisConfig};
use pythia_redis::testing::RedisServer;
use tokio::sync::Mutex;

mod at_least_once {
    use super::*;

    async fn setup() -> Setup {
        let mut capabilities = Capabilities::at_least_once();
        capabilities.fields = false;
        capabilities.max_message_bytes = Some(LIMIT);
        conformance(Delivery::AtLeastOnce, capabilities, &[]).await
    }

    pythia_core::conformance_tests!(
        #[tokio::test]
        setup
    );
}

mod at_most_once {
    use super::*;

    async fn setup() -> Setup {
        conformance(Delivery::AtMostOnce, at_most_once(), &[]).await
    }

    pythia_core::conformance_tests!(
        #[tokio::test]
        setup
    );
}

/// A Redis before 7.0.
mod at_most_once_without_blmpop {
    use super::*;

    async fn setup() -> Setup {
        let settings = ["--rename-command", "BLMPOP", ""];
        conformance(Delivery::AtMostOnce, at_most_once(), &settings).await
    }

    pythia_core::conformance_tests!(
        #[tokio::test]
        setup
    );
}

fn at_most_once() -> Capabilities {
    let mut capabilities = Capabilities::at_most_once();
    capabilities.delays = true;
    capabilities.dedupe = true;
    capabilities.store = true;
    capabilities.max_message_bytes = Some(LIMIT);
    capabilities
}

async fn conformance(delivery: Delivery, capabilities: Capabilities, settings: &[&str]) -> Setup {
    let server = RedisServer::start_with(settings).await;
    let broker = broker(&server, |config| {
        config.list.delivery = delivery;
        config.max_message_bytes = LIMIT;
    });
    let server = Arc::new(Mutex::new(server));
    let (restarted, flushed, killed) = (
        Arc::clone(&server),
        Arc::clone(&server),
        Arc::clone(&server),
    );
    Setup::new(Arc::new(broker), queue(), capabilities)
        .fault("a restart", move || {
            let server = Arc::clone(&restarted);
            async move { server.lock().await.restart().await }
        })
        .fault("FLUSHALL and SCRIPT FLUSH", move || {
            let server = Arc::clone(&flushed);
            async move {
                let server = server.lock().await;
                server.cli(&["FLUSHALL"]).await;
                server.cli(&["SCRIPT", "FLUSH"]).await;
            }
        })
        .fault("CLIENT KILL", move || {
            let server = Arc::clone(&killed);
            async move {
                server
                    .lock()
                    .await
                    .cli(&["CLIENT", "KILL", "TYPE", "normal"])
                    .await;
            }
        })
        .keep(server)
}

fn broker(server: &RedisServer, change: impl FnOnce(&mut RedisConfig)) -> ListBroker {
    let mut config = RedisConfig::from_url(&server.url()).expect("a url of ours");
    config.lease = LEASE;
    change(&mut config);
    ListBroker::new(config)
}

fn queue() -> QueueName {
    QueueName::new("orders").expect("a good name")
}

const LEASE: Duration = Duration::from_secs(1);
const LIMIT: usize = 100_000;
