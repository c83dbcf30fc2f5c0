//! Replicas, and servers that become one.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::server::{Launch, RedisServer};

impl RedisServer {
    /// Starts a replica of this server, with TLS if the other has it, and waits until it has the other's data.
    ///
    /// It answers reads, and refuses writes with `READONLY`.
    pub async fn start_replica_of(primary: &Self) -> Self {
        let password = primary.password();
        let settings = password.map(|password| ["--requirepass", password]);
        let settings = settings_of_a_set(settings.as_ref().map_or(&[], <[_; 2]>::as_slice));
        let replica = Self::launch(Launch {
            settings,
            certificates: primary.launch.certificates.clone(),
            ..Launch::default()
        })
        .await;
        replica.replicate(primary).await;
        replica
    }

    /// Makes this server a replica of another while it runs, and waits until it has the other's data. Its own is gone.
    ///
    /// That is what a client sees of a fail-over that it was not told of: its connection is still there, and every write
    /// is refused with `READONLY`. [`promote`](Self::promote) ends it.
    pub async fn replicate(&self, primary: &Self) {
        if let Some(password) = primary.password() {
            self.must(&["CONFIG", "SET", "masterauth", password]).await;
        }
        let port = primary.port().to_string();
        self.must(&["REPLICAOF", "127.0.0.1", &port]).await;
        self.wait_until_linked().await;
    }

    /// Makes a replica a primary of its own, with the data that it has.
    pub async fn promote(&self) {
        self.must(&["REPLICAOF", "NO", "ONE"]).await;
    }

    /// Waits until a replica has all that was written to this server before the call. There must be one.
    ///
    /// Redis replicates after it has answered, so what was written last can be lost when a replica takes over. `WAIT` by
    /// [`cli`](Self::cli) would not do: it waits for what its own connection has written, which is nothing.
    pub async fn wait_until_replicated(&self) {
        let deadline = Instant::now() + LINK_TIMEOUT;
        let mut written = None;
        loop {
            let replication = self.cli(&["INFO", "replication"]).await;
            let written =
                *written.get_or_insert_with(|| offset_after("master_repl_offset:", &replication));
            let replicas = replication
                .lines()
                .filter(|line| line.starts_with("slave") && line.contains("state=online"));
            if replicas
                .map(|line| offset_after("offset=", line))
                .any(|has| has >= written)
            {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "no replica of port {} has all of its {written} bytes after {LINK_TIMEOUT:?}:\n{replication}",
                self.port()
            );
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until a replica follows its primary.
    pub(super) async fn wait_until_linked(&self) {
        let deadline = Instant::now() + LINK_TIMEOUT;
        loop {
            let replication = self.cli(&["INFO", "replication"]).await;
            if replication.contains("master_link_status:up") {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the replica on port {} is not linked after {LINK_TIMEOUT:?}:\n{replication}\nit says:\n{}",
                self.port(),
                self.log()
            );
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// The settings of servers that may each become the primary of the others: their password is for each other too.
pub(super) fn settings_of_a_set(settings: &[&str]) -> Vec<String> {
    let mut settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
    if let Some(at) = settings.iter().position(|name| name == "--requirepass") {
        let password = settings.get(at + 1).cloned().unwrap_or_default();
        settings.extend(["--masterauth".to_owned(), password]);
    }
    settings
}

/// The number that follows this name.
fn offset_after(name: &str, text: &str) -> u64 {
    let value = text.split(name).nth(1).unwrap_or_default();
    let digits = value.split(|other: char| !other.is_ascii_digit()).next();
    digits
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("no '{name}' in:\n{text}"))
}

const LINK_TIMEOUT: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replica_has_the_data_and_refuses_writes() {
        let primary = RedisServer::start_with(&["--requirepass", "secret"]).await;
        primary.cli(&["SET", "k", "v"]).await;
        let replica = RedisServer::start_replica_of(&primary).await;
        assert_eq!(replica.cli(&["GET", "k"]).await, "v");
        let refused = replica.cli(&["SET", "k", "w"]).await;
        assert!(refused.starts_with("READONLY"), "{refused}");
        replica.promote().await;
        assert_eq!(replica.cli(&["SET", "k", "w"]).await, "OK");
    }

    #[tokio::test]
    async fn a_server_becomes_read_only_by_replication() {
        let (server, other) = tokio::join!(RedisServer::start(), RedisServer::start());
        server.replicate(&other).await;
        let refused = server.cli(&["LPUSH", "orders", "1"]).await;
        assert!(refused.starts_with("READONLY"), "{refused}");
    }

    #[tokio::test]
    async fn a_replica_follows_over_tls() {
        let primary = RedisServer::start_tls(&[]).await;
        primary.cli(&["SET", "k", "v"]).await;
        let replica = RedisServer::start_replica_of(&primary).await;
        assert_eq!(replica.cli(&["GET", "k"]).await, "v");
        assert!(replica.url().starts_with("rediss://"));
    }
}
