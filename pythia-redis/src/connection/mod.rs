//! The connections to one Redis: the only module, with [`error`](crate::error), that names fred.
//!
//! A [`Redis`] makes every connection that its users ask for. Nothing connects until its first command, or until
//! somebody waits for it to be [`up`](Connection::up); if that fails, the error says why and the next command tries
//! again. Once up, a connection reconnects by itself for as long as it takes, and drops when its handle drops.
//!
//! | handle | one for | a command that gets no answer |
//! |---|---|---|
//! | [`Reader`] | each lane | fails with `TimedOut` or `Unavailable`, is never sent again: call again |
//! | [`Connection`] from [`Redis::dedicated`] | the settler of each lane | is sent again after a reconnect |
//! | [`Connection`] from [`Redis::pool`] | all the rest | the same |
//! | [`Subscriber`] | each pub/sub source | reports the gap and subscribes again |
//! | [`Subscriber`] from [`Redis::control`] | all queues, on one connection | the same |
//!
//! What to know before writing a command:
//!
//! - **It may run twice.** A [`Connection`] sends again what a lost connection left unanswered, and a caller
//!   of a [`Reader`] repeats what failed. Scripts are idempotent by their arguments.
//! - **A blocking command goes to a [`Reader`]**, with a wait of at most a second; its future is not dropped
//!   half-way, or a popped message goes to nobody.
//! - **User data is never the first element of a reply.** fred takes any array of three to five elements that
//!   starts with a text such as `message` or `subscribe` for a pub/sub frame, wherever it arrives, and the
//!   command is never answered. Scripts return `{n, {..data..}}`; `LRANGE`, `MGET`, `HVALS`, `LPOP key n` and the
//!   like are wrapped in one. Debug builds panic on a reply of a script that starts with a string.
//! - **A payload shares the buffer of the whole reply it came in**, so nothing is copied, and a small payload that
//!   is kept for long keeps its batch in memory. What a reply costs beside its bytes: some 150 ns of CPU an element.
//!
//! ```text
//! static CLAIM: Script = Script::new("list/claim", include_str!("../scripts/list/claim.lua"));
//!
//! let redis = Redis::new(config)?;
//! let mut reader = redis.reader();
//! let wait = Args::new().key(&keys.ready).key(&keys.inbox).arg("RIGHT").arg("LEFT").arg("1");
//! reader.blocking("BLMOVE", wait, ONE_SECOND).await?;
//! let [waiting, messages] = reader
//!     .eval(&CLAIM, &[&keys.ready, &keys.inbox, &keys.consumers], Args::new().arg(&consumer).arg(claim))
//!     .await
//!     .and_then(Reply::into_tuple)
//!     .map_err(|error| error.during("claim messages", queue))?;
//! redis.pool().command("LPUSH", Args::new().key(&keys.ready).args(payloads)).await?;
//! ```

mod diagnose;
mod endpoint;
mod link;
mod reader;
mod reply;
mod stats;
mod subscriber;
#[cfg(all(test, feature = "testing"))]
mod tests;
mod tls;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytestring::ByteString;
use fred::interfaces::ClientLike;
use fred::types::config::Server;
use fred::types::{ClusterHash, CustomCommand, Value};
use futures_util::future::try_join_all;
use pythia_core::ConfigError;
use pythia_core::admin::ServerStats;
use pythia_core::observe::{Event, Observer};
use tokio::time::{Instant, sleep};

use self::endpoint::Endpoint;
use self::link::{Link, Live, Role, STATE_POLL};
use self::stats::Counters;
use crate::config::RedisConfig;
use crate::error::{Kind, RedisError};
use crate::script::Script;
use crate::url::RedisUrl;

pub(crate) use self::reader::Reader;
pub(crate) use self::reply::{Args, Reply};
pub(crate) use self::subscriber::{Channels, Notice, Subscriber};

/// Everything that talks to one Redis. Clones share its connections.
#[derive(Clone, Debug)]
pub(crate) struct Redis(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    endpoint: Arc<Endpoint>,
    store: Option<Redis>,
    counters: Arc<Counters>,
    pool: Connection,
    control: Arc<Link>,
    /// Every connection handed out, for the gauges. Those that are gone are swept when one is added.
    links: Mutex<Vec<Weak<Link>>>,
}

/// One connection, or the pool, for commands that Redis answers at once.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    links: Arc<[Arc<Link>]>,
    turn: Arc<AtomicUsize>,
    counters: Arc<Counters>,
    /// How long a connection may be silent before it is asked for a sign of life.
    silence: Duration,
    /// How often a command is sent at most by this connection itself, where it does not leave that to fred.
    attempts: u32,
    /// How long to wait for a lost connection before giving up; `None`: as long as a command may take.
    patience: Option<Duration>,
}

/// One of the servers that have a cluster's slots, or the one server that there is.
#[derive(Clone, Debug)]
pub(crate) struct Master(Option<Server>);

impl Redis {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// If the settings contradict each other, or a file that TLS needs can't be used.
    pub(crate) fn new(config: RedisConfig) -> Result<Self, ConfigError> {
        config.check()?;
        let store = match config.store() {
            Some(url) => Some(Self::at(Endpoint::new(config.clone(), url)?.into(), None)),
            None => None,
        };
        let server = config.server();
        Ok(Self::at(Endpoint::new(config, server)?.into(), store))
    }

    /// The same places, by connections of its own of which no observer hears.
    pub(crate) fn apart(&self) -> Self {
        let store = self.0.store.as_ref().map(Self::apart);
        Self::at(Arc::clone(&self.0.endpoint), store)
    }

    fn at(endpoint: Arc<Endpoint>, store: Option<Self>) -> Self {
        let counters = Arc::new(Counters::default());
        let link = |role| {
            let (endpoint, counters) = (Arc::clone(&endpoint), Arc::clone(&counters));
            Arc::new(Link::new(role, endpoint, counters))
        };
        let pool: Arc<[_]> = (0..endpoint.config.pool_size.get())
            .map(|_| link(Role::Ordinary))
            .collect();
        let control = link(Role::Subscriber {
            buffer: CONTROL_BUFFER,
        });
        Self(Arc::new(Shared {
            links: Mutex::new(pool.iter().chain([&control]).map(Arc::downgrade).collect()),
            pool: Connection::new(pool, &endpoint, &counters),
            control,
            store,
            endpoint,
            counters,
        }))
    }

    /// The settings, with the options of the URL in their places.
    pub(crate) fn config(&self) -> &RedisConfig {
        &self.0.endpoint.config
    }

    /// Where it is. Displayed without credentials.
    pub(crate) fn server(&self) -> &RedisUrl {
        &self.0.endpoint.server
    }

    /// Where the key-value store is: here, unless the settings name another place.
    pub(crate) fn store(&self) -> &Self {
        self.0.store.as_ref().unwrap_or(self)
    }

    /// Where the key-value store is, if the settings name another place.
    pub(crate) fn other_store(&self) -> Option<&Self> {
        self.0.store.as_ref()
    }

    /// The connections shared by publishing, upkeep, administration and the store.
    pub(crate) fn pool(&self) -> &Connection {
        &self.0.pool
    }

    /// The same connections for publishing, which does not wait long for one that is lost.
    pub(crate) fn publisher(&self) -> Connection {
        Connection {
            patience: Some(self.config().publish_wait),
            ..self.0.pool.clone()
        }
    }

    /// A connection of its own, so that settling waits for nobody.
    pub(crate) fn dedicated(&self) -> Connection {
        let link = self.link(Role::Ordinary);
        Connection::new(Arc::new([link]), &self.0.endpoint, &self.0.counters)
    }

    /// A connection of its own for blocking commands.
    pub(crate) fn reader(&self) -> Reader {
        Reader::new(self.link(Role::Reader), self.config(), &self.0.counters)
    }

    /// A connection of its own for subscriptions; `buffer` messages wait for a slow consumer.
    pub(crate) fn subscriber(&self, buffer: usize, channels: Channels) -> Subscriber {
        Subscriber::new(self.link(Role::Subscriber { buffer }), channels, false)
    }

    /// A subscription to control channels, on one connection for the whole [`Redis`].
    pub(crate) fn control(&self, channels: Vec<ByteString>) -> Subscriber {
        Subscriber::new(Arc::clone(&self.0.control), Channels::Exact(channels), true)
    }

    /// Reports each command that ends, and what [`report`](Self::report) is given, to this observer too; those of the store as
    /// well, wherever it is.
    pub(crate) fn attach(&self, observer: Arc<dyn Observer>) {
        if let Some(store) = self.other_store() {
            store.attach(Arc::clone(&observer));
        }
        self.0.counters.attach(observer);
    }

    /// Tells the observers of something that an adapter saw, such as a gap.
    pub(crate) fn report(&self, event: &Event<'_>) {
        self.0.counters.report(event);
    }

    /// What the connections are doing at this moment, without the server's memory. Sends no command.
    pub(crate) fn stats(&self) -> ServerStats {
        let mut stats = ServerStats::default();
        stats.pool_size = self.0.pool.links.len() as u64;
        let links = self.0.links.lock().unwrap_or_else(PoisonError::into_inner);
        for link in links.iter().filter_map(Weak::upgrade) {
            link.fill(&mut stats);
        }
        drop(links);
        self.0.counters.fill(&mut stats);
        stats
    }

    fn link(&self, role: Role) -> Arc<Link> {
        let link = Arc::new(Link::new(
            role,
            Arc::clone(&self.0.endpoint),
            Arc::clone(&self.0.counters),
        ));
        let mut links = self.0.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(&link));
        link
    }
}

impl Connection {
    fn new(links: Arc<[Arc<Link>]>, endpoint: &Endpoint, counters: &Arc<Counters>) -> Self {
        Self {
            links,
            turn: Arc::default(),
            counters: Arc::clone(counters),
            silence: endpoint.config.health_check_interval,
            attempts: endpoint.config.command_attempts.get(),
            patience: None,
        }
    }

    /// Runs one command.
    ///
    /// # Errors
    /// At once if there was never a connection and none can be made now; after `command_timeout` if the
    /// connection is lost and does not come back by then, or no answer comes. The command may then have run.
    pub(crate) async fn command(
        &self,
        name: &'static str,
        args: Args,
    ) -> Result<Reply, RedisError> {
        let running = self.counters.start(name);
        let hash = args.hash();
        running.end(self.send(command(name, hash, false), &args.values).await)
    }

    /// Runs one command without a key on every master of a cluster, or on the one server that there is.
    ///
    /// # Errors
    /// As [`command`](Self::command), the first of them.
    pub(crate) async fn on_each_master(
        &self,
        name: &'static str,
        args: Args,
    ) -> Result<Vec<Reply>, RedisError> {
        let masters = self.masters().await?;
        let each = masters
            .iter()
            .map(|master| self.command_at(master, name, args.clone()));
        try_join_all(each).await
    }

    /// Whether a command would be written at once, as far as is known: what is cut in silence shows when it is used.
    fn is_up(&self) -> bool {
        self.links.iter().any(|link| link.is_up())
    }

    /// Waits until one of the connections is up: for a reconnect under way at most a second, for a first connection as
    /// long as that may take. Cancel safe, and then gives an attempt of its own up.
    ///
    /// # Errors
    /// If none is up by then, or can be made.
    pub(crate) async fn up(&self) -> Result<(), RedisError> {
        if self.is_up() {
            return Ok(());
        }
        let to_make = self.links.iter().find(|link| !link.is_down());
        let link = to_make.unwrap_or(&self.links[0]);
        let any = async {
            while !self.is_up() {
                sleep(STATE_POLL).await;
            }
        };
        tokio::select! {
            biased;
            outcome = link.connected(READ_PATIENCE) => outcome.map(drop),
            () = any => Ok(()),
        }
    }

    /// Every master of a cluster, or the one server that there is.
    ///
    /// # Errors
    /// If there was never a connection and none can be made now.
    pub(crate) async fn masters(&self) -> Result<Vec<Master>, RedisError> {
        let live = self.live().await?;
        let masters = live.masters();
        if masters.is_empty() {
            return Ok(vec![Master(None)]);
        }
        Ok(masters.into_iter().map(|node| Master(Some(node))).collect())
    }

    /// Runs one command without a key on one of the [`masters`](Self::masters).
    ///
    /// # Errors
    /// As [`command`](Self::command).
    pub(crate) async fn command_at(
        &self,
        master: &Master,
        name: &'static str,
        args: Args,
    ) -> Result<Reply, RedisError> {
        let Some(node) = &master.0 else {
            return self.command(name, args).await;
        };
        let live = self.live().await?;
        let running = self.counters.start(name);
        let node = live.client.with_cluster_node(node);
        let command = command(name, ClusterHash::Random, false);
        let answer = node.custom_raw(command, args.values).await;
        running.end(live.read(answer))
    }

    async fn live(&self) -> Result<Arc<Live>, RedisError> {
        let link = self.next();
        match self.patience {
            Some(patience) => link.connected(patience).await,
            None => link.live().await,
        }
    }

    /// Runs a script by its digest, and by its source if the server does not have it.
    ///
    /// # Errors
    /// As [`command`](Self::command), and whatever the script raises.
    pub(crate) async fn eval(
        &self,
        script: &'static Script,
        keys: &[&ByteString],
        args: Args,
    ) -> Result<Reply, RedisError> {
        let running = self.counters.start(script.name());
        let call = ScriptCall::new(script, keys, args);
        let reply = match self.send(call.by_digest(), &call.values).await {
            Err(error) if error.kind() == Kind::NoScript => {
                self.send(call.by_source(), &call.into_source_values())
                    .await
            }
            reply => reply,
        };
        running.end(reply.inspect(refuse_flat_data))
    }

    async fn send(&self, command: CustomCommand, values: &[Value]) -> Result<Reply, RedisError> {
        let Some(patience) = self.patience else {
            let live = self.live().await?;
            let values = values.to_vec();
            return self.send_on(&live, &live.client, command, values).await;
        };
        // fred would keep a command whose connection is lost for as long as a command may take.
        let mut attempts = self.attempts;
        let deadline = Instant::now() + patience;
        loop {
            let live = self.live().await?;
            let (command, values) = (command.clone(), values.to_vec());
            let error = match self.send_on(&live, &live.once(None), command, values).await {
                Err(error) if error.kind() == Kind::Unavailable => error,
                outcome => return outcome,
            };
            if error.was_not_executed() {
                // A slot is on its way to another node, or Redis is loading its data: a repeat can't double anything.
                if Instant::now() >= deadline {
                    return Err(error);
                }
            } else {
                attempts -= 1;
                if attempts == 0 {
                    return Err(error);
                }
            }
            // By then the loss of the connection has come round.
            sleep(LOSS_SHOWS).await;
        }
    }

    /// The next in turn; while that one is down, one that is up, if there is any.
    fn next(&self) -> &Link {
        let count = self.links.len();
        let turn = self.turn.fetch_add(1, Relaxed) % count;
        let in_turn = &self.links[turn];
        if count == 1 || !in_turn.is_down() {
            return in_turn;
        }
        let (before, after) = self.links.split_at(turn);
        let mut others = after.iter().chain(before);
        others.find(|link| link.is_up()).unwrap_or(in_turn)
    }

    async fn send_on(
        &self,
        live: &Arc<Live>,
        client: &impl ClientLike,
        mut command: CustomCommand,
        values: Vec<Value>,
    ) -> Result<Reply, RedisError> {
        live.route(&mut command, &values);
        live.check(self.silence, &command).await;
        let sent = Instant::now();
        let outcome = live.read(client.custom_raw(command, values).await);
        live.learn(sent, &outcome).await;
        outcome.map_err(|error| match error.kind() {
            Kind::TimedOut if !live.is_up() => RedisError::new(
                Kind::TimedOut,
                format!(
                    "the connection is down: {}",
                    live.why_disconnected().detail()
                ),
            ),
            _ => error,
        })
    }
}

/// Where it is; nothing of the one server, whose place the settings say.
impl fmt::Display for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(node) => write!(f, "{}:{}", node.host, node.port),
            None => Ok(()),
        }
    }
}

/// `EVALSHA` and `EVAL` differ in their first argument only.
struct ScriptCall {
    script: &'static Script,
    values: Vec<Value>,
}

impl ScriptCall {
    fn new(script: &'static Script, keys: &[&ByteString], mut args: Args) -> Self {
        let mut call = Args::with_capacity(2 + keys.len() + args.len())
            .arg(script.digest())
            .arg(keys.len())
            .args(keys.iter().copied());
        call.values.append(&mut args.values);
        Self {
            script,
            values: call.values,
        }
    }

    fn by_digest(&self) -> CustomCommand {
        command("EVALSHA", SCRIPT_HASH, false)
    }

    fn by_source(&self) -> CustomCommand {
        command("EVAL", SCRIPT_HASH, false)
    }

    fn into_source_values(mut self) -> Vec<Value> {
        self.values[0] = Value::from_static_str(self.script.source());
        self.values
    }
}

impl Args {
    fn hash(&self) -> ClusterHash {
        self.key.map_or(ClusterHash::FirstKey, ClusterHash::Offset)
    }
}

fn command(name: &'static str, hash: ClusterHash, blocking: bool) -> CustomCommand {
    CustomCommand::new_static(name, hash, blocking)
}

fn refuse_flat_data(reply: &Reply) {
    debug_assert!(
        !reply.begins_with_text(),
        "a script's reply starts with a string: data there can be mistaken for a pub/sub frame, nest it"
    );
}

/// The first key of `EVALSHA digest numkeys key ...`.
const SCRIPT_HASH: ClusterHash = ClusterHash::Offset(2);
const LOSS_SHOWS: Duration = Duration::from_millis(20);
/// How long whoever reads waits for a reconnect under way before it reports that there is no connection.
const READ_PATIENCE: Duration = Duration::from_secs(1);
const CONTROL_BUFFER: usize = 1024;
