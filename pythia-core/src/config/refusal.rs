//! Why a setting was refused: serde's errors, with the key, the place that it was written at, and what was meant.

use std::fmt;

use figment::error::{Actual, Kind};
use serde::de;

use super::masked::is_secret;
use crate::error::ConfigError;

/// A serde error on its way up: what is wrong, the keys that lead there, and where the value was written.
#[derive(Debug)]
pub(super) struct Refusal {
    kind: Kind,
    path: Vec<String>,
    /// As the innermost value knows it.
    place: Option<String>,
}

impl Refusal {
    /// As text, for the setting whose full name `full_path` knows.
    pub(super) fn at(&self, full_path: impl Fn(&[String]) -> Vec<String>) -> ConfigError {
        let path = &full_path(&self.path)[..];
        let name = path.join(".");
        let place = in_brackets(self.place.clone());
        ConfigError::new(match &self.kind {
            Kind::UnknownField(key, known) => {
                let hint = did_you_mean(key, known, |key| sibling(path, key));
                format!("unknown setting \"{name}\"{place}{hint}")
            }
            Kind::UnknownVariant(found, known) => {
                let hint = did_you_mean(found, known, |value| format!("{value:?}"));
                format!("{name}: unknown value {found:?}{place}{hint}")
            }
            Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
                let found = if is_secret(path) {
                    kind_of(found).to_owned()
                } else {
                    shown(found)
                };
                format!("{name}: expected {}, found {found}{place}", plain(expected))
            }
            Kind::InvalidLength(found, expected) => {
                format!("{name}: expected {}, found {found}{place}", plain(expected))
            }
            Kind::MissingField(key) => {
                format!("setting \"{}\" is missing{place}", join(path, key))
            }
            other => format!("{name}: {other}{place}"),
        })
    }

    /// The same, seen from one level further out.
    pub(super) fn inside(mut self, key: &str, place: Option<String>) -> Self {
        self.path.insert(0, key.to_owned());
        self.or_at(place)
    }

    /// The same, at that place if no better one is known.
    pub(super) fn or_at(mut self, place: Option<String>) -> Self {
        self.place = self.place.or(place);
        self
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            path: Vec::new(),
            place: None,
        }
    }
}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Kind::Message(message.to_string()))
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(Kind::InvalidType(found.into(), expected.to_string()))
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(Kind::InvalidValue(found.into(), expected.to_string()))
    }

    fn invalid_length(found: usize, expected: &dyn de::Expected) -> Self {
        Self::new(Kind::InvalidLength(found, expected.to_string()))
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownVariant(found.into(), known))
    }

    fn unknown_field(found: &str, known: &'static [&'static str]) -> Self {
        Self::new(Kind::UnknownField(found.into(), known))
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(Kind::MissingField(key.into()))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at(<[String]>::to_vec).fmt(f)
    }
}

impl std::error::Error for Refusal {}

/// The known name that is nearest to what was written, if it is near enough to have been meant.
fn closest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|known| (strsim::osa_distance(written, known), *known))
        // A third of the letters wrong is a slip of the hand; more is another word.
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// "; did you mean ..?", or the list of what would do.
pub(super) fn did_you_mean(
    written: &str,
    known: &[&str],
    spell: impl Fn(&str) -> String,
) -> String {
    match closest(written, known) {
        Some(meant) => format!("; did you mean {}?", spell(meant)),
        None => format!("; known are {}", known.join(", ")),
    }
}

pub(super) fn in_brackets(place: Option<String>) -> String {
    place.map_or_else(String::new, |place| format!(" ({place})"))
}

/// The name of another key beside this one.
fn sibling(path: &[String], key: &str) -> String {
    let parent = &path[..path.len().saturating_sub(1)];
    format!("\"{}\"", join(parent, key))
}

fn join(path: &[String], key: &str) -> String {
    path.iter()
        .map(String::as_str)
        .chain([key])
        .collect::<Vec<_>>()
        .join(".")
}

/// Serde's names of Rust types, in the words of someone who writes a configuration.
fn plain(expected: &str) -> &str {
    match expected {
        "a boolean" => "true or false",
        "a duration" => "a duration with its unit, not negative, such as \"500ms\" or \"30s\"",
        "a map" => "a table",
        "a sequence" => "a list",
        "f32" | "f64" => "a number",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number from 0",
        "a nonzero u8" => "a whole number from 1 to 255",
        "a nonzero u16" => "a whole number from 1 to 65535",
        "a nonzero u32" => "a whole number from 1 to 4294967295",
        "a nonzero u64" | "a nonzero usize" => "a whole number from 1",
        struct_name if struct_name.starts_with("struct ") => "a table",
        other => other,
    }
}

pub(super) fn shown(found: &Actual) -> String {
    match found {
        Actual::Bool(value) => value.to_string(),
        Actual::Float(value) => value.to_string(),
        Actual::Signed(value) => value.to_string(),
        Actual::Str(value) if value.chars().count() > 60 => {
            format!("{:?}…", value.chars().take(60).collect::<String>())
        }
        Actual::Str(value) => format!("{value:?}"),
        Actual::Unsigned(value) => value.to_string(),
        other => kind_of(other).to_owned(),
    }
}

const fn kind_of(found: &Actual) -> &'static str {
    match found {
        Actual::Bool(_) => "true or false",
        Actual::Map => "a table",
        Actual::Seq => "a list",
        Actual::Float(_) | Actual::Signed(_) | Actual::Unsigned(_) => "a number",
        Actual::Str(_) => "a string",
        _ => "something else",
    }
}
