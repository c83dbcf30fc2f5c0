//! One connection to Redis: made when first needed, and made anew when it ended for good.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, EventInterface, MetricsInterface};
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, Server, ServerConfig, TcpConfig,
    UnresponsiveConfig,
};
use fred::types::{ClientState, ConnectHandle};
use futures_util::poll;
use pythia_core::admin::ServerStats;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::{Instant, sleep_until, timeout};

use super::reply::Reply;
use super::stats::Counters;
use crate::config::RedisConfig;
use crate::error::{Kind, RedisError};

/// What a connection is for; it decides which time-outs and limits apply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// Commands that Redis answers at once. Sent again after a reconnect, so each must bear running twice.
    Ordinary,
    /// Commands that wait for data. Never sent again behind the caller's back.
    Reader,
    /// Subscriptions, with room for so many messages that nobody has taken yet.
    Subscriber { buffer: usize },
}

/// A connection that may not exist yet, or not any more.
#[derive(Debug)]
pub(super) struct Link {
    role: Role,
    config: Arc<RedisConfig>,
    counters: Arc<Counters>,
    live: Mutex<Option<Arc<Live>>>,
    /// Whether anyone has asked for it yet. A connection that nobody needs is not down.
    wanted: AtomicBool,
    /// Held by whoever connects, so that many callers make one connection.
    connecting: tokio::sync::Mutex<()>,
    /// What the last attempt came to, for those who waited for it.
    failed: Mutex<Option<(Instant, RedisError)>>,
}

/// A client that was connected once and reconnects by itself until it is dropped.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) client: Client,
    task: Task,
    events: Mutex<Events>,
    /// When a command was answered last.
    answered: Mutex<Instant>,
    /// When the connection was last given up for what its commands came to.
    given_up: Mutex<Option<Instant>>,
    counters: Arc<Counters>,
}

/// The client's own task. Dropping a fred client leaves its task and its socket behind for ever.
#[derive(Debug)]
struct Task(ConnectHandle);

#[derive(Debug)]
struct Events {
    errors: Receiver<(fred::error::Error, Option<Server>)>,
    connects: Receiver<Server>,
    last_error: Option<RedisError>,
    established: u64,
    /// Whether the last event was an error. fred calls a client connected until it tries to connect again.
    down: bool,
}

impl Link {
    pub(super) fn new(role: Role, config: Arc<RedisConfig>, counters: Arc<Counters>) -> Self {
        Self {
            role,
            config,
            counters,
            live: Mutex::new(None),
            wanted: AtomicBool::new(false),
            connecting: tokio::sync::Mutex::new(()),
            failed: Mutex::new(None),
        }
    }

    /// The client, connecting it first if there is none. One attempt: its error says what is wrong, at once.
    pub(super) async fn live(&self) -> Result<Arc<Live>, RedisError> {
        if let Some(live) = self.current() {
            return Ok(live);
        }
        self.wanted.store(true, Relaxed);
        let asked = Instant::now();
        let _turn = self.connecting.lock().await;
        if let Some(live) = self.current() {
            return Ok(live);
        }
        // One attempt answers all who waited for it, or the last of them would wait for as many as there are callers.
        if let Some((at, error)) = &*lock(&self.failed)
            && *at > asked
        {
            return Err(error.clone());
        }
        match self.connect().await {
            Ok(live) => {
                let live = Arc::new(live);
                *lock(&self.live) = Some(Arc::clone(&live));
                Ok(live)
            }
            Err(error) => {
                *lock(&self.failed) = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// The client once its connection is up, waiting at most `patience` for a reconnect under way.
    pub(super) async fn connected(&self, patience: Duration) -> Result<Arc<Live>, RedisError> {
        let live = self.live().await?;
        let deadline = Instant::now() + patience;
        while !live.is_up() {
            if Instant::now() >= deadline {
                return Err(live.why_disconnected());
            }
            sleep_until(deadline.min(Instant::now() + STATE_POLL)).await;
        }
        Ok(live)
    }

    pub(super) fn fill(&self, stats: &mut ServerStats) {
        if !self.wanted.load(Relaxed) {
            return;
        }
        let Some(live) = self.current() else {
            match self.connecting.try_lock() {
                Ok(_) => stats.disconnected += 1,
                Err(_) => stats.connecting += 1,
            }
            return;
        };
        match live.client.state() {
            ClientState::Connected => stats.connected += 1,
            ClientState::Connecting => stats.connecting += 1,
            ClientState::Disconnected | ClientState::Disconnecting => stats.disconnected += 1,
        }
        stats.queued += live.client.command_queue_len() as u64;
        drop(live.events());
    }

    fn current(&self) -> Option<Arc<Live>> {
        let mut live = lock(&self.live);
        // The task ends only on an error that fred takes for final. What it leaves behind answers nothing.
        live.take_if(|live| live.task.0.is_finished());
        live.clone()
    }

    async fn connect(&self) -> Result<Live, RedisError> {
        let attempt = timeout(self.config.connect_timeout, self.attempt());
        let outcome = match attempt.await {
            Ok(outcome) => outcome,
            Err(_) => Err(RedisError::new(
                Kind::Unavailable,
                format!(
                    "no connection within {:?}; a server that expects TLS on this port looks the same",
                    self.config.connect_timeout
                ),
            )),
        };
        outcome.map_err(|error| error.connecting_to(&self.config.url))
    }

    async fn attempt(&self) -> Result<Live, RedisError> {
        let client = self.client();
        let events = Events {
            errors: client.error_rx(),
            connects: client.reconnect_rx(),
            last_error: None,
            established: 0,
            down: false,
        };
        let mut connected = Box::pin(client.wait_for_connect());
        // Subscribes before there is anything to miss.
        let _listening = poll!(connected.as_mut());
        let mut task = Task(client.connect());
        tokio::select! {
            biased;
            outcome = &mut connected => outcome?,
            outcome = &mut task.0 => outcome.map_err(|ended| RedisError::new(Kind::Other, ended.to_string()))??,
        }
        drop(connected);
        Ok(Live {
            client,
            task,
            events: Mutex::new(events),
            answered: Mutex::new(Instant::now()),
            given_up: Mutex::new(None),
            counters: Arc::clone(&self.counters),
        })
    }

    fn client(&self) -> Client {
        let config = &self.config;
        let url = &config.url;
        let settings = Config {
            // The first attempt answers instead of retrying in silence; our callers retry, and say why.
            fail_fast: true,
            server: ServerConfig::Centralized {
                server: Server::new(url.host.clone(), url.port),
            },
            username: url.username.clone(),
            password: url.password.clone(),
            database: url.database,
            ..Config::default()
        };
        let performance = PerformanceConfig {
            default_command_timeout: match self.role {
                Role::Ordinary | Role::Subscriber { .. } => config.command_timeout,
                // It would also cut a blocking read, whose message would then go to nobody.
                Role::Reader => Duration::ZERO,
            },
            broadcast_channel_capacity: match self.role {
                Role::Subscriber { buffer } => buffer,
                Role::Ordinary | Role::Reader => EVENT_CAPACITY,
            },
            ..PerformanceConfig::default()
        };
        let silence = config.command_timeout / 2;
        let connection = ConnectionConfig {
            connection_timeout: config.connect_timeout,
            internal_command_timeout: config.connect_timeout,
            max_command_attempts: match self.role {
                Role::Ordinary | Role::Subscriber { .. } => COMMAND_ATTEMPTS,
                Role::Reader => 1,
            },
            unresponsive: match self.role {
                Role::Ordinary => UnresponsiveConfig {
                    max_timeout: Some(silence),
                    interval: (silence / 4).max(Duration::from_millis(10)),
                },
                // fred never applies it to blocking commands and subscriptions: `Reader` and `Subscriber` do.
                Role::Reader | Role::Subscriber { .. } => UnresponsiveConfig::default(),
            },
            tcp: TcpConfig {
                nodelay: Some(true),
                ..TcpConfig::default()
            },
            ..ConnectionConfig::default()
        };
        let policy = reconnect_policy(config);
        Client::new(settings, Some(performance), Some(connection), Some(policy))
    }
}

impl Live {
    /// Draws the consequences of what a command, sent at `sent`, came to: gives up a connection that is dead, or
    /// leads to the wrong server.
    pub(super) async fn learn(&self, sent: Instant, outcome: &Result<Reply, RedisError>) {
        let patience = match outcome.as_ref().map_err(RedisError::kind) {
            // A primary that became a replica keeps its connections: only a new one finds the new primary.
            Err(Kind::ReadOnly) => GIVE_UP_PATIENCE,
            // fred counts silence from the last write, so a busy half-open connection never looks silent to it. The
            // caller has waited for as long as the settings say, and is not kept until there is a new one.
            Err(Kind::TimedOut) if *lock(&self.answered) < sent => Duration::ZERO,
            Err(Kind::TimedOut | Kind::Unavailable) => return,
            _ => {
                *lock(&self.answered) = Instant::now();
                return;
            }
        };
        if self.may_give_up() {
            self.reconnect(patience).await;
        }
    }

    /// One reconnect serves all commands that ask for it at about the same time.
    fn may_give_up(&self) -> bool {
        let now = Instant::now();
        let mut given_up = lock(&self.given_up);
        let lately =
            given_up.is_some_and(|at| now.saturating_duration_since(at) < GIVE_UP_INTERVAL);
        if !lately {
            *given_up = Some(now);
        }
        !lately
    }

    /// Drops the connection and makes a new one; waits for that at most so long.
    pub(super) async fn reconnect(&self, patience: Duration) {
        // The outcome shows in the next command; a reconnect that takes longer goes on by itself.
        let _outcome = timeout(patience, self.client.force_reconnection()).await;
    }

    /// The error to give to a caller who found the connection down.
    pub(super) fn why_disconnected(&self) -> RedisError {
        match &self.events().last_error {
            Some(error) => error.clone(),
            None => RedisError::new(Kind::Unavailable, "not connected"),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.client.is_connected() && !self.events().down
    }

    /// The events until now, with the reconnects among them counted.
    fn events(&self) -> MutexGuard<'_, Events> {
        let mut events = lock(&self.events);
        let before = events.reconnects();
        events.drain();
        self.counters.reconnected(events.reconnects() - before);
        events
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        drop(self.events());
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Events {
    fn reconnects(&self) -> u64 {
        self.established.saturating_sub(1)
    }

    fn drain(&mut self) {
        let established = self.established;
        loop {
            match self.connects.try_recv() {
                Ok(_) => self.established += 1,
                Err(TryRecvError::Lagged(missed)) => self.established += missed,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let connected = self.established > established;
        let mut failed = false;
        loop {
            match self.errors.try_recv() {
                Ok((error, _)) => {
                    self.last_error = Some(error.into());
                    failed = true;
                }
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        // Of both, the order is not known. Up is the safe guess: a wrong `down` would have no event left to end it.
        self.down = !connected && (failed || self.down);
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No section leaves its data half changed, so a panic elsewhere in one does no harm.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whole milliseconds; never none of them, which would be no pause at all.
fn millis(duration: Duration) -> u32 {
    duration.as_millis().try_into().unwrap_or(u32::MAX).max(1)
}

/// How often a command is written at most, when connection after connection is lost under it.
const COMMAND_ATTEMPTS: u32 = 3;
/// Room for connection events that nobody has counted yet; more of them are still counted, by their number.
const EVENT_CAPACITY: usize = 16;
const GIVE_UP_INTERVAL: Duration = Duration::from_secs(1);
const GIVE_UP_PATIENCE: Duration = Duration::from_secs(1);
/// How often a lost connection is looked at. fred tells of changes too, but not in a way that misses none.
const STATE_POLL: Duration = Duration::from_millis(20);

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
