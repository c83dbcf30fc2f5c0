//! [`Producer`]: publishes messages, one or many in a round trip.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::broker::{Broker, Published};
use crate::codec::{CodecError, Encode, Json};
use crate::error::{BrokerError, BrokerErrorKind, ConfigError};
use crate::message::{Message, QueueName};

/// Publishes messages to the queues of a broker. Cheap to clone; takes any number of calls at a time.
///
/// ```
/// use std::time::Duration;
/// use pythia_core::broker::Published;
/// use pythia_core::{MemoryBroker, Producer};
///
/// #[derive(serde::Serialize)]
/// struct Order { id: u64 }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pythia_core::PublishError> {
/// let producer = Producer::new(MemoryBroker::new());
/// producer.send("orders", &Order { id: 7 }).await?;
/// producer.send_all("orders", &[Order { id: 8 }, Order { id: 9 }]).await?;
///
/// // A message with more to it than its body.
/// let reminder = producer
///     .message(&Order { id: 7 })?
///     .delay(Duration::from_secs(3_600))
///     .dedupe_key("reminder-7")
///     .header("tenant", "acme");
/// producer.publish("reminders", reminder.clone()).await?;
/// assert_eq!(producer.publish("reminders", reminder).await?, Published::Deduplicated);
/// # Ok(())
/// # }
/// ```
///
/// The body is JSON unless [`codec`](Self::codec) says otherwise; it has to be what the queue's worker decodes.
///
/// # When a call fails, or is dropped
/// A connection can break after the broker has taken a message and before it has said so. After an
/// [unavailable](PublishError::is_unavailable) broker, and after dropping the future of a call (a time limit around it,
/// a web client that hangs up), the messages may have been published, all or some of them, and a broker that sends an
/// unanswered call again may publish them twice. So a call that is repeated can double messages, with one exception: a
/// message with a [`dedupe_key`](Message::dedupe_key) is published once, however often it is sent while the broker
/// remembers the key.
///
/// Dropping a future does nothing worse than that: the producer and its other calls go on.
#[derive(Clone, Debug)]
pub struct Producer<C = Json> {
    broker: Arc<dyn Broker>,
    codec: C,
}

impl Producer {
    /// Publishes JSON to this broker: a clone of one that has a runner too, or an `Arc<dyn Broker>`.
    pub fn new(broker: impl Broker) -> Self {
        Self {
            broker: Arc::new(broker),
            codec: Json,
        }
    }
}

impl<C: Sync> Producer<C> {
    /// Writes bodies by that codec from here on.
    #[must_use]
    pub fn codec<D>(self, codec: D) -> Producer<D> {
        Producer {
            broker: self.broker,
            codec,
        }
    }

    /// Publishes one value.
    ///
    /// # Errors
    /// If the name is no queue's or the value can't be written, in which case nothing was published; or if the broker
    /// fails.
    pub async fn send<T, Q>(&self, queue: Q, value: &T) -> Result<Published, PublishError>
    where
        T: Sync + ?Sized,
        C: Encode<T>,
        Q: TryInto<QueueName, Error: Into<PublishError>> + Send,
    {
        self.publish(queue, self.message(value)?).await
    }

    /// Publishes many values in one round trip where the broker can, and answers for each in its order.
    ///
    /// # Errors
    /// If the name is no queue's or one of the values can't be written, in which case nothing was published; or if the
    /// broker fails.
    pub async fn send_all<'a, T, Q>(
        &self,
        queue: Q,
        values: impl IntoIterator<Item = &'a T> + Send,
    ) -> Result<Vec<Published>, PublishError>
    where
        T: Sync + ?Sized + 'a,
        C: Encode<T>,
        Q: TryInto<QueueName, Error: Into<PublishError>> + Send,
    {
        let batch = values
            .into_iter()
            .enumerate()
            .map(|(index, value)| self.message(value).map_err(|error| error.at(index)));
        self.publish_all(queue, batch.collect::<Result<_, _>>()?)
            .await
    }

    /// A message with this value as its body, for [`publish`](Self::publish): what else it carries is added first.
    ///
    /// # Errors
    /// If the value can't be written.
    pub fn message<T>(&self, value: &T) -> Result<Message, PublishError>
    where
        T: ?Sized,
        C: Encode<T>,
    {
        let payload = self.codec.encode(value).map_err(Cause::Encode)?;
        Ok(Message::new(payload))
    }

    /// Publishes one message as it is.
    ///
    /// # Errors
    /// If the name is no queue's, in which case nothing was published; or if the broker fails.
    pub async fn publish<Q>(&self, queue: Q, message: Message) -> Result<Published, PublishError>
    where
        Q: TryInto<QueueName, Error: Into<PublishError>> + Send,
    {
        let answers = self.publish_all(queue, vec![message]).await?;
        let answer = answers.into_iter().next();
        answer.ok_or_else(|| {
            BrokerError::new(BrokerErrorKind::Protocol, "publish a message")
                .because("the broker gave no answer for it")
                .into()
        })
    }

    /// Publishes many messages as they are, in one round trip where the broker can, and answers for each in its order.
    /// Without messages it asks nothing of the broker.
    ///
    /// # Errors
    /// If the name is no queue's, in which case nothing was published; or if the broker fails.
    pub async fn publish_all<Q>(
        &self,
        queue: Q,
        batch: Vec<Message>,
    ) -> Result<Vec<Published>, PublishError>
    where
        Q: TryInto<QueueName, Error: Into<PublishError>> + Send,
    {
        let queue = queue.try_into().map_err(Into::into)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.broker.publish(&queue, batch).await?)
    }
}

/// Why something was not published, or may not have been.
pub struct PublishError {
    cause: Cause,
    /// Which value of several it is about, from 0.
    index: Option<usize>,
}

enum Cause {
    Broker(BrokerError),
    Encode(CodecError),
    QueueName(ConfigError),
}

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PublishErrorKind {
    /// The broker failed, in this way.
    Broker(BrokerErrorKind),
    /// A value can't be written by the codec: nothing was published.
    Encode,
    /// The name is no queue's: nothing was published.
    QueueName,
}

impl PublishError {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> PublishErrorKind {
        match &self.cause {
            Cause::Broker(error) => PublishErrorKind::Broker(error.kind()),
            Cause::Encode(_) => PublishErrorKind::Encode,
            Cause::QueueName(_) => PublishErrorKind::QueueName,
        }
    }

    /// Whether waiting and trying again may be all that is needed. The messages may have been published all the same:
    /// see [`Producer`].
    pub fn is_unavailable(&self) -> bool {
        self.kind() == PublishErrorKind::Broker(BrokerErrorKind::Unavailable)
    }

    /// Whether a message is larger than the broker takes; nothing was published.
    pub fn is_too_large(&self) -> bool {
        self.kind() == PublishErrorKind::Broker(BrokerErrorKind::TooLarge)
    }

    /// Whether the broker has no memory left: the queue has to shrink before it can grow.
    pub fn is_out_of_memory(&self) -> bool {
        self.kind() == PublishErrorKind::Broker(BrokerErrorKind::OutOfMemory)
    }

    /// Whether it is the caller's mistake (the value, the queue's name), which no other try mends.
    pub fn is_invalid(&self) -> bool {
        matches!(
            self.kind(),
            PublishErrorKind::Encode | PublishErrorKind::QueueName
        )
    }

    fn at(self, index: usize) -> Self {
        Self {
            index: Some(index),
            ..self
        }
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.cause, self.index) {
            (Cause::Broker(error), _) => error.fmt(f),
            (Cause::Encode(error), None) => write!(f, "the message {error}"),
            (Cause::Encode(error), Some(index)) => {
                write!(f, "message {index} of the batch, counted from 0, {error}")
            }
            (Cause::QueueName(error), _) => error.fmt(f),
        }
    }
}

impl fmt::Debug for PublishError {
    /// `main` prints errors by `Debug`, so it reads as text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublishError: {self}")
    }
}

/// The cause is part of the text, so it is not offered as a source as well.
impl Error for PublishError {}

impl From<BrokerError> for PublishError {
    fn from(error: BrokerError) -> Self {
        Cause::Broker(error).into()
    }
}

impl From<ConfigError> for PublishError {
    /// A name that is no queue's.
    fn from(error: ConfigError) -> Self {
        Cause::QueueName(error).into()
    }
}

impl From<Infallible> for PublishError {
    /// For a name that is checked already.
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<Cause> for PublishError {
    fn from(cause: Cause) -> Self {
        Self { cause, index: None }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;
    use std::time::Duration;

    use async_trait::async_trait;
    use bytes::Bytes;
    use tokio::sync::Notify;

    use super::*;
    use crate::admin::Admin;
    use crate::broker::{Endpoint, Guarantee, Maintained, Subscription};
    use crate::codec::{MessagePack, Raw};
    use crate::memory::MemoryBroker;
    use crate::message::{Deliver, Delivery, MessageId, Payload};
    use crate::observe::Observer;
    use crate::store::KvStore;

    /// Keeps the batches that it is given, and answers as it is told.
    #[derive(Debug, Default)]
    struct Recorder {
        batches: Mutex<Vec<(String, Vec<Message>)>>,
        fails: Option<BrokerErrorKind>,
        mute: bool,
    }

    #[async_trait]
    impl Broker for Recorder {
        fn identity(&self) -> usize {
            unreachable!("a producer only publishes")
        }

        fn endpoint(&self) -> Endpoint {
            unreachable!("a producer only publishes")
        }

        fn guarantee(&self) -> Guarantee {
            unreachable!("a producer only publishes")
        }

        fn is_fan_out(&self) -> bool {
            false
        }

        fn attach(&self, _observer: Arc<dyn Observer>) {}

        async fn subscribe(&self, _queue: &QueueName) -> Result<Subscription, BrokerError> {
            unreachable!("a producer only publishes")
        }

        async fn publish(
            &self,
            queue: &QueueName,
            batch: Vec<Message>,
        ) -> Result<Vec<Published>, BrokerError> {
            if let Some(kind) = self.fails {
                return Err(BrokerError::new(kind, "publish messages").queue(queue));
            }
            let answers = batch.iter().enumerate().map(|(index, message)| {
                let id = message.id.clone();
                Published::Published(id.unwrap_or_else(|| index.to_string().into()))
            });
            let answers = answers.take(if self.mute { 0 } else { batch.len() });
            let answers = answers.collect();
            self.batches
                .lock()
                .unwrap()
                .push((queue.to_string(), batch));
            Ok(answers)
        }

        async fn maintain(&self, _: &QueueName, _: u32) -> Result<Maintained, BrokerError> {
            unreachable!("a producer only publishes")
        }

        fn due_earlier(&self, _queue: &QueueName) -> Arc<Notify> {
            unreachable!("a producer only publishes")
        }

        async fn ping(&self) -> Result<(), BrokerError> {
            unreachable!("a producer only publishes")
        }

        fn admin(&self) -> Option<&dyn Admin> {
            None
        }

        fn store(&self) -> Option<Arc<dyn KvStore>> {
            None
        }
    }

    fn recorder() -> (Arc<Recorder>, Producer) {
        let broker = Arc::new(Recorder::default());
        (Arc::clone(&broker), Producer::new(broker))
    }

    fn failing(kind: BrokerErrorKind) -> Producer {
        Producer::new(Recorder {
            fails: Some(kind),
            ..Recorder::default()
        })
    }

    /// JSON has no form for it: its keys are no strings.
    fn unwritable() -> BTreeMap<(u8, u8), u8> {
        [((1, 2), 3)].into()
    }

    async fn received(broker: &MemoryBroker, queue: &str) -> Vec<Delivery> {
        let queue = QueueName::new(queue).unwrap();
        let mut subscription = broker.subscribe(&queue).await.unwrap();
        let mut batch = Vec::new();
        subscription.source.receive(10, &mut batch).await.unwrap();
        batch
    }

    #[tokio::test]
    async fn what_is_sent_is_in_the_queue_in_the_codecs_form() {
        let broker = MemoryBroker::new();
        let producer = Producer::new(broker.clone());
        let id = producer.send("json", &[1, 2]).await.unwrap();
        let packed = producer.clone().codec(MessagePack);
        packed.send("packed", &[1, 2]).await.unwrap();
        let raw = producer.codec(Raw);
        raw.send("raw", &Bytes::from_static(b"\xFF")).await.unwrap();

        let json = received(&broker, "json").await;
        assert_eq!(json[0].payload, Payload::from("[1,2]"));
        assert_eq!(id, Published::Published(json[0].id.clone()));
        let packed = received(&broker, "packed").await;
        assert_eq!(packed[0].payload, Payload::from(&b"\x92\x01\x02"[..]));
        let raw = received(&broker, "raw").await;
        assert_eq!(raw[0].payload, Payload::from(&b"\xFF"[..]));
    }

    #[tokio::test]
    async fn many_go_in_one_call_and_are_answered_in_their_order() {
        let (broker, producer) = recorder();
        let answers = producer.send_all("orders", &["a", "b", "c"]).await.unwrap();
        let ids = ["0", "1", "2"].map(|id| Published::Published(MessageId::from(id)));
        assert_eq!(answers, ids);
        let batches = broker.batches.lock().unwrap();
        let expected = [r#""a""#, r#""b""#, r#""c""#].map(Message::new);
        assert_eq!(*batches, [("orders".to_owned(), expected.to_vec())]);
    }

    #[tokio::test]
    async fn nothing_to_send_asks_nothing_of_the_broker() {
        let producer = failing(BrokerErrorKind::Unavailable);
        let answers = producer.send_all("orders", &[0_u8; 0]).await.unwrap();
        assert_eq!(answers, []);
    }

    #[tokio::test]
    async fn a_message_carries_what_was_added_to_it() {
        let (broker, producer) = recorder();
        let message = producer
            .message(&7)
            .unwrap()
            .id("seven")
            .delay(Duration::from_secs(5))
            .dedupe_key("key")
            .header("tenant", "acme");
        let answer = producer.publish("orders", message).await.unwrap();
        assert_eq!(answer, Published::Published("seven".into()));
        let batches = broker.batches.lock().unwrap();
        let sent = &batches[0].1[0];
        assert_eq!(sent.payload, Payload::from("7"));
        assert_eq!(sent.deliver, Deliver::After(Duration::from_secs(5)));
        assert_eq!(sent.dedupe_key.as_deref(), Some("key"));
        assert_eq!(sent.headers.get("tenant"), Some("acme"));
    }

    #[tokio::test]
    async fn one_value_that_cant_be_written_keeps_all_back() {
        let (broker, producer) = recorder();
        let values = [BTreeMap::new(), unwritable()];
        let error = producer.send_all("orders", &values).await.unwrap_err();
        assert_eq!(error.kind(), PublishErrorKind::Encode);
        assert!(error.is_invalid());
        assert_eq!(
            error.to_string(),
            "message 1 of the batch, counted from 0, can't be written as JSON: key must be a string"
        );
        let error = producer.send("orders", &unwritable()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the message can't be written as JSON: key must be a string"
        );
        assert!(broker.batches.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn queues_are_named_by_text_or_by_a_checked_name() {
        let (broker, producer) = recorder();
        let name = QueueName::new("orders").unwrap();
        producer.send("orders", &1).await.unwrap();
        producer.send("orders".to_owned(), &1).await.unwrap();
        producer.send(&name, &1).await.unwrap();
        producer.send(name, &1).await.unwrap();
        let error = producer.send("two words", &1).await.unwrap_err();
        assert_eq!(error.kind(), PublishErrorKind::QueueName);
        assert!(error.to_string().contains("\"two words\""), "{error}");
        let batches = broker.batches.lock().unwrap();
        assert_eq!(batches.len(), 4);
        assert!(batches.iter().all(|(queue, _)| queue == "orders"));
    }

    #[tokio::test]
    async fn what_the_broker_says_comes_through() {
        for (kind, meant) in [
            (
                BrokerErrorKind::Unavailable,
                PublishError::is_unavailable as fn(&PublishError) -> bool,
            ),
            (BrokerErrorKind::TooLarge, PublishError::is_too_large),
            (BrokerErrorKind::OutOfMemory, PublishError::is_out_of_memory),
        ] {
            let error = failing(kind).send("orders", &1).await.unwrap_err();
            assert_eq!(error.kind(), PublishErrorKind::Broker(kind));
            assert!(meant(&error) && !error.is_invalid());
            assert_eq!(
                error.to_string(),
                "could not publish messages on queue \"orders\""
            );
            assert_eq!(
                format!("{error:?}"),
                "PublishError: could not publish messages on queue \"orders\""
            );
        }
    }

    #[tokio::test]
    async fn a_broker_that_answers_nothing_is_an_error() {
        let producer = Producer::new(Recorder {
            mute: true,
            ..Recorder::default()
        });
        let error = producer.send("orders", &1).await.unwrap_err();
        let protocol = PublishErrorKind::Broker(BrokerErrorKind::Protocol);
        assert_eq!(error.kind(), protocol);
    }

    #[test]
    fn its_futures_can_be_spawned_and_a_broker_chosen_at_run_time_will_do() {
        fn send<T: Send>(_: T) {}
        let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new());
        let producer = Producer::new(broker);
        send(producer.send("orders", "x"));
        send(producer.send_all("orders", &["x".to_owned()]));
        send(producer.publish("orders", Message::new("x")));
    }
}
