//! Redis URLs, in every form in which the clients of other languages write them.

use std::fmt;
use std::path::PathBuf;

use pythia_core::ConfigError;
use serde::{Deserialize, Serialize, Serializer};

mod options;
#[cfg(test)]
mod tests;

pub(crate) use self::options::UrlOptions;

/// A parsed Redis URL. Its passwords appear in no debug output, log or error.
///
/// | form | what it leads to |
/// |---|---|
/// | `redis://[user:password@]host[:port][/db]` | one server |
/// | `unix://[user:password@]/path`, also `redis+socket://`, `redis+unix://` and `socket://`, or `redis://?path=/path` | one server on this machine |
/// | `redis-sentinel://[user:password@]host[:port][,host[:port]..]/service[/db]` | the primary that these sentinels name |
/// | `redis-cluster://[user:password@]host[:port][,host[:port]..]` | the cluster that these nodes belong to |
///
/// `rediss://`, `rediss-sentinel://` and `rediss-cluster://` are the same over TLS; `valkey://` and `valkeys://` mean
/// `redis://` and `rediss://`. A server's port is 6379 by default, a sentinel's 26379. What is special in a user's name or
/// a password is percent-encoded: `@` is `%40`.
///
/// # Options
/// Behind a `?`, separated by `&`. Durations have a unit (`250ms`), or are seconds. Unknown options are refused.
///
/// | option | the setting of `[redis]` that it replaces |
/// |---|---|
/// | `db`, `virtual_host` | `db` |
/// | `socket_connect_timeout`, `connect_timeout` | `connect_timeout` |
/// | `socket_timeout`, `command_timeout` | `command_timeout` |
/// | `socket_keepalive` (`true` or `false`), `tcp_keepalive` (a duration) | `tcp_keepalive` |
/// | `health_check_interval` | `health_check_interval` |
/// | `retry_on_timeout` (`true` or `false`), `command_attempts` | `command_attempts` |
/// | `max_connections`, `pool_size` | `pool_size` |
/// | `ssl_ca_certs`, `ca_file` | `tls.ca_file` |
/// | `ssl_certfile`, `cert_file`; `ssl_keyfile`, `key_file` | `tls.cert_file`; `tls.key_file` |
/// | `sentinel_username`, `sentinel_password` | none: the sentinels' own credentials |
/// | `ssl_cert_reqs`, `ssl_check_hostname` | none: `required` and `true` only, certificates are always checked |
#[derive(Clone, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct RedisUrl {
    pub(crate) place: Place,
    pub(crate) tls: bool,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: Option<u8>,
    pub(crate) options: UrlOptions,
}

/// What to connect to.
#[derive(Clone, Eq, PartialEq)]
pub(crate) enum Place {
    Cluster(Vec<Address>),
    Sentinel {
        sentinels: Vec<Address>,
        service: String,
        username: Option<String>,
        password: Option<String>,
    },
    Server(Address),
    Socket(PathBuf),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Scheme {
    Cluster,
    Sentinel,
    Server,
    Socket,
}

impl RedisUrl {
    pub(crate) fn of_server(host: String, port: u16) -> Self {
        Self::of(Place::Server(Address { host, port }), false)
    }

    /// A short name for labels, such as `127.0.0.1:6379/0`.
    pub(crate) fn name(&self) -> String {
        let database = self.database.unwrap_or(0);
        match &self.place {
            Place::Cluster(nodes) => Listed(nodes).to_string(),
            Place::Sentinel { service, .. } => format!("{service}/{database}"),
            Place::Server(address) => format!("{}:{}/{database}", address.host, address.port),
            Place::Socket(path) => format!("{}/{database}", path.display()),
        }
    }

    fn of(place: Place, tls: bool) -> Self {
        Self {
            place,
            tls,
            username: None,
            password: None,
            database: None,
            options: UrlOptions::default(),
        }
    }
}

impl std::str::FromStr for RedisUrl {
    type Err = ConfigError;

    fn from_str(url: &str) -> Result<Self, ConfigError> {
        let (scheme, tls, rest) = split_scheme(url.trim())?;
        if rest.contains('#') {
            return Err(invalid(
                "a redis url has no part behind a #: write %23 for a # in a password",
            ));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // The last @ ends the credentials: a password that was pasted unencoded may hold others.
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        // Or a part of the password would be a service or a database, and be shown.
        if scheme != Scheme::Socket && path.contains('@') {
            return Err(invalid(
                "there is an @ behind the first / of the redis url: a / in a password is written as %2F",
            ));
        }
        let (username, password) = parse_credentials(credentials)?;
        let options::Parsed {
            options,
            database,
            socket,
            sentinel,
        } = options::parse(query)?;

        let mut numbered = database;
        let place = match (scheme, socket) {
            (Scheme::Server, Some(socket)) if matches!(hosts, "" | "localhost") => {
                add_database(&mut numbered, parse_database(path)?)?;
                Place::Socket(socket)
            }
            (Scheme::Socket, socket) => Place::Socket(parse_socket(hosts, path, socket)?),
            (_, Some(_)) => {
                return Err(invalid(
                    "the option path of a redis url names a unix socket, and the url names a host as well",
                ));
            }
            (Scheme::Server, None) => {
                add_database(&mut numbered, parse_database(path)?)?;
                Place::Server(parse_address(hosts, SERVER_PORT)?)
            }
            (Scheme::Cluster, None) => {
                add_database(&mut numbered, parse_database(path)?)?;
                if numbered.is_some_and(|database| database != 0) {
                    return Err(invalid("a redis cluster has the database 0 only"));
                }
                Place::Cluster(parse_addresses(hosts, SERVER_PORT)?)
            }
            (Scheme::Sentinel, None) => {
                let (service, database) = path.split_once('/').unwrap_or((path, ""));
                add_database(&mut numbered, parse_database(database)?)?;
                if service.is_empty() {
                    return Err(invalid(
                        "the redis url lacks the name under which the sentinels know the primary, as in \
                         redis-sentinel://host:26379/mymaster",
                    ));
                }
                Place::Sentinel {
                    sentinels: parse_addresses(hosts, SENTINEL_PORT)?,
                    service: percent_decode(service, "service")?,
                    username: sentinel.0.clone(),
                    password: sentinel.1.clone(),
                }
            }
        };
        if matches!(&sentinel, (Some(_), password) if password.as_deref().is_none_or(str::is_empty))
        {
            return Err(invalid(
                "the option sentinel_username of the redis url needs sentinel_password",
            ));
        }
        if scheme != Scheme::Sentinel && sentinel != (None, None) {
            return Err(invalid(
                "the options sentinel_username and sentinel_password need a url that begins with redis-sentinel://",
            ));
        }
        if !tls && let Some(option) = options.needs_tls() {
            return Err(invalid(format!(
                "the option {option} of the redis url has no effect without TLS: begin the url with rediss://"
            )));
        }
        Ok(Self {
            username,
            password,
            database: numbered,
            options,
            ..Self::of(place, tls)
        })
    }
}

impl TryFrom<String> for RedisUrl {
    type Error = ConfigError;

    fn try_from(url: String) -> Result<Self, ConfigError> {
        url.parse()
    }
}

/// The URL without its credentials and options.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secure = if self.tls { "s" } else { "" };
        match &self.place {
            Place::Cluster(nodes) => write!(f, "redis{secure}-cluster://{}", Listed(nodes))?,
            Place::Sentinel {
                sentinels, service, ..
            } => write!(
                f,
                "redis{secure}-sentinel://{}/{service}",
                Listed(sentinels)
            )?,
            Place::Server(address) => write!(f, "redis{secure}://{address}")?,
            Place::Socket(path) => write!(f, "unix://{}", path.display())?,
        }
        match (self.database, &self.place) {
            (Some(database), Place::Socket(_)) => write!(f, "?db={database}"),
            (Some(database), _) => write!(f, "/{database}"),
            (None, _) => Ok(()),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// As it is displayed: without credentials.
impl Serialize for RedisUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

struct Listed<'a>(&'a [Address]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, address) in self.0.iter().enumerate() {
            let separator = if nth == 0 { "" } else { "," };
            write!(f, "{separator}{address}")?;
        }
        Ok(())
    }
}

fn split_scheme(url: &str) -> Result<(Scheme, bool, &str), ConfigError> {
    let known = url.split_once("://").and_then(|(scheme, rest)| {
        let (scheme, tls) = match scheme.to_ascii_lowercase().as_str() {
            "redis" | "valkey" => (Scheme::Server, false),
            "rediss" | "valkeys" => (Scheme::Server, true),
            "redis-cluster" | "valkey-cluster" => (Scheme::Cluster, false),
            "rediss-cluster" | "valkeys-cluster" => (Scheme::Cluster, true),
            "redis-sentinel" | "valkey-sentinel" => (Scheme::Sentinel, false),
            "rediss-sentinel" | "valkeys-sentinel" => (Scheme::Sentinel, true),
            "redis+socket" | "redis+unix" | "socket" | "unix" => (Scheme::Socket, false),
            _ => return None,
        };
        Some((scheme, tls, rest))
    });
    known.ok_or_else(|| {
        invalid(
            "a redis url begins with redis://, rediss://, unix://, redis-sentinel:// or redis-cluster://, as in \
             redis://127.0.0.1:6379",
        )
    })
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

fn parse_socket(host: &str, path: &str, option: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    if !matches!(host, "" | "localhost") {
        return Err(invalid(
            "a unix socket has no host: write three slashes, as in unix:///run/redis.sock",
        ));
    }
    match (path.is_empty(), option) {
        (true, Some(path)) => Ok(path),
        (false, None) => {
            let path = percent_decode(path, "path of the socket")?;
            Ok(PathBuf::from(format!("/{path}")))
        }
        (true, None) => Err(invalid(
            "the redis url lacks the path of the unix socket, as in unix:///run/redis.sock",
        )),
        (false, Some(_)) => Err(invalid("the redis url names two paths of a unix socket")),
    }
}

fn parse_addresses(hosts: &str, default_port: u16) -> Result<Vec<Address>, ConfigError> {
    hosts
        .split(',')
        .map(|host| parse_address(host.trim(), default_port))
        .collect()
}

fn parse_address(address: &str, default_port: u16) -> Result<Address, ConfigError> {
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
        None if address.contains(',') => {
            return Err(invalid(
                "several hosts in a redis url are those of sentinels (redis-sentinel://) or of a cluster \
                 (redis-cluster://)",
            ));
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
    if host.is_empty() {
        return Err(invalid("the redis url lacks a host"));
    }
    let port = match port {
        None | Some("") => default_port,
        Some(port) => match port.parse() {
            Ok(port) if port != 0 => port,
            _ => {
                return Err(invalid(
                    "the port in the redis url is not between 1 and 65535",
                ));
            }
        },
    };
    Ok(Address {
        host: host.to_owned(),
        port,
    })
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

fn add_database(database: &mut Option<u8>, other: Option<u8>) -> Result<(), ConfigError> {
    if database.is_some() && other.is_some() && *database != other {
        return Err(invalid("the redis url names two databases"));
    }
    *database = database.or(other);
    Ok(())
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

const SERVER_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
