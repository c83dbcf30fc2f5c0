//! The command line, and the settings that it makes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use pythia_core::{Config, ConfigError, QueueName};
use pythia_redis::config::RedisUrl;

/// Indexes a directory tree: lines, words and a hash of every file.
#[derive(Parser)]
pub(crate) struct Args {
    /// The tree to index.
    #[arg(default_value = ".")]
    pub(crate) tree: PathBuf,
    /// Run on this Redis, such as redis://127.0.0.1:6379, rather than on the in-memory broker.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// How to use Redis.
    #[arg(long, value_enum, default_value_t = Pattern::List, requires = "redis")]
    pattern: Pattern,
    /// The queue, stream or channel; without it, files-list, files-stream or files-pubsub.
    #[arg(long)]
    queue: Option<String>,
    /// Publish nothing, and work until Ctrl-C.
    #[arg(long, requires = "redis")]
    pub(crate) work: bool,
    /// Let each file take that long, to have something to look at.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    pub(crate) pace: u64,
    /// Where to serve /metrics, /livez and /readyz; without it, on a free port of 127.0.0.1.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Keep serving them after the summary, until Ctrl-C.
    #[arg(long)]
    pub(crate) stay: bool,
}

/// The three ways of Redis.
#[derive(Clone, Copy, ValueEnum)]
enum Pattern {
    List,
    Stream,
    Pubsub,
}

impl Args {
    /// The built-in settings, the environment over them, and the command line over both.
    pub(crate) fn config(&self) -> Result<Config, ConfigError> {
        let mut variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        variables.insert("PYTHIA_BROKER__TYPE".into(), self.broker().into());
        if let Some(url) = &self.redis {
            // Here, because the user has not written the variable that would be named otherwise.
            let _checked: RedisUrl = url
                .parse()
                .map_err(|error| ConfigError::new(format!("--redis: {error}")))?;
            variables.insert("PYTHIA_REDIS__URL".into(), url.clone());
        }
        if let Some(address) = self.metrics {
            variables.insert("PYTHIA_METRICS__ADDRESS".into(), address.to_string());
        }
        Config::from_sources(Some(SETTINGS), variables)
    }

    /// Each pattern has a queue of its own: Redis refuses to read a list as a stream.
    pub(crate) fn queue(&self) -> Result<QueueName, ConfigError> {
        match &self.queue {
            Some(name) => QueueName::new(name),
            None => QueueName::new(&format!("files-{}", self.broker())),
        }
    }

    fn broker(&self) -> &'static str {
        match (&self.redis, self.pattern) {
            (None, _) => "memory",
            (Some(_), Pattern::List) => "list",
            (Some(_), Pattern::Stream) => "stream",
            (Some(_), Pattern::Pubsub) => "pubsub",
        }
    }
}

/// Three quick attempts: an unreadable file should be among the dead letters while somebody looks. Any free port: several
/// of these may run at once.
const SETTINGS: &str = r#"
[retry]
max_attempts = 3
initial_delay = "100ms"
[metrics]
address = "127.0.0.1:0"
"#;
