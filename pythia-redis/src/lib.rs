//! Redis lists, streams and pub/sub for Pythia workers.
//!
//! ```no_run
//! use pythia_core::{Config, Job, Route, Runner, shutdown_signal, worker_fn};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::from_toml("[broker]\ntype = \"stream\"\n[redis]\nurl = \"redis://127.0.0.1:6379\"")?;
//! let broker = pythia_redis::from_config(&config)?; // or `StreamBroker::new(..)`
//! let ship = worker_fn(async |job: &Job<u64>| {
//!     println!("shipping order {}", job.input);
//!     Ok(())
//! });
//! let runner = Runner::builder().route(&broker, Route::new("orders", ship)).build()?;
//! runner.run_until(shutdown_signal()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! | | [`ListBroker`] | [`StreamBroker`] | [`PubSubBroker`] |
//! |---|---|---|---|
//! | a plain client writes | `LPUSH orders ..` | `XADD orders * ..` | `PUBLISH orders ..` |
//! | who gets a message | one worker | one worker of each group | every subscriber |
//! | guarantee | at least once; at most once if configured | at least once | at most once |
//! | delays, retries, dead letters | yes | yes, for each group | no |
//! | replay | no | from an id or a time | no |
//!
//! The ready key is exactly the queue's name; every other key is `pythia:{name}:..`, in the same cluster slot. Redis 6.2
//! or later, or Valkey: one server, the primary that sentinels name, or a cluster, by TCP, TLS or a unix socket. [`RedisUrl`]
//! has the forms of a URL, [`RedisConfig`] all settings.
//!
//! [`RedisUrl`]: config::RedisUrl
//! [`RedisConfig`]: config::RedisConfig
//!
//! [`doctor`] examines a Redis: what endangers messages there, and what mends it.
//!
//! # Features
//! `testing`: real Redis servers on free ports, for tests.

mod acl;
pub mod config;
mod connection;
mod dead_letter;
mod delay;
pub mod doctor;
mod error;
mod from_config;
mod keys;
mod list;
mod outgoing;
mod pubsub;
mod recovery;
mod script;
mod server;
mod store;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;
mod url;

pub use from_config::from_config;
pub use list::ListBroker;
pub use pubsub::PubSubBroker;
pub use store::RedisStore;
pub use stream::StreamBroker;
