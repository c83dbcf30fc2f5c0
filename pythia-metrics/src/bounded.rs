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
        if let Some(entry) = self.read(key) {
            return entry;
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(key) {
            // Another thread has made it in between.
            return Arc::clone(entry);
        }
        if entries.len() >= self.limit {
            drop(entries);
            return Arc::clone(self.others.get_or_init(|| Arc::new(make(None))));
        }
        let entry = Arc::new(make(Some(key)));
        entries.insert(key.clone(), Arc::clone(&entry));
        entry
    }

    fn read(&self, key: &K) -> Option<Arc<V>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).cloned()
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
    fn threads_that_come_first_together_get_one_entry() {
        let bounded = Bounded::new(8);
        let start = std::sync::Barrier::new(4);
        let entries: Vec<Arc<()>> = std::thread::scope(|scope| {
            let racer = || {
                start.wait();
                bounded.get(&"a", |_| ())
            };
            let racers: Vec<_> = (0..4).map(|_| scope.spawn(racer)).collect();
            racers
                .into_iter()
                .map(|racer| racer.join().unwrap())
                .collect()
        });
        assert!(entries.iter().all(|entry| Arc::ptr_eq(entry, &entries[0])));
    }
}
