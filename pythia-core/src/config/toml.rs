//! Settings in a TOML text.
//!
//! figment has a provider for it, which won't do: its errors quote a broken line, password included.

use std::collections::BTreeSet;
use std::path::Path;

use figment::value::{Dict, Value};
use toml_edit::{ImDocument, Item, TableLike};

use super::leaf::{Leaf, route_key};

use super::source::Source;
use crate::error::ConfigError;

/// The settings of a TOML text. `file` is where it was read, if it was.
pub(super) fn read(text: &str, file: Option<&Path>) -> Result<Vec<Leaf>, ConfigError> {
    let document = ImDocument::parse(text).map_err(|error| {
        // Not the error's own text: it quotes the line, which may hold a password.
        let line = error.span().map_or(1, |span| line_at(text, span.start));
        ConfigError::new(format!(
            "{} is not TOML: {}",
            Source::line(line, file),
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
                    Source::line(line, self.file),
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
                source: Source::line(line, self.file),
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

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset.min(text.len())]
        .iter()
        .filter(|&&byte| byte == b'\n')
        .count()
}
