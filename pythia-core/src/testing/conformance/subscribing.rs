//! Who gets what: one worker, one worker of each group, or every subscription; once at most, or at least.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::lane::{Lane, dead_letter, numbered, text};
use super::{PATIENCE, Setup};
use crate::broker::Guarantee;
use crate::error::BrokerErrorKind;
use crate::observe::GapCause;
use crate::settlement::{Disposition, Settlement};
use crate::testing::{EventLog, Record};

/// Among several subscriptions each message goes to exactly one, or, where the broker fans out, to each.
pub async fn each_message_goes_to_one_subscription_or_to_all(setup: &Setup) {
    const MESSAGES: usize = 200;
    let mut lanes = Vec::new();
    for _ in 0..4 {
        lanes.push(setup.lane().await);
    }
    let copies = if setup.capabilities.fan_out { 4 } else { 1 };
    let received = AtomicUsize::new(0);
    let work = join_all(lanes.iter_mut().map(async |lane| {
        let mut bodies = Vec::new();
        while received.load(Ordering::SeqCst) < copies * MESSAGES {
            let mut deliveries = Vec::new();
            let count = lane.receive_once(16, &mut deliveries).await;
            received.fetch_add(count, Ordering::SeqCst);
            bodies.extend(text(&deliveries).into_iter().map(String::from));
            lane.ack(deliveries).await;
        }
        bodies
    }));
    let publish = async {
        for chunk in numbered(MESSAGES).chunks(25) {
            setup.publish(chunk.to_vec()).await;
        }
    };
    let (bodies, ()) = tokio::join!(work, publish);
    let mut times: HashMap<&str, usize> = HashMap::new();
    for body in bodies.iter().flatten() {
        *times.entry(body).or_default() += 1;
    }
    assert_eq!(times.len(), MESSAGES);
    assert!(times.values().all(|&times| times == copies), "{times:?}");
    if setup.capabilities.fan_out {
        assert!(bodies.iter().all(|bodies| bodies.len() == MESSAGES));
    }
    setup.drained().await;
}

/// A queue keeps what is published for whoever comes later; a broker that fans out keeps nothing for anybody, and an
/// observer learns that nobody was there.
pub async fn a_late_subscription_gets_what_waits_or_nothing(setup: &Setup) {
    let log = Arc::new(EventLog::new());
    setup.broker.attach(Arc::<EventLog>::clone(&log));
    setup.publish(numbered(2)).await;
    let mut late = setup.lane().await;
    if setup.capabilities.fan_out {
        assert_eq!(gaps(&log, setup), [(GapCause::NoReceiver, Some(2))]);
    } else {
        let deliveries = late.receive(2).await;
        assert_eq!(text(&deliveries), ["0", "1"]);
        late.ack(deliveries).await;
        assert_eq!(gaps(&log, setup), []);
    }
    setup.nothing_else_for(&mut late).await;
}

/// Every group gets every message; what one group retries or releases, no other group sees again.
pub async fn groups_do_not_see_each_others_retries(setup: &Setup) {
    let Some(other_group) = &setup.other_group else {
        return;
    };
    let mut ours = setup.lane().await;
    let theirs = other_group.subscribe(&setup.queue).await;
    let mut theirs = Lane::new(theirs.expect("the other group can be subscribed to"));
    setup.publish(numbered(2)).await;
    let deliveries = theirs.receive(2).await;
    theirs.ack(deliveries).await;
    let mut deliveries = ours.receive(2).await;
    let released = deliveries.pop();
    let after = Duration::from_millis(50);
    ours.settle(deliveries, Disposition::Retry { after }).await;
    ours.settle(released, Disposition::Release).await;
    let deliveries = ours.receive(2).await;
    assert_eq!(deliveries.iter().map(|d| d.failures).sum::<u32>(), 1);
    ours.ack(deliveries).await;
    setup.nothing_else_for(&mut ours).await;
    let deliveries = theirs.receive(1).await;
    assert_eq!(
        text(&deliveries),
        ["marker"],
        "nothing that our group retried"
    );
    theirs.ack(deliveries).await;
}

/// A broker that hands out at most once has no leases, and what it has handed out does not come back: it refuses every
/// disposition but an ack, or counts it as stale. One that hands out at least once has a lease.
pub async fn at_most_once_keeps_nothing(setup: &Setup) {
    let mut lane = setup.lane().await;
    assert_eq!(setup.broker.guarantee(), setup.capabilities.guarantee);
    if setup.capabilities.guarantee == Guarantee::AtLeastOnce {
        assert!(!lane.lease().is_zero());
        return;
    }
    assert_eq!(lane.subscription.lease, None);
    setup.publish(numbered(3)).await;
    let mut deliveries = lane.receive(3).await;
    let after = Duration::ZERO;
    for disposition in [
        Disposition::Retry { after },
        Disposition::Release,
        dead_letter("too late"),
    ] {
        let settlement = Settlement::new(deliveries.remove(0), disposition);
        match lane.subscription.settler.settle(&[settlement]).await {
            Ok(settled) => assert_eq!(settled.stale, 1),
            Err(error) => assert_eq!(error.kind(), BrokerErrorKind::Unsupported, "{error}"),
        }
    }
    assert_eq!(lane.extend().await, [], "what is not held can't be lost");
    drop(lane);
    let mut heir = setup.lane().await;
    setup.nothing_else_for(&mut heir).await;
}

/// What a subscription that ends has taken in and nobody has received is still received: by others, or, where nobody else
/// would get it, by the one that ends.
pub async fn what_is_not_received_before_a_close_is_not_lost(setup: &Setup) {
    const MESSAGES: usize = 100;
    let (mut leaving, mut heir) = (setup.lane().await, setup.lane().await);
    setup.publish(numbered(MESSAGES)).await;
    let mut received = leaving.receive(10).await;
    leaving.ack(received.clone()).await;
    let rest = leaving.close().await;
    if setup.capabilities.fan_out {
        received.extend(rest);
        assert_eq!(received.len(), MESSAGES);
        heir.receive(MESSAGES).await;
        return;
    }
    if setup.capabilities.guarantee == Guarantee::AtLeastOnce {
        assert!(rest.is_empty(), "it can be handed back");
    }
    let others = heir.receive(MESSAGES - 10 - rest.len()).await;
    heir.ack(others).await;
    setup.nothing_else_for(&mut heir).await;
}

/// A subscription that is too slow loses messages, and an observer learns how many; on a broker that never drops it
/// loses none.
pub async fn what_a_slow_subscription_loses_is_counted(setup: &Setup) {
    let log = Arc::new(EventLog::new());
    setup.broker.attach(Arc::<EventLog>::clone(&log));
    let mut lane = setup.lane().await;
    let published = setup.capabilities.buffer.map_or(1_000, |buffer| buffer * 4);
    for chunk in numbered(published).chunks(100) {
        setup.publish(chunk.to_vec()).await;
    }
    let (deadline, mut deliveries) = (Instant::now() + PATIENCE, Vec::new());
    while deliveries.len() + lost(&log) < published {
        assert!(
            Instant::now() < deadline,
            "{} received and {} reported as lost, of {published}",
            deliveries.len(),
            lost(&log)
        );
        lane.receive_once(published, &mut deliveries).await;
    }
    assert_eq!(deliveries.len() + lost(&log), published);
    assert_eq!(lost(&log) > 0, setup.capabilities.buffer.is_some());
    for (cause, _) in gaps(&log, setup) {
        assert_eq!(cause, GapCause::BufferFull);
    }
    lane.ack(deliveries).await;
    setup.nothing_else_for(&mut lane).await;
}

fn lost(log: &EventLog) -> usize {
    usize::try_from(log.lost()).expect("fewer than were published")
}

/// The gaps on this queue.
fn gaps(log: &EventLog, setup: &Setup) -> Vec<(GapCause, Option<u64>)> {
    let records = log.records().into_iter();
    records
        .filter_map(|record| match record {
            Record::Gap {
                queue, cause, lost, ..
            } => {
                assert_eq!(queue, setup.queue);
                Some((cause, lost))
            }
            _ => None,
        })
        .collect()
}
