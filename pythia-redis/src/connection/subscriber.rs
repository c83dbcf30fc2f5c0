//! Subscriptions: messages, and every gap between them that can be known.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use fred::error::ErrorKind;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::config::Server;
use fred::types::{ClusterHash, ClusterStateChange, CustomCommand, Message, Value};
use fred::util::redis_keyslot;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, sleep_until, timeout};

use super::link::{Link, Live};
use crate::error::{Kind, RedisError};

/// What to subscribe to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Channels {
    /// `SUBSCRIBE`
    Exact(Vec<ByteString>),
    /// `PSUBSCRIBE`
    Patterns(Vec<ByteString>),
    /// `SSUBSCRIBE`
    Sharded(Vec<ByteString>),
}

/// What a subscription brings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Notice {
    Message {
        channel: ByteString,
        payload: Bytes,
    },
    /// So many messages were dropped, because nobody took them from the full buffer.
    Dropped(u64),
    /// The connection was lost and is subscribed again. What was published meanwhile is lost, uncounted.
    Resubscribed {
        away: Duration,
    },
    /// A message has no form that could be handed out: why.
    Unreadable(String),
}

/// A subscription that outlives its connection.
#[derive(Debug)]
pub(crate) struct Subscriber {
    link: Arc<Link>,
    channels: Channels,
    /// Others subscribe on this connection too, so their messages arrive here and are passed over.
    shared: bool,
    session: Option<Session>,
    /// What a client that was replaced had received and nobody had taken.
    backlog: VecDeque<Notice>,
}

/// A subscription on one client, until that client is replaced.
#[derive(Debug)]
struct Session {
    live: Arc<Live>,
    messages: Receiver<Message>,
    connects: Receiver<Server>,
    errors: Receiver<(fred::error::Error, Option<Server>)>,
    /// Tells of slots that have moved.
    moves: Receiver<Vec<ClusterStateChange>>,
    /// The node of a cluster that is subscribed to: that of this slot.
    node: Option<(u16, Server)>,
    /// How long it may be silent before the server is asked for a sign of life.
    silence: Duration,
    /// When the server last showed to be there.
    heard: Instant,
    /// Since when nothing arrives.
    down: Option<Instant>,
    /// Whether there is a connection that has yet to be subscribed.
    unsubscribed: bool,
    /// A gap that has ended and has yet to be reported: how long it was.
    gap: Option<Duration>,
}

enum Happened {
    Message(Message),
    Dropped(u64),
    Disconnected,
    Reconnected,
    /// The node of a cluster that had the subscription has it no more.
    Lost,
    Nothing,
}

impl Subscriber {
    pub(super) fn new(link: Arc<Link>, channels: Channels, shared: bool) -> Self {
        Self {
            link,
            channels,
            shared,
            session: None,
            backlog: VecDeque::new(),
        }
    }

    /// Connects if need be, subscribes, and waits until the server has confirmed it: what is published from here on
    /// arrives. [`next`](Self::next) does the same by itself.
    ///
    /// # Errors
    /// If there is no connection, or the server refuses the subscription.
    pub(crate) async fn subscribe(&mut self) -> Result<(), RedisError> {
        self.session().await.map(drop)
    }

    /// The next thing that happens, or `None` if nothing does within `wait`. Dropped half-way, it loses nothing.
    ///
    /// # Errors
    /// While there is no connection, and if the server refuses the subscription. The next call tries again.
    pub(crate) async fn next(&mut self, wait: Duration) -> Result<Option<Notice>, RedisError> {
        let deadline = Instant::now() + wait;
        let shared = self.shared;
        loop {
            if let Some(notice) = self.backlog.pop_front() {
                return Ok(Some(notice));
            }
            let Some((session, channels)) = self.session().await? else {
                continue;
            };
            if let Some(away) = session.gap.take() {
                return Ok(Some(Notice::Resubscribed { away }));
            }
            match session.wait(deadline).await {
                Happened::Message(message) => {
                    if !shared || channels.hold(&message.channel) {
                        return Ok(Some(notice(message)));
                    }
                }
                Happened::Dropped(count) => return Ok(Some(Notice::Dropped(count))),
                Happened::Disconnected => {
                    session.down.get_or_insert_with(Instant::now);
                }
                Happened::Reconnected => {
                    session.down.get_or_insert_with(Instant::now);
                    session.unsubscribed = true;
                }
                Happened::Lost => session.replace().await,
                Happened::Nothing => return session.check(channels).await.map(|()| None),
            }
        }
    }

    /// What has already arrived, without waiting: the way to fill a batch.
    pub(crate) fn try_next(&mut self) -> Option<Notice> {
        match self.backlog.pop_front() {
            Some(notice) => Some(notice),
            None => self.session.as_mut()?.received(self.shared, &self.channels),
        }
    }

    /// Waits until all that was published before has arrived: [`try_next`](Self::try_next) then has it.
    ///
    /// # Errors
    /// If the server does not answer.
    pub(crate) async fn catch_up(&mut self) -> Result<(), RedisError> {
        match &mut self.session {
            // The answer comes behind all that was published before the question.
            Some(session) => session.question(&self.channels).await,
            None => Ok(()),
        }
    }

    /// The session, subscribed: a new one if the client was replaced. None if there is a backlog to hand out first.
    async fn session(&mut self) -> Result<Option<(&mut Session, &Channels)>, RedisError> {
        let live = self.link.live().await?;
        let silence = self.link.health_check_interval();
        let session = match self.session.take() {
            Some(session) if Arc::ptr_eq(&session.live, &live) => session,
            Some(mut old) => {
                while let Some(notice) = old.received(self.shared, &self.channels) {
                    self.backlog.push_back(notice);
                }
                Session::new(live, silence, Some(old.down.unwrap_or_else(Instant::now)))
            }
            None => Session::new(live, silence, None),
        };
        let session = self.session.insert(session);
        if session.unsubscribed {
            session.subscribe(&self.channels).await?;
        }
        Ok(self.backlog.is_empty().then_some((session, &self.channels)))
    }
}

impl Session {
    fn new(live: Arc<Live>, silence: Duration, down: Option<Instant>) -> Self {
        Self {
            moves: live.client.cluster_change_rx(),
            node: None,
            silence,
            messages: live.client.message_rx(),
            connects: live.client.reconnect_rx(),
            errors: live.client.error_rx(),
            heard: Instant::now(),
            down,
            unsubscribed: true,
            gap: None,
            live,
        }
    }

    async fn subscribe(&mut self, channels: &Channels) -> Result<(), RedisError> {
        // What happened before has no bearing on what is subscribed now.
        self.connects = self.connects.resubscribe();
        self.errors = self.errors.resubscribe();
        self.moves = self.moves.resubscribe();
        self.node = self
            .slot(channels)
            .and_then(|slot| Some((slot, self.live.owner(slot)?)));
        let client = self.live.client.clone();
        let ping = self.ping(channels);
        let confirmed = async {
            // fred answers SUBSCRIBE as soon as it is written. The reply to a PING behind it means that the server
            // has carried it out, and if the server refused, the refusal arrives in place of that reply. They go
            // out together, or the refusal could arrive before fred expects any reply, and be dropped.
            let together = client.pipeline();
            match channels {
                Channels::Exact(names) => together.subscribe(texts(names)).await?,
                Channels::Patterns(names) => together.psubscribe(texts(names)).await?,
                Channels::Sharded(names) => return client.ssubscribe(texts(names)).await,
            }
            let _queued: Value = together.custom(ping, Vec::<Value>::new()).await?;
            together.last::<Value>().await.map(drop)
        };
        if let Err(error) = self.hear(confirmed).await {
            if !matches!(error.kind(), Kind::TimedOut | Kind::Unavailable) {
                // The refusal took the place of the PING's reply, so that one would be taken for the next reply.
                self.live.reconnect(PATIENCE).await;
            }
            return Err(error);
        }
        self.unsubscribed = false;
        let since = |down| Instant::now().saturating_duration_since(down);
        self.gap = self.down.take().map(since);
        Ok(())
    }

    async fn wait(&mut self, deadline: Instant) -> Happened {
        loop {
            let happened = tokio::select! {
                biased;
                connect = self.connects.recv() => match connect {
                    Ok(server) => self.touches(Some(&server), Happened::Reconnected),
                    Err(RecvError::Lagged(_)) => Some(self.lost(Happened::Reconnected)),
                    Err(RecvError::Closed) => Some(Happened::Disconnected),
                },
                error = self.errors.recv() => match error {
                    Ok((_, server)) => self.touches(server.as_ref(), Happened::Disconnected),
                    Err(RecvError::Lagged(_)) => Some(self.lost(Happened::Disconnected)),
                    Err(RecvError::Closed) => Some(Happened::Disconnected),
                },
                _change = self.moves.recv(), if self.node.is_some() => {
                    (!self.has_its_node()).then_some(Happened::Lost)
                }
                message = self.messages.recv() => Some(match message {
                    Ok(message) => {
                        self.heard = Instant::now();
                        Happened::Message(message)
                    }
                    Err(RecvError::Lagged(count)) => Happened::Dropped(count),
                    Err(RecvError::Closed) => Happened::Disconnected,
                }),
                () = sleep_until(deadline) => Some(Happened::Nothing),
            };
            if let Some(happened) = happened {
                return happened;
            }
        }
    }

    /// What an event of this server means to the subscription. Of a cluster only that of its own node does.
    fn touches(&self, server: Option<&Server>, happened: Happened) -> Option<Happened> {
        match (&self.node, server) {
            (Some((_, node)), Some(server)) if node == server => Some(Happened::Lost),
            (Some(_), _) => None,
            (None, _) => Some(happened),
        }
    }

    fn lost(&self, otherwise: Happened) -> Happened {
        if self.node.is_some() {
            Happened::Lost
        } else {
            otherwise
        }
    }

    /// Whether the slot that the subscription went by is where it was.
    fn has_its_node(&self) -> bool {
        let node = self.node.as_ref();
        node.is_none_or(|(slot, node)| self.live.owner(*slot).as_ref() == Some(node))
    }

    /// Has the client replaced. A new one is subscribed once for certain; to subscribe on this one again could mean to be
    /// subscribed to two nodes of the cluster, and to hear everything twice.
    async fn replace(&mut self) {
        self.down.get_or_insert_with(Instant::now);
        self.live.reconnect(PATIENCE).await;
    }

    /// What has arrived and was not taken.
    fn received(&mut self, shared: bool, channels: &Channels) -> Option<Notice> {
        loop {
            match self.messages.try_recv() {
                Ok(message) if shared && !channels.hold(&message.channel) => {}
                Ok(message) => return Some(notice(message)),
                Err(TryRecvError::Lagged(count)) => return Some(Notice::Dropped(count)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }

    /// A half-open connection looks like a silent channel, so silence is questioned now and then.
    async fn check(&mut self, channels: &Channels) -> Result<(), RedisError> {
        if !self.live.is_up() {
            return Err(self.live.why_disconnected());
        }
        if Instant::now().saturating_duration_since(self.heard) < self.silence {
            return Ok(());
        }
        match channels {
            Channels::Sharded(names) if self.node.is_some() => {
                // A slot that moves takes no subscription along. Asking for it again finds the slot wherever it is.
                let client = self.live.client.clone();
                let since = self.heard;
                self.hear(client.ssubscribe(texts(names))).await?;
                if !self.has_its_node() {
                    self.down.get_or_insert(since);
                    self.replace().await;
                }
                Ok(())
            }
            _ => self.question(channels).await,
        }
    }

    /// Asks the node that has the subscription for a sign of life.
    async fn question(&mut self, channels: &Channels) -> Result<(), RedisError> {
        let client = self.live.client.clone();
        let ping = self.ping(channels);
        self.hear(client.custom::<Value, Value>(ping, Vec::new()))
            .await
    }

    /// A `PING` that reaches the node that has the subscription.
    fn ping(&self, channels: &Channels) -> CustomCommand {
        let slot = self
            .slot(channels)
            .map_or(ClusterHash::Random, ClusterHash::Custom);
        CustomCommand::new_static("PING", slot, false)
    }

    /// The slot by which fred chooses the node of a cluster to subscribe to: that of the client's own id, or of the channel.
    fn slot(&self, channels: &Channels) -> Option<u16> {
        let key = match channels {
            _ if !self.live.is_cluster => return None,
            Channels::Sharded(names) => names.first()?.as_bytes(),
            Channels::Exact(_) | Channels::Patterns(_) => self.live.client.id().as_bytes(),
        };
        Some(redis_keyslot(key))
    }

    /// Waits for a sign of life, and connects anew if there is none.
    async fn hear<T>(
        &mut self,
        sign: impl Future<Output = Result<T, fred::error::Error>>,
    ) -> Result<(), RedisError> {
        match timeout(PATIENCE, sign).await {
            // fred's own time may be over before.
            Ok(heard) if !matches!(&heard, Err(error) if *error.kind() == ErrorKind::Timeout) => {
                heard.map_err(|error| RedisError::from(error).met_by(&self.live.user))?;
                self.heard = Instant::now();
                Ok(())
            }
            _ => {
                self.down.get_or_insert(self.heard);
                self.live.reconnect(PATIENCE).await;
                Err(RedisError::new(
                    Kind::TimedOut,
                    format!("silent for {PATIENCE:?}, connected anew"),
                ))
            }
        }
    }
}

impl Channels {
    fn hold(&self, channel: &str) -> bool {
        match self {
            Self::Exact(names) | Self::Patterns(names) | Self::Sharded(names) => {
                names.iter().any(|name| *name == channel)
            }
        }
    }
}

fn notice(message: Message) -> Notice {
    let payload = match message.value {
        Value::String(text) => text.into_inner(),
        Value::Bytes(bytes) => bytes,
        other => {
            return Notice::Unreadable(format!("its body is no text but {:?}", other.kind()));
        }
    };
    match ByteString::try_from(message.channel.into_inner()) {
        Ok(channel) => Notice::Message { channel, payload },
        Err(_) => Notice::Unreadable("its channel's name is not UTF-8".to_owned()),
    }
}

fn texts(names: &[ByteString]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

const PATIENCE: Duration = Duration::from_secs(2);
