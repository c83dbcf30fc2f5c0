//! Settings: built-in defaults, then a preset, a TOML file, and environment variables, each over the one before.
//!
//! ```
//! use pythia_core::config::Config;
//!
//! #[derive(Debug, Default, PartialEq, serde::Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct Metrics {
//!     listen: Option<String>,
//! }
//!
//! let config = Config::from_sources(
//!     Some("[metrics]\nlisten = \"127.0.0.1:9100\""),
//!     [("PYTHIA_METRICS__LISTEN", "0.0.0.0:9100")],
//! )?;
//! let metrics: Metrics = config.section("metrics")?;
//! assert_eq!(metrics.listen.as_deref(), Some("0.0.0.0:9100"));
//!
//! let misspelt = Config::from_toml("[metrics]\nlisen = \"127.0.0.1:9100\"")?;
//! assert_eq!(
//!     misspelt.section::<Metrics>("metrics").unwrap_err().to_string(),
//!     "unknown setting \"metrics.lisen\" (line 2); did you mean \"metrics.listen\"?"
//! );
//! # Ok::<(), pythia_core::ConfigError>(())
//! ```
//!
//! # Which source wins
//! From the one that wins over all others to the one that gives way to all others:
//!
//! 1. code: what is set on a [`Route`](crate::Route), on the [`RunnerBuilder`](crate::RunnerBuilder) or by
//!    [`Config::with_preset`];
//! 2. `PYTHIA_SECTION__KEY`;
//! 3. `PYTHIA_BROKER_TYPE`, `PYTHIA_MAX_CONCURRENT`, `PYTHIA_PRESET`;
//! 4. `REDIS_URL`;
//! 5. `REDIS_HOST`, `REDIS_PORT`, `REDIS_DB`, `REDIS_USERNAME`, `REDIS_PASSWORD`; `REDIS_QUEUE`;
//! 6. the file;
//! 7. the [`Preset`];
//! 8. the defaults.
//!
//! [`Config::source`] says where a value comes from, and [`Config::explain`] lists all values with their sources.
//!
//! # The file
//! It is the one that `PYTHIA_CONFIG` names, or the one that [`Config::from_file`] is given; none is looked for. Its
//! sections are `[broker]`, `[runner]`, `[worker]`, `[retry]`, `[breaker]`, `[timeout]`, `[memory]`, `[redis]`,
//! `[metrics]`, and one `[routes.NAME]` for each route that differs from the others; above them, `preset` names a
//! [`Preset`]. Each crate reads its own by [`Config::section`]; the structs that it reads them into hold the defaults.
//! Durations are texts with a unit: `"500ms"`, `"30s"`, `"1h 30m"`. An empty text is no value, for settings that need
//! none. `config/pythia.toml` in the repository has every setting with its default and its reason.
//!
//! # Environment variables
//! `PYTHIA_SECTION__KEY`, two underscores for each level: `PYTHIA_REDIS__STREAM__GROUP` is `group` in `[redis.stream]`,
//! and `PYTHIA_RETRY__MAX_ATTEMPTS` is `max_attempts` in `[retry]`. The text is read as the type of the setting, so a
//! password of digits keeps its zeros. The elements of a list are separated by commas.
//!
//! Some settings have a shorter name, or one that platforms set as well:
//!
//! | variable | setting |
//! |---|---|
//! | `PYTHIA_BROKER_TYPE` | `broker.type` |
//! | `PYTHIA_MAX_CONCURRENT` | `worker.concurrency` |
//! | `PYTHIA_PRESET` | `preset` |
//! | `REDIS_URL` | `redis.url` |
//! | `REDIS_HOST`, `REDIS_PORT`, `REDIS_DB`, `REDIS_USERNAME`, `REDIS_PASSWORD` | `redis.host` and so on |
//! | `REDIS_QUEUE` | `broker.queue` |
//!
//! Empty, such a variable is not set, as with `${REDIS_URL:-}` in a compose file. (A full name that is empty unsets what
//! the file has set.) `REDIS_PORT=tcp://10.0.0.1:6379` is how Kubernetes and Docker's links describe a service named
//! `redis`: it is no port, and left alone.
//!
//! # What is refused
//! A setting that nobody knows, a value of the wrong type, a variable that was meant to be a setting and is none, such as
//! `PYTHIA_REDIS_URL`. The error names the setting, the line or the variable, and the closest name that is known. Values
//! of settings that hold secrets are not shown.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::Path;

use figment::value::{Dict, Value};
use figment::{Figment, Profile, Provider};
use serde::de::DeserializeOwned;

use crate::error::ConfigError;
use crate::memory::MemoryBroker;
use crate::message::QueueName;
use crate::runtime::{RouteConfig, RunnerConfig};

mod broker;
mod environment;
mod explain;
mod leaf;
mod masked;
mod preset;
mod refusal;
mod setting;
mod source;
mod toml;

pub use broker::BrokerType;
pub use explain::{ExplainedSetting, Explanation};
pub use preset::{Preset, PresetSetting};
pub use source::{Layer, Source};

use broker::BrokerConfig;
use environment::FILE_VARIABLE;
use leaf::{Leaf, route_key};
use masked::Masked;
use refusal::{did_you_mean, in_brackets};
use setting::{Setting, place};

/// The settings of a process, not yet read into the structs that use them. Without any source: all defaults.
#[derive(Clone, Default)]
pub struct Config {
    /// What each source says: a later one wins.
    leaves: Vec<Leaf>,
    /// All of it in one, each value with its place.
    layers: Figment,
}

impl Config {
    /// The file that `PYTHIA_CONFIG` names, if it names one, and the environment over it.
    ///
    /// # Errors
    /// If that file can't be read or is not TOML, or if a section or variable is unknown.
    pub fn load() -> Result<Self, ConfigError> {
        Self::load_from(env::vars_os())
    }

    /// This file, and the environment over it; for a program that is told its file by an argument.
    ///
    /// # Errors
    /// If the file can't be read (a missing file is an error) or is not TOML, or if a section or variable is unknown.
    pub fn from_file(file: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let file = read_file(file.as_ref(), None)?;
        Self::assemble(file, environment::texts(env::vars_os())?)
    }

    /// This text alone: no file, and no environment.
    ///
    /// # Errors
    /// If it is not TOML, or if a section is unknown.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::assemble(toml::read(text, None)?, Vec::new())
    }

    /// These sources in place of the process's own, so that a test needs neither files nor variables.
    ///
    /// # Errors
    /// If the text is not TOML, or if a section or variable is unknown.
    pub fn from_sources<N: Into<String>, V: Into<String>>(
        file: Option<&str>,
        environment: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ConfigError> {
        let environment = environment
            .into_iter()
            .map(|(name, text)| (name.into(), text.into()))
            .collect();
        Self::assemble(toml::read(file.unwrap_or_default(), None)?, environment)
    }

    /// Reads a section, or a part of one, as in `redis.stream`. What is not set has the default of `T`.
    ///
    /// `T` is to be `#[serde(default, deny_unknown_fields)]`, and to avoid `flatten`, `untagged` and `tag`: through them
    /// serde does not say which type it wants, and variables stay text.
    ///
    /// # Errors
    /// If the section has a key that `T` does not know, or a value that it does not take.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<T, ConfigError> {
        let value = self.value(name);
        let path: Vec<String> = name.split('.').map(str::to_owned).collect();
        self.read(&value, |inner| [&path, inner].concat())
    }

    /// Reads the settings of a route: `[worker]` with `[retry]`, `[breaker]` and `[timeout]` as tables in it, and
    /// `[routes.NAME]` over all of that. Names are the same if they differ only in case and punctuation, because a
    /// variable's name can't hold it: `PYTHIA_ROUTES__EU_ORDERS__BATCH` is meant for the route `eu:orders`.
    ///
    /// # Errors
    /// As [`section`](Self::section); the error names the table that the setting is in.
    pub fn route<T: DeserializeOwned>(&self, name: &str) -> Result<T, ConfigError> {
        let name = route_key(name);
        let overlay = self.value("routes").into_dict().unwrap_or_default();
        let overlay = overlay
            .get(&name)
            .cloned()
            .unwrap_or_else(|| Dict::new().into());
        let route = ["routes".to_owned(), name];
        let mut defaults = self.worker()?;
        for table in ROUTE_TABLES {
            defaults.insert(table.into(), self.value(table));
        }
        let whole = overlaid(Value::from(defaults), overlay.clone());
        self.read(&whole, |inner| {
            if inner.is_empty() || overlay.find_ref(&inner.join(".")).is_some() {
                [&route, inner].concat()
            } else if ROUTE_TABLES.contains(&inner[0].as_str()) {
                inner.to_vec()
            } else {
                [&["worker".to_owned()], inner].concat()
            }
        })
    }

    /// Where a setting of a route comes from that is its own or one of `[worker]`.
    pub(crate) fn source_for_route(&self, route: &str, key: &str) -> Option<Source> {
        let own = ["routes", &route_key(route), key].map(str::to_owned);
        let worker = ["worker", key].map(str::to_owned);
        self.source_at(&own).or_else(|| self.source_at(&worker))
    }

    /// The routes that have a section of their own, as variables name them: in lower case, `_` for punctuation.
    pub fn routes(&self) -> Vec<String> {
        let routes = self.value("routes").into_dict().unwrap_or_default();
        routes.into_keys().collect()
    }

    /// Those [`routes`](Self::routes) that are none of these: another process may have them, or a name is misspelt.
    pub fn routes_beside<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let names: BTreeSet<String> = names.into_iter().map(route_key).collect();
        let mut routes = self.routes();
        routes.retain(|route| !names.contains(route));
        routes
    }

    /// Whether somebody has written a setting for this program, or anything in a section, as in `redis.stream`: in the
    /// file, or as a variable `PYTHIA_..`. What only a preset sets does not count, and neither does what a platform tells
    /// all of its programs, as by `REDIS_URL`.
    pub fn contains(&self, name: &str) -> bool {
        let path: Vec<String> = name.split('.').map(str::to_owned).collect();
        self.leaves_at(&path)
            .map(|leaf| leaf.source.layer())
            .any(|layer| layer != Layer::Preset && !layer.is_platform())
    }

    /// The same, without what a platform tells all of its programs: `REDIS_URL`, `REDIS_HOST` and its like. A program that
    /// uses no Redis need not care whether it could use that one.
    #[must_use]
    pub fn without_platform(&self) -> Self {
        let ours = self
            .leaves
            .iter()
            .filter(|leaf| !leaf.source.layer().is_platform());
        Self::layered(ours.cloned().collect())
    }

    /// Where the value of a setting comes from, or for a section the source that wins over all others in it. `None` if
    /// nobody has set it, so that it has its default. An empty text that unsets a setting is a source as well.
    ///
    /// ```
    /// use pythia_core::Config;
    /// use pythia_core::config::Layer;
    ///
    /// let config = Config::from_sources(
    ///     Some("[redis]\nhost = \"a\"\nlease = \"10s\""),
    ///     [("REDIS_URL", "redis://b"), ("PYTHIA_REDIS__LEASE", "20s")],
    /// )?;
    /// let [host, url] = ["redis.host", "redis.url"].map(|setting| config.source(setting).unwrap());
    /// assert_eq!(host.to_string(), "line 2");
    /// assert_eq!(url.to_string(), "environment variable REDIS_URL");
    /// assert_eq!((host.layer(), url.layer()), (Layer::File, Layer::RedisUrl));
    /// assert!(url > host);
    /// assert_eq!(config.source("redis.port"), None);
    /// # Ok::<(), pythia_core::ConfigError>(())
    /// ```
    pub fn source(&self, name: &str) -> Option<Source> {
        let path: Vec<String> = name.split('.').map(str::to_owned).collect();
        self.source_at(&path)
    }

    /// The preset that applies, if there is one.
    ///
    /// # Errors
    /// If there is no preset of that name.
    pub fn preset(&self) -> Result<Option<Preset>, ConfigError> {
        let Ok(name) = self.layers.find_value(PRESET) else {
            return Ok(None);
        };
        self.read(&name, |_| vec![PRESET.to_owned()])
    }

    /// The same, with this preset in place of any other that a file or a variable names. What they set themselves wins over
    /// what the preset sets, as always.
    #[must_use]
    pub fn with_preset(self, preset: Preset) -> Self {
        let named = Leaf {
            path: vec![PRESET.to_owned()],
            value: preset.as_str().into(),
            source: Source::code(),
        };
        let written = self
            .leaves
            .into_iter()
            .filter(|leaf| leaf.source.layer() != Layer::Preset);
        Self::layered(preset.leaves().chain(written).chain([named]).collect())
    }

    /// Which broker the settings ask for: `type` in `[broker]`.
    ///
    /// # Errors
    /// If `[broker]` has another key, or there is no such broker.
    pub fn broker_type(&self) -> Result<BrokerType, ConfigError> {
        self.section("broker")
            .map(|broker: BrokerConfig| broker.kind)
    }

    /// The queue of a program that has one route only: `queue` in `[broker]`.
    pub(crate) fn broker_queue(&self) -> Result<Option<String>, ConfigError> {
        self.section("broker")
            .map(|broker: BrokerConfig| broker.queue)
    }

    /// Reads all sections of this crate, so that a mistake in one that nobody reads yet comes up at the start as well.
    /// (Unknown sections never get this far; `[redis]` and `[metrics]` are read by their crates.)
    ///
    /// # Errors
    /// The first setting that is unknown, of the wrong type, or makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        if let Some(queue) = self.broker_queue()? {
            QueueName::new(&queue)
                .map_err(|error| ConfigError::new(format!("broker.queue: {error}")))?;
        }
        MemoryBroker::with_config(self.section("memory")?)?;
        self.section::<RunnerConfig>("runner")?.check()?;
        // No route is named so: this is what all routes without a section have.
        self.route::<RouteConfig>("")?.check()?;
        for name in self.routes() {
            let route: RouteConfig = self.route(&name)?;
            route.check().map_err(|error| {
                ConfigError::new(format!("in [routes.{name}] or below it: {error}"))
            })?;
        }
        Ok(())
    }

    fn load_from(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let (file, variables): (Vec<_>, Vec<_>) = variables
            .into_iter()
            .partition(|(name, _)| name == FILE_VARIABLE);
        let file = match file.into_iter().next() {
            Some((_, file)) if !file.is_empty() => {
                read_file(Path::new(&file), Some(FILE_VARIABLE))?
            }
            _ => Vec::new(),
        };
        Self::assemble(file, environment::texts(variables)?)
    }

    fn assemble(file: Vec<Leaf>, environment: Vec<(String, String)>) -> Result<Self, ConfigError> {
        let written = file
            .into_iter()
            .chain(environment::read(environment)?)
            .collect();
        let config = Self::layered(written);
        for (section, value) in config.sections() {
            config.check_section(&section, &value)?;
        }
        Ok(match config.preset()? {
            Some(preset) => Self::layered(preset.leaves().chain(config.leaves).collect()),
            None => config,
        })
    }

    fn layered(mut leaves: Vec<Leaf>) -> Self {
        leaves.sort_by_key(|leaf| leaf.source.layer());
        let layers = leaves.iter().cloned().fold(Figment::new(), Figment::merge);
        Self { leaves, layers }
    }

    fn source_at(&self, path: &[String]) -> Option<Source> {
        self.leaves_at(path).last().map(|leaf| leaf.source.clone())
    }

    /// What each source says about a setting or about anything in a section; the last one wins.
    fn leaves_at(&self, path: &[String]) -> impl Iterator<Item = &Leaf> {
        self.leaves
            .iter()
            .filter(move |leaf| leaf.path.starts_with(path))
    }

    fn check_section(&self, section: &str, value: &Value) -> Result<(), ConfigError> {
        let place = in_brackets(place(&self.layers, value));
        if section == PRESET {
            return Ok(());
        }
        if !SECTIONS.contains(&section) {
            if value.as_dict().is_none() && strsim::osa_distance(section, PRESET) <= 2 {
                return Err(ConfigError::new(format!(
                    "unknown setting \"{section}\"{place}; did you mean \"{PRESET}\"?"
                )));
            }
            let hint = did_you_mean(section, SECTIONS, |meant| format!("[{meant}]"));
            return Err(ConfigError::new(format!(
                "unknown section [{section}]{place}{hint}"
            )));
        }
        let Some(entries) = value.as_dict() else {
            return Err(ConfigError::new(format!(
                "\"{section}\" is a section, [{section}], not a setting{place}"
            )));
        };
        if section == "routes" {
            for (route, settings) in entries {
                self.check_is_route(route, settings)?;
            }
        }
        Ok(())
    }

    fn check_is_route(&self, route: &str, settings: &Value) -> Result<(), ConfigError> {
        match settings.as_dict() {
            Some(_) => Ok(()),
            None => Err(ConfigError::new(format!(
                "\"routes.{route}\" is a section, [routes.{route}], not a setting{}",
                in_brackets(place(&self.layers, settings)),
            ))),
        }
    }

    /// `[worker]`, which must not hold what belongs to a route or has a section of its own.
    fn worker(&self) -> Result<Dict, ConfigError> {
        let worker = self.value("worker").into_dict().unwrap_or_default();
        for (key, value) in &worker {
            let hint = if ROUTE_TABLES.contains(&key.as_str()) {
                format!("it is a section of its own, [{key}]")
            } else if key == "queue" {
                "a queue is set by [routes.NAME]".to_owned()
            } else {
                continue;
            };
            let place = in_brackets(place(&self.layers, value));
            return Err(ConfigError::new(format!(
                "unknown setting \"worker.{key}\"{place}; {hint}"
            )));
        }
        Ok(worker)
    }

    fn value(&self, name: &str) -> Value {
        self.layers
            .find_value(name)
            .unwrap_or_else(|_| Value::from(Dict::new()))
    }

    fn sections(&self) -> Dict {
        let mut profiles = self.layers.data().unwrap_or_default();
        profiles.remove(&Profile::Default).unwrap_or_default()
    }

    fn read<T: DeserializeOwned>(
        &self,
        value: &Value,
        full_path: impl Fn(&[String]) -> Vec<String>,
    ) -> Result<T, ConfigError> {
        T::deserialize(Setting::new(&self.layers, value))
            .map_err(|refusal| refusal.or_at(place(&self.layers, value)).at(full_path))
    }
}

/// Shows what is set, without secrets.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Masked {
            value: &Value::from(self.sections()),
            path: &[],
        }
        .fmt(f)
    }
}

/// Every section that there is: a crate that adds one is named here, so that all the others are refused.
const SECTIONS: &[&str] = &[
    "breaker", "broker", "memory", "metrics", "redis", "retry", "routes", "runner", "timeout",
    "worker",
];

/// The one setting that is in no section.
const PRESET: &str = "preset";

/// Sections that a route may have as tables of its own.
const ROUTE_TABLES: [&str; 3] = ["breaker", "retry", "timeout"];

fn overlaid(below: Value, above: Value) -> Value {
    match (below, above) {
        (Value::Dict(_, mut below), Value::Dict(tag, above)) => {
            for (key, value) in above {
                let merged = match below.remove(&key) {
                    Some(old) => overlaid(old, value),
                    None => value,
                };
                below.insert(key, merged);
            }
            Value::Dict(tag, below)
        }
        (_, above) => above,
    }
}

/// `named_by` is the variable that names the file, if one does.
fn read_file(file: &Path, named_by: Option<&str>) -> Result<Vec<Leaf>, ConfigError> {
    let text = fs::read_to_string(file).map_err(|error| {
        let variable = named_by.map(|name| format!("environment variable {name}"));
        ConfigError::new(format!(
            "can't read the configuration file {}{}: {error}",
            file.display(),
            in_brackets(variable)
        ))
    })?;
    toml::read(&text, Some(file))
}

#[cfg(test)]
mod tests;
