//! The `[redis]` section of the configuration.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use pythia_core::ConfigError;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod positive;
mod server;
mod stream;

pub use self::stream::{StreamConfig, StreamStart, TrimStrategy};
pub use crate::url::RedisUrl;

/// How to reach Redis, and how each pattern uses it: the section `[redis]`.
///
/// Durations are written as in `250ms`, `30s` or `1h 30m`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
#[non_exhaustive]
pub struct RedisConfig {
    /// Where Redis is, in one of the forms of [`RedisUrl`]. Default: none, `host` and the settings behind it say it.
    ///
    /// With a URL, [`db`](Self::db), [`username`](Self::username) and [`password`](Self::password) hold for what it leaves
    /// out, and its options win over the settings that they name.
    pub url: Option<RedisUrl>,
    /// The server's name or IP address, where there is no URL. Default: `127.0.0.1`.
    pub host: String,
    /// Its port. Default: 6379.
    pub port: NonZeroU16,
    /// The number of the database, 0 to 255. Default: 0.
    pub db: u8,
    /// The user of Redis' access control lists. Default: none, Redis takes `default`.
    pub username: Option<String>,
    /// The password, which is shown nowhere. Default: none.
    pub password: Option<Password>,
    /// TLS.
    pub tls: TlsConfig,
    /// Where the key-value store is ([`Broker::store`](pythia_core::broker::Broker::store)), if not in the brokers' Redis.
    /// Default: none, there. All other settings hold for it too, but for the place and the credentials.
    pub store_url: Option<RedisUrl>,
    /// Put before the name of every key, channel and queue. Default: empty.
    pub key_prefix: KeyPrefix,
    /// Connections shared by everything but reading and settling. Default: 2.
    pub pool_size: NonZeroUsize,
    /// The longest wait for one connection to come up, its authentication included. Default: `5s`.
    #[serde(with = "positive")]
    pub connect_timeout: Duration,
    /// The longest wait for the answer to a command that does not block. Default: `10s`.
    ///
    /// A connection that stays silent for half of it is given up and made anew.
    #[serde(with = "positive")]
    pub command_timeout: Duration,
    /// The pause before the first attempt to reconnect; it doubles with each further one. Default: `50ms`.
    #[serde(with = "positive")]
    pub reconnect_min_delay: Duration,
    /// The longest pause between two attempts to reconnect, which go on for ever. Default: `2s`.
    ///
    /// Each connection takes up to a quarter off it, so that they don't all come back at once.
    #[serde(with = "positive")]
    pub reconnect_max_delay: Duration,
    /// How often a command is sent at most, when connection after connection is lost under it. Default: 3.
    ///
    /// With 1, a message that is published without a `dedupe_key` can't double, and fails where it could.
    pub command_attempts: NonZeroU32,
    /// How long publishing waits for a lost connection to come back, before it fails. Default: `1s`.
    ///
    /// Workers wait for as long as it takes; whoever publishes may have a user waiting. So long a publish is also repeated
    /// that Redis refuses because it is loading its data, or a slot of a cluster is moving. A server that takes it and is
    /// silent is waited for as [`command_timeout`](Self::command_timeout) says.
    #[serde(with = "humantime_serde")]
    pub publish_wait: Duration,
    /// How long a connection may be silent before it is asked for a sign of life: a subscription at that moment, any
    /// other before its next command. Default: `5s`.
    #[serde(with = "positive")]
    pub health_check_interval: Duration,
    /// After how long without traffic the system begins to probe a TCP connection, and how often. Default: `60s`; none:
    /// it does not.
    #[serde(with = "humantime_serde")]
    pub tcp_keepalive: Option<Duration>,
    /// How long a worker may be silent before its messages go to others. Default: `30s`.
    ///
    /// A living worker renews it every third, so it bounds the delay after a crash, not the length of a job. Less than ten
    /// milliseconds are refused.
    #[serde(with = "positive")]
    pub lease: Duration,
    /// The largest message that is published, headers included, in bytes. Default: 16 MiB.
    pub max_message_bytes: usize,
    /// How long a `dedupe_key` is remembered. Default: `1h`.
    #[serde(with = "positive")]
    pub dedupe_window: Duration,
    /// Whether Redis is examined when a worker starts, beside it: what endangers messages is logged, with what mends it
    /// ([`doctor`](crate::doctor)). Default: true.
    pub doctor: bool,
    /// Bounds of the periodic upkeep.
    pub maintain: MaintainConfig,
    /// Lists.
    pub list: ListConfig,
    /// Streams.
    pub stream: StreamConfig,
    /// Pub/sub.
    pub pubsub: PubSubConfig,
}

/// TLS: the section `[redis.tls]`. A URL that begins with `rediss` switches it on as well.
///
/// Certificates are always checked, against the server's name in the URL. Files are in PEM form, and read once, when the
/// broker is made.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct TlsConfig {
    /// Whether to use TLS where the URL does not say so. Default: false.
    pub enabled: bool,
    /// The authorities to trust. Default: none, those of the system.
    pub ca_file: Option<PathBuf>,
    /// The certificate that this client shows, for servers that want one, with the chain behind it. Default: none.
    pub cert_file: Option<PathBuf>,
    /// The private key of that certificate. Default: none.
    pub key_file: Option<PathBuf>,
}

/// How much one round of upkeep may do: the section `[redis.maintain]`.
///
/// Each number bounds one script, and so the time for which Redis serves nobody else.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MaintainConfig {
    /// Delayed messages made ready in one call. Default: 200.
    pub promote: NonZeroUsize,
    /// Messages of dead workers handed back in one call; on a list the last batch that a worker took goes back whole.
    /// Default: 500.
    pub recover: NonZeroUsize,
    /// Stream entries trimmed in one call, but never less than a node of 100 where only whole nodes are
    /// ([`trim_approximate`](StreamConfig::trim_approximate)). Default: 1000.
    pub trim: NonZeroUsize,
}

/// Lists: the section `[redis.list]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ListConfig {
    /// Default: `at-least-once`.
    pub delivery: Delivery,
}

/// What happens to a message whose worker dies.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// It is delivered again.
    #[default]
    AtLeastOnce,
    /// It is lost: faster, and without retries or dead letters in the broker.
    AtMostOnce,
}

/// Pub/sub: the section `[redis.pubsub]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PubSubConfig {
    /// Default: `channel`.
    pub mode: PubSubMode,
    /// Messages held for a slow worker, before the oldest are dropped and counted. Default: 8192.
    ///
    /// The room is taken when a lane subscribes, some 600 bytes for each beside the payload, and is rounded up to a
    /// power of two.
    pub buffer: NonZeroUsize,
}

/// How a queue name is subscribed to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
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

/// A password. Its `Debug` does not show it.
#[derive(Clone, Deserialize, Eq, PartialEq)]
#[serde(transparent)]
pub struct Password(String);

/// What stands before every key, channel and queue name, such as `shop:`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct KeyPrefix(String);

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: None,
            host: "127.0.0.1".to_owned(),
            port: const { NonZeroU16::new(6379).unwrap() },
            db: 0,
            username: None,
            password: None,
            tls: TlsConfig::default(),
            store_url: None,
            key_prefix: KeyPrefix::default(),
            pool_size: nonzero(2),
            connect_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(10),
            reconnect_min_delay: Duration::from_millis(50),
            reconnect_max_delay: Duration::from_secs(2),
            command_attempts: COMMAND_ATTEMPTS,
            publish_wait: Duration::from_secs(1),
            health_check_interval: Duration::from_secs(5),
            tcp_keepalive: Some(TCP_KEEPALIVE),
            lease: Duration::from_secs(30),
            max_message_bytes: 16 * 1024 * 1024,
            dedupe_window: Duration::from_secs(60 * 60),
            doctor: true,
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
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        Ok(Self {
            url: Some(url.parse()?),
            ..Self::default()
        })
    }

    /// What holds for all patterns, and can't be seen from one setting or its type alone.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.check_durations()?;
        self.check_server()
    }

    fn check_durations(&self) -> Result<(), ConfigError> {
        let Self {
            reconnect_min_delay: shortest,
            reconnect_max_delay: longest,
            lease,
            ..
        } = self;
        if shortest > longest {
            return Err(ConfigError::new(format!(
                "redis.reconnect_min_delay ({shortest:?}) is longer than redis.reconnect_max_delay ({longest:?})"
            )));
        }
        if *lease < SHORTEST_LEASE {
            return Err(ConfigError::new(format!(
                "redis.lease is {lease:?}; a worker could not renew it in time, use 1s or more"
            )));
        }
        Ok(())
    }
}

/// For people to read: without passwords, so that it does not make the same settings again.
impl Serialize for RedisConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Not this function again, but what is derived for the fields.
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for RedisConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not this function again, but what is derived for the fields.
        let config = Self::deserialize(deserializer)?;
        // Not yet where the server is: that takes more than one setting, each of which may have another source.
        config.check_durations().map_err(D::Error::custom)?;
        Ok(config)
    }
}

impl TryFrom<String> for KeyPrefix {
    type Error = ConfigError;

    fn try_from(prefix: String) -> Result<Self, ConfigError> {
        let braces: String = prefix.matches(['{', '}']).collect();
        let problem = if prefix.chars().any(|c| c.is_whitespace() || c.is_control()) {
            "contains white space or control characters"
        } else if !matches!(braces.as_str(), "" | "{}") || prefix.contains("{}") {
            "has braces that are not one well-formed, non-empty `{tag}`"
        } else {
            return Ok(Self(prefix));
        };
        Err(ConfigError::new(format!("key prefix {prefix:?} {problem}")))
    }
}

impl Serialize for KeyPrefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Password {
    /// A password in plain text.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }
}

/// As it is shown: hidden.
impl Serialize for Password {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How often a command is sent at most.
pub(crate) const COMMAND_ATTEMPTS: NonZeroU32 = const { NonZeroU32::new(3).unwrap() };
pub(crate) const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// Below it a third of a lease is about the time of a round trip.
const SHORTEST_LEASE: Duration = Duration::from_millis(10);

const fn nonzero(number: usize) -> NonZeroUsize {
    match NonZeroUsize::new(number) {
        Some(number) => number,
        None => panic!("a default of zero"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_prefix_keeps_keys_in_one_slot() {
        let parse = |text: &str| KeyPrefix::try_from(text.to_owned());
        for good in ["", "shop:", "{shop}:", "a{b}c"] {
            assert_eq!(parse(good).unwrap().to_string(), good);
        }
        for bad in ["{", "}", "{}", "}{", "{a}{b}", "{{a}}", "two words", "a\n"] {
            parse(bad).expect_err(bad);
        }
    }

    #[test]
    fn settings_are_read_by_their_names() {
        let toml = r#"
            [redis]
            url = "redis://:pw@h/1"
            key_prefix = "shop:"
            pool_size = 3
            lease = "1m 30s"
            [redis.maintain]
            promote = 7
            [redis.list]
            delivery = "at-most-once"
            [redis.pubsub]
            mode = "sharded"
        "#;
        let config = read(toml).unwrap();
        assert_eq!(config.url, Some("redis://:pw@h/1".parse().unwrap()));
        assert_eq!(config.key_prefix.to_string(), "shop:");
        assert_eq!(config.pool_size, nonzero(3));
        assert_eq!(config.lease, Duration::from_secs(90));
        assert_eq!(config.maintain.promote, nonzero(7));
        assert_eq!(config.list.delivery, Delivery::AtMostOnce);
        assert_eq!(config.pubsub.mode, PubSubMode::Sharded);
        assert_eq!(
            config.command_timeout,
            RedisConfig::default().command_timeout
        );
        assert_eq!(read("").unwrap(), RedisConfig::default());
    }

    #[test]
    fn bad_settings_are_refused_by_name() {
        for (toml, why) in [
            ("pool_size = 0", "redis.pool_size"),
            ("lease = \"0s\"", "longer than 0s"),
            ("lease = \"-1s\"", "redis.lease"),
            ("lease = \"9ms\"", "redis.lease"),
            (
                "reconnect_min_delay = \"3s\"",
                "redis.reconnect_min_delay (3s) is longer than redis.reconnect_max_delay (2s)",
            ),
            ("lease = 30", "redis.lease"),
            ("url = \"redis://app:hunter2@h:x\"", "port"),
            ("password = 5", "redis.password"),
            ("key_prefix = \"{\"", "braces"),
            ("pol_size = 3", "redis.pool_size"),
            ("list.delivery = \"never\"", "at-least-once"),
        ] {
            let error = read(&format!("[redis]\n{toml}"))
                .expect_err(toml)
                .to_string();
            assert!(error.contains(why), "{toml}: {error}");
            assert!(!error.contains("hunter2"), "{toml}: {error}");
        }
    }

    fn read(toml: &str) -> Result<RedisConfig, ConfigError> {
        pythia_core::config::Config::from_toml(toml)?.section("redis")
    }
}
