//! One setting and where it was written.

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider, Source as Kind};

use super::source::Source;

/// One setting and the place it was written at. Each is a provider of its own, so that figment, which remembers the
/// provider of every value through all merging, can tell the line or the variable that a value came from.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) path: Vec<String>,
    pub(super) value: Value,
    pub(super) source: Source,
}

impl Provider for Leaf {
    fn metadata(&self) -> Metadata {
        let name = self.source.to_string();
        if self.source.layer().is_text() {
            Metadata::from(name, Kind::Custom(TEXT.into()))
        } else {
            Metadata::named(name)
        }
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

/// Whether a value is a text that has yet to be parsed as the type of its setting.
pub(super) fn is_text(place: &Metadata) -> bool {
    matches!(&place.source, Some(Kind::Custom(kind)) if kind == TEXT)
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

const TEXT: &str = "text";
