//! What is published, what is received, and what a worker sees: [`Message`], [`Delivery`], [`Job`](crate::Job). Their bodies
//! are in `message/payload.rs`.

mod payload;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use bytestring::ByteString;

pub use self::payload::{EntryFields, Payload};

use crate::error::ConfigError;

/// The name of a queue: a Redis list or stream key, a pub/sub channel, a queue of the in-memory broker.
///
/// It is exactly the name that plain clients use (`LPUSH orders ..`), so it is checked when it is read, once: not
/// empty, at most 512 bytes, no white space or control characters, and braces only as one well-formed, non-empty
/// `{tag}` (Redis Cluster hashes what stands between them).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueName(Arc<str>);

impl QueueName {
    /// Checks a name.
    ///
    /// # Errors
    /// Says what is wrong with the name and what a usable one looks like.
    pub fn new(name: &str) -> Result<Self, ConfigError> {
        let problem = if name.is_empty() {
            "is empty"
        } else if name.len() > MAX_QUEUE_NAME {
            "is longer than 512 bytes"
        } else if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            "contains white space or control characters"
        } else if !braces_are_one_tag(name) {
            "has braces that are not one well-formed, non-empty `{tag}`"
        } else {
            return Ok(Self(Arc::from(name)));
        };
        Err(ConfigError::new(format!(
            "queue name {name:?} {problem}; use a name such as \"orders\" or \"{{shop}}:orders\""
        )))
    }

    /// The name as plain clients write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for QueueName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for QueueName {
    type Error = ConfigError;

    fn try_from(name: &str) -> Result<Self, ConfigError> {
        Self::new(name)
    }
}

impl TryFrom<String> for QueueName {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<Self, ConfigError> {
        Self::new(&name)
    }
}

impl TryFrom<&Self> for QueueName {
    type Error = ConfigError;

    fn try_from(name: &Self) -> Result<Self, ConfigError> {
        Ok(name.clone())
    }
}

/// Identifies one message within its queue, across retries.
///
/// Cheap to clone: a slice of the bytes that it arrived in, or that the new ids of a batch share. Those live as long as any
/// of them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(ByteString);

impl MessageId {
    /// A new random id: 128 bits in hexadecimal.
    pub fn random() -> Self {
        Self::from_digits(random_digits().to_vec())
    }

    /// New random ids, for a batch: they share one allocation, which lives as long as any of them.
    pub fn random_batch(count: usize) -> impl ExactSizeIterator<Item = Self> + use<> {
        let mut digits = Vec::with_capacity(count * ID_DIGITS);
        (0..count).for_each(|_| digits.extend_from_slice(&random_digits()));
        let Self(all) = Self::from_digits(digits);
        (0..count).map(move |index| {
            let begin = index * ID_DIGITS;
            Self(all.slice_ref(&all[begin..begin + ID_DIGITS]))
        })
    }

    fn from_digits(digits: Vec<u8>) -> Self {
        match ByteString::try_from(Bytes::from(digits)) {
            Ok(text) => Self(text),
            Err(_) => unreachable!("hexadecimal digits are UTF-8"),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as text that shares its bytes.
    pub fn text(&self) -> &ByteString {
        &self.0
    }
}

impl<T: Into<ByteString>> From<T> for MessageId {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that travels with a message, beside its payload: a trace context, a tenant, a content type.
///
/// Names that begin with `pythia-` are the framework's own.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(ByteString, ByteString)>);

impl Headers {
    /// None yet; allocates nothing.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value under a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.find(name).map(Deref::deref)
    }

    /// The value under a name, sharing its bytes.
    pub fn find(&self, name: &str) -> Option<&ByteString> {
        self.0
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    /// Sets a value, in place of an earlier one under the same name.
    pub fn insert(&mut self, name: impl Into<ByteString>, value: impl Into<ByteString>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(key, _)| *key == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// Takes a value out.
    pub fn remove(&mut self, name: &str) -> Option<ByteString> {
        let at = self.0.iter().position(|(key, _)| *key == name)?;
        Some(self.0.remove(at).1)
    }

    /// All pairs, in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<N: Into<ByteString>, V: Into<ByteString>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut headers = Self::new();
        for (name, value) in pairs {
            headers.insert(name, value);
        }
        headers
    }
}

/// When a published message may be delivered. Due times are compared with the broker's clock, not the publisher's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deliver {
    /// So long after the broker has taken it.
    After(Duration),
    /// At that instant; at once if it has passed.
    At(SystemTime),
    /// At once.
    #[default]
    Now,
}

/// A message to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Chosen by the publisher, or given by the broker.
    pub id: Option<MessageId>,
    /// The body.
    pub payload: Payload,
    /// Text beside the body.
    pub headers: Headers,
    /// When it may be delivered.
    pub deliver: Deliver,
    /// A second message with a key that the broker still remembers is not published. Keys are remembered for one hour
    /// unless the broker is configured otherwise.
    pub dedupe_key: Option<ByteString>,
}

impl Message {
    /// A message with that body, to be delivered at once.
    pub fn new(payload: impl Into<Payload>) -> Self {
        Self {
            id: None,
            payload: payload.into(),
            headers: Headers::new(),
            deliver: Deliver::Now,
            dedupe_key: None,
        }
    }

    /// Chooses the id. It need not be unique, and does not deduplicate: see [`dedupe_key`](Self::dedupe_key).
    #[must_use]
    pub fn id(mut self, id: impl Into<MessageId>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<ByteString>, value: impl Into<ByteString>) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Holds the message back for so long, by the broker's clock.
    #[must_use]
    pub const fn delay(mut self, after: Duration) -> Self {
        self.deliver = Deliver::After(after);
        self
    }

    /// Holds the message back until then.
    #[must_use]
    pub const fn deliver_at(mut self, at: SystemTime) -> Self {
        self.deliver = Deliver::At(at);
        self
    }

    /// Publishes it only if no message with this key was published lately. Also makes a publish that is sent twice, as
    /// after a reconnect, count once.
    #[must_use]
    pub fn dedupe_key(mut self, key: impl Into<ByteString>) -> Self {
        self.dedupe_key = Some(key.into());
        self
    }
}

/// Where a delivery is settled: minted by the [`Source`](crate::broker::Source) that received it, read by its
/// [`Settler`](crate::broker::Settler), meaningless to everything between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Receipt(pub u128);

/// A message as a broker hands it out, not yet decoded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// The id that it was published with, or that the broker gave it.
    pub id: MessageId,
    /// The body.
    pub payload: Payload,
    /// Text beside the body; none on a message of a plain client.
    pub headers: Headers,
    /// How often a worker has tried and failed.
    pub failures: u32,
    /// How often a process died, or went silent for a lease, while it held this message.
    pub crashes: u32,
    /// It was held in two crashes or more, so it is run with nothing beside it: if it is what kills the process, it
    /// takes no neighbour along.
    pub alone: bool,
    /// When it was published, where that is known: by the publisher's clock on lists, by the server's on streams.
    pub enqueued_at: Option<SystemTime>,
    /// Where to settle it.
    pub receipt: Receipt,
}

impl Delivery {
    /// A first delivery with nothing but a body; the adapter fills in what it knows.
    pub fn new(id: impl Into<MessageId>, payload: impl Into<Payload>, receipt: Receipt) -> Self {
        Self {
            id: id.into(),
            payload: payload.into(),
            headers: Headers::new(),
            failures: 0,
            crashes: 0,
            alone: false,
            enqueued_at: None,
            receipt,
        }
    }

    /// Which attempt this is, from 1: failures and crashes both count.
    pub const fn attempt(&self) -> u32 {
        1 + self.failures + self.crashes
    }
}

/// By hand: each message gets some, and `format!` takes 300 instructions more.
fn random_digits() -> [u8; ID_DIGITS] {
    let mut text = [0; ID_DIGITS];
    for (digits, byte) in text.chunks_exact_mut(2).zip(rand::random::<[u8; 16]>()) {
        digits[0] = HEX[usize::from(byte >> 4)];
        digits[1] = HEX[usize::from(byte & 15)];
    }
    text
}

fn braces_are_one_tag(name: &str) -> bool {
    match (name.find('{'), name.find('}')) {
        (None, None) => true,
        (Some(open), Some(close)) => {
            open + 1 < close
                && !name[open + 1..close].contains('{')
                && !name[close + 1..].contains(['{', '}'])
        }
        _ => false,
    }
}

const MAX_QUEUE_NAME: usize = 512;
/// Of a random id.
const ID_DIGITS: usize = 32;
const HEX: [u8; 16] = *b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_names_are_checked() {
        for good in [
            "orders",
            "orders:eu",
            "{shop}:orders",
            "a{b}",
            "schöne.briefe",
            "events.*",
        ] {
            assert_eq!(QueueName::new(good).unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", "is empty"),
            ("two words", "white space"),
            ("tab\t", "white space"),
            ("a{", "braces"),
            ("a}", "braces"),
            ("{}", "braces"),
            ("}{", "braces"),
            ("{a}{b}", "braces"),
            ("{{a}}", "braces"),
        ] {
            let error = QueueName::new(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad:?}: {error}");
        }
        assert!(QueueName::new(&"x".repeat(513)).is_err());
    }

    #[test]
    fn a_random_id_is_of_128_bits_in_hexadecimal() {
        let one_by_one = (0..64).map(|_| MessageId::random());
        let ids: Vec<_> = one_by_one.chain(MessageId::random_batch(64)).collect();
        for id in &ids {
            let is_digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
            assert!(
                id.as_str().len() == 32 && id.as_str().chars().all(is_digit),
                "{id}"
            );
        }
        // Each place has had other digits: none is left out.
        for place in 0..32 {
            let digit = |id: &MessageId| id.as_str().as_bytes()[place];
            for ids in ids.chunks(64) {
                assert!(ids.iter().any(|id| digit(id) != digit(&ids[0])), "{place}");
            }
        }
    }

    #[test]
    fn a_header_is_replaced_not_doubled() {
        let mut headers: Headers = [("a", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("a", "3"), ("b", "2")]);
        assert_eq!(headers.remove("a").as_deref(), Some("3"));
        assert_eq!(headers.get("a"), None);
    }
}
