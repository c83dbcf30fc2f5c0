//! Slow is not dead, and dead is not for ever: crashes, renewal, lost leases, suspects, closing.

use std::slice;
use std::time::Duration;

use tokio::time::Instant;

use super::lane::{Lane, messages, numbered, text};
use super::{MAX_ATTEMPTS, PATIENCE, Setup, TICK};
use crate::admin::Page;
use crate::message::Delivery;
use crate::settlement::{DeadKind, Disposition};

/// A worker that dies leaves its messages with a crash counted, beside the failures that they have already.
pub async fn a_crash_counts_as_an_attempt(setup: &Setup) {
    if !setup.holds().await {
        return;
    }
    let mut lane = setup.lane().await;
    setup.publish(numbered(1)).await;
    let deliveries = lane.receive(1).await;
    let retry = Disposition::Retry {
        after: Duration::ZERO,
    };
    lane.settle(deliveries, retry).await;
    let deliveries = lane.receive(1).await;
    assert_eq!((deliveries[0].failures, deliveries[0].crashes), (1, 0));
    drop(lane);
    let mut heir = setup.lane().await;
    let deliveries = heir.receive(1).await;
    assert_eq!((deliveries[0].failures, deliveries[0].crashes), (1, 1));
    assert_eq!(deliveries[0].attempt(), 3);
    assert!(!deliveries[0].alone, "one crash makes no suspect");
    heir.ack(deliveries).await;
    setup.nothing_else_for(&mut heir).await;
}

/// While upkeep runs, what a dead worker held is in other hands within one lease and one round.
pub async fn messages_of_the_dead_are_back_within_a_lease_and_a_tick(setup: &Setup) {
    if !setup.holds().await {
        return;
    }
    let mut heir = setup.lane().await;
    // Upkeep that has run once knows that the broker was not away.
    setup.nothing_else_for(&mut heir).await;
    let mut lane = setup.lane().await;
    setup.publish(numbered(20)).await;
    // In two claims, which have to find back into one order.
    let mut held = lane.receive(12).await;
    held.append(&mut lane.receive(8).await);
    let lease = lane.lease();
    let start = Instant::now();
    drop(lane);
    let deliveries = heir.receive(20).await;
    let waited = Instant::now() - start;
    let slack = if setup.capabilities.virtual_time {
        TICK
    } else {
        // Rounds are no faster than the machine lets them be.
        lease + Duration::from_secs(5)
    };
    assert!(waited <= lease + slack, "after {waited:?}, lease {lease:?}");
    if setup.capabilities.returns_to_head {
        assert_eq!(text(&deliveries), text(&held), "in their old order");
    }
    heir.ack(deliveries).await;
    setup.nothing_else_for(&mut heir).await;
}

/// A worker that renews may be as slow as it likes.
pub async fn a_renewed_lease_keeps_its_messages(setup: &Setup) {
    if !setup.holds().await {
        return;
    }
    let (mut slow, mut other) = (setup.lane().await, setup.lane().await);
    setup.publish(numbered(3)).await;
    let deliveries = slow.receive(3).await;
    let three_leases = slow.lease() * 3;
    let others_try = async {
        let until = Instant::now() + three_leases;
        let mut stolen = Vec::new();
        while Instant::now() < until {
            other.receive_once(10, &mut stolen).await;
            assert!(stolen.is_empty(), "{stolen:?} was not given up");
        }
    };
    slow.renewing(others_try).await;
    slow.ack(deliveries).await;
    setup.nothing_else_for(&mut other).await;
}

/// A worker that was silent for too long is told what it has lost, settles none of it, and takes none of it back.
pub async fn a_lost_lease_is_told_and_settles_nothing(setup: &Setup) {
    if !setup.holds().await {
        return;
    }
    let (mut silent, mut heir) = (setup.lane().await, setup.lane().await);
    setup.publish(numbered(3)).await;
    let lost = silent.receive(3).await;
    let owned = heir.receive(3).await;
    let mut told = silent.extend().await;
    told.sort_unstable();
    let mut expected: Vec<_> = lost.iter().map(|delivery| delivery.receipt).collect();
    expected.sort_unstable();
    assert_eq!(told, expected, "it is told what it has lost");
    let after = Duration::ZERO;
    for (delivery, disposition) in lost.into_iter().zip([
        Disposition::Ack,
        Disposition::Retry { after },
        Disposition::Release,
    ]) {
        let settled = silent.settle([delivery], disposition.clone()).await;
        assert_eq!(settled.stale, 1, "{disposition:?} by who has lost it");
    }
    assert_eq!(heir.extend().await, [], "it took nothing back");
    heir.ack(owned).await;
    setup.nothing_else_for(&mut heir).await;
}

/// From its second crash on a message is handed out with nothing beside it.
pub async fn a_suspect_is_handed_out_alone(setup: &Setup) {
    if !setup.holds().await {
        return;
    }
    setup.publish(numbered(1)).await;
    for crashes in 0..2 {
        let mut lane = setup.lane().await;
        assert_eq!(lane.receive(1).await[0].crashes, crashes);
    }
    let mut lane = setup.lane().await;
    let suspect = lane.receive(1).await.remove(0);
    assert!(suspect.alone, "{suspect:?}");
    // Again, and this time with others before and behind it.
    setup.publish(messages(["a", "b"])).await;
    let after = Duration::ZERO;
    lane.settle([suspect], Disposition::Retry { after }).await;
    if setup.capabilities.admin {
        setup
            .eventually("the suspect is ready again", || async {
                let depth = setup.admin().depth(&setup.queue).await.expect("depth");
                depth.delayed.is_none_or(|delayed| delayed == 0)
            })
            .await;
    }
    setup.publish(messages(["c", "d"])).await;
    let mut deliveries = Vec::new();
    while deliveries.len() < 5 {
        let before = deliveries.len();
        let appended = lane.receive_once(10, &mut deliveries).await;
        let batch = &deliveries[before..];
        if batch.iter().any(|delivery| delivery.crashes == 2) {
            assert_eq!(appended, 1, "{batch:?}");
            assert!(batch[0].alone);
        } else {
            assert!(batch.iter().all(|delivery| !delivery.alone), "{batch:?}");
        }
    }
    lane.ack(deliveries).await;
    setup.nothing_else_for(&mut lane).await;
}

/// A message that kills its worker is dead after as many attempts as are allowed, and takes no other message along.
pub async fn a_poison_message_dies_without_its_neighbours(setup: &Setup) {
    if !setup.holds().await {
        return;
    }
    let bodies = (0..20).map(|n| {
        if n == 7 {
            "poison".into()
        } else {
            n.to_string()
        }
    });
    setup.publish(messages(bodies)).await;
    let (mut deaths, mut done) = (0, 0);
    let mut lane = setup.lane().await;
    while done < 19 || deaths < MAX_ATTEMPTS {
        let deliveries = receive_one_batch(&mut lane).await;
        if text(&deliveries).contains(&"poison") {
            deaths += 1;
            assert!(deaths <= MAX_ATTEMPTS, "it kills and kills, and never dies");
            lane = setup.lane().await;
        } else {
            done += deliveries.len();
            lane.ack(deliveries).await;
        }
    }
    assert_eq!((done, deaths), (19, MAX_ATTEMPTS));
    if setup.capabilities.admin {
        setup
            .eventually("the poison is dead", || async {
                let dead = setup.admin().dead(&setup.queue, Page::first(30)).await;
                let dead = dead.expect("dead letters");
                for letter in &dead {
                    assert_eq!(
                        text(slice::from_ref(&letter.delivery)),
                        ["poison"],
                        "{letter:?}"
                    );
                    assert_eq!(letter.delivery.crashes, MAX_ATTEMPTS);
                    let kind = letter.reason.as_ref().map(|reason| reason.kind);
                    assert!(matches!(kind, None | Some(DeadKind::Crashed)), "{kind:?}");
                }
                dead.len() == 1
            })
            .await;
    }
    setup.nothing_else_for(&mut lane).await;
}

/// What is released before a source is closed goes to others at once: no lease has to run out for it.
pub async fn close_hands_back_at_once(setup: &Setup) {
    if !setup.holds().await {
        return;
    }
    let (mut leaving, mut other) = (setup.lane().await, setup.lane().await);
    setup.publish(numbered(5)).await;
    let deliveries = leaving.receive(5).await;
    let start = Instant::now();
    let leave = async {
        leaving.settle(deliveries, Disposition::Release).await;
        assert!(leaving.close().await.is_empty(), "it was handed back");
    };
    let (received, ()) = tokio::join!(other.receive(5), leave);
    let waited = Instant::now() - start;
    for delivery in &received {
        assert_eq!(delivery.crashes, 0, "it was not waited for");
    }
    if setup.capabilities.virtual_time {
        assert_eq!(waited, Duration::ZERO);
    }
    other.ack(received).await;
    setup.nothing_else_for(&mut other).await;
}

/// One batch, with nothing fetched beside it: a suspect runs alone.
async fn receive_one_batch(lane: &mut Lane) -> Vec<Delivery> {
    let (deadline, mut deliveries) = (Instant::now() + PATIENCE, Vec::new());
    while lane.receive_once(10, &mut deliveries).await == 0 {
        assert!(Instant::now() < deadline, "nothing within {PATIENCE:?}");
    }
    deliveries
}
