//! Where connections lead, and how fred is set up to make them.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fred::clients::Client;
use fred::types::config::{
    ClusterDiscoveryPolicy, Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, Server,
    ServerConfig, TcpConfig, TlsConfig, UnresponsiveConfig,
};
use pythia_core::ConfigError;
use socket2::TcpKeepalive;

use super::link::{Role, lock};
use super::tls;
use crate::config::RedisConfig;
use crate::error::User;
use crate::url::{Address, Place, RedisUrl};

/// One Redis: a server, the primary that sentinels name, or a cluster.
pub(super) struct Endpoint {
    /// With the options of the URL in their places.
    pub(super) config: RedisConfig,
    pub(super) server: RedisUrl,
    pub(super) user: Arc<User>,
    tls: Option<TlsConfig>,
    /// The masters of a cluster, as they were known last.
    masters: Mutex<Vec<Server>>,
}

impl Endpoint {
    /// Reads the files that TLS needs. Connects to nothing yet.
    pub(super) fn new(config: RedisConfig, server: RedisUrl) -> Result<Self, ConfigError> {
        let config = config.at(server.clone());
        let tls = match server.tls {
            true => Some(tls::connector(&config.tls, &server)?),
            false => None,
        };
        let name = server.username.as_deref().unwrap_or("default").to_owned();
        let prefix = config.key_prefix.clone();
        Ok(Self {
            config,
            server,
            user: Arc::new(User { name, prefix }),
            tls,
            masters: Mutex::default(),
        })
    }

    /// Keeps the masters of a cluster in mind: by then the nodes that the URL names may all be gone.
    pub(super) fn remember(&self, masters: Vec<Server>) {
        if !masters.is_empty() {
            *lock(&self.masters) = masters;
        }
    }

    /// How long an attempt to connect may take. Of a cluster it asks one node after another.
    pub(super) fn connect_patience(&self) -> Duration {
        let nodes = match &self.server.place {
            Place::Cluster(named) => self.hosts(named).len(),
            _ => 1,
        };
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        self.config.connect_timeout.saturating_mul(nodes)
    }

    /// The nodes of a cluster to begin with: those that the URL names, and those that are known from before.
    fn hosts(&self, named: &[Address]) -> Vec<Server> {
        let mut hosts: Vec<_> = named.iter().map(server).collect();
        for known in lock(&self.masters).iter() {
            if !hosts.contains(known) {
                hosts.push(known.clone());
            }
        }
        hosts
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.server.place, Place::Cluster(_))
    }

    pub(super) fn client(&self, role: Role) -> Client {
        let config = &self.config;
        let settings = Config {
            // The first attempt answers instead of retrying in silence; our callers retry, and say why.
            fail_fast: true,
            server: self.place(),
            username: self.server.username.clone(),
            password: self.server.password.clone(),
            database: self.server.database,
            tls: self.tls.clone(),
            ..Config::default()
        };
        let performance = PerformanceConfig {
            default_command_timeout: match role {
                Role::Ordinary | Role::Subscriber { .. } => config.command_timeout,
                // It would also cut a blocking read, whose message would then go to nobody.
                Role::Reader => Duration::ZERO,
            },
            broadcast_channel_capacity: match role {
                Role::Subscriber { buffer } => buffer,
                Role::Ordinary | Role::Reader => EVENT_CAPACITY,
            },
            ..PerformanceConfig::default()
        };
        let silence = config.command_timeout / 2;
        let connection = ConnectionConfig {
            connection_timeout: config.connect_timeout,
            internal_command_timeout: config.connect_timeout,
            max_command_attempts: match role {
                Role::Ordinary | Role::Subscriber { .. } => config.command_attempts.get(),
                Role::Reader => 1,
            },
            unresponsive: match role {
                Role::Ordinary => UnresponsiveConfig {
                    max_timeout: Some(silence),
                    interval: (silence / 4).max(Duration::from_millis(10)),
                },
                // fred never applies it to blocking commands and subscriptions: `Reader` and `Subscriber` do.
                Role::Reader | Role::Subscriber { .. } => UnresponsiveConfig::default(),
            },
            tcp: TcpConfig {
                nodelay: Some(true),
                keepalive: config
                    .tcp_keepalive
                    .map(|every| TcpKeepalive::new().with_time(every).with_interval(every)),
                ..TcpConfig::default()
            },
            ..ConnectionConfig::default()
        };
        let policy = reconnect_policy(config);
        Client::new(settings, Some(performance), Some(connection), Some(policy))
    }

    fn place(&self) -> ServerConfig {
        match &self.server.place {
            Place::Cluster(named) => ServerConfig::Clustered {
                hosts: self.hosts(named),
                // Or it never finds the cluster again once the nodes that the URL names are gone.
                policy: ClusterDiscoveryPolicy::UseCache,
            },
            Place::Sentinel {
                sentinels,
                service,
                username,
                password,
            } => ServerConfig::Sentinel {
                hosts: sentinels.iter().map(server).collect(),
                service_name: service.clone(),
                username: username.clone(),
                password: password.clone(),
            },
            Place::Server(address) => ServerConfig::Centralized {
                server: server(address),
            },
            Place::Socket(path) => ServerConfig::Unix { path: path.clone() },
        }
    }
}

fn server(address: &Address) -> Server {
    Server::new(address.host.clone(), address.port)
}

/// Without its passwords.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.server)
    }
}

/// Each connection draws its own: those that were lost together don't come back together.
fn reconnect_policy(config: &RedisConfig) -> ReconnectPolicy {
    let shortest = config.reconnect_min_delay;
    // fred cuts the jitter off with the rest of what exceeds the longest pause, so that one is jittered here.
    let longest = config
        .reconnect_max_delay
        .mul_f64(rand::random_range(0.75..1.0));
    let mut policy = ReconnectPolicy::new_exponential(0, millis(shortest), millis(longest), 2);
    policy.set_jitter(millis(shortest));
    policy
}

/// Whole milliseconds; never none of them, which would be no pause at all.
fn millis(duration: Duration) -> u32 {
    duration.as_millis().try_into().unwrap_or(u32::MAX).max(1)
}

/// Room for connection events that nobody has counted yet; more of them are still counted, by their number.
const EVENT_CAPACITY: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Of so many connections that were lost together.
    fn pauses(config: &RedisConfig, attempt: usize) -> Vec<u64> {
        let connections = (0..100).map(|_| reconnect_policy(config));
        let pause =
            |mut policy: ReconnectPolicy| (0..attempt).filter_map(|_| policy.next_delay()).last();
        connections.filter_map(pause).collect()
    }

    #[test]
    fn connections_that_are_lost_together_come_back_apart() {
        let config = RedisConfig::default();
        for (attempt, range) in [
            (1, 50..=100),
            (3, 200..=250),
            (7, 1_500..=2_000),
            (50, 1_500..=2_000),
        ] {
            let pauses = pauses(&config, attempt);
            assert!(
                pauses.iter().all(|pause| range.contains(pause)),
                "{pauses:?}"
            );
            let apart: BTreeSet<_> = pauses.iter().collect();
            assert!(apart.len() > 10, "attempt {attempt}: {pauses:?}");
        }
    }

    #[test]
    fn there_is_always_a_pause() {
        let config = RedisConfig {
            reconnect_min_delay: Duration::from_micros(1),
            reconnect_max_delay: Duration::from_micros(1),
            ..RedisConfig::default()
        };
        assert_eq!(pauses(&config, 3), [1; 100]);
    }
}
