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

/// JSON. A stream entry that a plain `XADD` wrote with a single field is read as that field's value; with several, as
/// by [`Fields`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json;

impl<T: DeserializeOwned> Codec<T> for Json {
    fn decode(&self, payload: &Payload) -> Result<T, CodecError> {
        match payload {
            Payload::Bytes(bytes) => {
                if bytes.is_empty() {
                    return Err(CodecError::new("JSON", "the payload is empty"));
                }
                serde_json::from_slice(bytes).map_err(|error| CodecError::new("JSON", error))
            }
            Payload::Fields(_) => Fields.decode(payload),
        }
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
        let bytes = bytes_of(payload, "MessagePack")?;
        rmp_serde::from_slice(bytes).map_err(|error| CodecError::new("MessagePack", error))
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

/// The fields of a plain `XADD` as a struct, through serde: numbers and booleans are read from their text, so that
/// `XADD visits * user_id 123` fills a `user_id: u64`.
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

fn bytes_of<'a>(payload: &'a Payload, codec: &'static str) -> Result<&'a Bytes, CodecError> {
    payload
        .as_bytes()
        .ok_or_else(|| CodecError::new(codec, "the message is a stream entry of plain fields"))
}
