//! The body of a message: bytes, or the fields of a stream's entry.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// The body of a message.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Payload {
    /// Bytes, whatever they mean: the codec of the route knows.
    Bytes(Bytes),
    /// The field-value pairs of a stream entry that a plain `XADD` wrote, in their order.
    Fields(EntryFields),
}

impl Payload {
    /// The length in bytes: of the body, or of all fields and values together.
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Fields(fields) => fields.bytes(),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, unless these are fields.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Fields(_) => None,
        }
    }

    /// The body as text for people, in logs and listings: what is not UTF-8 is replaced, fields stand one after the other as
    /// `name=value`.
    pub fn text_lossy(&self) -> Cow<'_, str> {
        match self {
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes),
            Self::Fields(fields) => {
                let pair = |(field, value): &(Bytes, Bytes)| {
                    let (field, value) = (
                        String::from_utf8_lossy(field),
                        String::from_utf8_lossy(value),
                    );
                    format!("{field}={value}")
                };
                let pairs: Vec<String> = fields.iter().map(pair).collect();
                pairs.join(" ").into()
            }
        }
    }

    /// The value of the first field of that name, if these are fields.
    pub fn field(&self, name: &str) -> Option<&Bytes> {
        match self {
            Self::Bytes(_) => None,
            Self::Fields(fields) => fields
                .iter()
                .find(|(field, _)| field == name.as_bytes())
                .map(|(_, value)| value),
        }
    }
}

impl fmt::Debug for Payload {
    /// Shows the beginning only: bodies may be large, and are not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => {
                let shown = bytes.slice(..bytes.len().min(64));
                write!(f, "Bytes({} bytes: {shown:?})", bytes.len())
            }
            Self::Fields(fields) => {
                write!(f, "Fields({fields:?})")
            }
        }
    }
}

impl<T: Into<Bytes>> From<T> for Payload {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<EntryFields> for Payload {
    fn from(fields: EntryFields) -> Self {
        Self::Fields(fields)
    }
}

/// The field-value pairs of a stream entry, in their order: a slice of them.
///
/// ```
/// use pythia_core::{EntryFields, Message};
///
/// let fields = EntryFields::from([("user", "7"), ("item", "lamp")]);
/// assert_eq!(fields[1].1, "lamp");
/// let message = Message::new(fields);
/// ```
///
/// A single pair lies in place and takes no allocation: so it is with a message that the framework has published, and with
/// a document under one name.
#[derive(Clone)]
pub struct EntryFields(Pairs);

#[derive(Clone)]
enum Pairs {
    One((Bytes, Bytes)),
    Many(Vec<(Bytes, Bytes)>),
}

impl EntryFields {
    /// None yet; allocates nothing.
    pub const fn new() -> Self {
        Self(Pairs::Many(Vec::new()))
    }

    /// None yet, with room for so many.
    pub fn with_capacity(pairs: usize) -> Self {
        match pairs {
            0 | 1 => Self::new(),
            pairs => Self(Pairs::Many(Vec::with_capacity(pairs))),
        }
    }

    /// Adds a pair at the end.
    pub fn push(&mut self, field: impl Into<Bytes>, value: impl Into<Bytes>) {
        let pair = (field.into(), value.into());
        match &mut self.0 {
            Pairs::Many(pairs) if pairs.capacity() == 0 => self.0 = Pairs::One(pair),
            Pairs::Many(pairs) => pairs.push(pair),
            Pairs::One(_) => {
                let mut pairs = Vec::with_capacity(4);
                pairs.extend(std::mem::take(self));
                pairs.push(pair);
                self.0 = Pairs::Many(pairs);
            }
        }
    }

    /// The length of all names and values together.
    fn bytes(&self) -> usize {
        self.iter()
            .map(|(field, value)| field.len() + value.len())
            .sum()
    }
}

impl Default for EntryFields {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for EntryFields {
    type Target = [(Bytes, Bytes)];

    fn deref(&self) -> &Self::Target {
        match &self.0 {
            Pairs::One(pair) => std::slice::from_ref(pair),
            Pairs::Many(pairs) => pairs,
        }
    }
}

impl PartialEq for EntryFields {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for EntryFields {}

impl fmt::Debug for EntryFields {
    /// Shows no values: they may be large, and are not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fields, {} bytes", self.len(), self.bytes())
    }
}

impl From<Vec<(Bytes, Bytes)>> for EntryFields {
    fn from(pairs: Vec<(Bytes, Bytes)>) -> Self {
        Self(match <[_; 1]>::try_from(pairs) {
            Ok([pair]) => Pairs::One(pair),
            Err(pairs) => Pairs::Many(pairs),
        })
    }
}

impl From<EntryFields> for Vec<(Bytes, Bytes)> {
    fn from(EntryFields(pairs): EntryFields) -> Self {
        match pairs {
            Pairs::One(pair) => vec![pair],
            Pairs::Many(pairs) => pairs,
        }
    }
}

impl<F: Into<Bytes>, V: Into<Bytes>> FromIterator<(F, V)> for EntryFields {
    fn from_iter<I: IntoIterator<Item = (F, V)>>(pairs: I) -> Self {
        let pairs = pairs.into_iter();
        let mut fields = Self::with_capacity(pairs.size_hint().0);
        fields.extend(pairs);
        fields
    }
}

impl<F: Into<Bytes>, V: Into<Bytes>, const N: usize> From<[(F, V); N]> for EntryFields {
    fn from(pairs: [(F, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl<F: Into<Bytes>, V: Into<Bytes>> Extend<(F, V)> for EntryFields {
    fn extend<I: IntoIterator<Item = (F, V)>>(&mut self, pairs: I) {
        for (field, value) in pairs {
            self.push(field, value);
        }
    }
}

impl IntoIterator for EntryFields {
    type Item = (Bytes, Bytes);
    type IntoIter =
        std::iter::Chain<std::option::IntoIter<(Bytes, Bytes)>, std::vec::IntoIter<(Bytes, Bytes)>>;

    fn into_iter(self) -> Self::IntoIter {
        let (one, many) = match self.0 {
            Pairs::One(pair) => (Some(pair), Vec::new()),
            Pairs::Many(pairs) => (None, pairs),
        };
        one.into_iter().chain(many)
    }
}

impl<'a> IntoIterator for &'a EntryFields {
    type Item = &'a (Bytes, Bytes);
    type IntoIter = std::slice::Iter<'a, (Bytes, Bytes)>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_shows_its_beginning_only() {
        let shown = format!("{:?}", Payload::from(vec![b'x'; 1_000]));
        assert!(shown.starts_with("Bytes(1000 bytes: "), "{shown}");
        assert!(shown.len() < 120, "{shown}");
    }

    #[test]
    fn a_payload_is_text_for_people() {
        assert_eq!(Payload::from(&b"caf\xE9"[..]).text_lossy(), "caf\u{FFFD}");
        let fields = Payload::Fields([("id", "7"), ("item", "lamp")].into());
        assert_eq!(fields.text_lossy(), "id=7 item=lamp");
    }

    #[test]
    fn fields_are_a_slice_of_pairs_however_they_are_kept() {
        let pair = |n: u8| (Bytes::from(vec![n]), Bytes::from(vec![n, n]));
        for count in 0..4 {
            let pairs: Vec<_> = (0..count).map(pair).collect();
            let pushed: EntryFields = pairs.iter().cloned().collect();
            assert_eq!(*pushed, *pairs, "in their order");
            let kept = EntryFields::from(pairs.clone());
            assert_eq!(pushed, kept);
            assert!((&kept).into_iter().eq(&pairs));
            assert!(kept.clone().into_iter().eq(pairs.clone()));
            assert_eq!(Vec::from(pushed), pairs);
            assert_eq!(Vec::from(kept), pairs);
            let mut grown = EntryFields::with_capacity(count.into());
            grown.extend(pairs.clone());
            grown.push("last", "one");
            assert_eq!(grown.len(), pairs.len() + 1);
            assert_eq!(grown.last().map(|(name, _)| &name[..]), Some(&b"last"[..]));
        }
        let [one, two] = [1, 2].map(|n| EntryFields::from([pair(n)]));
        assert_ne!(one, two);
    }
}
