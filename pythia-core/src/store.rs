//! Small values with a time to live: results, deduplication, schedules.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::BrokerError;

/// A key-value store beside the queues.
#[async_trait]
pub trait KvStore: Debug + Send + Sync + 'static {
    /// The value under a key, unless it has expired.
    ///
    /// # Errors
    /// If the store can't be reached.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, BrokerError>;

    /// Sets a value and its time to live; `None` keeps it until it is deleted.
    ///
    /// # Errors
    /// If the store can't be reached or has no memory left.
    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<(), BrokerError>;

    /// Sets a value only if the key has none, atomically. Answers whether it did.
    ///
    /// # Errors
    /// If the store can't be reached or has no memory left; the value may then have been set or not.
    async fn set_if_absent(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, BrokerError>;

    /// Deletes a key. Answers whether it was there.
    ///
    /// # Errors
    /// If the store can't be reached.
    async fn delete(&self, key: &str) -> Result<bool, BrokerError>;
}
