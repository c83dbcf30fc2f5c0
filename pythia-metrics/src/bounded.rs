//! Metric handles by label value, resolved once each, with a bound on how many there can be.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// One entry for each key, up to a limit; all keys beyond it share one more.
///
/// An entry once made stays: its series are exported for as long as the process lives, as counters have to be.
pub(crate) struct Bounded<K, V> {
    entries: RwLock<HashMap<K, Arc<V>>>,
    limit: usize,
    others: OnceLock<Arc<V>>,
}

impl<K: Clone + Eq + Hash, V> Bounded<K, V> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            entries: RwLock::default(),
            limit,
            others: OnceLock::new(),
        }
    }

    /// The entry of a key. `make` is called for a new one; with `None` if it is to stand for all keys beyond the limit.
    pub(crate) fn get(&self, key: &K, make: impl FnOnce(Option<&K>) -> V) -> Arc<V> {
        self.find(key)
            .unwrap_or_else(|| self.find_or_make(key, make))
    }

    fn find(&self, key: &K) -> Option<Arc<V>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let others = || self.others.get().filter(|_| entries.len() >= self.limit);
        entries.get(key).or_else(others).cloned()
    }

    /// Looks once more, because another thread may have made it since.
    fn find_or_make(&self, key: &K, make: impl FnOnce(Option<&K>) -> V) -> Arc<V> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if !entries.contains_key(key) && entries.len() >= self.limit {
            drop(entries);
            return Arc::clone(self.others.get_or_init(|| Arc::new(make(None))));
        }
        let entry = entries.entry(key.clone());
        Arc::clone(entry.or_insert_with(|| Arc::new(make(Some(key)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_beyond_the_limit_share_one_entry() {
        let bounded = Bounded::new(2);
        let name = |key: &'static str| {
            let entry = bounded.get(&key, |key| key.map_or("others", |key| *key));
            *entry
        };
        assert_eq!(
            ["a", "b", "c", "d"].map(name),
            ["a", "b", "others", "others"]
        );
        assert_eq!(["a", "b", "c"].map(name), ["a", "b", "others"]);
    }

    #[test]
    fn threads_that_look_together_get_one_entry() {
        let bounded = Bounded::new(1);
        let [first, second] = [(); 2].map(|()| {
            // Both have looked and found nothing, and now come one after the other.
            bounded.find_or_make(&"a", |known| assert!(known.is_some(), "taken for another"))
        });
        assert!(Arc::ptr_eq(&first, &second));
    }
}
