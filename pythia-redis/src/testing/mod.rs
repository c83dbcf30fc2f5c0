//! Real Redis servers for tests: on free ports, in folders of their own, gone when their handle is dropped.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use pythia_redis::testing::RedisServer;
//!
//! let server = RedisServer::start().await;
//! server.cli(&["LPUSH", "orders", r#"{"id": 1}"#]).await;
//! assert_eq!(server.cli(&["LLEN", "orders"]).await, "1");
//! println!("{}", server.url()); // redis://127.0.0.1:41873
//! # }
//! ```
//!
//! | to test with | start |
//! |---|---|
//! | one server, and its stops, crashes and restarts | [`RedisServer::start`], [`start_with`](RedisServer::start_with) settings of its own |
//! | a worker on Redis, where it is installed | [`RedisServer::start_if_installed`], [`list`](RedisServer::list), [`stream`](RedisServer::stream), [`pubsub`](RedisServer::pubsub) |
//! | a unix socket | the same: [`socket`](RedisServer::socket) |
//! | TLS, with certificates of clients too | [`RedisServer::start_tls`] |
//! | a replica, or a server that turns read-only | [`RedisServer::start_replica_of`], [`replicate`](RedisServer::replicate) |
//! | fail-over by Sentinel | [`Sentinels::start`] |
//! | a cluster: redirections, fail-over, slots that move | [`Cluster::start`] |
//!
//! The programs are `redis-server` and `redis-cli` from the `PATH`. The environment variable `PYTHIA_REDIS_SERVER` names
//! another server, and `PYTHIA_REDIS_CLI` another client; without it the client beside that server is taken, if there is
//! one.
//!
//! Everything here panics with a clear text when it can't do its work: a test has no use for an error.

mod brokers;
mod certificates;
mod cluster;
mod program;
mod replication;
mod sentinel;
mod server;
mod slot_migration;
mod tls;

pub use cluster::Cluster;
pub use sentinel::Sentinels;
pub use server::RedisServer;
pub use slot_migration::SlotMigration;
