//! Every setting with its value and its source, for whoever wonders why a program does what it does.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::broker::BrokerConfig;
use super::masked::{is_secret, without_password};
use super::source::Source;
use super::{Config, PRESET, ROUTE_TABLES};
use crate::error::ConfigError;
use crate::memory::MemoryConfig;
use crate::runtime::{RouteConfig, RunnerConfig};

/// Every setting with its value and its source, defaults included: what [`Config::explain`] answers.
///
/// Its text is TOML with the sources as comments, except that secrets are `***` in it. A program can print it at its start,
/// or for an argument such as `--explain`.
#[derive(Clone, Debug)]
pub struct Explanation {
    config: Config,
    settings: Vec<ExplainedSetting>,
}

/// A setting in an [`Explanation`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExplainedSetting {
    /// Its name, such as `retry.max_attempts`.
    pub name: String,
    /// Its value, as TOML. A secret is `"***"`, and a URL has `***` in place of its password.
    pub value: String,
    /// Where the value comes from; `None`: it is the default.
    pub source: Option<Source>,
}

impl Config {
    /// What each setting of this crate's sections is, and where it comes from. [`Explanation::section`] adds those of
    /// other crates.
    ///
    /// ```
    /// use pythia_core::Config;
    ///
    /// let config = Config::from_sources(
    ///     Some("[worker]\nlanes = 4\n[routes.mails]\nbatch = 1"),
    ///     [("PYTHIA_PRESET", "throughput")],
    /// )?;
    /// let explanation = config.explain()?.to_string();
    /// let lines: Vec<String> = explanation
    ///     .lines()
    ///     .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
    ///     .collect();
    /// for expected in [
    ///     r#"preset = "throughput" # environment variable PYTHIA_PRESET"#,
    ///     r#"worker.batch = 500 # preset "throughput""#,
    ///     r#"worker.lanes = 4 # line 2"#,
    ///     r#"routes.mails.batch = 1 # line 4"#,
    ///     r#"retry.max_attempts = 5 # default"#,
    /// ] {
    ///     assert!(lines.iter().any(|line| line == expected), "{explanation}");
    /// }
    /// # Ok::<(), pythia_core::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// If one of these sections has a setting that is unknown or of the wrong type.
    pub fn explain(&self) -> Result<Explanation, ConfigError> {
        let preset = json(PRESET, &self.preset()?)?;
        let route: RouteConfig = self.route("")?;
        let mut explanation = Explanation {
            config: self.clone(),
            settings: Vec::new(),
        };
        explanation.add(&[PRESET], preset);
        explanation = explanation
            .section::<BrokerConfig>("broker")?
            .section::<RunnerConfig>("runner")?;
        explanation.route(&route)?;
        for name in self.routes() {
            explanation.own_of_route(&name, &self.route(&name)?)?;
        }
        explanation.section::<MemoryConfig>("memory")
    }
}

impl Explanation {
    /// Adds a section of another crate, as in `.section::<MetricsConfig>("metrics")?`.
    ///
    /// # Errors
    /// As [`Config::section`], or if the section can't be written.
    pub fn section<T: DeserializeOwned + Serialize>(
        mut self,
        name: &str,
    ) -> Result<Self, ConfigError> {
        let section: T = self.config.section(name)?;
        let path: Vec<&str> = name.split('.').collect();
        self.add(&path, json(name, &section)?);
        Ok(self)
    }

    /// The settings, section by section.
    pub fn settings(&self) -> &[ExplainedSetting] {
        &self.settings
    }

    /// What all routes have: `[worker]`, and the sections that are tables of a route.
    fn route(&mut self, route: &RouteConfig) -> Result<(), ConfigError> {
        let Value::Object(mut worker) = json("worker", route)? else {
            return Ok(());
        };
        // A queue is nothing that all routes could have.
        worker.remove("queue");
        let tables = ROUTE_TABLES.map(|table| (table, worker.remove(table)));
        self.add(&["worker"], worker.into());
        for (table, settings) in tables {
            self.add(&[table], settings.unwrap_or_default());
        }
        Ok(())
    }

    /// What one route has of its own: all else is as in [`route`](Self::route).
    fn own_of_route(&mut self, name: &str, route: &RouteConfig) -> Result<(), ConfigError> {
        let others = self.settings.len();
        self.add(&["routes", name], json(name, route)?);
        let mut of_route = self.settings.split_off(others);
        of_route.retain(|setting| setting.source.is_some());
        self.settings.append(&mut of_route);
        Ok(())
    }

    fn add(&mut self, path: &[&str], value: Value) {
        if let Value::Object(entries) = value {
            // By name: in which order serde_json has them, other crates of the program decide.
            for (key, value) in entries.into_iter().collect::<BTreeMap<_, _>>() {
                self.add(&[path, &[key.as_str()]].concat(), value);
            }
            return;
        }
        let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        self.settings.push(ExplainedSetting {
            name: path
                .iter()
                .map(|key| toml_key(key))
                .collect::<Vec<_>>()
                .join("."),
            value: toml_value(&path, &value),
            source: self.config.source_at(&path),
        });
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.settings.iter().map(|setting| {
            let assignment = format!("{} = {}", setting.name, setting.value);
            (assignment, setting)
        });
        let lines: Vec<_> = lines.collect();
        let widths = lines
            .iter()
            .map(|(assignment, _)| assignment.chars().count());
        // A list of buckets is longer than any screen is wide; it moves nobody else's comment.
        let width = widths.filter(|width| *width <= 60).max().unwrap_or(0);
        let mut section = None;
        for (assignment, setting) in &lines {
            let of_line = setting.name.split('.').next();
            if section.is_some_and(|section| Some(section) != of_line) {
                writeln!(f)?;
            }
            section = of_line;
            write!(f, "{assignment:width$}  # ")?;
            match &setting.source {
                Some(source) => writeln!(f, "{source}")?,
                None => writeln!(f, "default")?,
            }
        }
        Ok(())
    }
}

fn json(section: &str, value: &impl Serialize) -> Result<Value, ConfigError> {
    serde_json::to_value(value).map_err(|error| {
        ConfigError::new(format!(
            "the settings of [{section}] can't be shown: {error}"
        ))
    })
}

fn toml_key(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !key.is_empty() && key.chars().all(is_bare) {
        key.to_owned()
    } else {
        Value::from(key).to_string()
    }
}

/// JSON is TOML here: there are no objects in it, and TOML's strings know JSON's escapes.
fn toml_value(path: &[String], value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| toml_value(path, item)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Null => "\"\"".to_owned(),
        Value::String(text) if is_secret(path) && !text.is_empty() => {
            let is_url = path.last().is_some_and(|key| key.contains("url"));
            let shown = if is_url {
                without_password(text)
            } else {
                "***".to_owned()
            };
            Value::from(shown).to_string()
        }
        value if is_secret(path) && !value.is_string() => "\"***\"".to_owned(),
        value => value.to_string(),
    }
}
