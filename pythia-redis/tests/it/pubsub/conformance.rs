//! The conformance suite on channels.

use std::num::NonZeroUsize;

use pythia_core::testing::conformance::{Capabilities, Setup};

use super::*;

const LIMIT: usize = 100_000;
const BUFFER: usize = 300;

async fn setup() -> Setup {
    let server = RedisServer::start().await;
    let (broker, _) = broker(&server, |config| {
        config.max_message_bytes = LIMIT;
        config.pubsub.buffer = NonZeroUsize::new(BUFFER).unwrap();
    });
    let mut capabilities = Capabilities::at_most_once();
    capabilities.fan_out = true;
    capabilities.dedupe = true;
    capabilities.store = true;
    capabilities.buffer = Some(BUFFER);
    capabilities.max_message_bytes = Some(LIMIT);
    let server = Arc::new(tokio::sync::Mutex::new(server));
    let (restarted, killed) = (Arc::clone(&server), Arc::clone(&server));
    Setup::new(Arc::new(broker), queue("orders"), capabilities)
        .fault("a restart", move || {
            let server = Arc::clone(&restarted);
            async move { server.lock().await.restart().await }
        })
        .fault("CLIENT KILL", move || {
            let server = Arc::clone(&killed);
            async move {
                for kind in ["normal", "pubsub"] {
                    let server = server.lock().await;
                    server.cli(&["CLIENT", "KILL", "TYPE", kind]).await;
                }
            }
        })
        .keep(server)
}

pythia_core::conformance_tests!(
    #[tokio::test]
    setup
);
