//! The conformance suite on streams.

use std::sync::Arc;

use pythia_core::testing::conformance::{Capabilities, Setup};
use tokio::sync::Mutex;

use super::*;

async fn setup() -> Setup {
    let server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let broker = |name: &str| {
        with(&server, |config| {
            config.stream.group = name.to_owned();
            config.lease = Duration::from_secs(1);
            config.max_message_bytes = 100_000;
        })
    };
    let mut capabilities = Capabilities::at_least_once();
    // What comes back goes through the retry stream, beside what is new.
    capabilities.returns_to_head = false;
    capabilities.max_message_bytes = Some(100_000);
    let setup = Setup::new(Arc::new(broker("ours")), orders(), capabilities)
        .other_group(Arc::new(broker("theirs")));
    let server = Arc::new(Mutex::new(server));
    let cli = |args: &'static [&'static str]| {
        let server = Arc::clone(&server);
        move || {
            let server = Arc::clone(&server);
            async move {
                let answer = server.lock().await.cli(args).await;
                assert!(!answer.contains("ERR"), "{args:?}: {answer}");
            }
        }
    };
    let restarted = Arc::clone(&server);
    setup
        .fault(
            "connections are closed",
            cli(&["CLIENT", "KILL", "TYPE", "normal"]),
        )
        .fault(
            "the group is destroyed",
            cli(&["XGROUP", "DESTROY", "orders", "ours"]),
        )
        .fault("the stream is deleted", cli(&["DEL", "orders"]))
        .fault("everything is deleted", cli(&["FLUSHALL"]))
        .fault("the server is restarted", move || {
            let server = Arc::clone(&restarted);
            async move { server.lock().await.restart().await }
        })
        .keep(server)
}

pythia_core::conformance_tests!(
    #[tokio::test]
    setup
);
