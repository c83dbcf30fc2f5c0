//! The key-value store of the in-memory broker.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::clock::Clock;
use crate::error::BrokerError;
use crate::store::KvStore;

/// Values under keys, each with its time to live.
#[derive(Debug)]
pub(super) struct MemoryStore {
    clock: Clock,
    values: Mutex<Values>,
}

#[derive(Debug)]
struct Values {
    by_key: HashMap<String, Value>,
    /// The size at which expired values are cleared out: twice what was left the last time, so that each `set` pays a
    /// constant share of it.
    sweep_at: usize,
}

#[derive(Debug)]
struct Value {
    bytes: Bytes,
    expires: Option<Duration>,
}

impl MemoryStore {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            values: Mutex::new(Values {
                by_key: HashMap::new(),
                sweep_at: MIN_SWEEP,
            }),
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut Values, Duration) -> R) -> R {
        let now = self.clock.elapsed();
        act(
            &mut self.values.lock().unwrap_or_else(PoisonError::into_inner),
            now,
        )
    }
}

impl Values {
    fn live(&self, key: &str, now: Duration) -> Option<&Bytes> {
        let value = self.by_key.get(key)?;
        value.is_live(now).then_some(&value.bytes)
    }

    fn set(&mut self, key: &str, bytes: Bytes, ttl: Option<Duration>, now: Duration) {
        let expires = ttl.map(|ttl| now.saturating_add(ttl));
        self.by_key.insert(key.into(), Value { bytes, expires });
        if self.by_key.len() >= self.sweep_at {
            self.by_key.retain(|_, value| value.is_live(now));
            self.sweep_at = MIN_SWEEP.max(2 * self.by_key.len());
        }
    }
}

impl Value {
    fn is_live(&self, now: Duration) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

#[async_trait]
impl KvStore for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, BrokerError> {
        Ok(self.with(|values, now| values.live(key, now).cloned()))
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<(), BrokerError> {
        self.with(|values, now| values.set(key, value, ttl, now));
        Ok(())
    }

    async fn set_if_absent(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, BrokerError> {
        Ok(self.with(|values, now| {
            let absent = values.live(key, now).is_none();
            if absent {
                values.set(key, value, ttl, now);
            }
            absent
        }))
    }

    async fn delete(&self, key: &str) -> Result<bool, BrokerError> {
        Ok(self.with(|values, now| {
            values
                .by_key
                .remove(key)
                .is_some_and(|value| value.is_live(now))
        }))
    }
}

const MIN_SWEEP: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn expired_values_are_cleared_out_unasked() {
        let store = MemoryStore::new(Clock::new());
        for n in 0..10 * MIN_SWEEP {
            let ttl = Some(Duration::from_secs(1));
            store
                .set(&format!("key {n}"), Bytes::new(), ttl)
                .await
                .unwrap();
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        let kept = store.with(|values, _| values.by_key.len());
        assert!(kept <= MIN_SWEEP, "{kept} values are kept");
    }
}
