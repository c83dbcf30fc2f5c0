//! A slot on its way from one master of a cluster to another.

use super::cluster::Cluster;

/// A slot that two masters have: the old owner serves the keys that it still has and answers `ASK` for all others, the new one
/// serves those to clients that were asked to.
///
/// It stays so until [`finish`](Self::finish).
#[derive(Debug)]
pub struct SlotMigration<'a> {
    cluster: &'a Cluster,
    slot: u16,
    from: usize,
    to: usize,
}

impl Cluster {
    /// Moves the slot of this key, with all its keys, to another master, and waits until every node knows.
    pub async fn migrate_slot(&self, key: &str, to: usize) {
        self.begin_migration(key, to).await.finish().await;
    }

    /// Begins to move the slot of this key to another master. No key has moved yet: [`SlotMigration::move_key`] and
    /// [`finish`](SlotMigration::finish) do that.
    pub async fn begin_migration(&self, key: &str, to: usize) -> SlotMigration<'_> {
        let slot = self.slot(key).await;
        let from = self.owner_of_slot(slot).await;
        assert_ne!(from, to, "slot {slot} of {key:?} is on node {to} already");
        let migration = SlotMigration {
            cluster: self,
            slot,
            from,
            to,
        };
        // In this order: who is sent on by the old owner must find the new one ready.
        migration
            .set_slot(to, &["IMPORTING", self.id_of(from)])
            .await;
        migration
            .set_slot(from, &["MIGRATING", self.id_of(to)])
            .await;
        migration
    }
}

impl SlotMigration<'_> {
    /// Moves one key. From then on the old owner answers `ASK` for it.
    pub async fn move_key(&self, key: &str) {
        let target = self.cluster.node(self.to);
        let port = target.port().to_string();
        let mut command = vec!["MIGRATE", "127.0.0.1", &port, "", "0", MOVE_TIMEOUT_MS];
        if let Some(password) = target.password() {
            command.extend(["AUTH", password]);
        }
        command.extend(["KEYS", key]);
        let reply = self.cluster.node(self.from).cli(&command).await;
        // It may have been deleted or have expired since it was listed.
        assert!(["OK", "NOKEY"].contains(&reply.as_str()), "{reply}");
    }

    /// Moves what is left, gives the slot to its new owner, and waits until every node knows.
    pub async fn finish(self) {
        loop {
            let slot = self.slot.to_string();
            let question = ["CLUSTER", "GETKEYSINSLOT", &slot, "100"];
            let keys = self.cluster.node(self.from).cli(&question).await;
            if keys.is_empty() {
                break;
            }
            for key in keys.lines() {
                self.move_key(key).await;
            }
        }
        // The new owner first: from then on the slot has one even if the test ends here.
        for node in [self.to, self.from] {
            self.set_slot(node, &["NODE", self.cluster.id_of(self.to)])
                .await;
        }
        self.cluster
            .wait_until_settled("every node knows the slot's new owner", &[self.to])
            .await;
        assert_eq!(self.cluster.owner_of_slot(self.slot).await, self.to);
    }

    async fn set_slot(&self, node: usize, state: &[&str]) {
        let slot = self.slot.to_string();
        let command = [&["CLUSTER", "SETSLOT", &slot], state].concat();
        self.cluster.node(node).must(&command).await;
    }
}

const MOVE_TIMEOUT_MS: &str = "5000";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slot_half_moved_asks_and_a_moved_one_redirects() {
        let cluster = Cluster::start().await;
        cluster.cli(&["MSET", "{a}1", "one", "{a}2", "two"]).await;
        let from = cluster.owner_of("{a}1").await;
        let to = (from + 1) % 3;
        let (old, new) = (cluster.node(from), cluster.node(to));
        let slot = cluster.slot("{a}1").await;

        let migration = cluster.begin_migration("{a}1", to).await;
        assert_eq!(old.cli(&["GET", "{a}1"]).await, "one");
        migration.move_key("{a}1").await;
        let ask = format!("ASK {slot} 127.0.0.1:{}", new.port());
        assert_eq!(old.cli(&["GET", "{a}1"]).await, ask);
        assert_eq!(old.cli(&["GET", "{a}2"]).await, "two");

        migration.finish().await;
        let moved = format!("MOVED {slot} 127.0.0.1:{}", new.port());
        assert_eq!(old.cli(&["GET", "{a}2"]).await, moved);
        assert_eq!(new.cli(&["MGET", "{a}1", "{a}2"]).await, "one\ntwo");
    }

    #[tokio::test]
    async fn a_slot_moves_with_a_password_too() {
        let cluster = Cluster::start_with(&["--requirepass", "secret"]).await;
        cluster.cli(&["SET", "k", "v"]).await;
        let to = (cluster.owner_of("k").await + 1) % 3;
        cluster.migrate_slot("k", to).await;
        assert_eq!(cluster.owner_of("k").await, to);
        assert_eq!(cluster.node(to).cli(&["GET", "k"]).await, "v");
    }
}
