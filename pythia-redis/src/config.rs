//! The `[redis]` section of the configuration.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use serde::Deserialize;

/// How to reach Redis, and how each pattern uses it: the section `[redis]`.
///
/// Durations are written as in `250ms`, `30s` or `1h 30m`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RedisConfig {
    /// `redis://[user:password@]host[:port][/database]`. Default: `redis://127.0.0.1:6379`.
    pub url: RedisUrl,
    /// Put before the name of every key, channel and queue. Default: empty.
    pub key_prefix: KeyPrefix,
    /// Connections shared by everything but reading and settling. Default: 2.
    pub pool_size: NonZeroUsize,
    /// The longest wait for one connection to come up, its authentication included. Default: `5s`.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// The longest wait for the answer to a command that does not block. Default: `10s`.
    ///
    /// A connection that stays silent for half of it is given up and made anew.
    #[serde(with = "humantime_serde")]
    pub command_timeout: Duration,
    /// The pause before the first attempt to reconnect; it doubles with each further one. Default: `50ms`.
    #[serde(with = "humantime_serde")]
    pub reconnect_min_delay: Duration,
    /// The longest pause between two attempts to reconnect, which go on for ever. Default: `5s`.
    #[serde(with = "humantime_serde")]
    pub reconnect_max_delay: Duration,
    /// How long a worker may be silent before its messages go to others. Default: `30s`.
    ///
    /// A living worker renews it every third, so it bounds the delay after a crash, not the length of a job.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// The largest message that is published, headers included, in bytes. Default: 16 MiB.
    pub max_message_bytes: usize,
    /// How long a `dedupe_key` is remembered. Default: `1h`.
    #[serde(with = "humantime_serde")]
    pub dedupe_window: Duration,
    /// Bounds of the periodic upkeep.
    pub maintain: MaintainConfig,
    /// Lists.
    pub list: ListConfig,
    /// Streams.
    pub stream: StreamConfig,
    /// Pub/sub.
    pub pubsub: PubSubConfig,
}

/// How much one round of upkeep may do: the section `[redis.maintain]`.
///
/// Each number bounds one script, and so the time for which Redis serves nobody else.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MaintainConfig {
    /// Delayed messages made ready in one call. Default: 200.
    pub promote: NonZeroUsize,
    /// Messages of dead workers handed back in one call. Default: 500.
    pub recover: NonZeroUsize,
    /// Stream entries trimmed in one call. Default: 1000.
    pub trim: NonZeroUsize,
}

/// Lists: the section `[redis.list]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ListConfig {
    /// Default: `at-least-once`.
    pub delivery: Delivery,
}

/// What happens to a message whose worker dies.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// It is delivered again.
    #[default]
    AtLeastOnce,
    /// It is lost: faster, and without retries or dead letters in the broker.
    AtMostOnce,
}

/// Streams: the section `[redis.stream]`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct StreamConfig {
    /// The consumer group. Each group sees every entry once. Default: `pythia`.
    pub group: String,
    /// Where a new group begins. Default: `0`.
    pub start: StreamStart,
    /// Moves the group back to this point once, when the worker starts. Default: none.
    pub replay_from: Option<StreamStart>,
    /// The wished-for length of the stream. Default: none, what every group has processed is removed.
    ///
    /// An entry that some group has not been given or not acknowledged is never removed.
    pub max_length: Option<NonZeroUsize>,
    /// Default: `maxlen`.
    pub trim_strategy: TrimStrategy,
    /// Whether trimming removes whole nodes of the stream only, which is cheaper. Default: `true`.
    pub trim_approximate: bool,
    /// How long an entry is kept after it was added, with the strategy `minid`. Default: none.
    #[serde(with = "humantime_serde")]
    pub retention: Option<Duration>,
}

/// A point in a stream: `0` (its beginning), `$` (its end), an entry's id, or a time (RFC 3339).
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(try_from = "String")]
#[non_exhaustive]
pub enum StreamStart {
    /// Every entry that the stream still holds.
    #[default]
    Beginning,
    /// Only what is added from now on.
    End,
    /// What was added after the entry with this id.
    Id(String),
}

/// By what a stream is trimmed.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum TrimStrategy {
    /// By length: `max_length`.
    #[default]
    Maxlen,
    /// By age: `retention`.
    Minid,
}

/// Pub/sub: the section `[redis.pubsub]`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PubSubConfig {
    /// Default: `channel`.
    pub mode: PubSubMode,
    /// Messages held for a slow worker, before the oldest are dropped and counted. Default: 8192.
    pub buffer: NonZeroUsize,
}

/// How a queue name is subscribed to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum PubSubMode {
    /// `SUBSCRIBE`: the name is a channel.
    #[default]
    Channel,
    /// `PSUBSCRIBE`: the name is a pattern with `*`, `?` and `[...]`.
    Pattern,
    /// `SSUBSCRIBE`: the name is a channel of its own cluster slot. Redis 7.0 and later.
    Sharded,
}

/// A parsed `redis://` URL. Its password appears in no debug output, log or error.
#[derive(Clone, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct RedisUrl {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: Option<u8>,
}

/// What stands before every key, channel and queue name, such as `shop:`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct KeyPrefix(String);

/// Why a text is no URL that this crate connects to. It never repeats the password.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRedisUrl(String);

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: RedisUrl::default(),
            key_prefix: KeyPrefix::default(),
            pool_size: nonzero(2),
            connect_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(10),
            reconnect_min_delay: Duration::from_millis(50),
            reconnect_max_delay: Duration::from_secs(5),
            lease: Duration::from_secs(30),
            max_message_bytes: 16 * 1024 * 1024,
            dedupe_window: Duration::from_secs(60 * 60),
            maintain: MaintainConfig::default(),
            list: ListConfig::default(),
            stream: StreamConfig::default(),
            pubsub: PubSubConfig::default(),
        }
    }
}

impl Default for MaintainConfig {
    fn default() -> Self {
        Self {
            promote: nonzero(200),
            recover: nonzero(500),
            trim: nonzero(1000),
        }
    }
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            group: "pythia".to_owned(),
            start: StreamStart::Beginning,
            replay_from: None,
            max_length: None,
            trim_strategy: TrimStrategy::Maxlen,
            trim_approximate: true,
            retention: None,
        }
    }
}

impl Default for PubSubConfig {
    fn default() -> Self {
        Self {
            mode: PubSubMode::Channel,
            buffer: nonzero(8192),
        }
    }
}

impl RedisConfig {
    /// The defaults, with this URL.
    ///
    /// # Errors
    /// If the URL is none that this crate connects to.
    pub fn from_url(url: &str) -> Result<Self, InvalidRedisUrl> {
        Ok(Self {
            url: url.parse()?,
            ..Self::default()
        })
    }
}

impl TryFrom<String> for StreamStart {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "0" | "0-0" => Ok(Self::Beginning),
            "$" => Ok(Self::End),
            _ => Ok(Self::Id(text)),
        }
    }
}

impl TryFrom<String> for KeyPrefix {
    type Error = String;

    fn try_from(prefix: String) -> Result<Self, String> {
        let braces: String = prefix.chars().filter(|c| matches!(c, '{' | '}')).collect();
        let one_tag = braces == "{}" && !prefix.contains("{}");
        if prefix.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!(
                "key_prefix {prefix:?} contains white space or control characters"
            ));
        }
        if !braces.is_empty() && !one_tag {
            return Err(format!(
                "key_prefix {prefix:?} has braces that are not one well-formed, non-empty {{tag}}"
            ));
        }
        Ok(Self(prefix))
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for RedisUrl {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: DEFAULT_PORT,
            username: None,
            password: None,
            database: None,
        }
    }
}

impl std::str::FromStr for RedisUrl {
    type Err = InvalidRedisUrl;

    fn from_str(url: &str) -> Result<Self, InvalidRedisUrl> {
        let rest = strip_scheme(url.trim())?;
        if rest.contains(['?', '#']) {
            return Err(invalid(
                "options after ? are not supported in a redis url yet, use the keys of the section [redis]",
            ));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // The last @ ends the credentials: a password that was pasted unencoded may hold others.
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, authority),
        };
        let (username, password) = parse_credentials(credentials)?;
        let (host, port) = parse_address(address)?;
        Ok(Self {
            host,
            port,
            username,
            password,
            database: parse_database(path)?,
        })
    }
}

impl TryFrom<String> for RedisUrl {
    type Error = InvalidRedisUrl;

    fn try_from(url: String) -> Result<Self, InvalidRedisUrl> {
        url.parse()
    }
}

/// The URL without its credentials.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "redis://[{}]:{}", self.host, self.port)?;
        } else {
            write!(f, "redis://{}:{}", self.host, self.port)?;
        }
        match self.database {
            Some(database) => write!(f, "/{database}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

const DEFAULT_PORT: u16 = 6379;

fn strip_scheme(url: &str) -> Result<&str, InvalidRedisUrl> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(invalid("a redis url begins with redis://"));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "redis" => Ok(rest),
        "rediss" | "valkeys" => Err(invalid("TLS (rediss://) is not supported yet")),
        "unix" | "redis+socket" | "redis+unix" | "socket" => {
            Err(invalid("Unix sockets are not supported yet"))
        }
        "redis-cluster" | "rediss-cluster" => Err(invalid("Redis Cluster is not supported yet")),
        "redis-sentinel" | "rediss-sentinel" | "sentinel" => {
            Err(invalid("Redis Sentinel is not supported yet"))
        }
        _ => Err(invalid("a redis url begins with redis://")),
    }
}

fn parse_credentials(
    credentials: Option<&str>,
) -> Result<(Option<String>, Option<String>), InvalidRedisUrl> {
    let Some(credentials) = credentials else {
        return Ok((None, None));
    };
    let (username, password) = match credentials.split_once(':') {
        Some((username, password)) => (username, Some(password)),
        None => (credentials, None),
    };
    let username = non_empty(percent_decode(username, "user name")?);
    let password = match password {
        Some(password) => non_empty(percent_decode(password, "password")?),
        None => None,
    };
    if username.is_some() && password.is_none() {
        return Err(invalid(
            "the redis url names a user without a password: write redis://user:password@host, or redis://:password@host",
        ));
    }
    Ok((username, password))
}

fn parse_address(address: &str) -> Result<(String, u16), InvalidRedisUrl> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest
                .split_once(']')
                .ok_or_else(|| invalid("the IPv6 address in the redis url lacks its ]"))?;
            (host, port.strip_prefix(':'))
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if address.contains(',') {
        return Err(invalid(
            "several hosts in one redis url are not supported yet",
        ));
    }
    if host.is_empty() {
        return Err(invalid("the redis url lacks a host"));
    }
    let port = match port {
        None | Some("") => DEFAULT_PORT,
        Some(port) => match port.parse() {
            Ok(port) if port != 0 => port,
            _ => {
                return Err(invalid(
                    "the port in the redis url is not between 1 and 65535",
                ));
            }
        },
    };
    Ok((host.to_owned(), port))
}

fn parse_database(path: &str) -> Result<Option<u8>, InvalidRedisUrl> {
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        return Ok(None);
    }
    path.parse().map(Some).map_err(|_| {
        invalid(
            "the database in the redis url is not a number between 0 and 255, as in redis://host/2",
        )
    })
}

fn percent_decode(text: &str, what: &str) -> Result<String, InvalidRedisUrl> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (digit(bytes.next()), digit(bytes.next())) {
            (Some(high), Some(low)) => decoded.push((high * 16 + low) as u8),
            _ => {
                return Err(invalid(format!(
                    "the {what} in the redis url holds a % that no two hexadecimal digits follow: write %25 for a %"
                )));
            }
        }
    }
    String::from_utf8(decoded)
        .map_err(|_| invalid(format!("the {what} in the redis url is not UTF-8")))
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn invalid(message: impl Into<String>) -> InvalidRedisUrl {
    InvalidRedisUrl(message.into())
}

const fn nonzero(number: usize) -> NonZeroUsize {
    match NonZeroUsize::new(number) {
        Some(number) => number,
        None => panic!("a default of zero"),
    }
}
