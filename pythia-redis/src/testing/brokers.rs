//! Brokers on a test's server, each in a corner of its own.

use std::process::{Command, Stdio};

use super::program;
use super::server::RedisServer;
use crate::config::RedisConfig;
use crate::{ListBroker, PubSubBroker, StreamBroker};

/// For tests that run in memory, and on a real Redis where there is one:
///
/// ```
/// use pythia_core::testing::TestWorker;
/// use pythia_core::{Job, worker_fn};
/// use pythia_redis::testing::RedisServer;
///
/// async fn it_ships(mut test: TestWorker) {
///     let order = test.send("lamp").await;
///     test.run_until_idle().await;
///     test.message(&order).assert_acked().assert_attempts(1);
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// // #[tokio::test]
/// let ship = || TestWorker::new(worker_fn(async |_: &Job<String>| Ok(())));
/// it_ships(ship()).await;
/// if let Some(redis) = RedisServer::start_if_installed().await {
///     it_ships(ship().on(redis.list())).await;
///     it_ships(ship().on(redis.stream())).await;
///     it_ships(ship().on(redis.pubsub())).await;
/// }
/// # }
/// ```
///
/// Time is real there: give routes short delays.
impl RedisServer {
    /// Starts a server, if redis-server is installed. If not, it says so on standard error; with `CI` in the environment,
    /// where nobody reads that, it panics.
    pub async fn start_if_installed() -> Option<Self> {
        let program = program::server();
        let runs = Command::new(&program)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        match runs {
            Err(error) if std::env::var_os("CI").is_none() => {
                eprintln!(
                    "skipped, because {} can't be run: {error}",
                    program.to_string_lossy()
                );
                None
            }
            // What else is wrong with it, its start says.
            _ => Some(Self::start().await),
        }
    }

    /// A list broker on this server. Its keys have a prefix of their own, so that tests can share a server.
    pub fn list(&self) -> ListBroker {
        ListBroker::new(self.corner()).expect("settings of our own")
    }

    /// A stream broker on this server, with a prefix of its own. To test two groups of one stream, make brokers by hand.
    pub fn stream(&self) -> StreamBroker {
        match StreamBroker::new(self.corner()) {
            Ok(broker) => broker,
            Err(error) => panic!("{error}"),
        }
    }

    /// A pub/sub broker on this server, with a prefix of its own.
    pub fn pubsub(&self) -> PubSubBroker {
        PubSubBroker::new(self.corner()).expect("settings of our own")
    }

    /// Settings to reach this server by, with a prefix that no others have.
    pub fn corner(&self) -> RedisConfig {
        let config = RedisConfig::from_url(&self.url()).and_then(|config| {
            Ok(RedisConfig {
                key_prefix: format!("test-{:x}:", rand::random::<u64>()).try_into()?,
                ..config
            })
        });
        match config {
            Ok(config) => config,
            Err(error) => panic!("{error}"),
        }
    }
}
