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
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    fn entry(fields: &[(&[u8], &[u8])]) -> Payload {
        let pairs = fields.iter();
        let copied = pairs
            .map(|(field, value)| (Bytes::copy_from_slice(field), Bytes::copy_from_slice(value)));
        Payload::Fields(copied.collect())
    }

    fn read<T: DeserializeOwned>(fields: &[(&str, &str)]) -> Result<T, String> {
        let pairs = fields.iter();
        let bytes: Vec<_> = pairs
            .map(|(field, value)| (field.as_bytes(), value.as_bytes()))
            .collect();
        Fields
            .decode(&entry(&bytes))
            .map_err(|error| error.to_string())
    }

    /// The message of the error, without its common beginning.
    #[track_caller]
    fn refused<T: DeserializeOwned + fmt::Debug>(fields: &[(&str, &str)]) -> String {
        let error = read::<T>(fields).unwrap_err();
        let problem = error.strip_prefix("not the fields that the worker expects: ");
        problem.expect("the common beginning").to_owned()
    }

    #[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Bot,
        Human,
        Moved { to: u32 },
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct UserId(u64);

    #[derive(Debug, PartialEq, Deserialize)]
    struct Place {
        x: f64,
        y: f64,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Visit {
        user_id: UserId,
        page: String,
        body: Bytes,
        kind: Kind,
        vip: bool,
        grade: char,
        score: f32,
        big: i128,
        referrer: Option<String>,
        campaign: Option<u32>,
        #[serde(default)]
        retries: u8,
        tags: Vec<String>,
        place: Place,
        counts: BTreeMap<String, u64>,
        pair: (u8, i8),
        nothing: (),
    }

    #[test]
    fn every_type_is_read_from_its_text() {
        let visit: Visit = read(&[
            ("user_id", "123"),
            ("page", "/home"),
            ("body", "{not json"),
            ("kind", "bot"),
            ("vip", "True"),
            ("grade", "ä"),
            ("score", "-1.5e3"),
            ("big", "-170141183460469231731687303715884105728"),
            ("campaign", ""),
            ("tags", r#"["a", "b"]"#),
            ("place", r#"{"x": 1, "y": 2.5}"#),
            ("counts", r#"{"a": 1}"#),
            ("pair", "[1, -1]"),
            ("nothing", ""),
            ("nobody asked", "for this"),
        ])
        .unwrap();
        let expected = Visit {
            user_id: UserId(123),
            page: "/home".into(),
            body: "{not json".into(),
            kind: Kind::Bot,
            vip: true,
            grade: 'ä',
            score: -1_500.0,
            big: i128::MIN,
            referrer: None,
            campaign: None,
            retries: 0,
            tags: vec!["a".into(), "b".into()],
            place: Place { x: 1.0, y: 2.5 },
            counts: [("a".into(), 1)].into(),
            pair: (1, -1),
            nothing: (),
        };
        assert_eq!(visit, expected);
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct One<T> {
        it: T,
    }

    fn one<T: DeserializeOwned>(text: &str) -> Result<T, String> {
        read::<One<T>>(&[("it", text)]).map(|one| one.it)
    }

    proptest! {
        #[test]
        fn what_is_written_as_text_is_read(
            int: i64, wide: u128, float: f64, bit: bool, letter: char, text: String, opt: Option<u16>, list: Vec<String>,
        ) {
            prop_assert_eq!(one::<i64>(&int.to_string()).unwrap(), int);
            prop_assert_eq!(one::<u128>(&wide.to_string()).unwrap(), wide);
            prop_assert_eq!(one::<f64>(&float.to_string()).unwrap().to_bits(), float.to_bits());
            prop_assert_eq!(one::<bool>(&bit.to_string()).unwrap(), bit);
            prop_assert_eq!(one::<char>(&letter.to_string()).unwrap(), letter);
            prop_assert_eq!(one::<String>(&text).unwrap(), &*text);
            let written = opt.map(|number| number.to_string()).unwrap_or_default();
            prop_assert_eq!(one::<Option<u16>>(&written).unwrap(), opt);
            prop_assert_eq!(one::<Vec<String>>(&serde_json::to_string(&list).unwrap()).unwrap(), list);
            prop_assert_eq!(read::<BTreeMap<String, i64>>(&[(&text, &int.to_string())]).unwrap(), [(text, int)].into());
        }

        #[test]
        fn any_fields_are_read_or_refused_without_panic(
            pairs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..16), 0..6),
        ) {
            let named: Vec<_> = ["user_id", "page", "kind", "it"]
                .iter()
                .zip(&pairs)
                .map(|(field, value)| (field.as_bytes(), &value[..]))
                .collect();
            let random: Vec<_> = pairs.windows(2).map(|pair| (&pair[0][..], &pair[1][..])).collect();
            for fields in [entry(&named), entry(&random)] {
                drop(Codec::<Visit>::decode(&Fields, &fields));
                drop(Codec::<One<Kind>>::decode(&Fields, &fields));
                drop(Codec::<BTreeMap<String, serde_json::Value>>::decode(&Fields, &fields));
            }
        }
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_field_and_its_text() {
        let it = |error: &str| format!("field \"it\": {error}");
        for (error, expected) in [
            (
                one::<u64>("12x").unwrap_err(),
                "invalid value: string \"12x\", expected u64",
            ),
            (
                one::<u8>("256").unwrap_err(),
                "invalid value: string \"256\", expected u8",
            ),
            (
                one::<u64>("").unwrap_err(),
                "invalid value: string \"\", expected u64",
            ),
            (
                one::<i32>(" 1").unwrap_err(),
                "invalid value: string \" 1\", expected i32",
            ),
            (
                one::<bool>("yes").unwrap_err(),
                "invalid value: string \"yes\", expected a boolean",
            ),
            (
                one::<char>("ab").unwrap_err(),
                "invalid value: string \"ab\", expected a character",
            ),
            (
                one::<()>("ab").unwrap_err(),
                "invalid value: string \"ab\", expected unit",
            ),
            (
                one::<Kind>("cat").map(drop).unwrap_err(),
                "unknown variant `cat`, expected one of `bot`, `human`, `moved`",
            ),
            (
                one::<Vec<u8>>("[1,").unwrap_err(),
                "not the JSON that is expected: EOF while parsing a value at line 1 column 3",
            ),
            (
                one::<Vec<u8>>("[1] 2").unwrap_err(),
                "not the JSON that is expected: trailing characters at line 1 column 5",
            ),
            (
                one::<Place>("1,2").map(drop).unwrap_err(),
                "not the JSON that is expected: invalid type: integer `1`, expected struct Place at line 1 column 1",
            ),
        ] {
            assert!(error.ends_with(&it(expected)), "{error}");
        }
    }

    #[test]
    fn long_values_are_not_repeated_in_full() {
        let long = "ä".repeat(1_000_000);
        let error = refused::<One<u64>>(&[("it", &long)]);
        assert!(
            error.contains("… (2000000 bytes)\", expected u64") && error.len() < 250,
            "{error}"
        );
        let error = refused::<One<Kind>>(&[("it", &long)]);
        assert!(
            error.starts_with("field \"it\": unknown variant") && error.len() < 800,
            "{error}"
        );
        let error = refused::<BTreeMap<u8, u8>>(&[(&long, "1")]);
        assert!(
            error.starts_with("the name of field \"ää") && error.len() < 500,
            "{error}"
        );
    }

    #[test]
    fn what_is_not_utf_8_is_refused_as_text_and_taken_as_bytes() {
        let fields = entry(&[(b"it", b"a\xff\"")]);
        let error = Codec::<One<String>>::decode(&Fields, &fields).unwrap_err();
        let expected =
            r#"field "it": invalid value: "a\xff\"" that are not UTF-8, expected a string"#;
        assert!(error.to_string().ends_with(expected), "{error}");
        let one: One<Bytes> = Fields.decode(&fields).unwrap();
        assert_eq!(one.it, &b"a\xff\""[..]);
        let long = [0xff; 1_000];
        let error = Codec::<One<u64>>::decode(&Fields, &entry(&[(b"it", &long)])).unwrap_err();
        assert!(error.to_string().len() < 400, "{error}");
    }

    #[test]
    fn a_field_whose_name_is_not_utf_8_is_like_any_other_that_nobody_asked_for() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Strict {}

        let fields = entry(&[(b"it", b"1"), (b"\xff", b"2")]);
        let one: One<u8> = Fields.decode(&fields).unwrap();
        assert_eq!(one.it, 1);
        assert!(Codec::<Strict>::decode(&Fields, &fields).is_err());
        let error = Codec::<BTreeMap<String, u8>>::decode(&Fields, &fields).unwrap_err();
        let expected = r#"the name of field "\xff": invalid value: "\xff" that are not UTF-8, expected a string"#;
        assert!(error.to_string().ends_with(expected), "{error}");
    }

    #[test]
    fn unknown_fields_are_ignored_unless_they_are_denied() {
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Strict {
            it: u8,
        }

        assert_eq!(read(&[("it", "1"), ("more", "2")]), Ok(One { it: 1u8 }));
        assert_eq!(read(&[("it", "1")]), Ok(Strict { it: 1 }));
        assert_eq!(
            refused::<Strict>(&[("it", "1"), ("more", "2")]),
            "the name of field \"more\": unknown field `more`, expected `it`"
        );
    }

    #[test]
    fn a_field_that_occurs_twice_is_an_error_in_a_struct_and_the_last_one_wins_in_a_map() {
        let twice = [("it", "1"), ("it", "2")];
        assert_eq!(refused::<One<u8>>(&twice), "duplicate field `it`");
        assert_eq!(read(&twice), Ok(BTreeMap::from([("it".to_owned(), 2)])));
    }

    #[test]
    fn an_entry_without_fields_has_what_is_optional() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Optional {
            it: Option<u8>,
        }

        assert_eq!(read(&[]), Ok(Optional { it: None }));
        assert_eq!(refused::<One<u8>>(&[]), "missing field `it`");
    }

    #[test]
    fn an_enum_is_its_variant_by_name() {
        #[derive(Debug, PartialEq, Deserialize)]
        enum Event {
            Created { id: u64 },
            Removed(u64),
        }

        assert_eq!(
            read(&[("Created", r#"{"id": 7}"#)]),
            Ok(Event::Created { id: 7 })
        );
        assert_eq!(read(&[("Removed", "7")]), Ok(Event::Removed(7)));
        assert!(refused::<Event>(&[("Moved", "7")]).contains("unknown variant `Moved`"));
        refused::<Event>(&[]);
        assert_eq!(
            one::<Kind>(r#"{"moved": {"to": 7}}"#),
            Ok(Kind::Moved { to: 7 })
        );
    }

    #[test]
    fn wrappers_are_seen_through() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Wrapped(One<u8>);

        assert_eq!(read(&[("it", "1")]), Ok(Some(Wrapped(One { it: 1 }))));
    }

    #[test]
    fn what_takes_anything_is_given_text() {
        let value: serde_json::Value = read(&[("it", "1")]).unwrap();
        assert_eq!(value, serde_json::json!({"it": "1"}));
    }

    #[test]
    fn what_is_no_struct_or_map_is_refused() {
        assert_eq!(
            refused::<u64>(&[("it", "1")]),
            "invalid type: map, expected u64"
        );
        let error = Codec::<One<u8>>::decode(&Fields, &Payload::from("{}")).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("one body, not the fields of a stream entry")
        );
    }
}
