//! Where settings are written: a TOML text, and environment variables.
//!
//! figment has providers for both, which won't do: its errors quote a broken line of TOML, password included, and it
//! parses a variable by its looks, before anyone has said that the password 00123 is a text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider, Source};
use toml_edit::{ImDocument, Item, TableLike};

use super::SECTIONS;
use crate::error::ConfigError;

/// One setting and the place it was written at. Each is a provider of its own, so that figment, which remembers the
/// provider of every value through all merging, can tell the line or the variable that a value came from.
#[derive(Debug)]
pub(super) struct Leaf {
    path: Vec<String>,
    value: Value,
    place: Metadata,
}

impl Provider for Leaf {
    fn metadata(&self) -> Metadata {
        self.place.clone()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let tree = self
            .path
            .iter()
            .rev()
            .fold(self.value.clone(), |inner, key| {
                Value::from(Dict::from([(key.clone(), inner)]))
            });
        Ok(Profile::Default.collect(tree.into_dict().unwrap_or_default()))
    }
}

/// The settings of a TOML text. `file` is where it was read, if it was.
pub(super) fn toml(text: &str, file: Option<&Path>) -> Result<Vec<Leaf>, ConfigError> {
    let document = ImDocument::parse(text).map_err(|error| {
        // Not the error's own text: it quotes the line, which may hold a password.
        let line = error.span().map_or(1, |span| line_at(text, span.start));
        ConfigError::new(format!(
            "{} is not TOML: {}",
            place_name(file, line),
            error.message().trim().replace('\n', ", ")
        ))
    })?;
    let mut walk = Walk {
        text,
        file,
        path: Vec::new(),
        leaves: Vec::new(),
    };
    walk.table(document.as_table())?;
    Ok(walk.leaves)
}

struct Walk<'a> {
    text: &'a str,
    file: Option<&'a Path>,
    path: Vec<String>,
    leaves: Vec<Leaf>,
}

impl Walk<'_> {
    fn table(&mut self, table: &dyn TableLike) -> Result<(), ConfigError> {
        let mut seen = BTreeSet::new();
        for (key, item) in table.iter() {
            let line = table
                .key(key)
                .and_then(toml_edit::Key::span)
                .map_or(1, |span| line_at(self.text, span.start));
            let is_route = self.path == ["routes"];
            let name = if is_route { route_key(key) } else { key.into() };
            if !seen.insert(name.clone()) {
                return Err(ConfigError::new(format!(
                    "route {key:?} ({}) has the same name in environment variables as another route, {}",
                    place_name(self.file, line),
                    name.to_uppercase(),
                )));
            }
            self.path.push(name);
            // A table is a leaf as well, an empty one: that is how `[redis.stream]` alone says something, and how the
            // table knows the line of its own header.
            let value = match item.as_table_like() {
                Some(inner) => {
                    self.table(inner)?;
                    Value::from(Dict::new())
                }
                None => value(item),
            };
            self.leaves.push(Leaf {
                path: self.path.clone(),
                value,
                place: place(self.file, line),
            });
            self.path.pop();
        }
        Ok(())
    }
}

fn value(item: &Item) -> Value {
    match item {
        Item::ArrayOfTables(tables) => {
            let tables: Vec<Value> = tables.iter().map(|inner| table(inner)).collect();
            tables.into()
        }
        Item::None => Dict::new().into(),
        Item::Table(inner) => table(inner),
        Item::Value(value) => scalar(value),
    }
}

fn table(table: &dyn TableLike) -> Value {
    let entries = table
        .iter()
        .map(|(key, item)| (key.to_owned(), value(item)));
    entries.collect::<Dict>().into()
}

fn scalar(value: &toml_edit::Value) -> Value {
    use toml_edit::Value as Toml;
    match value {
        Toml::Array(items) => items.iter().map(scalar).collect::<Vec<_>>().into(),
        Toml::Boolean(boolean) => (*boolean.value()).into(),
        // No setting is a date; one that takes a point in time reads its text.
        Toml::Datetime(date) => date.value().to_string().into(),
        Toml::Float(number) => (*number.value()).into(),
        Toml::InlineTable(inner) => table(inner),
        Toml::Integer(number) => (*number.value()).into(),
        Toml::String(text) => text.value().clone().into(),
    }
}

/// The settings among environment variables: `PYTHIA_SECTION__KEY`, one more `__` for each further level. Values are
/// kept as the text that they are; what is read from it depends on the setting's type.
pub(super) fn environment(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<Leaf>, ConfigError> {
    let variables: BTreeMap<String, String> = variables
        .into_iter()
        .filter(|(name, _)| is_ours(name))
        .collect();
    let services: Vec<&str> = variables
        .keys()
        .filter_map(|name| name.strip_suffix("_SERVICE_HOST"))
        .collect();
    let mut settings = BTreeMap::<Vec<String>, &str>::new();
    let mut leaves = Vec::new();
    for (name, text) in &variables {
        let setting = &name[PREFIX.len()..];
        if !setting.contains("__") {
            if !services
                .iter()
                .any(|service| is_service_link(name, service))
            {
                check_not_meant(name)?;
            }
            continue;
        }
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
            place: Metadata::from(name.clone(), ENVIRONMENT),
        });
    }
    Ok(leaves)
}

/// Whether a variable has to be a setting.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX) && name != FILE_VARIABLE
}

/// How a route is named among settings. A variable's name holds capital letters, digits and underscores only, so the
/// route `eu:orders` is `EU_ORDERS` there; file and code follow, so that all three mean the same route.
pub(super) fn route_key(name: &str) -> String {
    let words: Vec<String> = name
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    match words[..] {
        [] => name.to_owned(),
        _ => words.join("_"),
    }
}

/// Kubernetes describes a service named `pythia-redis` to every pod in its namespace by such variables; they are nobody's mistake.
fn is_service_link(name: &str, service: &str) -> bool {
    name.strip_prefix(service).is_some_and(|rest| {
        rest.starts_with("_SERVICE_") || rest == "_PORT" || rest.starts_with("_PORT_")
    })
}

/// Refuses a variable without `__` that was meant to be a setting, as `PYTHIA_REDIS_URL` was. Others may well be of use
/// to someone: the name of the project is no preserve of its settings.
fn check_not_meant(name: &str) -> Result<(), ConfigError> {
    let words = name[PREFIX.len()..].to_lowercase();
    let (word, key) = words.split_once('_').unwrap_or((&words, ""));
    let Some(section) = SECTIONS
        .iter()
        .min_by_key(|section| strsim::osa_distance(section, word))
        .filter(|section| strsim::osa_distance(section, word) <= 1)
    else {
        return Ok(());
    };
    let key = if key.is_empty() { "key" } else { key };
    let meant = format!("PYTHIA_{section}__{key}").to_uppercase();
    Err(ConfigError::new(format!(
        "environment variable {name} names no setting: one is written PYTHIA_SECTION__KEY, with two underscores; did \
         you mean {meant}?"
    )))
}

/// Says where a value was written.
pub(super) fn describe(place: &Metadata) -> String {
    match &place.source {
        Some(Source::Custom(kind)) if kind == ENVIRONMENT => {
            format!("environment variable {}", place.name)
        }
        Some(Source::File(file)) => format!("{} {}", file.display(), place.name),
        _ => place.name.clone().into_owned(),
    }
}

/// Whether a value was written in an environment variable, so that it is text and nothing more yet.
pub(super) fn is_environment(place: &Metadata) -> bool {
    matches!(&place.source, Some(Source::Custom(kind)) if kind == ENVIRONMENT)
}

fn place(file: Option<&Path>, line: usize) -> Metadata {
    let line = format!("line {line}");
    match file {
        Some(file) => Metadata::from(line, file),
        None => Metadata::named(line),
    }
}

fn place_name(file: Option<&Path>, line: usize) -> String {
    describe(&place(file, line))
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())]
        .iter()
        .filter(|&&byte| byte == b'\n')
        .count()
}

/// Names the file that [`Config::load`](super::Config::load) reads.
pub(super) const FILE_VARIABLE: &str = "PYTHIA_CONFIG";

const PREFIX: &str = "PYTHIA_";
const ENVIRONMENT: &str = "environment";
