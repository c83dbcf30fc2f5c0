//! `redis://` URLs.

use std::fmt;

use pythia_core::ConfigError;
use serde::Deserialize;

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
    type Err = ConfigError;

    fn from_str(url: &str) -> Result<Self, ConfigError> {
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
    type Error = ConfigError;

    fn try_from(url: String) -> Result<Self, ConfigError> {
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

fn strip_scheme(url: &str) -> Result<&str, ConfigError> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(invalid(
            "a redis url begins with redis://, as in redis://127.0.0.1:6379",
        ));
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
        _ => Err(invalid(
            "a redis url begins with redis://, as in redis://127.0.0.1:6379",
        )),
    }
}

fn parse_credentials(
    credentials: Option<&str>,
) -> Result<(Option<String>, Option<String>), ConfigError> {
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

fn parse_address(address: &str) -> Result<(String, u16), ConfigError> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest
                .split_once(']')
                .ok_or_else(|| invalid("the IPv6 address in the redis url lacks its ]"))?;
            match port.strip_prefix(':') {
                None if !port.is_empty() => {
                    return Err(invalid(
                        "the ] in the redis url is followed by neither a port nor a database",
                    ));
                }
                port => (host, port),
            }
        }
        None => match address.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(invalid(
                    "an IPv6 address in a redis url stands in brackets, as in redis://[::1]:6379",
                ));
            }
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

fn parse_database(path: &str) -> Result<Option<u8>, ConfigError> {
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

fn percent_decode(text: &str, what: &str) -> Result<String, ConfigError> {
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

fn invalid(message: impl Into<String>) -> ConfigError {
    ConfigError::new(message)
}

const DEFAULT_PORT: u16 = 6379;

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> RedisUrl {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn refusal(text: &str) -> String {
        let error = text.parse::<RedisUrl>().expect_err(text);
        error.to_string()
    }

    #[test]
    fn a_url_gives_all_its_parts() {
        let full = url("redis://app:p%40ss%2Fw%25@redis.internal:6380/3");
        assert_eq!(full.host, "redis.internal");
        assert_eq!(full.port, 6380);
        assert_eq!(full.username.as_deref(), Some("app"));
        assert_eq!(full.password.as_deref(), Some("p@ss/w%"));
        assert_eq!(full.database, Some(3));
        assert_eq!(url("redis://127.0.0.1:6379"), RedisUrl::default());
        assert_eq!(url("REDIS://127.0.0.1/"), RedisUrl::default());
        assert_eq!(url("redis://[::1]:7000").host, "::1");
        assert_eq!(url("redis://[::1]").port, 6379);
        assert_eq!(url("redis://:00123@h").password.as_deref(), Some("00123"));
        assert_eq!(url("redis://:@h").password, None);
        assert_eq!(url("redis://:a@b:c@h").password.as_deref(), Some("a@b:c"));
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said() {
        for (text, why) in [
            ("", "begins with redis://"),
            ("localhost:6379", "begins with redis://"),
            ("http://h", "begins with redis://"),
            ("rediss://h", "TLS"),
            ("unix:///run/redis.sock", "Unix sockets"),
            ("redis+socket:///run/redis.sock", "Unix sockets"),
            ("redis-cluster://h", "Cluster"),
            ("redis-sentinel://h", "Sentinel"),
            ("redis://a,b", "several hosts"),
            ("redis://", "lacks a host"),
            ("redis://:6379", "lacks a host"),
            ("redis://h:0", "port"),
            ("redis://h:65536", "port"),
            ("redis://h:port", "port"),
            ("redis://[::1", "]"),
            ("redis://[::1]7000", "]"),
            ("redis://::1", "[::1]"),
            ("redis://h/x", "database"),
            ("redis://h/256", "database"),
            ("redis://h/-1", "database"),
            ("redis://h?db=1", "[redis]"),
            ("redis://user@h", "without a password"),
            ("redis://:100%@h", "%25"),
            ("redis://:%FF@h", "UTF-8"),
        ] {
            let error = refusal(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let login = url("redis://app:hunter2@h:1/2");
        assert_eq!(login.to_string(), "redis://h:1/2");
        assert!(!format!("{login:?}").contains("hunter2"));
        for text in [
            "redis://app:hunter2%@h",
            "redis://app:hunter2@h:port",
            "rediss://app:hunter2@h",
            "redis://app:hunter2",
        ] {
            assert!(!refusal(text).contains("hunter2"), "{text}");
        }
    }
}
