//! Codecs: between the bytes of a payload and the type that a worker takes.

use std::error::Error;
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::Payload;

mod fields;

/// Reads a payload as `T`. [`Json`] unless a route says otherwise.
pub trait Codec<T>: Send + Sync + 'static {
    /// Reads a payload.
    ///
    /// # Errors
    /// If the payload is not a `T`; the message then goes to the dead letters with its bytes intact.
    fn decode(&self, payload: &Payload) -> Result<T, CodecError>;
}

/// Writes a `T` as a payload: the publishing side of a codec.
pub trait Encode<T: ?Sized>: Send + Sync + 'static {
    /// Writes a payload.
    ///
    /// # Errors
    /// If the value has no form in this encoding, such as a JSON object with keys that are not strings.
    fn encode(&self, value: &T) -> Result<Payload, CodecError>;
}

/// JSON.
///
/// A stream entry that a plain `XADD` wrote has fields rather than a body, and is read as by [`Fields`], with one
/// exception: an entry whose only field is named `body`, `data`, `message` or `payload`, as in `XADD orders * data
/// '{"id": 7}'`, is read from the value of that field, if that is JSON of what the worker expects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json;

impl<T: DeserializeOwned> Codec<T> for Json {
    fn decode(&self, payload: &Payload) -> Result<T, CodecError> {
        match payload {
            Payload::Bytes(bytes) => {
                let bytes = not_empty(bytes, "JSON")?;
                serde_json::from_slice(bytes).map_err(|error| CodecError::new("JSON", error))
            }
            Payload::Fields(fields) => match document(fields) {
                Some(document) => serde_json::from_slice(document).or_else(|as_json| {
                    Fields.decode(payload).map_err(|as_fields| {
                        // Which of the two was meant can't be known, so both are told.
                        let both = format!("{as_json}; nor as fields: {}", as_fields.source);
                        CodecError::new("JSON", both)
                    })
                }),
                None => Fields.decode(payload),
            },
        }
    }
}

/// The value of an entry's only field, if its name says that it holds a whole document.
fn document(fields: &[(Bytes, Bytes)]) -> Option<&Bytes> {
    match fields {
        [(field, value)] => {
            matches!(&field[..], b"body" | b"data" | b"message" | b"payload").then_some(value)
        }
        _ => None,
    }
}

impl<T: Serialize + ?Sized> Encode<T> for Json {
    fn encode(&self, value: &T) -> Result<Payload, CodecError> {
        let bytes = serde_json::to_vec(value).map_err(|error| CodecError::encode("JSON", error))?;
        Ok(Payload::Bytes(bytes.into()))
    }
}

/// MessagePack, structs as maps, so that fields may be added and reordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessagePack;

impl<T: DeserializeOwned> Codec<T> for MessagePack {
    fn decode(&self, payload: &Payload) -> Result<T, CodecError> {
        let mut rest: &[u8] = not_empty(bytes_of(payload, "MessagePack")?, "MessagePack")?;
        let value = rmp_serde::from_read(&mut rest)
            .map_err(|error| CodecError::new("MessagePack", error))?;
        // A byte of text is a small number in MessagePack: what follows shows that it is something else.
        if rest.is_empty() {
            Ok(value)
        } else {
            let problem = format!("{} bytes follow the value", rest.len());
            Err(CodecError::new("MessagePack", problem))
        }
    }
}

impl<T: Serialize + ?Sized> Encode<T> for MessagePack {
    fn encode(&self, value: &T) -> Result<Payload, CodecError> {
        let bytes = rmp_serde::to_vec_named(value)
            .map_err(|error| CodecError::encode("MessagePack", error))?;
        Ok(Payload::Bytes(bytes.into()))
    }
}

/// The payload as it came: a worker over [`Bytes`] or [`Payload`] reads it itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Raw;

impl Codec<Bytes> for Raw {
    fn decode(&self, payload: &Payload) -> Result<Bytes, CodecError> {
        bytes_of(payload, "raw bytes").cloned()
    }
}

impl Codec<Payload> for Raw {
    fn decode(&self, payload: &Payload) -> Result<Payload, CodecError> {
        Ok(payload.clone())
    }
}

impl Encode<Bytes> for Raw {
    fn encode(&self, value: &Bytes) -> Result<Payload, CodecError> {
        Ok(Payload::Bytes(value.clone()))
    }
}

impl Encode<Payload> for Raw {
    fn encode(&self, value: &Payload) -> Result<Payload, CodecError> {
        Ok(value.clone())
    }
}

/// The fields of a plain `XADD` as a struct, through serde: `XADD visits * user_id 123 page /home` fills a
/// `struct Visit { user_id: u64, page: String }`.
///
/// A value is read as the type that the worker asks for:
///
/// | type | value |
/// |---|---|
/// | numbers, `char` | their text, such as `123`, `-1.5`, `x` |
/// | `bool` | `true`, `false` in any case, `1`, `0` |
/// | `String` and other text | UTF-8 text |
/// | [`Bytes`] and other bytes | as they are |
/// | `Option` | `None` if the field is missing or empty |
/// | an enum without data | the name of the variant |
/// | lists, maps, structs, enums with data | JSON, such as `["a","b"]` |
///
/// Fields that nobody asks for are ignored, unless the type has `#[serde(deny_unknown_fields)]`. Where a field occurs
/// twice, a struct is an error that names it; in a map the last one wins. An enum as a whole is an entry of one field, the
/// name of which is the variant. What serde collects before it knows the type, as in `#[serde(flatten)]` and internally
/// tagged enums, is text, so numbers in it need a `deserialize_with`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields;

/// Why a payload is not what the codec expects, or a value can't be written.
pub struct CodecError {
    codec: &'static str,
    encoding: bool,
    source: Box<dyn Error + Send + Sync>,
}

impl CodecError {
    /// A payload is not of this codec; `codec` names the encoding, as in "JSON".
    pub fn new(codec: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            codec,
            encoding: false,
            source: source.into(),
        }
    }

    /// A value has no form in this codec.
    pub fn encode(codec: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            encoding: true,
            ..Self::new(codec, source)
        }
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { codec, source, .. } = self;
        if self.encoding {
            write!(f, "can't be written as {codec}: {source}")
        } else {
            write!(f, "not the {codec} that the worker expects: {source}")
        }
    }
}

impl fmt::Debug for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CodecError({self})")
    }
}

/// The cause is part of the text, so it is not offered as a source as well.
impl Error for CodecError {}

fn not_empty<'a>(bytes: &'a Bytes, codec: &'static str) -> Result<&'a Bytes, CodecError> {
    if bytes.is_empty() {
        return Err(CodecError::new(codec, "the payload is empty"));
    }
    Ok(bytes)
}

fn bytes_of<'a>(payload: &'a Payload, codec: &'static str) -> Result<&'a Bytes, CodecError> {
    payload
        .as_bytes()
        .ok_or_else(|| CodecError::new(codec, "the message is a stream entry of plain fields"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        id: u64,
        items: Vec<String>,
        note: Option<String>,
        price: f64,
        by_shop: BTreeMap<String, i32>,
    }

    fn arbitrary_order() -> impl Strategy<Value = Order> {
        let text = "\\PC{0,20}";
        (
            any::<u64>(),
            proptest::collection::vec(text, 0..4),
            proptest::option::of(text),
            -1e9..1e9f64,
            proptest::collection::btree_map(text, any::<i32>(), 0..4),
        )
            .prop_map(|(id, items, note, price, by_shop)| Order {
                id,
                items,
                note,
                price,
                by_shop,
            })
    }

    /// The message of the error.
    #[track_caller]
    fn refused<T: Debug>(codec: &impl Codec<T>, payload: impl Into<Payload>) -> String {
        codec.decode(&payload.into()).unwrap_err().to_string()
    }

    fn entry(fields: &[(&str, &str)]) -> Payload {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let pairs = fields.iter();
        Payload::Fields(
            pairs
                .map(|(field, value)| (bytes(field), bytes(value)))
                .collect(),
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(order in arbitrary_order()) {
            let json = Json.encode(&order).unwrap();
            prop_assert_eq!(&Codec::<Order>::decode(&Json, &json).unwrap(), &order);
            let message_pack = MessagePack.encode(&order).unwrap();
            prop_assert_eq!(&Codec::<Order>::decode(&MessagePack, &message_pack).unwrap(), &order);
            let raw: Bytes = Raw.decode(&json).unwrap();
            prop_assert_eq!(Raw.encode(&raw).unwrap(), json);
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let payload = Payload::from(bytes);
            drop(Codec::<Order>::decode(&Json, &payload));
            drop(Codec::<Order>::decode(&MessagePack, &payload));
            drop(Codec::<Order>::decode(&Fields, &payload));
        }
    }

    #[test]
    fn a_number_in_json_keeps_its_last_bit() {
        let price: f64 = Json.decode(&Payload::from("-916314291.2218003")).unwrap();
        assert_eq!(price.to_bits(), (-916_314_291.221_800_3_f64).to_bits());
    }

    #[test]
    fn json_says_what_is_wrong_and_where() {
        for (payload, expected) in [
            (&b""[..], "the payload is empty"),
            (
                b"{\"id\": 1",
                "EOF while parsing an object at line 1 column 8",
            ),
            (
                b"{\"id\": \"x\"}",
                "invalid type: string \"x\", expected u64 at line 1 column 10",
            ),
            (b"{\"id\": 1}", "missing field `items` at line 1 column 9"),
            (b"{} {}", "missing field `id` at line 1 column 2"),
            (b"\xff\xfe", "expected value at line 1 column 1"),
            (b"\"\xff\"", "invalid unicode code point at line 1 column 2"),
        ] {
            let error = refused::<Order>(&Json, payload);
            let expected = format!("not the JSON that the worker expects: {expected}");
            assert!(error.starts_with(&expected), "{error}");
        }
        let error = refused::<u64>(&Json, "1 2");
        assert!(error.contains("trailing characters"), "{error}");
    }

    #[test]
    fn message_pack_says_what_is_wrong() {
        for (payload, expected) in [
            (&b""[..], "the payload is empty"),
            (
                b"{\"id\": 1}",
                "invalid type: integer `123`, expected struct Order",
            ),
            (b"\x81\xa2id\xa1x", "wrong msgpack marker FixStr(1)"),
            (
                b"\x81\xa2i",
                "IO error while reading data: unexpected end of file",
            ),
            (b"\x81\xa2id\x01", "missing field `items`"),
        ] {
            let error = refused::<Order>(&MessagePack, payload);
            let expected = format!("not the MessagePack that the worker expects: {expected}");
            assert!(error.starts_with(&expected), "{error}");
        }
        assert!(refused::<u64>(&MessagePack, "123").ends_with("2 bytes follow the value"));
        assert!(refused::<String>(&MessagePack, &b"\xa1\xff"[..]).contains("utf-8"));
        let fields = entry(&[("id", "1")]);
        assert!(refused::<Order>(&MessagePack, fields).ends_with("a stream entry of plain fields"));
    }

    #[test]
    fn raw_is_any_bytes_and_as_a_payload_fields_too() {
        for bytes in [&b""[..], b"\xff\xfe", b"{"] {
            let payload = Payload::from(bytes);
            let raw: Bytes = Raw.decode(&payload).unwrap();
            assert_eq!(raw, bytes);
        }
        let fields = entry(&[("id", "1")]);
        let raw: Payload = Raw.decode(&fields).unwrap();
        assert_eq!(raw, fields);
        assert!(refused::<Bytes>(&Raw, fields).ends_with("a stream entry of plain fields"));
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Visit {
        user_id: u64,
    }

    #[test]
    fn json_reads_the_document_in_an_entry() {
        for name in ["body", "data", "message", "payload"] {
            let visit: Visit = Json.decode(&entry(&[(name, r#"{"user_id": 7}"#)])).unwrap();
            assert_eq!(visit, Visit { user_id: 7 });
        }
        let number: u64 = Json.decode(&entry(&[("data", "7")])).unwrap();
        assert_eq!(number, 7);
    }

    #[test]
    fn json_reads_all_other_entries_as_fields() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Chat {
            message: String,
        }

        let visit: Visit = Json.decode(&entry(&[("user_id", "7")])).unwrap();
        assert_eq!(visit, Visit { user_id: 7 });
        let visit: Visit = Json
            .decode(&entry(&[("data", "{}"), ("user_id", "7")]))
            .unwrap();
        assert_eq!(visit, Visit { user_id: 7 });
        for message in ["hello", "7", "\"7\"", "{}"] {
            let chat: Chat = Json.decode(&entry(&[("message", message)])).unwrap();
            assert_eq!(chat.message, message);
        }
    }

    #[test]
    fn what_is_neither_a_document_nor_fields_is_refused_as_both() {
        assert_eq!(
            refused::<Visit>(&Json, entry(&[("data", r#"{"user_id": "x"}"#)])),
            "not the JSON that the worker expects: invalid type: string \"x\", expected u64 at line 1 column 15; \
             nor as fields: missing field `user_id`"
        );
        assert_eq!(
            refused::<Visit>(&Json, entry(&[])),
            "not the fields that the worker expects: missing field `user_id`"
        );
    }
}
