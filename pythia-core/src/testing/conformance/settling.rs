//! A message leaves the broker only when it is settled, and goes where its disposition says.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Setup;
use super::lane::{dead_letter, messages, numbered, text};
use crate::admin::Page;
use crate::message::Message;
use crate::settlement::{Disposition, Settlement};

/// What was acknowledged is gone; what was not comes back when its worker has died.
pub async fn only_settled_messages_leave(setup: &Setup) {
    if !setup.holds().await {
        return;
    }
    let mut lane = setup.lane().await;
    setup.publish(numbered(3)).await;
    let mut deliveries = lane.receive(3).await;
    let settled = deliveries.remove(1);
    let kept: Vec<_> = deliveries
        .iter()
        .map(|delivery| delivery.id.clone())
        .collect();
    lane.ack([settled]).await;
    drop(lane);
    let mut heir = setup.lane().await;
    let deliveries = heir.receive(2).await;
    for delivery in &deliveries {
        assert!(kept.contains(&delivery.id), "{delivery:?} was not settled");
    }
    assert_ne!(deliveries[0].id, deliveries[1].id);
    heir.ack(deliveries).await;
    setup.nothing_else_for(&mut heir).await;
}

/// The dispositions of one fetched batch may come in several calls, in any order, mixed.
pub async fn a_batch_is_settled_in_parts_and_in_any_order(setup: &Setup) {
    if !setup.holds().await {
        return;
    }
    let mut lane = setup.lane().await;
    setup.publish(numbered(10)).await;
    let mut deliveries = lane.receive(10).await;
    lane.ack([deliveries.remove(9), deliveries.remove(4)]).await;
    let again = [deliveries.remove(6), deliveries.remove(0)];
    let expected: Vec<_> = again.iter().map(|delivery| delivery.id.clone()).collect();
    let mut mixed: Vec<_> = again
        .into_iter()
        .map(|delivery| {
            Settlement::new(
                delivery,
                Disposition::Retry {
                    after: Duration::ZERO,
                },
            )
        })
        .collect();
    mixed.insert(1, Settlement::new(deliveries.remove(2), Disposition::Ack));
    assert_eq!(lane.settle_as(&mixed).await.stale, 0);
    deliveries.reverse();
    lane.ack(deliveries).await;
    let retried = lane.receive(2).await;
    for delivery in &retried {
        assert!(expected.contains(&delivery.id));
        assert_eq!(delivery.failures, 1);
    }
    lane.ack(retried).await;
    setup.nothing_else_for(&mut lane).await;
}

/// A settle whose reply was lost is repeated: what it did is not done twice, whatever the repeat counts as stale.
pub async fn a_settlement_repeated_is_not_done_twice(setup: &Setup) {
    if !setup.holds().await {
        return;
    }
    let mut lane = setup.lane().await;
    setup.publish(numbered(3)).await;
    let mut deliveries = lane.receive(3).await;
    let retry = Disposition::Retry {
        after: Duration::ZERO,
    };
    let batch = [
        Settlement::new(deliveries.remove(0), Disposition::Ack),
        Settlement::new(deliveries.remove(0), retry),
        Settlement::new(deliveries.remove(0), Disposition::Release),
    ];
    lane.settle_as(&batch).await;
    lane.settle_as(&batch).await;
    let back = lane.receive(2).await;
    assert_ne!(back[0].id, back[1].id);
    lane.settle_as(&batch).await;
    assert_eq!(
        lane.extend().await,
        [],
        "the repeat settled no later delivery"
    );
    lane.ack(back).await;
    setup.nothing_else_for(&mut lane).await;
}

/// A retry comes back after its delay, with the failure counted and all else as it was, though its worker died; and it
/// frees its slot.
pub async fn a_retry_waits_counts_and_survives_its_worker(setup: &Setup) {
    if !setup.holds().await {
        return;
    }
    let mut lane = setup.lane().await;
    let body = Bytes::from_static(b"\0\xF5PY1\xFF");
    setup
        .publish(vec![Message::new(body).id("chosen").header("tenant", "a")])
        .await;
    let before = lane.receive(1).await.remove(0);
    let (after, start) = (Duration::from_millis(400), Instant::now());
    let settled = lane
        .settle([before.clone()], Disposition::Retry { after })
        .await;
    assert_eq!(settled.stale, 0);
    if setup.capabilities.admin {
        let depth = setup.admin().depth(&setup.queue).await.expect("depth");
        assert_eq!(
            depth.pending.unwrap_or(0),
            0,
            "it frees its slot: {depth:?}"
        );
    }
    drop(lane);
    let mut heir = setup.lane().await;
    let again = heir.receive(1).await.remove(0);
    let waited = Instant::now() - start;
    assert!(
        waited + Duration::from_millis(2) >= after,
        "after {waited:?}"
    );
    assert_eq!((again.failures, again.crashes), (1, 0));
    assert_eq!(again.attempt(), 2);
    assert_eq!(again.id, before.id);
    assert_eq!(again.payload, before.payload);
    assert_eq!(again.headers, before.headers);
    assert_eq!(again.enqueued_at, before.enqueued_at);
    heir.ack([again]).await;
    setup.nothing_else_for(&mut heir).await;
}

/// A snooze waits like a retry, and counts nothing.
pub async fn a_snooze_burns_no_attempt(setup: &Setup) {
    if !setup.holds().await {
        return;
    }
    let mut lane = setup.lane().await;
    setup.publish(numbered(1)).await;
    let mut deliveries = lane.receive(1).await;
    let after = Duration::from_millis(50);
    // More often than attempts are allowed.
    for _ in 0..10 {
        let start = Instant::now();
        lane.settle(deliveries, Disposition::Snooze { after }).await;
        deliveries = lane.receive(1).await;
        let waited = Instant::now() - start;
        assert!(
            waited + Duration::from_millis(2) >= after,
            "after {waited:?}"
        );
        assert_eq!(deliveries[0].attempt(), 1);
    }
    lane.ack(deliveries).await;
    setup.nothing_else_for(&mut lane).await;
}

/// Released messages are ready at once, count nothing, and stand, where the broker has a head, at the head in their old
/// order.
pub async fn released_messages_are_back_at_once_with_no_attempt_burnt(setup: &Setup) {
    if !setup.holds().await {
        return;
    }
    let mut lane = setup.lane().await;
    setup.publish(numbered(6)).await;
    let mut deliveries = lane.receive(4).await;
    let kept = deliveries.remove(1);
    // Not in the order of the queue, as jobs end in none.
    deliveries.swap(0, 2);
    lane.settle(deliveries, Disposition::Release).await;
    let mut deliveries = lane.receive(5).await;
    for delivery in &deliveries {
        assert_eq!((delivery.failures, delivery.crashes), (0, 0));
    }
    let mut received = text(&deliveries);
    if !setup.capabilities.returns_to_head {
        received.sort_unstable();
    }
    assert_eq!(received, ["0", "2", "3", "4", "5"]);
    deliveries.push(kept);
    lane.ack(deliveries).await;
    setup.nothing_else_for(&mut lane).await;
}

/// Dead letters leave the queue and keep their bytes, their headers, their counters and their reason.
pub async fn dead_letters_keep_every_byte(setup: &Setup) {
    if !setup.holds().await {
        return;
    }
    let mut lane = setup.lane().await;
    let bodies: [&'static [u8]; 4] = [
        b"not json",
        b"",
        b"\xF5PY1\xFF\xFF\xFF\xFF\xFF\xFF",
        b"\0\xFE",
    ];
    let sent = messages(bodies.map(Bytes::from_static))
        .into_iter()
        .map(|message| message.header("tenant", "a"))
        .collect();
    setup.publish(sent).await;
    let deliveries = lane.receive(bodies.len()).await;
    let settled = lane
        .settle(deliveries, dead_letter("no such customer"))
        .await;
    assert_eq!(settled.stale, 0);
    if setup.capabilities.admin {
        let dead = setup
            .admin()
            .dead(&setup.queue, Page::first(10))
            .await
            .expect("dead letters");
        assert_eq!(dead.len(), bodies.len());
        for body in bodies {
            let letter = dead
                .iter()
                .find(|letter| {
                    letter
                        .delivery
                        .payload
                        .as_bytes()
                        .is_some_and(|b| b == body)
                })
                .unwrap_or_else(|| panic!("{body:?} is among {dead:?}"));
            assert_eq!(letter.delivery.headers.get("tenant"), Some("a"));
            assert_eq!(letter.delivery.failures, 1);
            if let Some(reason) = &letter.reason {
                assert_eq!(reason.to_string(), "permanent: no such customer");
            }
        }
    }
    setup.nothing_else_for(&mut lane).await;
}
