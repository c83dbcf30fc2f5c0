//! One connection to Redis: made when first needed, and made anew when it ended for good.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use fred::clients::{Client, WithOptions};
use fred::error::ErrorKind;
use fred::interfaces::{ClientLike, ClusterInterface, EventInterface, MetricsInterface};
use fred::types::config::{Options, Server};
use fred::types::{ClientState, ClusterHash, ConnectHandle, CustomCommand, Resp3Frame, Value};
use fred::util::redis_keyslot;
use futures_util::future::{BoxFuture, Shared};
use futures_util::{FutureExt, poll};
use pythia_core::admin::ServerStats;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::{Instant, sleep_until, timeout};

use super::diagnose;
use super::endpoint::Endpoint;
use super::reply::Reply;
use super::stats::Counters;
use crate::error::{Kind, RedisError, User};

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
    endpoint: Arc<Endpoint>,
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
    pub(super) is_cluster: bool,
    pub(super) user: Arc<User>,
    events: Mutex<Events>,
    /// When a command was answered last.
    answered: Mutex<Instant>,
    /// When the connection was last given up for what its commands came to.
    given_up: Mutex<Option<Instant>>,
    /// The question for a sign of life that is under way, or was the last.
    checking: Mutex<Option<Shared<BoxFuture<'static, ()>>>>,
    /// Whether this client is to be replaced. Its task takes a moment to end.
    dead: AtomicBool,
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
    pub(super) fn new(role: Role, endpoint: Arc<Endpoint>, counters: Arc<Counters>) -> Self {
        Self {
            role,
            endpoint,
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

    /// Whether a command would be written at once.
    pub(super) fn is_up(&self) -> bool {
        self.current().is_some_and(|live| live.is_up())
    }

    /// Whether a command would have to wait for a reconnect. One that was never made is not down.
    pub(super) fn is_down(&self) -> bool {
        self.current().is_some_and(|live| !live.is_up())
    }

    pub(super) fn health_check_interval(&self) -> Duration {
        self.endpoint.config.health_check_interval
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
        if let Some(dead) = live.take_if(|live| live.is_dead()) {
            self.endpoint.remember(dead.masters());
        }
        live.clone()
    }

    async fn connect(&self) -> Result<Live, RedisError> {
        let patience = self.endpoint.connect_patience();
        let outcome = match timeout(patience, self.attempt()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RedisError::new(
                Kind::TimedOut,
                format!("no connection within {patience:?}"),
            )),
        };
        match outcome {
            Ok(live) => Ok(live),
            Err(error) => {
                let error = error.met_by(&self.endpoint.user);
                let error = diagnose::plainly(error, &self.endpoint).await;
                Err(error.connecting_to(&self.endpoint.server))
            }
        }
    }

    async fn attempt(&self) -> Result<Live, RedisError> {
        let client = self.endpoint.client(self.role);
        let mut events = Events {
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
        diagnose::refuse_too_old(client.server_version().as_ref())?;
        if self.endpoint.is_cluster() {
            // One for each master: together they are the first connection, not reconnects.
            events.drain();
            events.established = events.established.min(1);
        }
        Ok(Live {
            client,
            task,
            is_cluster: self.endpoint.is_cluster(),
            user: Arc::clone(&self.endpoint.user),
            events: Mutex::new(events),
            answered: Mutex::new(Instant::now()),
            given_up: Mutex::new(None),
            checking: Mutex::new(None),
            dead: AtomicBool::new(false),
            counters: Arc::clone(&self.counters),
        })
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
        if self.is_cluster {
            // fred would keep every connection of a cluster that does not look broken to it. Without its task this
            // client is none any more, and whoever needs one next makes it.
            self.dead.store(true, Relaxed);
            self.task.0.abort();
            return;
        }
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
        // Of a cluster one node may be down while the others answer; commands for that one fail by themselves.
        let down = self.events().down && !self.is_cluster;
        self.client.is_connected() && !down && !self.is_dead()
    }

    /// Whether nothing will answer on this client any more: it is to be replaced, or met an error that fred takes for final.
    fn is_dead(&self) -> bool {
        self.dead.load(Relaxed) || self.task.0.is_finished()
    }

    /// The node of a cluster that has this slot, as far as is known; none of a single server.
    pub(super) fn owner(&self, slot: u16) -> Option<Server> {
        let cluster = self.client.cached_cluster_state()?;
        cluster.get_server(slot).cloned()
    }

    /// The masters of a cluster, as far as they are known; none of a single server.
    pub(super) fn masters(&self) -> Vec<Server> {
        if !self.is_cluster {
            return Vec::new();
        }
        let cluster = self.client.cached_cluster_state();
        cluster.map_or_else(Vec::new, |cluster| cluster.unique_primary_nodes())
    }

    pub(super) fn read(
        &self,
        answer: Result<Resp3Frame, fred::error::Error>,
    ) -> Result<Reply, RedisError> {
        answer
            .map_err(RedisError::from)
            .and_then(Reply::from_frame)
            .map_err(|error| error.met_by(&self.user))
    }

    /// Leads a command to the node of a cluster that has its first key. fred takes only the number of a slot from a
    /// custom command; by itself it would hash the first text there is, such as a script's digest.
    pub(super) fn route(&self, command: &mut CustomCommand, values: &[Value]) {
        if !self.is_cluster {
            return;
        }
        let key = match command.cluster_hash {
            ClusterHash::FirstKey => 0,
            ClusterHash::Offset(offset) => offset,
            _ => return,
        };
        if let Some(key) = values.get(key).and_then(Value::as_bytes) {
            command.cluster_hash = ClusterHash::Custom(redis_keyslot(key));
        }
    }

    /// The client for a command that is written once, to a connection that is up, or not at all: what is called while the
    /// connection is down would be written when it is up again, for a caller who has long been told that it failed.
    pub(super) fn once(&self, timeout: Option<Duration>) -> WithOptions<Client> {
        self.client.with_options(&Options {
            fail_fast: true,
            max_attempts: Some(1),
            timeout,
            ..Options::default()
        })
    }

    /// Asks a connection that was silent for so long whether it still leads anywhere, and makes a new one if not.
    ///
    /// Callers that come meanwhile wait for the same answer. A caller that goes away takes nothing with it: those who give up
    /// early, and come again and again, would never find out otherwise.
    pub(super) async fn check(self: &Arc<Self>, silence: Duration, next: &CustomCommand) {
        let silent = Instant::now().saturating_duration_since(*lock(&self.answered));
        if silent < silence || !self.is_up() {
            return;
        }
        let check = {
            let mut checking = lock(&self.checking);
            // One that has ended leaves its place to the next.
            checking.take_if(|check| check.peek().is_some());
            let begin = || {
                sign_of_life(Arc::downgrade(self), next.cluster_hash.clone())
                    .boxed()
                    .shared()
            };
            checking.get_or_insert_with(begin).clone()
        };
        check.await;
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

/// Waits for the answer to a PING, and makes the connection anew if there is none.
async fn sign_of_life(live: Weak<Live>, node: ClusterHash) {
    let Some(client) = live.upgrade().map(|live| live.client.clone()) else {
        return;
    };
    let asked = Instant::now();
    let ping = CustomCommand::new_static("PING", node, false);
    let answer = timeout(CHECK_PATIENCE, client.custom_raw(ping, Vec::<Value>::new())).await;
    let Some(live) = live.upgrade() else {
        return;
    };
    // A refusal is a sign of life too.
    let silent = match answer {
        Ok(answer) => answer.is_err_and(|error| *error.kind() == ErrorKind::Timeout),
        Err(_) => true,
    };
    if !silent {
        *lock(&live.answered) = Instant::now();
    } else if *lock(&live.answered) < asked && live.may_give_up() {
        live.reconnect(GIVE_UP_PATIENCE).await;
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
        if connected && !failed {
            // What was wrong with the last connection says nothing of the next.
            self.last_error = None;
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No section leaves its data half changed, so a panic elsewhere in one does no harm.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a sign of life may take.
const CHECK_PATIENCE: Duration = Duration::from_secs(2);
const GIVE_UP_INTERVAL: Duration = Duration::from_secs(1);
const GIVE_UP_PATIENCE: Duration = Duration::from_secs(1);
/// How often a lost connection is looked at. fred tells of changes too, but not in a way that misses none.
pub(super) const STATE_POLL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use fred::error::Error;
    use tokio::sync::broadcast::channel;

    use super::*;

    #[test]
    fn what_was_wrong_with_the_last_connection_is_not_said_of_the_next() {
        let ((failures, errors), (connections, connects)) = (channel(9), channel(9));
        let mut events = Events {
            errors,
            connects,
            last_error: None,
            established: 1,
            down: false,
        };
        let refused = Error::new(ErrorKind::Auth, "WRONGPASS");
        failures.send((refused, None)).unwrap();
        events.drain();
        assert!(events.down && events.last_error.is_some());
        connections.send(Server::new("127.0.0.1", 6379)).unwrap();
        events.drain();
        assert!(!events.down && events.last_error.is_none());
        assert_eq!(events.reconnects(), 1);
    }
}
