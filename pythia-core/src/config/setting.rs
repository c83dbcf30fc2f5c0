//! Reads a setting as the type that asks for it.
//!
//! The file's values have types of their own, and must be of the one that is asked for. An environment variable is
//! text: it is parsed by what is asked for, so that `00123` is a number where a number is wanted, and keeps its zeros
//! where it is a password.

use std::collections::{BTreeSet, btree_map};
use std::iter::Enumerate;

use figment::value::{Dict, Num, Value};
use figment::{Figment, Metadata};
use serde::de::value::{BorrowedStrDeserializer, MapAccessDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;

use super::leaf::is_text;
use super::refusal::Refusal;

macro_rules! parse_numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            self.number(visitor)
        }
    )*};
}

/// A value and the layers it came from.
#[derive(Clone, Copy)]
pub(super) struct Setting<'de> {
    layers: &'de Figment,
    content: Content<'de>,
}

#[derive(Clone, Copy)]
enum Content<'de> {
    /// The text of an environment variable or of a preset, or of one element of its list.
    Text(&'de str),
    Value(&'de Value),
}

impl<'de> Setting<'de> {
    pub(super) fn new(layers: &'de Figment, value: &'de Value) -> Self {
        let content = match value {
            Value::String(tag, text) if layers.get_metadata(*tag).is_some_and(is_text) => {
                Content::Text(text)
            }
            value => Content::Value(value),
        };
        Self { layers, content }
    }

    fn number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let Content::Text(text) = self.content else {
            return self.deserialize_any(visitor);
        };
        let number = text.trim();
        if let Ok(number) = number.parse() {
            visitor.visit_u64(number)
        } else if let Ok(number) = number.parse() {
            visitor.visit_i64(number)
        } else if let Ok(number) = number.parse() {
            visitor.visit_f64(number)
        } else {
            Err(Refusal::invalid_type(Unexpected::Str(text), &visitor))
        }
    }

    fn list<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let Content::Text(text) = self.content else {
            return self.deserialize_any(visitor);
        };
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        visitor.visit_seq(Items::new(self.layers, items.map(Content::Text)))
    }
}

impl<'de> Deserializer<'de> for Setting<'de> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let value = match self.content {
            Content::Text(text) => return visitor.visit_borrowed_str(text),
            Content::Value(value) => value,
        };
        match value {
            Value::Array(_, items) => {
                visitor.visit_seq(Items::new(self.layers, items.iter().map(Content::Value)))
            }
            Value::Bool(_, value) => visitor.visit_bool(*value),
            Value::Char(_, value) => visitor.visit_char(*value),
            Value::Dict(_, entries) => visitor.visit_map(Entries::new(self.layers, entries)),
            Value::Empty(..) => visitor.visit_unit(),
            Value::Num(_, number) => visit_number(*number, visitor),
            Value::String(_, text) => visitor.visit_borrowed_str(text),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let Content::Text(text) = self.content else {
            return self.deserialize_any(visitor);
        };
        match text.trim().to_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => visitor.visit_bool(true),
            "false" | "0" | "no" | "off" => visitor.visit_bool(false),
            _ => Err(Refusal::invalid_type(Unexpected::Str(text), &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        // TOML has no null, and `${PASSWORD:-}` in a compose file comes to an empty text as well.
        let is_empty = match self.content {
            Content::Text(text) => text.is_empty(),
            Content::Value(value) => value.as_str() == Some(""),
        };
        if is_empty {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match self.content {
            Content::Text(text) => visitor.visit_enum(text.trim().into_deserializer()),
            Content::Value(Value::String(_, text)) => {
                visitor.visit_enum(text.as_str().into_deserializer())
            }
            Content::Value(Value::Dict(_, entries)) => visitor.visit_enum(
                MapAccessDeserializer::new(Entries::new(self.layers, entries)),
            ),
            Content::Value(_) => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.list(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.list(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.list(visitor)
    }

    parse_numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
        deserialize_f32 deserialize_f64
    }

    forward_to_deserialize_any! {
        bytes byte_buf char identifier ignored_any map str string struct unit unit_struct
    }
}

/// The entries of a table, each error marked with its key and its place.
struct Entries<'de> {
    layers: &'de Figment,
    entries: btree_map::Iter<'de, String, Value>,
    current: Option<(&'de str, &'de Value)>,
}

impl<'de> Entries<'de> {
    fn new(layers: &'de Figment, entries: &'de Dict) -> Self {
        Self {
            layers,
            entries: entries.iter(),
            current: None,
        }
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refusal> {
        let Some((key, value)) = self.entries.next() else {
            return Ok(None);
        };
        self.current = Some((key, value));
        seed.deserialize(BorrowedStrDeserializer::new(key))
            .map(Some)
            .map_err(|refusal: Refusal| refusal.inside(key, place(self.layers, value)))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let Some((key, value)) = self.current.take() else {
            return Err(Refusal::custom("a value was asked for before its key"));
        };
        seed.deserialize(Setting::new(self.layers, value))
            .map_err(|refusal| refusal.inside(key, place(self.layers, value)))
    }
}

/// The elements of a list.
struct Items<'de, I> {
    layers: &'de Figment,
    items: Enumerate<I>,
}

impl<'de, I: Iterator<Item = Content<'de>>> Items<'de, I> {
    fn new(layers: &'de Figment, items: I) -> Self {
        Self {
            layers,
            items: items.enumerate(),
        }
    }
}

impl<'de, I: Iterator<Item = Content<'de>>> SeqAccess<'de> for Items<'de, I> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refusal> {
        let Some((index, content)) = self.items.next() else {
            return Ok(None);
        };
        let setting = Setting {
            layers: self.layers,
            content,
        };
        seed.deserialize(setting)
            .map(Some)
            .map_err(|refusal| refusal.inside(&index.to_string(), None))
    }
}

fn visit_number<'de, V: Visitor<'de>>(number: Num, visitor: V) -> Result<V::Value, Refusal> {
    if let Some(number) = number
        .to_u128()
        .and_then(|number| u64::try_from(number).ok())
    {
        visitor.visit_u64(number)
    } else if let Some(number) = number
        .to_i128()
        .and_then(|number| i64::try_from(number).ok())
    {
        visitor.visit_i64(number)
    } else {
        visitor.visit_f64(number.to_f64().unwrap_or(f64::NAN))
    }
}

/// Where a value was written; for a table also the variables that reach into it, since a complaint about the whole may
/// be about any of them.
pub(super) fn place(layers: &Figment, value: &Value) -> Option<String> {
    let mut texts = BTreeSet::new();
    collect_texts(layers, value, &mut texts);
    let own = layers.get_metadata(value.tag()).map(name);
    let places: BTreeSet<String> = own.into_iter().chain(texts).collect();
    (!places.is_empty()).then(|| places.into_iter().collect::<Vec<_>>().join(", "))
}

fn collect_texts(layers: &Figment, value: &Value, into: &mut BTreeSet<String>) {
    let place: Option<&Metadata> = layers.get_metadata(value.tag());
    into.extend(place.filter(|place| is_text(place)).map(name));
    for inner in value.as_dict().into_iter().flat_map(Dict::values) {
        collect_texts(layers, inner, into);
    }
}

fn name(place: &Metadata) -> String {
    place.name.clone().into_owned()
}
