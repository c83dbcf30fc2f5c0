//! What stands behind the `?` of a URL: the same settings as in `[redis]`, also by the names that other clients know.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use pythia_core::ConfigError;

use super::{add_database, invalid, parse_database, percent_decode};

/// Settings that a URL brings along.
#[derive(Clone, Default, Eq, PartialEq)]
pub(crate) struct UrlOptions {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) cert_file: Option<PathBuf>,
    pub(crate) command_attempts: Option<NonZeroU32>,
    pub(crate) command_timeout: Option<Duration>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) health_check_interval: Option<Duration>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) pool_size: Option<NonZeroUsize>,
    /// `Some(None)`: off.
    pub(crate) tcp_keepalive: Option<Option<Duration>>,
}

/// The options, apart from those that say where the server is.
pub(super) struct Parsed {
    pub(super) options: UrlOptions,
    pub(super) database: Option<u8>,
    pub(super) socket: Option<PathBuf>,
    /// User name and password of the sentinels.
    pub(super) sentinel: (Option<String>, Option<String>),
}

/// What an option is about; most have two names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Meaning {
    CaFile,
    CertFile,
    CheckCertificate,
    CheckHostname,
    CommandAttempts,
    CommandTimeout,
    ConnectTimeout,
    Database,
    HealthCheckInterval,
    KeyFile,
    Path,
    PoolSize,
    SentinelPassword,
    SentinelUsername,
    TcpKeepalive,
}

impl UrlOptions {
    /// The first option that means nothing without TLS.
    pub(super) fn needs_tls(&self) -> Option<&'static str> {
        [
            ("ca_file", &self.ca_file),
            ("cert_file", &self.cert_file),
            ("key_file", &self.key_file),
        ]
        .into_iter()
        .find_map(|(name, file)| file.is_some().then_some(name))
    }
}

pub(super) fn parse(query: &str) -> Result<Parsed, ConfigError> {
    let mut parsed = Parsed {
        options: UrlOptions::default(),
        database: None,
        socket: None,
        sentinel: (None, None),
    };
    let mut seen: Vec<Meaning> = Vec::new();
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, text) = option.split_once('=').unwrap_or((option, ""));
        let Some((meaning, known)) = OPTIONS.iter().find(|(_, known)| *known == name) else {
            return Err(unknown(name, query));
        };
        if seen.contains(meaning) {
            return Err(invalid(format!(
                "the option {known} of the redis url is given twice, perhaps by its other name"
            )));
        }
        seen.push(*meaning);
        let text = percent_decode(text, known)?;
        parsed.set(*meaning, known, text).map_err(|expected| {
            invalid(format!("the option {known} of the redis url {expected}"))
        })?;
    }
    Ok(parsed)
}

impl Parsed {
    /// Otherwise says what was expected. What was found is not shown: it may be a secret.
    fn set(&mut self, meaning: Meaning, name: &str, text: String) -> Result<(), String> {
        let options = &mut self.options;
        match meaning {
            Meaning::CaFile => options.ca_file = Some(file(text)?),
            Meaning::CertFile => options.cert_file = Some(file(text)?),
            Meaning::CommandAttempts => {
                options.command_attempts = Some(match name {
                    "retry_on_timeout" if switch(&text)? => crate::config::COMMAND_ATTEMPTS,
                    "retry_on_timeout" => NonZeroU32::MIN,
                    _ => number(&text)?,
                });
            }
            Meaning::CommandTimeout => options.command_timeout = Some(duration(&text)?),
            Meaning::ConnectTimeout => options.connect_timeout = Some(duration(&text)?),
            Meaning::Database => {
                let number = parse_database(&text).map_err(|_| NO_DATABASE.to_owned())?;
                let number = number.ok_or(NO_DATABASE)?;
                add_database(&mut self.database, Some(number))
                    .map_err(|error| error.to_string())?;
            }
            Meaning::HealthCheckInterval => options.health_check_interval = Some(duration(&text)?),
            Meaning::KeyFile => options.key_file = Some(file(text)?),
            Meaning::Path => self.socket = Some(file(text)?),
            Meaning::PoolSize => options.pool_size = Some(number(&text)?),
            Meaning::SentinelPassword => self.sentinel.1 = Some(text),
            Meaning::SentinelUsername => self.sentinel.0 = Some(text),
            Meaning::TcpKeepalive => {
                options.tcp_keepalive = Some(match name {
                    "socket_keepalive" if switch(&text)? => Some(crate::config::TCP_KEEPALIVE),
                    "socket_keepalive" => None,
                    _ => Some(duration(&text)?),
                });
            }
            Meaning::CheckCertificate | Meaning::CheckHostname => {
                let checks = match text.to_ascii_lowercase().as_str() {
                    "required" | "cert_required" => true,
                    text => switch(text).unwrap_or(false),
                };
                if !checks {
                    return Err("would leave certificates unchecked, which is not supported: give the authority \
                         that signed the server's certificate as ca_file instead"
                        .to_owned());
                }
            }
        }
        Ok(())
    }
}

fn unknown(name: &str, query: &str) -> ConfigError {
    let distance = |known: &str| strsim::damerau_levenshtein(known, name);
    let closest = OPTIONS.iter().map(|(_, known)| *known);
    let closest = closest
        .min_by_key(|known| distance(known))
        .filter(|known| distance(known) <= 3);
    let hint = match closest {
        Some(known) => format!("; did you mean {known}?"),
        None => String::new(),
    };
    // A password that holds an unencoded ? or & ends up here, and the @ behind it with it.
    let is_name =
        name.len() <= MAX_SHOWN && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let shown = if is_name && !query.contains('@') {
        format!("unknown option {name} in the redis url{hint}")
    } else {
        "unknown option in the redis url: a ? or & in a password is written as %3F or %26"
            .to_owned()
    };
    invalid(shown)
}

fn file(text: String) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("lacks its path".to_owned());
    }
    Ok(text.into())
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| "is not a number of 1 or more".to_owned())
}

fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

/// `250ms`, or seconds, as other clients have it: `5`, `0.5`.
fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().map(Duration::try_from_secs_f64);
    let duration = match seconds {
        Some(duration) => duration.ok(),
        None => humantime_serde::re::humantime::parse_duration(text).ok(),
    };
    duration
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| {
            "is not a duration longer than 0s, such as 250ms, 5s, or 5 for seconds".to_owned()
        })
}

const NO_DATABASE: &str = "is not a number between 0 and 255";
/// The longest name of an option that is repeated in an error.
const MAX_SHOWN: usize = 30;

/// What an option means, and a name of it.
const OPTIONS: [(Meaning, &str); 24] = [
    (Meaning::CaFile, "ca_file"),
    (Meaning::CaFile, "ssl_ca_certs"),
    (Meaning::CertFile, "cert_file"),
    (Meaning::CertFile, "ssl_certfile"),
    (Meaning::CommandAttempts, "command_attempts"),
    (Meaning::CommandAttempts, "retry_on_timeout"),
    (Meaning::CommandTimeout, "command_timeout"),
    (Meaning::CommandTimeout, "socket_timeout"),
    (Meaning::ConnectTimeout, "connect_timeout"),
    (Meaning::ConnectTimeout, "socket_connect_timeout"),
    (Meaning::Database, "db"),
    (Meaning::Database, "virtual_host"),
    (Meaning::HealthCheckInterval, "health_check_interval"),
    (Meaning::KeyFile, "key_file"),
    (Meaning::KeyFile, "ssl_keyfile"),
    (Meaning::Path, "path"),
    (Meaning::PoolSize, "max_connections"),
    (Meaning::PoolSize, "pool_size"),
    (Meaning::SentinelPassword, "sentinel_password"),
    (Meaning::SentinelUsername, "sentinel_username"),
    (Meaning::TcpKeepalive, "socket_keepalive"),
    (Meaning::TcpKeepalive, "tcp_keepalive"),
    (Meaning::CheckCertificate, "ssl_cert_reqs"),
    (Meaning::CheckHostname, "ssl_check_hostname"),
];
