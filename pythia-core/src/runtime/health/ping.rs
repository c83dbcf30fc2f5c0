//! A question to each broker, asked when somebody wants to know: never by a lane, and never on a message's path.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use tokio::time::{Instant, timeout};

use crate::broker::{Broker, Endpoint};
use crate::error::{BrokerError, BrokerErrorKind};
use crate::store::KvStore;

/// What a broker answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ping {
    /// Which broker.
    pub endpoint: Endpoint,
    /// How long it took to answer, or why it did not.
    pub answered: Result<Duration, BrokerError>,
    /// How long its store took to keep a value, give it back and delete it, or what went wrong; `None` if the broker has
    /// no store. The key, `pythia:health:` and a random number, is gone a minute later in any case.
    pub stored: Option<Result<Duration, BrokerError>>,
}

pub(super) async fn all(brokers: &[&Arc<dyn Broker>], patience: Duration) -> Vec<Ping> {
    join_all(brokers.iter().map(|broker| one(&***broker, patience))).await
}

async fn one(broker: &dyn Broker, patience: Duration) -> Ping {
    let store = broker.store();
    let stored = async {
        let store = store.as_deref()?;
        Some(timed(round_trip(store), USE_STORE, patience).await)
    };
    let (answered, stored) = join(timed(broker.ping(), PING, patience), stored).await;
    Ping {
        endpoint: broker.endpoint(),
        answered,
        stored,
    }
}

async fn timed(
    call: impl Future<Output = Result<(), BrokerError>>,
    attempted: &str,
    patience: Duration,
) -> Result<Duration, BrokerError> {
    let asked = Instant::now();
    match timeout(patience, call).await {
        Ok(answer) => answer.map(|()| Instant::now().saturating_duration_since(asked)),
        Err(_elapsed) => Err(BrokerError::new(BrokerErrorKind::Unavailable, attempted)
            .because(format!("no answer within {patience:?}"))),
    }
}

/// Under a key of its own: processes and probes that share a store don't take each other's values away.
async fn round_trip(store: &dyn KvStore) -> Result<(), BrokerError> {
    let key = format!("pythia:health:{:016x}", rand::random::<u64>());
    let value = Bytes::from(key.clone());
    store.set(&key, value.clone(), Some(KEPT)).await?;
    let found = store.get(&key).await?;
    let deleted = store.delete(&key).await?;
    if found == Some(value) && deleted {
        return Ok(());
    }
    Err(BrokerError::new(BrokerErrorKind::Other, USE_STORE)
        .because("a value that was stored a moment ago is gone, or another one"))
}

const PING: &str = "ping the broker";
const USE_STORE: &str = "use the store";
/// A value whose probe was given up half-way expires by itself.
const KEPT: Duration = Duration::from_secs(60);
