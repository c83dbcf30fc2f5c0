//! What can go wrong between this crate and Redis, sorted by meaning.
//!
//! Only this file and `error/words.rs` read fred's errors and the error texts of Redis. Everything else asks
//! [`RedisError::kind`], so that "the group is gone" or "nobody answers" is decided once.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use fred::error::ErrorKind as FredKind;
use pythia_core::{BrokerError, BrokerErrorKind, QueueName};

use crate::acl;
use crate::config::KeyPrefix;

mod words;

use words::{our_words, tls_words};

/// A failed command or connection, sorted by meaning.
///
/// It becomes a [`BrokerError`] where the queue and the intention are known: [`during`](Self::during).
#[derive(Clone, Debug)]
pub(crate) struct RedisError {
    kind: Kind,
    detail: Cow<'static, str>,
    /// Who lacks a permission.
    user: Option<Arc<User>>,
}

/// As whom commands are sent, and what stands before the names of their keys.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) prefix: KeyPrefix,
}

/// What a failure means to the caller.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Kind {
    /// The server refuses the credentials, or asks for some.
    Auth,
    /// A settings mistake that no retry heals: an unknown host, a bad URL, cluster mode on or off.
    Misconfigured,
    /// The stream or its consumer group is gone: make the group again.
    NoGroup,
    /// The user may not run this command or touch this key.
    NoPermission,
    /// The script is not in the server's cache. Handled by `eval`; callers never see it.
    NoScript,
    /// The database number in the URL does not exist.
    NoSuchDatabase,
    /// Redis has reached `maxmemory` and evicts nothing.
    OutOfMemory,
    /// Any error that has no meaning of its own here.
    Other,
    /// The reply is not of the form that the command promises.
    Protocol,
    /// The server is a replica: a fail-over moved the primary elsewhere.
    ReadOnly,
    /// The command was sent and nothing came back in time: it may or may not have been carried out.
    TimedOut,
    /// Redis cannot be reached, or is not ready: refused, closed, loading, cluster down.
    Unavailable,
    /// No TLS connection came about: wrong port, wrong certificate.
    Tls,
    /// A version of Redis that lacks what all patterns need.
    TooOld,
    /// This version of Redis does not have the command.
    UnknownCommand,
    /// The key holds another type, most often because two patterns share one queue name.
    WrongType,
}

impl RedisError {
    pub(crate) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            user: None,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether a command that was sent once was refused before it did anything. (Of such a one fred says so by its own
    /// words when it was redirected on a cluster.)
    pub(crate) fn was_not_executed(&self) -> bool {
        const REFUSED: [&str; 7] = [
            "BUSY ",
            "CLUSTERDOWN ",
            "LOADING ",
            "MASTERDOWN ",
            "Max attempts reached",
            "TRYAGAIN ",
            "Too many failed write attempts",
        ];
        REFUSED
            .iter()
            .any(|refused| self.detail.starts_with(refused))
    }

    /// Whether Redis refuses everything, because it fails to write to its disk.
    pub(crate) fn is_of_the_disk(&self) -> bool {
        self.detail.contains("MISCONF ")
    }

    /// The server's or the client's own words.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The error for the runtime: what was attempted (`claim messages`), on which queue, and why it failed.
    pub(crate) fn during(self, attempted: &'static str, queue: &QueueName) -> BrokerError {
        self.naming_the_rule(queue)
            .while_attempting(attempted)
            .queue(queue)
    }

    /// The same error, met as this user.
    pub(crate) fn met_by(mut self, user: &Arc<User>) -> Self {
        if self.kind == Kind::NoPermission {
            self.user = Some(Arc::clone(user));
        }
        self
    }

    /// A missing permission, with the rule that grants it.
    fn naming_the_rule(self, queue: &QueueName) -> Self {
        let Some(User { name, prefix }) = self.user.as_deref() else {
            return self;
        };
        let command = self
            .detail
            .split_once("run the '")
            .and_then(|(_, rest)| Some(rest.split_once('\'')?.0));
        let rule = match command {
            Some(command) => format!("+{command}"),
            None if self.detail.contains("channel") => quoted(acl::channels(prefix, queue)),
            None if self.detail.contains("key") => quoted(acl::keys(prefix, queue)),
            None => return self,
        };
        let detail = format!("{}; ACL SETUSER {name} {rule} grants it", self.detail);
        Self::new(self.kind, detail)
    }

    /// As [`during`](Self::during), for what concerns no single queue.
    pub(crate) fn while_attempting(self, attempted: &'static str) -> BrokerError {
        BrokerError::new(self.kind.into(), attempted).because(self)
    }

    /// The same error, met while connecting to `server`.
    pub(crate) fn connecting_to(self, server: impl fmt::Display) -> Self {
        Self {
            detail: format!("no connection to {server}: {}", self.detail).into(),
            ..self
        }
    }

    /// An unexpected reply, named by what was expected and what came.
    pub(crate) fn unexpected(expected: &str, found: &str) -> Self {
        Self::new(
            Kind::Protocol,
            format!("expected {expected}, the reply is {found}"),
        )
    }

    /// An error reply as Redis sent it, such as `WRONGTYPE Operation against a key ...`.
    pub(crate) fn from_reply(text: &str) -> Self {
        Self::new(classify_reply(text), our_words(text))
    }
}

/// Rules as a shell takes them.
fn quoted(rules: [String; 2]) -> String {
    rules.map(|rule| format!("'{rule}'")).join(" ")
}

impl From<fred::error::Error> for RedisError {
    fn from(error: fred::error::Error) -> Self {
        match tls_words(error.details()) {
            Some(words) => Self::new(Kind::Tls, words),
            None => Self::new(classify(&error), our_words(error.details())),
        }
    }
}

impl fmt::Display for RedisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.meaning(), self.detail)
    }
}

impl std::error::Error for RedisError {}

impl From<Kind> for BrokerErrorKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Auth => Self::Authentication,
            Kind::Misconfigured
            | Kind::NoScript
            | Kind::NoSuchDatabase
            | Kind::Other
            | Kind::Tls => Self::Other,
            Kind::NoGroup => Self::SubscriptionLost,
            Kind::NoPermission => Self::Permission,
            Kind::OutOfMemory => Self::OutOfMemory,
            Kind::Protocol => Self::Protocol,
            Kind::ReadOnly => Self::ReadOnly,
            Kind::TimedOut | Kind::Unavailable => Self::Unavailable,
            Kind::TooOld | Kind::UnknownCommand => Self::Unsupported,
            Kind::WrongType => Self::WrongType,
        }
    }
}

impl Kind {
    fn meaning(self) -> &'static str {
        match self {
            Self::Auth => "redis refuses the credentials, check the user and password in redis.url",
            Self::Misconfigured => "the redis settings cannot work",
            Self::NoGroup => "the stream or its consumer group is gone",
            Self::NoPermission => "the redis user lacks a permission",
            Self::NoScript => "the script is not loaded",
            Self::NoSuchDatabase => "the database in redis.url does not exist",
            Self::OutOfMemory => "redis is out of memory, raise maxmemory or remove data",
            Self::Other => "redis answered with an error",
            Self::Protocol => "unexpected reply",
            Self::ReadOnly => "this redis is a read-only replica, connect to the primary",
            Self::TimedOut => "redis did not answer in time",
            Self::Unavailable => "redis is unavailable",
            Self::Tls => "no TLS connection, check redis.url and redis.tls",
            Self::TooOld => "this redis is too old, 6.2 is the oldest that will do",
            Self::UnknownCommand => {
                "this redis lacks a command: it is too old for this use of it, or the command is renamed"
            }
            Self::WrongType => {
                "the key holds another type, give each pattern a queue name of its own"
            }
        }
    }
}

fn classify(error: &fred::error::Error) -> Kind {
    let details = error.details();
    match error.kind() {
        FredKind::Auth => Kind::Auth,
        FredKind::Timeout => Kind::TimedOut,
        FredKind::Tls => Kind::Tls,
        FredKind::Config | FredKind::Url => match classify_reply(details) {
            Kind::Other => Kind::Misconfigured,
            precise => precise,
        },
        // "failed to lookup address information" is what getaddrinfo's errors have in common. A name that
        // does not resolve can also be a resolver that is down, so it stays worth a retry.
        FredKind::IO | FredKind::Canceled | FredKind::Backpressure | FredKind::Routing => {
            Kind::Unavailable
        }
        FredKind::Sentinel => match classify_reply(details) {
            Kind::Other => Kind::Unavailable,
            // The first question is one that only sentinels understand.
            Kind::UnknownCommand => Kind::Misconfigured,
            precise => precise,
        },
        FredKind::Protocol | FredKind::Parse => match classify_reply(details) {
            Kind::Other => Kind::Protocol,
            precise => precise,
        },
        _ => match classify_reply(details) {
            // fred's own words for a command whose connection was lost under it once too often.
            Kind::Other if is_lost_command(details) => Kind::Unavailable,
            kind => kind,
        },
    }
}

fn is_lost_command(details: &str) -> bool {
    details.starts_with("Too many failed write attempts")
        || details.starts_with("Failed to send command to router")
        || details.starts_with("Failed to route command")
        || details.starts_with("Max attempts exceeded")
        || details.starts_with("Max attempts reached")
        || details.starts_with("Missing expected connection")
        || details.starts_with("Client is not initialized")
        || details.starts_with("channel closed")
}

/// Redis starts an error with a code in capitals; scripts put their own words and the code in between.
fn classify_reply(text: &str) -> Kind {
    let code = text.split_ascii_whitespace().next().unwrap_or_default();
    match code.trim_start_matches('-') {
        "BUSY" | "BUSYKEY" | "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "MISCONF"
        | "NOREPLICAS" | "TRYAGAIN" => Kind::Unavailable,
        "DENIED" | "NOAUTH" | "WRONGPASS" => Kind::Auth,
        "MOVED" => Kind::Misconfigured,
        "NOGROUP" | "UNBLOCKED" => Kind::NoGroup,
        "NOPERM" => Kind::NoPermission,
        "NOSCRIPT" => Kind::NoScript,
        "OOM" => Kind::OutOfMemory,
        "READONLY" => Kind::ReadOnly,
        "WRONGTYPE" => Kind::WrongType,
        "ERR" => classify_words(text),
        _ => Kind::Other,
    }
}

/// Errors of code `ERR`: old servers, and anything that a script raised before 7.0, keep the real code inside.
fn classify_words(text: &str) -> Kind {
    const WORDS: [(&str, Kind); 15] = [
        ("DB index is out of range", Kind::NoSuchDatabase),
        ("invalid DB index", Kind::NoSuchDatabase),
        ("cluster support disabled", Kind::Misconfigured),
        ("Client sent AUTH, but no password is set", Kind::Auth),
        ("max number of clients reached", Kind::Unavailable),
        ("unknown command", Kind::UnknownCommand),
        // Of one that was to be tried only: ACL DRYRUN.
        ("ERR Command '", Kind::UnknownCommand),
        ("unknown subcommand", Kind::UnknownCommand),
        ("Unknown Redis command", Kind::UnknownCommand),
        ("WRONGTYPE", Kind::WrongType),
        ("-READONLY", Kind::ReadOnly),
        ("-OOM", Kind::OutOfMemory),
        ("NOGROUP", Kind::NoGroup),
        ("can't run this command", Kind::NoPermission),
        ("can't access at least one of the keys", Kind::NoPermission),
    ];
    WORDS
        .into_iter()
        .find(|(words, _)| text.contains(words))
        .map_or(Kind::Other, |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_told_apart_by_meaning() {
        for (text, kind) in [
            (
                "LOADING Redis is loading the dataset in memory",
                Kind::Unavailable,
            ),
            ("CLUSTERDOWN Hash slot not served", Kind::Unavailable),
            (
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
                Kind::Unavailable,
            ),
            ("BUSY Redis is busy running a script.", Kind::Unavailable),
            (
                "MISCONF Redis is configured to save RDB snapshots",
                Kind::Unavailable,
            ),
            ("ERR max number of clients reached", Kind::Unavailable),
            (
                "READONLY You can't write against a read only replica.",
                Kind::ReadOnly,
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                Kind::OutOfMemory,
            ),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                Kind::WrongType,
            ),
            (
                "NOPERM this user has no permissions to run the 'get' command",
                Kind::NoPermission,
            ),
            ("NOAUTH Authentication required.", Kind::Auth),
            (
                "WRONGPASS invalid username-password pair or user is disabled.",
                Kind::Auth,
            ),
            (
                "NOGROUP No such key 's' or consumer group 'g'",
                Kind::NoGroup,
            ),
            ("UNBLOCKED the stream key no longer exists", Kind::NoGroup),
            (
                "NOSCRIPT No matching script. Please use EVAL.",
                Kind::NoScript,
            ),
            ("ERR DB index is out of range", Kind::NoSuchDatabase),
            // As 6.2 wraps what a script runs into.
            (
                "ERR Error running script (call to f_1): @user_script:1: WRONGTYPE Operation against a key",
                Kind::WrongType,
            ),
            (
                "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command not allowed",
                Kind::OutOfMemory,
            ),
            (
                "ERR unknown command 'BLMPOP', with args beginning with: ",
                Kind::UnknownCommand,
            ),
            ("", Kind::Other),
        ] {
            assert_eq!(RedisError::from_reply(text).kind(), kind, "{text}");
        }
    }

    #[test]
    fn commands_that_fred_gave_up_were_not_answered() {
        for (kind, text) in [
            (FredKind::Unknown, "Too many failed write attempts."),
            (FredKind::Canceled, "Canceled."),
            (FredKind::IO, "Connection closed."),
            (FredKind::Unknown, "Failed to send command to router."),
        ] {
            let error = RedisError::from(fred::error::Error::new(kind, text));
            assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        }
        let late = fred::error::Error::new(FredKind::Timeout, "Request timed out.");
        assert_eq!(RedisError::from(late).kind(), Kind::TimedOut);
    }

    #[test]
    fn the_runtime_hears_what_where_and_what_to_do() {
        let queue = QueueName::new("orders").expect("a good name");
        let error = RedisError::from_reply("NOGROUP No such key 'orders' or consumer group 'g'")
            .during("read entries", &queue);
        assert!(error.is_subscription_lost());
        assert_eq!(
            error.to_string(),
            "could not read entries on queue \"orders\": the stream or its consumer group is gone: \
             NOGROUP No such key 'orders' or consumer group 'g'"
        );
    }
}
