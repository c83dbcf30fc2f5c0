//! Redis lists, streams and pub/sub for Pythia workers.

// The foundation lands before its users; this line goes when they are in.
#![allow(dead_code, unused_imports)]

pub mod config;
mod connection;
mod dead_letter;
mod delay;
mod error;
mod keys;
mod list;
mod pubsub;
mod recovery;
mod script;
mod server;
mod store;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;
mod url;

pub use list::ListBroker;
pub use pubsub::PubSubBroker;
pub use store::RedisStore;
pub use stream::StreamBroker;

use std::sync::Arc;

use pythia_core::broker::Broker;
use pythia_core::config::BrokerType;
use pythia_core::{Config, ConfigError, MemoryBroker};

/// The broker that a configuration asks for: `[broker] type = "memory" | "list" | "stream" | "pubsub"`, or `"redis"` for
/// whichever of `[redis.list]`, `[redis.stream]` and `[redis.pubsub]` is there. It does not connect.
///
/// # Errors
/// If a setting is unknown or can't be used.
pub fn from_config(config: &Config) -> Result<Arc<dyn Broker>, ConfigError> {
    match config.broker_type()? {
        BrokerType::Memory => Ok(Arc::new(MemoryBroker::with_config(
            config.section("memory")?,
        )?)),
        BrokerType::List => Ok(Arc::new(ListBroker::new(config.section("redis")?))),
        BrokerType::Pubsub => Ok(Arc::new(PubSubBroker::new(config.section("redis")?))),
        BrokerType::Stream => Ok(Arc::new(StreamBroker::new(config.section("redis")?)?)),
        other => Err(ConfigError::new(format!("{other:?}"))),
    }
}
