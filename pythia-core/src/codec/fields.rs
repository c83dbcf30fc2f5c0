//! Serde over the field-value pairs of a stream entry.
//!
//! A value is text or bytes, and what it means is decided by the type that asks for it.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::str::FromStr;

use bytes::Bytes;
use serde::de::value::{BorrowedStrDeserializer, MapAccessDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, MapAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::{Codec, CodecError, Fields};
use crate::message::Payload;

impl<T: DeserializeOwned> Codec<T> for Fields {
    fn decode(&self, payload: &Payload) -> Result<T, CodecError> {
        match payload {
            Payload::Fields(fields) => {
                T::deserialize(Entry(fields)).map_err(|error| CodecError::new("fields", error))
            }
            Payload::Bytes(_) => Err(CodecError::new(
                "fields",
                "the message is one body, not the fields of a stream entry",
            )),
        }
    }
}

/// A stream entry: a struct or a map.
struct Entry<'de>(&'de [(Bytes, Bytes)]);

impl<'de> Deserializer<'de> for Entry<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Pairs::new(self.0))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// An entry of one field: the variant by its name, and what the variant holds by its value.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(MapAccessDeserializer::new(Pairs::new(self.0)))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map struct identifier ignored_any
    }
}

/// Hands out the pairs one after the other.
struct Pairs<'de> {
    rest: std::slice::Iter<'de, (Bytes, Bytes)>,
    /// The pair whose field was handed out last.
    current: Option<&'de (Bytes, Bytes)>,
}

impl<'de> Pairs<'de> {
    fn new(fields: &'de [(Bytes, Bytes)]) -> Self {
        Self {
            rest: fields.iter(),
            current: None,
        }
    }
}

impl<'de> MapAccess<'de> for Pairs<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        self.current = self.rest.next();
        let Some((field, _)) = self.current else {
            return Ok(None);
        };
        let key = seed.deserialize(Value(field));
        key.map(Some).map_err(|error| error.in_name_of(field))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((field, value)) = self.current else {
            return Err(de::Error::custom("a value was asked for before its field"));
        };
        let value = seed.deserialize(Value(value));
        value.map_err(|error| error.in_value_of(field))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// The bytes of a value, or of a field's name, read as the type that asks.
struct Value<'de>(&'de [u8]);

impl<'de> Value<'de> {
    fn text(&self, expected: &dyn Expected) -> Result<&'de str, Error> {
        str::from_utf8(self.0).map_err(|_| self.is_not(expected))
    }

    fn parsed<T: FromStr>(&self, expected: &dyn Expected) -> Result<T, Error> {
        let text = self.text(expected)?;
        text.parse().map_err(|_| self.is_not(expected))
    }

    /// As JSON, which is how plain clients write what has parts.
    fn json<T>(
        &self,
        read: impl FnOnce(
            &mut serde_json::Deserializer<serde_json::de::SliceRead<'de>>,
        ) -> serde_json::Result<T>,
    ) -> Result<T, Error> {
        let mut json = serde_json::Deserializer::from_slice(self.0);
        let value = read(&mut json).and_then(|value| json.end().map(|()| value));
        value.map_err(|error| Error(format!("not the JSON that is expected: {error}")))
    }

    fn is_not(&self, expected: &dyn Expected) -> Error {
        match str::from_utf8(self.0) {
            Ok(text) => {
                de::Error::invalid_value(Unexpected::Str(&shortened(text, SHOWN)), expected)
            }
            Err(_) => {
                let found = format!("{} that are not UTF-8", shown(self.0));
                de::Error::invalid_value(Unexpected::Other(&found), expected)
            }
        }
    }
}

macro_rules! parsed {
    ($($method:ident => $visit:ident),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = self.parsed(&visitor)?;
            visitor.$visit(number)
        }
    )*};
}

macro_rules! json {
    ($($method:ident($($argument:ident: $type:ty),*)),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, Error> {
            self.json(|json| json.$method($($argument,)* visitor))
        }
    )*};
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = Error;

    /// For those who take what comes: it is text, even where it looks like something else.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match str::from_utf8(self.0) {
            Ok(text) => visitor.visit_borrowed_str(text),
            Err(_) => visitor.visit_borrowed_bytes(self.0),
        }
    }

    parsed! {
        deserialize_i8 => visit_i8,
        deserialize_i16 => visit_i16,
        deserialize_i32 => visit_i32,
        deserialize_i64 => visit_i64,
        deserialize_i128 => visit_i128,
        deserialize_u8 => visit_u8,
        deserialize_u16 => visit_u16,
        deserialize_u32 => visit_u32,
        deserialize_u64 => visit_u64,
        deserialize_u128 => visit_u128,
        deserialize_f32 => visit_f32,
        deserialize_f64 => visit_f64,
        deserialize_char => visit_char,
    }

    json! {
        deserialize_seq(),
        deserialize_tuple(len: usize),
        deserialize_tuple_struct(name: &'static str, len: usize),
        deserialize_map(),
        deserialize_struct(name: &'static str, fields: &'static [&'static str]),
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            b"1" => visitor.visit_bool(true),
            b"0" => visitor.visit_bool(false),
            text if text.eq_ignore_ascii_case(b"true") => visitor.visit_bool(true),
            text if text.eq_ignore_ascii_case(b"false") => visitor.visit_bool(false),
            _ => Err(self.is_not(&visitor)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let text = self.text(&visitor)?;
        visitor.visit_borrowed_str(text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_bytes(self.0)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_bytes(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_empty() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_empty() {
            visitor.visit_unit()
        } else {
            Err(self.is_not(&visitor))
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// The name of a variant that holds nothing, or JSON such as `{"Moved": {"x": 1}}`.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.0.starts_with(b"{") {
            return self.json(|json| json.deserialize_enum(name, variants, visitor));
        }
        let text = self.text(&visitor)?;
        visitor.visit_enum(BorrowedStrDeserializer::new(text))
    }

    /// The name of a field. One that is not UTF-8 is as unknown as any other name that nobody asked for.
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

/// What is wrong, and in which field.
#[derive(Debug)]
struct Error(String);

impl Error {
    fn in_value_of(self, field: &[u8]) -> Self {
        Self(format!("field {}: {}", shown(field), self.0))
    }

    fn in_name_of(self, field: &[u8]) -> Self {
        Self(format!("the name of field {}: {}", shown(field), self.0))
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    /// What serde and the types of the worker have to say may repeat a value of any length.
    fn custom<T: Display>(message: T) -> Self {
        Self(shortened(&message.to_string(), MESSAGE).into_owned())
    }
}

/// The beginning of a text of any length.
fn shortened(text: &str, chars: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()).into(),
        None => text.into(),
    }
}

/// The beginning of any bytes, as text with escapes.
fn shown(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => format!("{:?}", shortened(text, SHOWN)),
        Err(_) if bytes.len() > SHOWN => {
            format!(
                "\"{}…\" ({} bytes)",
                bytes[..SHOWN].escape_ascii(),
                bytes.len()
            )
        }
        Err(_) => format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// How many characters of a value an error shows: enough to recognize it, too few to leak a document into a log.
const SHOWN: usize = 60;
/// How many characters of an error are kept.
const MESSAGE: usize = 300;

#[cfg(test)]
mod tests;
