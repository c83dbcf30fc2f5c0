//! Small values with a time to live, as plain strings of Redis.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pythia_core::BrokerError;
use pythia_core::store::KvStore;

use crate::connection::{Args, Redis};

/// A [`KvStore`] in Redis: the value of `key` is the string under `pythia:store:key`, behind the configured prefix.
#[derive(Clone, Debug)]
pub struct RedisStore {
    redis: Redis,
}

impl RedisStore {
    pub(crate) const fn new(redis: Redis) -> Self {
        Self { redis }
    }

    fn key(&self, key: &str) -> String {
        self::key(&self.redis.config().key_prefix.to_string(), key)
    }

    fn setting(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Args {
        let args = Args::new().key(self.key(key)).arg(value);
        match ttl {
            // Redis refuses a time to live of zero.
            Some(ttl) => args.arg("PX").arg(ttl.as_millis().max(1).to_string()),
            None => args,
        }
    }
}

/// The name of a stored value in Redis.
pub(crate) fn key(prefix: &str, key: &str) -> String {
    format!("{prefix}pythia:store:{key}")
}

#[async_trait]
impl KvStore for RedisStore {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, BrokerError> {
        let reply = self
            .redis
            .pool()
            .command("GET", Args::new().key(self.key(key)))
            .await;
        let value = reply.and_then(|reply| reply.into_optional_bytes());
        value.map_err(|error| error.while_attempting("get a stored value"))
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<(), BrokerError> {
        let reply = self
            .redis
            .pool()
            .command("SET", self.setting(key, value, ttl))
            .await;
        reply
            .map(drop)
            .map_err(|error| error.while_attempting("store a value"))
    }

    async fn set_if_absent(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<bool, BrokerError> {
        let args = self.setting(key, value, ttl).arg("NX");
        let reply = self.redis.pool().command("SET", args).await;
        let reply = reply.map_err(|error| error.while_attempting("store a value"))?;
        Ok(!reply.is_nil())
    }

    async fn delete(&self, key: &str) -> Result<bool, BrokerError> {
        let reply = self
            .redis
            .pool()
            .command("DEL", Args::new().key(self.key(key)))
            .await;
        let deleted = reply.and_then(|reply| reply.as_count());
        deleted
            .map(|count| count > 0)
            .map_err(|error| error.while_attempting("delete a stored value"))
    }
}
