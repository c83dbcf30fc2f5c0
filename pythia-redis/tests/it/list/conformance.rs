//! The conformance suite, on lists in each of their modes.

use pythia_core::testing::conformance::{Capabilities, Setup};
use pythia_redis::config::Delivery as Mode;
use std::sync::Arc;
use tokio::sync::Mutex;

use super::*;

mod at_least_once {
    use super::*;

    async fn setup() -> Setup {
        let mut capabilities = Capabilities::at_least_once();
        capabilities.fields = false;
        capabilities.max_message_bytes = Some(LIMIT);
        conformance(RedisServer::start().await, Mode::AtLeastOnce, capabilities)
    }

    pythia_core::conformance_tests!(
        #[tokio::test]
        setup
    );
}

mod at_most_once {
    use super::*;

    async fn setup() -> Setup {
        conformance(RedisServer::start().await, Mode::AtMostOnce, at_most_once())
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
        conformance(without_blmpop().await, Mode::AtMostOnce, at_most_once())
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

fn conformance(server: RedisServer, delivery: Mode, capabilities: Capabilities) -> Setup {
    let broker = with(&server, |config| {
        // A hiccup of the machine must not look like a death.
        config.lease = Duration::from_secs(1);
        config.list.delivery = delivery;
        config.max_message_bytes = LIMIT;
    });
    let server = Arc::new(Mutex::new(server));
    let (restarted, flushed, killed) = (
        Arc::clone(&server),
        Arc::clone(&server),
        Arc::clone(&server),
    );
    Setup::new(Arc::new(broker), orders(), capabilities)
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

const LIMIT: usize = 100_000;
