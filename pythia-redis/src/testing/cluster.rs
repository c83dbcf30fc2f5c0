//! Three masters with a replica each.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::replication::settings_of_a_set;
use super::server::{Launch, RedisServer, free_port};

/// A cluster of three masters with a replica each, on one machine.
///
/// ```no_run
/// # async fn test() {
/// use pythia_redis::testing::Cluster;
///
/// let mut cluster = Cluster::start().await;
/// println!("{}", cluster.url()); // redis-cluster://127.0.0.1:41001
/// cluster.cli(&["SET", "k", "v"]).await; // follows redirections
/// let owner = cluster.owner_of("k").await;
/// cluster.kill(owner).await; // its replica takes over
/// assert_ne!(cluster.owner_of("k").await, owner);
/// # }
/// ```
///
/// Nodes are numbered: 0, 1 and 2 are the masters at first, and 3, 4 and 5 their replicas in this order. A node that does not
/// answer for 1 s is called down by the others, and then replaced within two more. While a master is missing, the cluster
/// refuses everything (`CLUSTERDOWN`), as it does by default.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    server: RedisServer,
    id: String,
}

/// What one node believes of another, in a line of `CLUSTER NODES`.
#[derive(Debug, Eq, PartialEq)]
struct Belief {
    node: usize,
    master: Option<usize>,
    slots: Vec<(u16, u16)>,
}

impl Cluster {
    /// Starts all six, without a password, and waits until every node serves and every replica follows.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts them with further settings, as on the command line of redis-server. `--requirepass` is the password of all.
    pub async fn start_with(settings: &[&str]) -> Self {
        for _ in 0..PORT_ATTEMPTS {
            // The nodes know each other from the start, so they must all get the ports that were drawn for them.
            if let Some(cluster) = Self::start_at(&free_ports(), settings).await {
                cluster.wait_until_settled("the cluster serves", &[]).await;
                return cluster;
            }
        }
        panic!("redis-server found no free ports for a cluster in {PORT_ATTEMPTS} attempts");
    }

    async fn start_at(ports: &[u16], settings: &[&str]) -> Option<Self> {
        // Ids must be other than those of a cluster that had these ports a moment ago.
        let set: u128 = rand::random();
        let ids: Vec<String> = (0..ports.len()).map(|node| id(set, node)).collect();
        let spawned = join_all(ports.iter().enumerate().map(async |(node, port)| {
            let mut server = RedisServer::prepare(Launch {
                settings: settings_of_a_set(&[SETTINGS, settings].concat()),
                files: vec![("nodes.conf", initial_beliefs(node, &ids, ports))],
                ..Launch::default()
            });
            server.spawn_at(*port).await.then_some(server)
        }))
        .await;
        let servers: Option<Vec<_>> = spawned.into_iter().collect();
        let nodes = servers?.into_iter().zip(ids);
        Some(Self {
            nodes: nodes.map(|(server, id)| Node { server, id }).collect(),
        })
    }

    /// `redis-cluster://127.0.0.1:port` of the first node that runs; with the password if there is one.
    pub fn url(&self) -> String {
        self.url_of(self.running_nodes()[0])
    }

    /// The same with this node as the one that a client asks first.
    pub fn url_of(&self, node: usize) -> String {
        self.node(node)
            .url()
            .replacen("redis://", "redis-cluster://", 1)
    }

    /// A node, to ask it and nobody else.
    pub fn node(&self, node: usize) -> &RedisServer {
        &self.nodes[node].server
    }

    /// The same, to stop or restart it.
    pub fn node_mut(&mut self, node: usize) -> &mut RedisServer {
        &mut self.nodes[node].server
    }

    /// Runs `redis-cli -c`: it follows redirections, so any key can be named. See [`RedisServer::cli`].
    pub async fn cli(&self, args: &[&str]) -> String {
        let node = self.running_nodes()[0];
        self.node(node).cli_with(&["-c"], args).await
    }

    /// The slot of a key, 0 to 16383.
    pub async fn slot(&self, key: &str) -> u16 {
        let reply = self.cli(&["CLUSTER", "KEYSLOT", key]).await;
        reply.parse().unwrap_or_else(|_| panic!("no slot: {reply}"))
    }

    /// The master that serves a key.
    pub async fn owner_of(&self, key: &str) -> usize {
        let slot = self.slot(key).await;
        self.owner_of_slot(slot).await
    }

    /// The replica that follows this master and runs.
    pub async fn replica_of(&self, master: usize) -> usize {
        let beliefs = self.beliefs_of(self.running_nodes()[0]).await;
        let replica = beliefs
            .iter()
            .flatten()
            .find(|belief| belief.master == Some(master) && self.node(belief.node).pid().is_some());
        replica
            .unwrap_or_else(|| panic!("node {master} has no replica that runs: {beliefs:?}"))
            .node
    }

    /// Has the replica of this master take its place while both run, and waits until every node knows. The old master is
    /// the replica then. Answers the new one.
    pub async fn fail_over(&self, master: usize) -> usize {
        let replica = self.replica_of(master).await;
        let masters = [replica];
        let taken_over = self.wait_until_settled("the replica has taken over", &masters);
        let asked = async {
            // The other masters refuse their votes for a while after an election in the same shard.
            loop {
                self.node(replica).cli(&["CLUSTER", "FAILOVER"]).await;
                sleep(ASK_AGAIN).await;
            }
        };
        tokio::select! {
            () = taken_over => replica,
            () = asked => replica,
        }
    }

    /// Kills this master as a power cut does, and waits until its replica has taken its place. Answers the new one.
    pub async fn kill(&mut self, master: usize) -> usize {
        let replica = self.replica_of(master).await;
        self.node_mut(master).kill().await;
        self.wait_until_settled("the replica has taken over", &[replica])
            .await;
        replica
    }

    /// Starts a node that was killed, and waits until it has its place again: that of a replica, if it was replaced.
    pub async fn revive(&mut self, node: usize) {
        self.node_mut(node).restart().await;
        self.wait_until_settled("the node is back", &[]).await;
    }

    pub(super) async fn owner_of_slot(&self, slot: u16) -> usize {
        let beliefs = self.beliefs_of(self.running_nodes()[0]).await;
        let owner = beliefs.iter().flatten().find(|belief| belief.owns(slot));
        owner
            .unwrap_or_else(|| panic!("nobody owns slot {slot}: {beliefs:?}"))
            .node
    }

    pub(super) fn id_of(&self, node: usize) -> &str {
        &self.nodes[node].id
    }

    pub(super) fn running_nodes(&self) -> Vec<usize> {
        let runs = |node: &usize| self.node(*node).pid().is_some();
        (0..self.nodes.len()).filter(runs).collect()
    }

    /// Until all that run serve, agree, and follow their masters; and the expected ones are masters.
    pub(super) async fn wait_until_settled(&self, event: &str, masters: &[usize]) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_settled(masters).await {
            if Instant::now() >= deadline {
                let node = self.node(self.running_nodes()[0]);
                panic!(
                    "waited for {PATIENCE:?} until {event}; a node knows\n{}\nand says:\n{}",
                    node.cli(&["CLUSTER", "NODES"]).await,
                    node.log()
                );
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn is_settled(&self, masters: &[usize]) -> bool {
        let running = self.running_nodes();
        let looks = join_all(running.iter().map(async |node| {
            let info = self.node(*node).cli(&["CLUSTER", "INFO"]).await;
            let serves = info.contains("cluster_state:ok");
            if serves {
                self.beliefs_of(*node).await
            } else {
                None
            }
        }))
        .await;
        let Some(Some(first)) = looks.first() else {
            return false;
        };
        let follows = async |belief: &Belief| {
            let replication = self.node(belief.node).cli(&["INFO", "replication"]).await;
            belief.master.is_none() || replication.contains("master_link_status:up")
        };
        let is_master = |node: &usize| {
            first
                .iter()
                .any(|it| it.node == *node && it.master.is_none())
        };
        looks.iter().all(|look| look.as_ref() == Some(first))
            && masters.iter().all(is_master)
            && join_all(first.iter().map(follows))
                .await
                .iter()
                .all(|it| *it)
    }

    /// What a node believes of those that run, in their order; `None` while it misses one of them.
    async fn beliefs_of(&self, node: usize) -> Option<Vec<Belief>> {
        let reply = self.node(node).cli(&["CLUSTER", "NODES"]).await;
        let running = self.running_nodes();
        let line_of = |node: &usize| {
            reply
                .lines()
                .find(|line| line.starts_with(self.id_of(*node)))
        };
        running
            .iter()
            .map(|node| self.belief(*node, line_of(node)?))
            .collect()
    }

    /// `id address flags master ping pong epoch link slot slot ..`
    fn belief(&self, node: usize, line: &str) -> Option<Belief> {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, _, flags, master, _, _, _, link, slots @ ..] = fields.as_slice() else {
            return None;
        };
        let strangers = ["fail", "fail?", "handshake", "noaddr"];
        if *link != "connected" || flags.split(',').any(|flag| strangers.contains(&flag)) {
            return None;
        }
        Some(Belief {
            node,
            master: self.nodes.iter().position(|node| node.id == *master),
            slots: slots.iter().filter_map(|slots| range(slots)).collect(),
        })
    }
}

impl Belief {
    fn owns(&self, slot: u16) -> bool {
        self.slots
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&slot))
    }
}

/// `5461-10922` or `7`; a slot on its way to another node (`[7->-id]`) is listed beside them and no range.
fn range(slots: &str) -> Option<(u16, u16)> {
    let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// The file in which a node remembers the cluster. With it from the start, nothing has to be negotiated.
fn initial_beliefs(myself: usize, ids: &[String], ports: &[u16]) -> String {
    let mut file = String::new();
    for (node, (id, port)) in ids.iter().zip(ports).enumerate() {
        let bus = port + BUS_OFFSET;
        let own = if node == myself { "myself," } else { "" };
        let line = match SLOTS.get(node) {
            Some(slots) => {
                let epoch = node + 1;
                format!("{id} 127.0.0.1:{port}@{bus} {own}master - 0 0 {epoch} connected {slots}\n")
            }
            None => {
                let master = &ids[node - SLOTS.len()];
                format!("{id} 127.0.0.1:{port}@{bus} {own}slave {master} 0 0 0 connected\n")
            }
        };
        file.push_str(&line);
    }
    let epoch = SLOTS.len();
    file.push_str(&format!("vars currentEpoch {epoch} lastVoteEpoch 0\n"));
    file
}

/// 40 hexadecimal digits.
fn id(set: u128, node: usize) -> String {
    format!("{set:032x}{node:08x}")
}

/// A port for each node, with the one on which nodes speak to each other free as well.
fn free_ports() -> Vec<u16> {
    let mut ports = Vec::new();
    while ports.len() < 2 * SLOTS.len() {
        let port = free_port();
        let bus = port.checked_add(BUS_OFFSET);
        let is_free = |bus: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, bus)).is_ok();
        if bus.is_some_and(is_free) && !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}

const SETTINGS: &[&str] = &[
    "--cluster-enabled",
    "yes",
    "--cluster-announce-ip",
    "127.0.0.1",
    // In milliseconds: after it a node is called down, and its replica stands for election.
    "--cluster-node-timeout",
    "1000",
    // However long the link was down, a replica may stand.
    "--cluster-replica-validity-factor",
    "0",
    // No replica moves to a master that has lost its own.
    "--cluster-migration-barrier",
    "10",
];
const SLOTS: [&str; 3] = ["0-5460", "5461-10922", "10923-16383"];
/// Redis's own: a setting for this port came with 7.0.
const BUS_OFFSET: u16 = 10_000;
const PORT_ATTEMPTS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(40);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Longer than a vote takes, and shorter than what somebody waits for it.
const ASK_AGAIN: Duration = Duration::from_millis(2_500);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_master_is_replaced_and_comes_back_as_a_replica() {
        let mut cluster = Cluster::start_with(&["--requirepass", "secret"]).await;
        assert!(
            cluster
                .url()
                .starts_with("redis-cluster://:secret@127.0.0.1:")
        );
        assert_eq!(cluster.cli(&["SET", "k", "v"]).await, "OK");
        let owner = cluster.owner_of("k").await;
        cluster.node(owner).wait_until_replicated().await;
        let replica = cluster.kill(owner).await;
        assert_eq!(cluster.owner_of("k").await, replica);
        assert_eq!(cluster.cli(&["GET", "k"]).await, "v");
        cluster.revive(owner).await;
        assert_eq!(cluster.replica_of(replica).await, owner);
    }

    #[tokio::test]
    async fn a_fail_over_swaps_master_and_replica() {
        let cluster = Cluster::start().await;
        let owner = cluster.owner_of("k").await;
        let moved = cluster.node((owner + 1) % 3).cli(&["GET", "k"]).await;
        let slot = cluster.slot("k").await;
        let port = cluster.node(owner).port();
        assert_eq!(moved, format!("MOVED {slot} 127.0.0.1:{port}"));
        cluster.cli(&["SET", "k", "v"]).await;
        let replica = cluster.fail_over(owner).await;
        assert_eq!(cluster.owner_of("k").await, replica);
        assert_eq!(cluster.replica_of(replica).await, owner);
        assert_eq!(cluster.cli(&["GET", "k"]).await, "v");
    }
}
