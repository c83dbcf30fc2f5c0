//! What arrives, in which order, when; and what is refused.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::Instant;

use super::Setup;
use super::lane::{numbered, text};
use crate::broker::Published;
use crate::error::{BrokerError, BrokerErrorKind};
use crate::message::{EntryFields, Message, MessageId, Payload};

/// Ids, headers and every byte of the body arrive as they were published, with counters at zero; a message without an
/// id gets the one that the publisher is told.
pub async fn what_is_published_arrives_as_it_was(setup: &Setup) {
    let mut lane = setup.lane().await;
    let bodies: [&[u8]; 5] = [
        b"{\"a\":1}",
        b"",
        b"\xF5PY1",
        b"\xF5PY1\0\0\0\0\0\0x",
        b"\0\xFF\r\n",
    ];
    let sent: Vec<Message> = bodies
        .iter()
        .enumerate()
        .map(|(n, body)| {
            let message = Message::new(Bytes::copy_from_slice(body)).header("tenant", "ä");
            match n {
                0 => message.id("chosen"),
                _ => message,
            }
        })
        .collect();
    let published = setup.publish(sent.clone()).await;
    let ids: Vec<MessageId> = published
        .into_iter()
        .map(|published| match published {
            Published::Published(id) => id,
            Published::Deduplicated => panic!("there was no dedupe key"),
        })
        .collect();
    assert_eq!(ids[0].as_str(), "chosen");
    let deliveries = lane.receive(sent.len()).await;
    for (message, id) in sent.iter().zip(&ids) {
        let delivery = deliveries
            .iter()
            .find(|delivery| delivery.id == *id)
            .unwrap_or_else(|| panic!("{id} is among {deliveries:?}"));
        assert_eq!(delivery.payload, message.payload);
        assert_eq!(delivery.headers, message.headers);
        assert_eq!((delivery.failures, delivery.crashes), (0, 0));
        assert!(!delivery.alone);
    }
    lane.ack(deliveries).await;
    assert_eq!(
        setup.publish(Vec::new()).await,
        [],
        "no messages, no answers"
    );
    setup.nothing_else_for(&mut lane).await;
}

/// A batch is published in its order; where the broker is ordered, one source receives it so, batch after batch.
pub async fn a_batch_keeps_its_order(setup: &Setup) {
    let mut lane = setup.lane().await;
    for _ in 0..3 {
        setup.publish(numbered(100)).await;
        let mut deliveries = Vec::new();
        while deliveries.len() < 100 {
            deliveries.append(&mut lane.receive(7.min(100 - deliveries.len())).await);
        }
        let mut received = text(&deliveries);
        if !setup.capabilities.ordered {
            received.sort_by_key(|body| body.parse::<u32>().ok());
        }
        let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(received, expected);
        lane.ack(deliveries).await;
    }
    setup.nothing_else_for(&mut lane).await;
}

/// `receive(max)` appends at most `max` deliveries, and leaves alone what is there already.
pub async fn receive_appends_no_more_than_it_was_asked_for(setup: &Setup) {
    let mut lane = setup.lane().await;
    setup.publish(numbered(10)).await;
    let mut deliveries = Vec::new();
    while deliveries.len() < 10 {
        let appended = lane.receive_once(3, &mut deliveries).await;
        assert!(appended <= 3, "{appended} were appended");
    }
    assert_eq!(deliveries.len(), 10);
    lane.ack(deliveries).await;
    setup.nothing_else_for(&mut lane).await;
}

/// An empty queue keeps `receive` waiting, so that a lane does not spin; but not for long, so that a lane whose read must
/// not be dropped can be stopped.
pub async fn receive_waits_a_while_and_returns_without_any(setup: &Setup) {
    let mut lane = setup.lane().await;
    let (start, mut deliveries) = (Instant::now(), Vec::new());
    lane.receive_once(10, &mut deliveries).await;
    let waited = Instant::now() - start;
    assert!(deliveries.is_empty());
    let mut longest = Duration::from_secs(if lane.subscription.cancel_safe { 10 } else { 1 });
    if !setup.capabilities.virtual_time {
        longest += Duration::from_secs(4);
    }
    assert!(
        (Duration::from_millis(100)..=longest).contains(&waited),
        "it waited {waited:?}"
    );
}

/// A `receive` that is declared cancel safe may be dropped while it waits, at any moment of a message's arrival: the
/// message goes to the next one, with no crash counted.
pub async fn a_dropped_receive_loses_nothing_if_it_is_cancel_safe(setup: &Setup) {
    let mut lane = setup.lane().await;
    if !lane.subscription.cancel_safe {
        return receive_waits_a_while_and_returns_without_any(setup).await;
    }
    for polls in 0..20 {
        let (mut dropped, mut polled) = (Vec::new(), 0);
        let publish = setup.publish(numbered(1));
        let publish_and_wait = async {
            publish.await;
            while polled < polls {
                polled += 1;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = lane.receive_once(1, &mut dropped) => {}
            () = publish_and_wait => {}
        }
        if dropped.is_empty() {
            dropped = lane.receive(1).await;
        }
        assert_eq!(dropped[0].attempt(), 1);
        lane.ack(dropped).await;
    }
    setup.nothing_else_for(&mut lane).await;
}

/// A broker of streams carries fields as fields; another one refuses them.
pub async fn fields_arrive_as_fields_or_are_refused(setup: &Setup) {
    let mut lane = setup.lane().await;
    let fields: EntryFields = [("user", &b"7"[..]), ("raw", b"\xFF\0")]
        .into_iter()
        .collect();
    let fields = Payload::from(fields);
    let message = Message::new(fields.clone());
    let published = setup.try_publish(vec![message]).await;
    if setup.capabilities.fields {
        published.expect("fields can be published");
        let deliveries = lane.receive(1).await;
        assert_eq!(deliveries[0].payload, fields);
        lane.ack(deliveries).await;
    } else {
        refused(published);
    }
    setup.nothing_else_for(&mut lane).await;
}

/// A payload of exactly the limit passes; one byte more is `TooLarge`, and nothing of its batch is published.
pub async fn an_oversized_message_is_refused_with_its_whole_batch(setup: &Setup) {
    let Some(limit) = setup.capabilities.max_message_bytes else {
        return;
    };
    let mut lane = setup.lane().await;
    let of = |len: usize| Message::new(vec![b'x'; len]);
    let error = setup
        .try_publish(vec![of(1), of(limit + 1)])
        .await
        .expect_err("one of them is too large");
    assert_eq!(error.kind(), BrokerErrorKind::TooLarge, "{error}");
    for named in [setup.queue.as_str(), &limit.to_string()] {
        assert!(error.to_string().contains(named), "{error}: {named}");
    }
    setup.publish(vec![of(limit)]).await;
    let deliveries = lane.receive(1).await;
    assert_eq!(deliveries[0].payload.len(), limit);
    lane.ack(deliveries).await;
    setup.nothing_else_for(&mut lane).await;
}

/// Of several messages with one dedupe key the first is published, in one batch or in several.
pub async fn a_dedupe_key_is_published_once(setup: &Setup) {
    let mut lane = setup.lane().await;
    let keyed = |body: &'static str, key: &'static str| Message::new(body).dedupe_key(key);
    let first = setup
        .try_publish(vec![keyed("1", "a"), keyed("2", "a"), keyed("3", "b")])
        .await;
    if !setup.capabilities.dedupe {
        refused(first);
        return setup.nothing_else_for(&mut lane).await;
    }
    let is_new = |published: &Published| matches!(published, Published::Published(_));
    let first: Vec<bool> = first.expect("keys are known").iter().map(is_new).collect();
    assert_eq!(first, [true, false, true]);
    let again = setup.publish(vec![keyed("4", "a"), keyed("5", "c")]).await;
    assert_eq!(again.iter().map(is_new).collect::<Vec<_>>(), [false, true]);
    let deliveries = lane.receive(3).await;
    let mut received = text(&deliveries);
    received.sort_unstable();
    assert_eq!(received, ["1", "3", "5"]);
    lane.ack(deliveries).await;
    setup.nothing_else_for(&mut lane).await;
}

/// A delayed message is not handed out before its time, and then in the order of due times; one that is due already is
/// handed out at once.
pub async fn a_delayed_message_waits_for_its_time(setup: &Setup) {
    let mut lane = setup.lane().await;
    let delay = Duration::from_millis(400);
    let start = Instant::now();
    let published = setup
        .try_publish(vec![
            Message::new("last").delay(delay * 2),
            Message::new("later").delay(delay),
            Message::new("past").deliver_at(SystemTime::now() - Duration::from_secs(3_600)),
        ])
        .await;
    if !setup.capabilities.delays {
        refused(published);
        return setup.nothing_else_for(&mut lane).await;
    }
    published.expect("delays can be published");
    for (body, due) in [
        ("past", Duration::ZERO),
        ("later", delay),
        ("last", delay * 2),
    ] {
        let deliveries = lane.receive(1).await;
        let waited = Instant::now() - start;
        assert_eq!(text(&deliveries), [body]);
        // Clocks that count whole milliseconds may cut one off at both ends.
        assert!(
            waited + Duration::from_millis(2) >= due,
            "{body} after {waited:?}"
        );
        if setup.capabilities.virtual_time {
            assert!(
                waited <= due + Duration::from_millis(1),
                "{body} after {waited:?}"
            );
        }
        lane.ack(deliveries).await;
    }
    setup.nothing_else_for(&mut lane).await;
}

fn refused(published: Result<Vec<Published>, BrokerError>) {
    let error = published.expect_err("it can't do that, and must say so");
    assert_eq!(error.kind(), BrokerErrorKind::Unsupported, "{error}");
}
