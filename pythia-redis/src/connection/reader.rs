//! A connection for commands that wait for data.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use fred::interfaces::ClientLike;
use fred::types::{CustomCommand, Value};
use futures_util::future::{join, join_all};
use tokio::time::{Instant, timeout};

use super::link::Link;
use super::reply::{Args, Reply};
use super::stats::Counters;
use super::{Connection, READ_PATIENCE, ScriptCall, command, refuse_flat_data};
use crate::config::RedisConfig;
use crate::error::{Kind, RedisError};
use crate::script::Script;

/// A connection for commands that wait for data. One command at a time.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(super) link: Arc<Link>,
    counters: Arc<Counters>,
    /// How long a command that does not block may stay unanswered.
    silence: Duration,
    reconnect_patience: Duration,
}

impl Reader {
    pub(super) fn new(link: Arc<Link>, config: &RedisConfig, counters: &Arc<Counters>) -> Self {
        Self {
            link,
            counters: Arc::clone(counters),
            silence: config.command_timeout / 2,
            reconnect_patience: config.connect_timeout.min(MAX_RECONNECT_PATIENCE),
        }
    }

    /// Waits until this connection is up and, of each of these, one: they don't come back together, and what is read
    /// must be renewed and settled. See [`Connection::up`].
    ///
    /// # Errors
    /// As [`Connection::up`], of any of them.
    pub(crate) async fn ready_beside(&self, others: &[&Connection]) -> Result<(), RedisError> {
        if self.link.is_up() && others.iter().all(|other| other.is_up()) {
            return Ok(());
        }
        let own = self.link.connected(READ_PATIENCE);
        let others = join_all(others.iter().map(|other| other.up()));
        // All of them, or the first that fails would end the attempts of the others, time and again.
        let (own, others) = join(own, others).await;
        others.into_iter().collect::<Result<(), _>>()?;
        own.map(drop)
    }

    /// Runs a command that waits for data on the server for at most `wait`.
    ///
    /// The future must be polled to its end: a message popped for a reader that went away is lost to it.
    ///
    /// # Errors
    /// `Unavailable` if there is no connection, or it is lost meanwhile; `TimedOut` if the server is silent for
    /// two seconds longer than `wait`: the connection is then made anew, and a smaller read may get through.
    pub(crate) async fn blocking(
        &mut self,
        name: &'static str,
        args: Args,
        wait: Duration,
    ) -> Result<Reply, RedisError> {
        let hash = args.hash();
        let limit = wait + BLOCKING_GRACE;
        self.send(command(name, hash, true), args.values, limit)
            .await
    }

    /// Runs a command that Redis answers at once, on this reader's connection.
    ///
    /// # Errors
    /// As [`blocking`](Self::blocking), after half of `command_timeout`.
    pub(crate) async fn command(
        &mut self,
        name: &'static str,
        args: Args,
    ) -> Result<Reply, RedisError> {
        let running = self.counters.start(name);
        let hash = args.hash();
        running.end(
            self.send(command(name, hash, false), args.values, self.silence)
                .await,
        )
    }

    /// Runs a script on this reader's connection; see [`Connection::eval`].
    ///
    /// # Errors
    /// As [`command`](Self::command), and whatever the script raises.
    pub(crate) async fn eval(
        &mut self,
        script: &'static Script,
        keys: &[&ByteString],
        args: Args,
    ) -> Result<Reply, RedisError> {
        let running = self.counters.start(script.name());
        let call = ScriptCall::new(script, keys, args);
        let reply = match self
            .send(call.by_digest(), call.values.clone(), self.silence)
            .await
        {
            Err(error) if error.kind() == Kind::NoScript => {
                self.send(call.by_source(), call.into_source_values(), self.silence)
                    .await
            }
            reply => reply,
        };
        running.end(reply.inspect(refuse_flat_data))
    }

    async fn send(
        &self,
        mut command: CustomCommand,
        values: Vec<Value>,
        limit: Duration,
    ) -> Result<Reply, RedisError> {
        let live = self.link.connected(READ_PATIENCE).await?;
        live.route(&mut command, &values);
        let client = live.once(Some(limit + self.reconnect_patience + LAST_WORD));
        let sent = Instant::now();
        let mut answer = Box::pin(client.custom_raw(command, values));
        if let Ok(answer) = timeout(limit, &mut answer).await {
            let outcome = live.read(answer);
            live.learn(sent, &outcome).await;
            return outcome;
        }
        // Half-open or frozen. The same future stays: its answer may have arrived this very moment, and if not,
        // losing the connection ends it.
        live.reconnect(self.reconnect_patience).await;
        live.read(answer.await).map_err(|error| match error.kind() {
            Kind::Unavailable => RedisError::new(
                Kind::TimedOut,
                format!("silent for {limit:?}, connected anew"),
            ),
            _ => error,
        })
    }
}

/// How much longer than its own wait a blocking command may take.
const BLOCKING_GRACE: Duration = Duration::from_secs(2);
const MAX_RECONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// After a reconnect the old command's end is only a matter of scheduling.
const LAST_WORD: Duration = Duration::from_secs(1);
