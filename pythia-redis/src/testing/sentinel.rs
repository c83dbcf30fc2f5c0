//! A primary and its replica, watched by three sentinels.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::replication::settings_of_a_set;
use super::server::{Launch, RedisServer};

/// A primary with a replica, watched by three sentinels, two of which must agree that the primary is down.
///
/// ```no_run
/// # async fn test() {
/// use pythia_redis::testing::Sentinels;
///
/// let mut sentinels = Sentinels::start().await;
/// println!("{}", sentinels.url()); // redis-sentinel://127.0.0.1:41001,127.0.0.1:41002,127.0.0.1:41003/mymaster
/// sentinels.primary().cli(&["SET", "k", "v"]).await;
/// sentinels.kill_primary().await; // the sentinels promote the replica
/// assert_eq!(sentinels.primary().cli(&["GET", "k"]).await, "v");
/// # }
/// ```
///
/// A sentinel calls the primary down after 10 s without an answer, and after 1 s while [`kill_primary`](Self::kill_primary)
/// runs: a busy machine stands still for a second now and then, and that must not end in a fail-over nobody asked for.
/// Redis replicates after it has answered, so what is written right before a fail-over can be lost with the primary:
/// [`RedisServer::wait_until_replicated`] first.
#[derive(Debug)]
pub struct Sentinels {
    data_nodes: Vec<RedisServer>,
    primary: usize,
    sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// Starts all five, without passwords, and waits until the sentinels know each other and the replica.
    pub async fn start() -> Self {
        Self::start_with(&[], &[]).await
    }

    /// Starts them with further settings for the data nodes and for the sentinels, as on the command line of redis-server.
    ///
    /// `--requirepass` works for either: [`url`](Self::url) has the data nodes' password, and the sentinels know it; the
    /// sentinels' own is for the clients that ask them.
    pub async fn start_with(data_settings: &[&str], sentinel_settings: &[&str]) -> Self {
        let data_node = || RedisServer::launch(data_node(data_settings));
        let (primary, replica) = tokio::join!(data_node(), data_node());
        replica.replicate(&primary).await;
        // A sentinel asks a new primary for its replicas at once, and then only now and then: so the replica comes first.
        let sentinel = || RedisServer::launch(sentinel(&primary, sentinel_settings));
        let sentinels = join_all((0..SENTINELS).map(|_| sentinel())).await;
        let started = Self {
            data_nodes: vec![primary, replica],
            primary: 0,
            sentinels,
        };
        for sentinel in &started.sentinels {
            hurry(sentinel).await;
        }
        started.wait_until_settled().await;
        started
    }

    /// `redis-sentinel://` with all sentinels and the primary's name, and the data nodes' password if there is one.
    pub fn url(&self) -> String {
        let credentials = match self.primary().password() {
            Some(password) => format!(":{password}@"),
            None => String::new(),
        };
        let addresses: Vec<_> = self.sentinels.iter().map(address).collect();
        format!(
            "redis-sentinel://{credentials}{}/{}",
            addresses.join(","),
            self.service()
        )
    }

    /// The name under which the sentinels know the primary: `mymaster`.
    pub fn service(&self) -> &'static str {
        SERVICE
    }

    /// The data node that serves writes, as of the last call that changed it.
    pub fn primary(&self) -> &RedisServer {
        &self.data_nodes[self.primary]
    }

    /// The same, to stop or restart it.
    pub fn primary_mut(&mut self) -> &mut RedisServer {
        &mut self.data_nodes[self.primary]
    }

    /// The other data node: a replica, or the primary that was killed.
    pub fn replica(&self) -> &RedisServer {
        &self.data_nodes[self.other()]
    }

    /// The same, to stop or restart it.
    pub fn replica_mut(&mut self) -> &mut RedisServer {
        let other = self.other();
        &mut self.data_nodes[other]
    }

    /// The three sentinels, to ask them.
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// The same, to kill or pause them. One may be missing: two are a majority.
    pub fn sentinels_mut(&mut self) -> &mut [RedisServer] {
        &mut self.sentinels
    }

    /// Starts this sentinel again, with what it knew.
    pub async fn restart_sentinel(&mut self, index: usize) {
        self.sentinels[index].restart().await;
        hurry(&self.sentinels[index]).await;
    }

    /// Has the sentinels promote the replica while the primary still serves, and waits until it serves writes, the old
    /// primary follows it, and every sentinel says so.
    pub async fn fail_over(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = self
                .running_sentinel()
                .cli(&["SENTINEL", "FAILOVER", SERVICE])
                .await;
            if reply == "OK" {
                break;
            }
            // INPROG while the one before is completed, NOGOODSLAVE while the replica is not judged yet.
            self.check(deadline, &format!("the fail-over begins: {reply}"))
                .await;
        }
        self.primary = self.other();
        self.wait_until_promoted().await;
        self.wait_until_settled().await;
    }

    /// Kills the primary as a power cut does, and waits until the sentinels have promoted the replica and say so.
    ///
    /// There is one data node then, until [`revive`](Self::revive).
    pub async fn kill_primary(&mut self) {
        self.call_down_after(DOWN_AFTER_KILL_MS).await;
        self.primary_mut().kill().await;
        self.primary = self.other();
        self.wait_until_promoted().await;
        self.call_down_after(DOWN_AFTER_MS).await;
    }

    /// Starts the data node that was killed, and waits until the sentinels have made it a replica.
    pub async fn revive(&mut self) {
        self.replica_mut().restart().await;
        self.wait_until_settled().await;
    }

    fn other(&self) -> usize {
        1 - self.primary
    }

    fn running(&self) -> impl Iterator<Item = &RedisServer> {
        self.sentinels.iter().filter(|node| node.pid().is_some())
    }

    fn running_sentinel(&self) -> &RedisServer {
        self.running().next().expect("a sentinel runs")
    }

    /// How long every sentinel that runs waits for an answer before it calls a data node down.
    async fn call_down_after(&self, milliseconds: u32) {
        let milliseconds = milliseconds.to_string();
        for sentinel in self.running() {
            sentinel
                .must(&[
                    "SENTINEL",
                    "SET",
                    SERVICE,
                    "down-after-milliseconds",
                    &milliseconds,
                ])
                .await;
        }
    }

    /// Until the primary that we expect serves writes, and every sentinel that runs names it.
    async fn wait_until_promoted(&self) {
        let deadline = Instant::now() + PATIENCE;
        let expected = format!("127.0.0.1\n{}", self.primary().port());
        for sentinel in self.running() {
            let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE];
            while sentinel.cli(&question).await != expected {
                self.check(deadline, "every sentinel names the new primary")
                    .await;
            }
        }
        while !self.primary().cli(&["ROLE"]).await.starts_with("master") {
            self.check(deadline, "the replica is promoted").await;
        }
    }

    /// Until every sentinel that runs sees the primary, its replica and all other sentinels, and the replica follows.
    async fn wait_until_settled(&self) {
        let deadline = Instant::now() + PATIENCE;
        let port = self.primary().port().to_string();
        for sentinel in self.running() {
            loop {
                let primary = sentinel.cli(&["SENTINEL", "MASTER", SERVICE]).await;
                let replicas = sentinel.cli(&["SENTINEL", "REPLICAS", SERVICE]).await;
                if value(&primary, "port") == Some(&port)
                    && value(&primary, "flags") == Some("master")
                    && value(&primary, "num-slaves") == Some("1")
                    && value(&primary, "num-other-sentinels") == Some("2")
                    && value(&replicas, "flags") == Some("slave")
                    && value(&replicas, "master-link-status") == Some("ok")
                {
                    break;
                }
                self.check(deadline, "the sentinels know the primary and its replica")
                    .await;
            }
            // The others are reached, not only known.
            let quorum = ["SENTINEL", "CKQUORUM", SERVICE];
            while !sentinel.cli(&quorum).await.starts_with("OK 3") {
                self.check(deadline, "the sentinels reach each other").await;
            }
        }
        self.replica().wait_until_linked().await;
    }

    /// Waits a moment before the next look, or gives up and shows what a sentinel says.
    async fn check(&self, deadline: Instant, event: &str) {
        assert!(
            Instant::now() < deadline,
            "waited for {PATIENCE:?} until {event}; a sentinel says:\n{}",
            self.running_sentinel().log()
        );
        sleep(LOOK_AGAIN).await;
    }
}

fn data_node(settings: &[&str]) -> Launch {
    Launch {
        settings: settings_of_a_set(settings),
        ..Launch::default()
    }
}

fn sentinel(primary: &RedisServer, settings: &[&str]) -> Launch {
    let mut file = format!(
        "sentinel monitor {SERVICE} 127.0.0.1 {} {QUORUM}\n\
         sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n\
         sentinel failover-timeout {SERVICE} {FAIL_OVER_TIMEOUT_MS}\n",
        primary.port()
    );
    if let Some(password) = primary.password() {
        file.push_str(&format!("sentinel auth-pass {SERVICE} {password}\n"));
    }
    Launch {
        first: &[CONFIG_FILE, "--sentinel"],
        settings: settings.iter().map(ToString::to_string).collect(),
        // Sentinels write what they learn into it, so it is theirs once they have started.
        files: vec![(CONFIG_FILE, file)],
        ..Launch::default()
    }
}

/// Shortens the periods that are seconds by default. Before Redis 7.0 there is no such command, and all takes longer.
async fn hurry(sentinel: &RedisServer) {
    let mut command = vec!["SENTINEL", "DEBUG"];
    command.extend(PERIODS.as_flattened());
    sentinel.cli(&command).await;
}

/// The value under a name in what `redis-cli` prints for a map: a line each.
fn value<'a>(reply: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = reply.lines();
    lines.by_ref().find(|line| *line == name)?;
    lines.next()
}

fn address(server: &RedisServer) -> String {
    format!("127.0.0.1:{}", server.port())
}

const SERVICE: &str = "mymaster";
const CONFIG_FILE: &str = "sentinel.conf";
const SENTINELS: usize = 3;
const QUORUM: usize = 2;
/// Longer than a machine stands still whose cores and disk are busy with tests.
const DOWN_AFTER_MS: u32 = 10_000;
/// While a primary is about to be killed: a fail-over is wanted then, and soon.
const DOWN_AFTER_KILL_MS: u32 = 1000;
/// After a fail-over the sentinels wait for twice this before they begin one on their own again.
const FAIL_OVER_TIMEOUT_MS: u32 = 2000;
/// In milliseconds. How often sentinels ping stays at a second: they take only a replica that answered within five pings.
const PERIODS: &[[&str; 2]] = &[
    // During a fail-over it is a second; a replica that was not heard of for three of these is not promoted.
    ["INFO-PERIOD", "500"],
    ["ASK-PERIOD", "100"],
    // Sentinels that are not told of a promotion undo it after four of these, and the leader itself sees it within 1 s.
    ["PUBLISH-PERIOD", "600"],
    // Sentinels stop acting when they believe that the clock has jumped. Here it is the machine that was busy.
    ["TILT-TRIGGER", "30000"],
];
const PATIENCE: Duration = Duration::from_secs(40);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fail_over_swaps_the_roles_and_keeps_the_data() {
        let mut sentinels = Sentinels::start().await;
        let before = sentinels.primary().port();
        assert!(
            sentinels.url().ends_with("/mymaster"),
            "{}",
            sentinels.url()
        );
        sentinels.primary().cli(&["SET", "k", "v"]).await;
        sentinels.primary().wait_until_replicated().await;
        sentinels.fail_over().await;
        assert_eq!(sentinels.replica().port(), before);
        assert_eq!(sentinels.primary().cli(&["GET", "k"]).await, "v");
        assert_eq!(sentinels.primary().cli(&["SET", "k", "w"]).await, "OK");
        let refused = sentinels.replica().cli(&["SET", "k", "x"]).await;
        assert!(refused.starts_with("READONLY"), "{refused}");
    }

    #[tokio::test]
    async fn a_killed_primary_is_replaced_and_comes_back_as_a_replica() {
        let passwords = ["--requirepass", "secret"];
        let mut sentinels = Sentinels::start_with(&passwords, &["--requirepass", "other"]).await;
        assert!(
            sentinels
                .url()
                .starts_with("redis-sentinel://:secret@127.0.0.1:")
        );
        sentinels.primary().cli(&["SET", "k", "v"]).await;
        sentinels.primary().wait_until_replicated().await;
        sentinels.kill_primary().await;
        assert_eq!(sentinels.replica().pid(), None);
        assert_eq!(sentinels.primary().cli(&["SET", "l", "w"]).await, "OK");
        sentinels.revive().await;
        assert_eq!(sentinels.replica().cli(&["MGET", "k", "l"]).await, "v\nw");
    }

    #[tokio::test]
    async fn a_primary_that_stands_still_for_a_moment_stays_the_primary() {
        let sentinels = Sentinels::start().await;
        let port = sentinels.primary().port();
        sentinels.primary().pause();
        // Thrice what it takes while one is killed on purpose.
        sleep(Duration::from_millis((3 * DOWN_AFTER_KILL_MS).into())).await;
        sentinels.primary().resume();
        sentinels.wait_until_settled().await;
        for sentinel in sentinels.sentinels() {
            let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinels.service()];
            let answer = sentinel.cli(&question).await;
            assert_eq!(answer, format!("127.0.0.1\n{port}"));
        }
    }

    #[tokio::test]
    async fn a_sentinel_restarts_with_what_it_knew() {
        let mut sentinels = Sentinels::start().await;
        sentinels.restart_sentinel(0).await;
        sentinels.fail_over().await;
        let port = sentinels.primary().port();
        let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinels.service()];
        let answer = sentinels.sentinels()[0].cli(&question).await;
        assert_eq!(answer, format!("127.0.0.1\n{port}"));
    }
}
