//! What goes in and what comes out: [`Args`] and [`Reply`], both without copies of the payload.

use bytes::Bytes;
use bytestring::ByteString;
use fred::bytes_utils::Str;
use fred::types::{Resp3Frame, Value};

use crate::error::RedisError;

/// The arguments of one command, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Args {
    pub(super) values: Vec<Value>,
    /// Where the first key stands: a cluster routes by it.
    pub(super) key: Option<usize>,
}

/// One argument. Payloads and keys go in as [`Bytes`] or [`ByteString`] and are not copied until they are
/// written to the socket; command words go in as `&'static str`.
#[derive(Clone, Debug)]
pub(crate) struct Arg(Value);

/// What Redis answered. Taken apart where it is used, and not before: an answer may have a thousand entries.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reply(Resp3Frame);

impl Args {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            values: Vec::with_capacity(capacity),
            key: None,
        }
    }

    /// Adds one argument that is not a key.
    #[must_use]
    pub(crate) fn arg(mut self, arg: impl Into<Arg>) -> Self {
        self.push(arg);
        self
    }

    /// Adds a key.
    #[must_use]
    pub(crate) fn key(mut self, key: impl Into<Arg>) -> Self {
        self.key.get_or_insert(self.values.len());
        self.push(key);
        self
    }

    /// Adds many arguments that are not keys.
    #[must_use]
    pub(crate) fn args<A: Into<Arg>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.values.extend(args.into_iter().map(|arg| arg.into().0));
        self
    }

    pub(crate) fn push(&mut self, arg: impl Into<Arg>) {
        self.values.push(arg.into().0);
    }

    pub(crate) fn reserve(&mut self, additional: usize) {
        self.values.reserve(additional);
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }
}

impl From<&'static str> for Arg {
    fn from(word: &'static str) -> Self {
        Self(Value::from_static_str(word))
    }
}

impl From<String> for Arg {
    fn from(text: String) -> Self {
        Self(Value::String(text.into()))
    }
}

impl From<Bytes> for Arg {
    fn from(bytes: Bytes) -> Self {
        Self(Value::Bytes(bytes))
    }
}

impl From<&Bytes> for Arg {
    fn from(bytes: &Bytes) -> Self {
        Self(Value::Bytes(bytes.clone()))
    }
}

impl From<ByteString> for Arg {
    fn from(text: ByteString) -> Self {
        Self(Value::Bytes(text.into_bytes()))
    }
}

impl From<&ByteString> for Arg {
    fn from(text: &ByteString) -> Self {
        Self(Value::Bytes(text.as_bytes().clone()))
    }
}

macro_rules! integer_args {
    ($($integer:ty),*) => {$(
        impl From<$integer> for Arg {
            fn from(number: $integer) -> Self {
                i64::try_from(number).map_or_else(
                    |_| Self(Value::String(Str::from(number.to_string()))),
                    |number| Self(Value::Integer(number)),
                )
            }
        }
    )*};
}

integer_args!(u8, u16, u32, i32, i64, u64, usize, u128);

impl Reply {
    /// An answer that is no error. One within it shows when it is looked at.
    pub(super) fn from_frame(frame: Resp3Frame) -> Result<Self, RedisError> {
        match frame {
            Resp3Frame::SimpleError { .. } | Resp3Frame::BlobError { .. } => {
                Err(Self(frame).unexpected("an answer"))
            }
            frame => Ok(Self(frame)),
        }
    }

    pub(crate) fn is_nil(&self) -> bool {
        matches!(self.0, Resp3Frame::Null)
    }

    /// The elements one by one; a nil counts as an empty array, as an expired wait and a missing key do.
    pub(crate) fn into_elements(self) -> Result<impl ExactSizeIterator<Item = Self>, RedisError> {
        let elements = match self.0 {
            Resp3Frame::Array { data, .. } => data.into_iter(),
            // fred takes an array for a pub/sub frame by its first word, also inside a reply, and puts a word of its
            // own before it. In RESP2 nothing else makes a push.
            Resp3Frame::Push { data, .. } => {
                let mut elements = data.into_iter();
                let _word = elements.next();
                elements
            }
            Resp3Frame::Null => Vec::new().into_iter(),
            other => return Err(Self(other).unexpected("an array")),
        };
        Ok(elements.map(Self))
    }

    /// The elements; a nil counts as an empty array.
    pub(crate) fn into_array(self) -> Result<Vec<Self>, RedisError> {
        Ok(self.into_elements()?.collect())
    }

    /// Exactly `N` elements: `let [moved, next] = reply.into_tuple()?;`.
    pub(crate) fn into_tuple<const N: usize>(self) -> Result<[Self; N], RedisError> {
        let mut elements = self.into_elements()?;
        let found = elements.len();
        if found != N {
            return Err(RedisError::unexpected(
                &format!("{N} elements"),
                &format!("an array of {found} elements"),
            ));
        }
        Ok(std::array::from_fn(|_| match elements.next() {
            Some(element) => element,
            None => unreachable!("they were counted"),
        }))
    }

    /// A bulk string, or a status such as `OK`.
    pub(crate) fn into_bytes(self) -> Result<Bytes, RedisError> {
        match self.0 {
            Resp3Frame::BlobString { data, .. }
            | Resp3Frame::SimpleString { data, .. }
            | Resp3Frame::VerbatimString { data, .. }
            | Resp3Frame::BigNumber { data, .. } => Ok(data),
            Resp3Frame::Double { data, .. } => Ok(data.to_string().into()),
            other => Err(Self(other).unexpected("a string")),
        }
    }

    pub(crate) fn into_text(self) -> Result<ByteString, RedisError> {
        ByteString::try_from(self.into_bytes()?)
            .map_err(|_| RedisError::unexpected("UTF-8 text", "bytes that are not"))
    }

    /// `None` for nil, otherwise the string.
    pub(crate) fn into_optional_bytes(self) -> Result<Option<Bytes>, RedisError> {
        match self.is_nil() {
            true => Ok(None),
            false => self.into_bytes().map(Some),
        }
    }

    /// An integer, also one that Redis wrote as a string (scores, fields of hashes).
    pub(crate) fn as_integer(&self) -> Result<i64, RedisError> {
        match &self.0 {
            Resp3Frame::Number { data, .. } => Ok(*data),
            Resp3Frame::Boolean { data, .. } => Ok((*data).into()),
            Resp3Frame::BlobString { data, .. } | Resp3Frame::SimpleString { data, .. } => {
                std::str::from_utf8(data)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| RedisError::unexpected("an integer", "another string"))
            }
            _ => Err(self.unexpected("an integer")),
        }
    }

    /// A count: an integer that is not negative.
    pub(crate) fn as_count(&self) -> Result<u64, RedisError> {
        let number = self.as_integer()?;
        u64::try_from(number).map_err(|_| RedisError::unexpected("a count", "a negative integer"))
    }

    /// Whether it is an array that begins with a string.
    pub(super) fn begins_with_text(&self) -> bool {
        let (Resp3Frame::Array { data, .. } | Resp3Frame::Push { data, .. }) = &self.0 else {
            return false;
        };
        let is_text = |frame: &Resp3Frame| {
            matches!(
                frame,
                Resp3Frame::BlobString { .. } | Resp3Frame::SimpleString { .. }
            )
        };
        let skipped = usize::from(matches!(self.0, Resp3Frame::Push { .. }));
        data.get(skipped).is_some_and(is_text)
    }

    pub(crate) fn form(&self) -> &'static str {
        match self.0 {
            Resp3Frame::Null => "nil",
            Resp3Frame::Number { .. } | Resp3Frame::Boolean { .. } => "an integer",
            Resp3Frame::BlobString { .. }
            | Resp3Frame::SimpleString { .. }
            | Resp3Frame::VerbatimString { .. }
            | Resp3Frame::BigNumber { .. }
            | Resp3Frame::Double { .. } => "a string",
            Resp3Frame::Array { .. } | Resp3Frame::Push { .. } => "an array",
            Resp3Frame::SimpleError { .. } | Resp3Frame::BlobError { .. } => "an error",
            Resp3Frame::Map { .. }
            | Resp3Frame::Set { .. }
            | Resp3Frame::Hello { .. }
            | Resp3Frame::ChunkedString(_) => "a reply of RESP3",
        }
    }

    /// Redis' own error, if that is what it is.
    fn unexpected(&self, expected: &str) -> RedisError {
        match &self.0 {
            Resp3Frame::SimpleError { data, .. } => RedisError::from_reply(data),
            Resp3Frame::BlobError { data, .. } => {
                RedisError::from_reply(&String::from_utf8_lossy(data))
            }
            _ => RedisError::unexpected(expected, self.form()),
        }
    }
}

#[cfg(test)]
impl Reply {
    pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self(Resp3Frame::BlobString {
            data: bytes.into(),
            attributes: None,
        })
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.0 {
            Resp3Frame::BlobString { data, .. } | Resp3Frame::SimpleString { data, .. } => {
                std::str::from_utf8(data).ok()
            }
            _ => None,
        }
    }

    pub(crate) fn integer(number: i64) -> Self {
        Self(Resp3Frame::Number {
            data: number,
            attributes: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> Resp3Frame {
        Resp3Frame::SimpleError {
            data: Str::from_static("WRONGTYPE of another kind"),
            attributes: None,
        }
    }

    fn told(outcome: Result<(), RedisError>) -> bool {
        let error = outcome.expect_err("it is an error");
        error.to_string().contains("of another kind")
    }

    #[test]
    fn an_error_shows_at_once_and_one_within_when_it_is_looked_at() {
        assert!(told(Reply::from_frame(error()).map(drop)));
        let within = || {
            let frame = Resp3Frame::Array {
                data: vec![Reply::integer(1).0, error()],
                attributes: None,
            };
            let [_, failed] = Reply::from_frame(frame).unwrap().into_tuple().unwrap();
            failed
        };
        assert!(told(within().into_array().map(drop)));
        assert!(told(within().into_bytes().map(drop)));
        assert!(told(within().into_optional_bytes().map(drop)));
        assert!(told(within().as_integer().map(drop)));
    }
}
