//! Small values with a time to live.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::Instant;

use super::Setup;
use crate::store::KvStore;

/// A value is there until its time is over or it is deleted; a new one brings its own time.
pub async fn values_live_as_long_as_they_are_told(setup: &Setup) {
    let Some(store) = stored(setup) else {
        return;
    };
    let get = async |key| store.get(key).await.expect("get");
    let (raw, ttl) = (
        Bytes::from_static(b"\0\xFFvalue"),
        Duration::from_millis(300),
    );
    assert_eq!(get("a").await, None);
    store.set("a", raw.clone(), None).await.expect("set");
    // Before it is set, so that a slow answer makes its life no shorter.
    let start = Instant::now();
    store.set("b", Bytes::new(), Some(ttl)).await.expect("set");
    store.set("c", raw.clone(), Some(ttl)).await.expect("set");
    store.set("c", Bytes::from("new"), None).await.expect("set");
    if start + ttl / 2 > Instant::now() {
        assert_eq!(get("b").await, Some(Bytes::new()), "an empty value is one");
    }
    setup
        .eventually("b expires", || async {
            let gone = store.get("b").await.expect("get").is_none();
            let lived = Instant::now() - start;
            assert!(
                !gone || lived + Duration::from_millis(50) >= ttl,
                "after {lived:?}"
            );
            gone
        })
        .await;
    assert_eq!(get("a").await, Some(raw));
    assert_eq!(get("c").await, Some(Bytes::from("new")), "it never expires");
    assert!(store.delete("a").await.expect("delete"));
    assert!(!store.delete("a").await.expect("delete"));
    assert!(!store.delete("b").await.expect("delete"), "it has expired");
    assert_eq!(get("a").await, None);
}

/// Of many who set an absent value one succeeds; and one again when it has expired.
pub async fn one_of_many_sets_an_absent_value(setup: &Setup) {
    let Some(store) = stored(setup) else {
        return;
    };
    // What is won is kept for longer than any race takes, or a slow one could have two winners.
    let hour = Some(Duration::from_secs(60 * 60));
    let race = async |key: &'static str| {
        let tries = join_all((0..20).map(|n| {
            let (store, value) = (Arc::clone(&store), Bytes::from(n.to_string()));
            async move {
                let set = store.set_if_absent(key, value.clone(), hour).await;
                set.expect("set_if_absent").then_some(value)
            }
        }));
        tries.await.into_iter().flatten().collect::<Vec<_>>()
    };
    let winners = race("lock").await;
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(
        store.get("lock").await.expect("get").as_ref(),
        winners.first()
    );

    let brief = Some(Duration::from_millis(300));
    let set = store.set_if_absent("brief", Bytes::new(), brief).await;
    assert!(set.expect("set_if_absent"), "it is absent");
    setup
        .eventually("the value expires", || async {
            store.get("brief").await.expect("get").is_none()
        })
        .await;
    assert_eq!(race("brief").await.len(), 1);
}

/// The broker's store. One that is not declared is checked to be absent.
fn stored(setup: &Setup) -> Option<Arc<dyn KvStore>> {
    let store = setup.broker.store();
    assert_eq!(store.is_some(), setup.capabilities.store);
    store
}
