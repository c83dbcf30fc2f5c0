//! Dedupe keys and how long they are remembered.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use bytestring::ByteString;

/// The keys of one queue that were seen within the window.
#[derive(Debug, Default)]
pub(super) struct SeenKeys {
    keys: HashSet<ByteString>,
    /// In the order in which they are forgotten: the window is the same for all.
    expiry: VecDeque<(Duration, ByteString)>,
}

impl SeenKeys {
    /// Remembers the key until `now + window`; answers whether it was new.
    pub(super) fn insert(&mut self, key: &ByteString, now: Duration, window: Duration) -> bool {
        while self.expiry.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, old)) = self.expiry.pop_front()
        {
            self.keys.remove(&old);
        }
        let new = self.keys.insert(key.clone());
        if new {
            self.expiry
                .push_back((now.saturating_add(window), key.clone()));
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_remembered_for_the_window_from_its_first_use() {
        let mut seen = SeenKeys::default();
        let (key, other) = (ByteString::from_static("a"), ByteString::from_static("b"));
        let at = Duration::from_secs;
        assert!(seen.insert(&key, at(0), at(10)));
        assert!(!seen.insert(&key, at(9), at(10)));
        assert!(seen.insert(&other, at(9), at(10)));
        assert!(seen.insert(&key, at(10), at(10)));
        assert!(!seen.insert(&other, at(18), at(10)));
        assert_eq!(seen.keys.len(), seen.expiry.len());
    }
}
