//! Where Redis is: a URL, or its parts, and what holds if there are both.

use std::cmp::Ordering;
use std::mem;
use std::net::Ipv6Addr;

use pythia_core::config::{Layer, Source};
use pythia_core::{Config, ConfigError};

use super::{RedisConfig, RedisUrl, TlsConfig};
use crate::url::{Address, Place, UrlOptions};

impl RedisConfig {
    /// Reads the section `[redis]`.
    ///
    /// Where a URL and one of its parts come from different sources, the stronger source wins: `REDIS_HOST` replaces the host
    /// of a URL in the file, and `PYTHIA_REDIS__URL` replaces all parts that others name, with a warning. The same holds for
    /// the options of a URL and the settings that they replace. Where both come from the same source, db, user name and
    /// password hold for what the URL leaves out, and all else is refused. `REDIS_DB`, `REDIS_USERNAME` and `REDIS_PASSWORD`
    /// hold for what `REDIS_URL` leaves out, too.
    ///
    /// # Errors
    /// If a setting is unknown or can't be used, or two contradict each other.
    pub fn from_config(config: &Config) -> Result<Self, ConfigError> {
        let mut redis: Self = config.section("redis")?;
        redis.weigh(|setting| config.source(&format!("redis.{setting}")))?;
        redis.check()?;
        Ok(redis)
    }

    /// Settles between the URL and the parts by their sources.
    fn weigh(&mut self, source: impl Fn(&str) -> Option<Source>) -> Result<(), ConfigError> {
        let (Some(url), Some(of_url)) = (&mut self.url, source("url")) else {
            return Ok(());
        };
        let weight = |setting: &str| Some(source(setting)?.layer().cmp(&of_url.layer()));
        let defaults = Self::default();
        for setting in ["host", "port", "db", "username", "password"] {
            let Some(weight) = weight(setting) else {
                continue;
            };
            // Of `REDIS_URL` and `REDIS_PASSWORD` both are meant: a platform sets them side by side.
            let beside = source(setting).map(|part| part.layer()) == Some(Layer::RedisPart)
                && of_url.layer() == Layer::RedisUrl;
            let left_out = match setting {
                "db" => url.database.is_none(),
                "username" | "password" => (&url.username, &url.password) == (&None, &None),
                _ => false,
            };
            match (setting, weight) {
                (_, Ordering::Equal) => continue,
                (_, Ordering::Less) if beside && left_out => continue,
                (setting, Ordering::Less) => {
                    if let Some(part) = source(setting) {
                        tracing::warn!("{part} has no effect: redis.url says it all ({of_url})");
                    }
                }
                ("host", Ordering::Greater) => {
                    url.only_address("redis.host")?.host.clone_from(&self.host);
                }
                ("port", Ordering::Greater) => {
                    url.only_address("redis.port")?.port = self.port.get();
                }
                ("db", Ordering::Greater) => url.database = Some(self.db),
                ("username", Ordering::Greater) => url.username.clone_from(&self.username),
                (_, Ordering::Greater) => {
                    url.password = self.password.as_ref().map(|password| password.0.clone());
                }
            }
            // What is said by the URL now, or nowhere.
            match setting {
                "host" => self.host.clone_from(&defaults.host),
                "port" => self.port = defaults.port,
                "db" => self.db = defaults.db,
                "username" => self.username = None,
                _ => self.password = None,
            }
        }
        let UrlOptions {
            ca_file,
            cert_file,
            command_attempts,
            command_timeout,
            connect_timeout,
            health_check_interval,
            key_file,
            pool_size,
            tcp_keepalive,
        } = &mut url.options;
        give_way(ca_file, "tls.ca_file", weight, &of_url)?;
        give_way(cert_file, "tls.cert_file", weight, &of_url)?;
        give_way(command_attempts, "command_attempts", weight, &of_url)?;
        give_way(command_timeout, "command_timeout", weight, &of_url)?;
        give_way(connect_timeout, "connect_timeout", weight, &of_url)?;
        give_way(
            health_check_interval,
            "health_check_interval",
            weight,
            &of_url,
        )?;
        give_way(key_file, "tls.key_file", weight, &of_url)?;
        give_way(pool_size, "pool_size", weight, &of_url)?;
        give_way(tcp_keepalive, "tcp_keepalive", weight, &of_url)?;
        Ok(())
    }

    /// Where all of it leads, and as whom: the URL with what it leaves out, or one made of the parts.
    pub(crate) fn server(&self) -> RedisUrl {
        let mut server = match &self.url {
            Some(url) => url.clone(),
            None => RedisUrl::of_server(self.host.clone(), self.port.get()),
        };
        if (&server.username, &server.password) == (&None, &None) {
            server.username.clone_from(&self.username);
            server.password = self.password.as_ref().map(|password| password.0.clone());
        }
        if server.database.is_none() && self.db != 0 {
            server.database = Some(self.db);
        }
        server.tls |= self.tls.enabled;
        server
    }

    /// Where the key-value store is, if that is another place.
    pub(crate) fn store(&self) -> Option<RedisUrl> {
        let mut store = self.store_url.clone()?;
        store.tls |= self.tls.enabled && !matches!(store.place, Place::Socket(_));
        Some(store)
    }

    /// The same settings for the server of this URL, with the options of the URL in their places.
    pub(crate) fn at(self, mut server: RedisUrl) -> Self {
        let UrlOptions {
            ca_file,
            cert_file,
            command_attempts,
            command_timeout,
            connect_timeout,
            health_check_interval,
            key_file,
            pool_size,
            tcp_keepalive,
        } = mem::take(&mut server.options);
        Self {
            tls: TlsConfig {
                enabled: server.tls,
                ca_file: ca_file.or(self.tls.ca_file),
                cert_file: cert_file.or(self.tls.cert_file),
                key_file: key_file.or(self.tls.key_file),
            },
            command_attempts: command_attempts.unwrap_or(self.command_attempts),
            command_timeout: command_timeout.unwrap_or(self.command_timeout),
            connect_timeout: connect_timeout.unwrap_or(self.connect_timeout),
            health_check_interval: health_check_interval.unwrap_or(self.health_check_interval),
            pool_size: pool_size.unwrap_or(self.pool_size),
            tcp_keepalive: tcp_keepalive.unwrap_or(self.tcp_keepalive),
            url: Some(server),
            ..self
        }
    }

    pub(super) fn check_server(&self) -> Result<(), ConfigError> {
        let refuse = |why: &str| Err(ConfigError::new(why));
        let defaults = Self::default();
        if self.host.is_empty() {
            return refuse("redis.host is empty; name the server, or leave it out for 127.0.0.1");
        }
        if self.url.is_some() && (&self.host, self.port) != (&defaults.host, defaults.port) {
            return refuse(
                "redis.host and redis.port have no effect beside redis.url; use the one or the others",
            );
        }
        let server = self.server();
        // Not the URL's own user alone: a part from another source may have taken its place.
        if self.username.is_some() && self.password.is_none()
            || server.username.is_some() && server.password.is_none()
        {
            return refuse(
                "redis.username is set without redis.password; Redis takes both or the password alone",
            );
        }
        // What was found is not shown: a URL that was put here may hold a password.
        if let Place::Server(Address { host, .. }) = &server.place
            && !is_host(host)
        {
            return refuse(
                "redis.host is not the name or the address of a server; a port goes into redis.port, and a whole URL into \
                 redis.url",
            );
        }
        if self.username.is_some() && server.username != self.username
            || self.password.is_some()
                && server.password != self.password.as_ref().map(|password| password.0.clone())
        {
            return refuse(
                "redis.username and redis.password have no effect beside a redis.url with credentials; use the ones or the others",
            );
        }
        if self.db != 0 && server.database != Some(self.db) {
            return refuse(
                "redis.db and redis.url name different databases; use the one or the other",
            );
        }
        if server.database.is_some_and(|number| number != 0)
            && matches!(server.place, Place::Cluster(_))
        {
            return refuse("redis.db is not 0, and a redis cluster has no other database");
        }
        let over_tls = server.tls || self.store().is_some_and(|url| url.tls);
        let TlsConfig {
            ca_file,
            cert_file,
            key_file,
            ..
        } = self.clone().at(server.clone()).tls;
        if !over_tls && (&ca_file, &cert_file, &key_file) != (&None, &None, &None) {
            return refuse(
                "the files of redis.tls have no effect without TLS; begin redis.url with rediss://, or set redis.tls.enabled",
            );
        }
        if cert_file.is_some() != key_file.is_some() {
            return refuse(
                "of redis.tls.cert_file and redis.tls.key_file only one is set; a client's certificate takes both",
            );
        }
        if server.tls && matches!(server.place, Place::Socket(_)) {
            return refuse("redis.tls.enabled has no effect on a unix socket");
        }
        Ok(())
    }
}

/// Drops an option of the URL where the setting that it would replace comes from a stronger source.
fn give_way<T>(
    option: &mut Option<T>,
    setting: &str,
    weight: impl Fn(&str) -> Option<Ordering>,
    of_url: &Source,
) -> Result<(), ConfigError> {
    match weight(setting) {
        Some(Ordering::Equal) if option.is_some() => Err(ConfigError::new(format!(
            "redis.{setting} is also an option of redis.url ({of_url}); use the one or the other"
        ))),
        Some(Ordering::Greater) => {
            *option = None;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A name, or an address of version 4 or 6, which may stand in brackets and name its interface.
fn is_host(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let address = bare.split_once('%').map_or(bare, |(address, _)| address);
    let is_part_of_url = |c: char| c.is_whitespace() || "/:@?#,[]".contains(c);
    address.parse::<Ipv6Addr>().is_ok() || !host.contains(is_part_of_url)
}

impl RedisUrl {
    /// The address to replace a part of.
    fn only_address(&mut self, setting: &str) -> Result<&mut Address, ConfigError> {
        let shown = self.to_string();
        match &mut self.place {
            Place::Server(address) => Ok(address),
            _ => Err(ConfigError::new(format!(
                "{setting} can't replace a part of {shown}: that is not the url of one server; set redis.url where \
                 {setting} is set"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const URL: &str = "rediss://h?ca_file=/url&cert_file=/url&key_file=/url&command_attempts=2&command_timeout=2s\
        &connect_timeout=2s&health_check_interval=2s&pool_size=3&tcp_keepalive=2s";

    /// Each setting that may be an option of a URL: what is set beside the URL, as TOML and as text.
    const SETTINGS: [(&str, &str, &str); 9] = [
        ("tls.ca_file", "\"/set\"", "/set"),
        ("tls.cert_file", "\"/set\"", "/set"),
        ("tls.key_file", "\"/set\"", "/set"),
        ("command_attempts", "4", "4"),
        ("command_timeout", "\"4s\"", "4s"),
        ("connect_timeout", "\"4s\"", "4s"),
        ("health_check_interval", "\"4s\"", "4s"),
        ("pool_size", "4", "4"),
        ("tcp_keepalive", "\"4s\"", "4s"),
    ];

    #[test]
    fn the_stronger_source_wins_between_a_setting_and_an_option_of_the_url() {
        let of_url = used("", &[("REDIS_URL", URL)]).unwrap();
        for (setting, toml, text) in SETTINGS {
            let variable = format!(
                "PYTHIA_REDIS__{}",
                setting.replace('.', "__").to_uppercase()
            );
            let in_file = format!("redis.url = {URL:?}");
            let wins = used(&in_file, &[(&variable, text)]).unwrap();
            assert_eq!(wins, with(of_url.clone(), setting), "{setting}");

            let weaker = format!("redis.{setting} = {toml}");
            let gives_way = used(&weaker, &[("REDIS_URL", URL)]).unwrap();
            assert_eq!(gives_way, of_url, "{setting}");

            let error = used(&format!("{in_file}\n{weaker}"), &[]).unwrap_err();
            let said = format!("redis.{setting} is also an option of redis.url (line 1)");
            assert!(error.to_string().starts_with(&said), "{setting}: {error}");
        }
    }

    /// What a connection is made with.
    fn used(toml: &str, environment: &[(&str, &str)]) -> Result<RedisConfig, ConfigError> {
        let config = Config::from_sources(Some(toml), environment.iter().copied())?;
        let redis = RedisConfig::from_config(&config)?;
        let server = redis.server();
        Ok(redis.at(server))
    }

    fn with(mut config: RedisConfig, setting: &str) -> RedisConfig {
        let (file, time) = ("/set".into(), Duration::from_secs(4));
        match setting {
            "tls.ca_file" => config.tls.ca_file = Some(file),
            "tls.cert_file" => config.tls.cert_file = Some(file),
            "tls.key_file" => config.tls.key_file = Some(file),
            "command_attempts" => config.command_attempts = 4.try_into().unwrap(),
            "command_timeout" => config.command_timeout = time,
            "connect_timeout" => config.connect_timeout = time,
            "health_check_interval" => config.health_check_interval = time,
            "pool_size" => config.pool_size = 4.try_into().unwrap(),
            "tcp_keepalive" => config.tcp_keepalive = Some(time),
            other => panic!("{other} is no option"),
        }
        config
    }
}
