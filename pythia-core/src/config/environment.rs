//! Settings in environment variables: `PYTHIA_SECTION__KEY`, and some short names.
//!
//! figment has a provider for them, which won't do: it parses a variable by its looks, before anyone has said that the
//! password 00123 is a text.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::SECTIONS;
use super::leaf::{Leaf, route_key};
use super::source::{Layer, Source};
use crate::error::ConfigError;

/// A name that is shorter than that of its setting, or that others use as well. Without a text it is not set: in a
/// compose file `${REDIS_URL:-}` comes to that.
struct Alias {
    variable: &'static str,
    setting: &'static str,
    layer: Layer,
}

/// All of them, with what each means.
const ALIASES: &[Alias] = &[
    alias("PYTHIA_BROKER_TYPE", "broker.type", Layer::ShortVariable),
    alias(
        "PYTHIA_MAX_CONCURRENT",
        "worker.concurrency",
        Layer::ShortVariable,
    ),
    alias("PYTHIA_PRESET", "preset", Layer::ShortVariable),
    alias("REDIS_URL", "redis.url", Layer::RedisUrl),
    alias("REDIS_HOST", "redis.host", Layer::RedisPart),
    alias("REDIS_PORT", "redis.port", Layer::RedisPart),
    alias("REDIS_DB", "redis.db", Layer::RedisPart),
    alias("REDIS_USERNAME", "redis.username", Layer::RedisPart),
    alias("REDIS_PASSWORD", "redis.password", Layer::RedisPart),
    alias("REDIS_QUEUE", "broker.queue", Layer::RedisPart),
];

const fn alias(variable: &'static str, setting: &'static str, layer: Layer) -> Alias {
    Alias {
        variable,
        setting,
        layer,
    }
}

/// The settings among these variables. Values are kept as the text that they are; what is read from it depends on the
/// setting's type.
pub(super) fn read(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<Leaf>, ConfigError> {
    let variables: BTreeMap<String, String> = variables
        .into_iter()
        .filter(|(name, _)| may_be_setting(name))
        .collect();
    check_names(&variables)?;
    let mut leaves = aliased(&variables);
    leaves.extend(full(&variables)?);
    Ok(leaves)
}

/// The variables that may be settings. (`env::vars()` would panic at the first of anybody's that is not UTF-8.)
pub(super) fn texts(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, ConfigError> {
    variables
        .into_iter()
        .filter_map(|(name, text)| Some((name.into_string().ok()?, text)))
        .filter(|(name, _)| may_be_setting(name))
        .map(|(name, text)| match text.into_string() {
            Ok(text) => Ok((name, text)),
            Err(_) => Err(ConfigError::new(format!(
                "environment variable {name} is not UTF-8"
            ))),
        })
        .collect()
}

fn may_be_setting(name: &str) -> bool {
    (name.starts_with(PREFIX) && name != FILE_VARIABLE) || is_alias(name)
}

fn is_alias(name: &str) -> bool {
    ALIASES.iter().any(|alias| alias.variable == name)
}

/// Those with a short name.
fn aliased(variables: &BTreeMap<String, String>) -> Vec<Leaf> {
    let set = ALIASES
        .iter()
        .filter_map(|alias| Some((alias, variables.get(alias.variable)?)));
    set.filter(|(alias, text)| !text.is_empty() && !is_link(alias.variable, text))
        .map(|(alias, text)| Leaf {
            path: alias.setting.split('.').map(str::to_owned).collect(),
            value: text.clone().into(),
            source: Source::variable(alias.layer, alias.variable),
        })
        .collect()
}

/// Those with a full name, one more `__` for each further level.
fn full(variables: &BTreeMap<String, String>) -> Result<Vec<Leaf>, ConfigError> {
    let mut settings = BTreeMap::<Vec<String>, &str>::new();
    let mut leaves = Vec::new();
    for (name, text) in variables {
        let Some(setting) = name
            .strip_prefix(PREFIX)
            .filter(|setting| setting.contains("__"))
        else {
            continue;
        };
        let mut path: Vec<String> = setting.split("__").map(str::to_lowercase).collect();
        if path.iter().any(String::is_empty) {
            return Err(ConfigError::new(format!(
                "environment variable {name} names no setting: one is written PYTHIA_SECTION__KEY"
            )));
        }
        if path[0] == "routes" {
            path[1] = route_key(&path[1]);
        }
        for (other_path, other) in &settings {
            if path.starts_with(other_path) || other_path.starts_with(&path) {
                return Err(ConfigError::new(format!(
                    "environment variables {other} and {name} can't both be set: they name the same setting, or one \
                     is a part of the other"
                )));
            }
        }
        settings.insert(path.clone(), name);
        leaves.push(Leaf {
            path,
            value: text.clone().into(),
            source: Source::variable(Layer::Variable, name),
        });
    }
    Ok(leaves)
}

/// Refuses the variables that were meant to be settings, and are none.
fn check_names(variables: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    let services: Vec<&str> = variables
        .keys()
        .filter_map(|name| name.strip_suffix("_SERVICE_HOST"))
        .collect();
    variables
        .keys()
        .filter(|name| !is_alias(name) && !name.contains("__"))
        .filter(|name| {
            !services
                .iter()
                .any(|service| is_service_link(name, service))
        })
        .try_for_each(|name| check_not_meant(name))
}

/// Kubernetes describes a service named `pythia-redis` to every pod in its namespace by such variables; they are nobody's mistake.
fn is_service_link(name: &str, service: &str) -> bool {
    name.strip_prefix(service).is_some_and(|rest| {
        rest.starts_with("_SERVICE_") || rest == "_PORT" || rest.starts_with("_PORT_")
    })
}

/// Kubernetes and Docker's links describe a service named `redis` by `REDIS_PORT=tcp://10.0.0.1:6379`, which is no port,
/// and nobody's mistake either.
fn is_link(variable: &str, text: &str) -> bool {
    variable == "REDIS_PORT" && text.contains("://")
}

/// Refuses a variable without `__` that was meant to be a setting, as `PYTHIA_REDIS_URL` was. Others may well be of use
/// to someone: the name of the project is no preserve of its settings.
fn check_not_meant(name: &str) -> Result<(), ConfigError> {
    let refuse = |meant: &str| {
        Err(ConfigError::new(format!(
            "environment variable {name} names no setting: one is written PYTHIA_SECTION__KEY, with two underscores; \
             did you mean {meant}?"
        )))
    };
    let words = name[PREFIX.len()..].to_lowercase();
    let short_names = ALIASES
        .iter()
        .map(|alias| alias.variable)
        .chain([FILE_VARIABLE])
        .filter(|short| short.starts_with(PREFIX));
    let distance =
        |short: &str| strsim::osa_distance(&short[PREFIX.len()..].to_lowercase(), &words);
    if let Some(meant) = short_names
        .filter(|short| distance(short) <= 2)
        .min_by_key(|short| distance(short))
    {
        return refuse(meant);
    }
    let (word, key) = words.split_once('_').unwrap_or((&words, ""));
    let Some(section) = SECTIONS
        .iter()
        .min_by_key(|section| strsim::osa_distance(section, word))
        .filter(|section| strsim::osa_distance(section, word) <= 1)
    else {
        return Ok(());
    };
    let key = if key.is_empty() { "key" } else { key };
    refuse(&format!("PYTHIA_{section}__{key}").to_uppercase())
}

/// Names the file that [`Config::load`](super::Config::load) reads.
pub(super) const FILE_VARIABLE: &str = "PYTHIA_CONFIG";

const PREFIX: &str = "PYTHIA_";
