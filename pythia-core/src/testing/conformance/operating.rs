//! Looking into a queue and putting it in order.

use std::time::{Duration, SystemTime};

use super::Setup;
use super::lane::{Lane, dead_letter, messages, numbered, text};
use crate::admin::{Admin, DeadLetter, Page, Purge};
use crate::error::BrokerErrorKind;
use crate::message::Message;
use crate::settlement::Disposition;

/// Depth counts what is ready, in hands, delayed and dead, each in its place, and says how long the oldest waits.
pub async fn depth_tells_how_much_is_where(setup: &Setup) {
    let Some(admin) = setup.operated().await else {
        return;
    };
    let mut lane = setup.lane().await;
    setup.publish(numbered(10)).await;
    let mut deliveries = lane.receive(6).await;
    let after = Duration::from_secs(3_600);
    lane.settle(deliveries.drain(..1), dead_letter("no")).await;
    lane.settle(deliveries.drain(..2), Disposition::Retry { after })
        .await;
    setup
        .eventually(
            "four are ready, three in hands, two delayed, one dead",
            || async {
                let depth = admin.depth(&setup.queue).await.expect("depth");
                let oldest = depth.oldest.unwrap_or_default();
                assert!(oldest < after, "{depth:?}");
                depth.ready.is_none_or(|ready| ready == 4)
                    && depth.pending.is_none_or(|pending| pending == 3)
                    && depth.delayed.is_none_or(|delayed| delayed == 2)
                    && depth.dead.is_none_or(|dead| dead == 1)
                    && depth.lag.is_none_or(|lag| lag == 4)
                    && depth.oldest.is_none_or(|oldest| !oldest.is_zero())
            },
        )
        .await;
}

/// Dead letters are listed page by page, the newest first, as often as one likes.
pub async fn dead_letters_are_listed_newest_first(setup: &Setup) {
    if setup.operated().await.is_none() {
        return;
    }
    let mut lane = setup.lane().await;
    bury(setup, &mut lane, &["a", "b", "c", "d", "e"]).await;
    let (first, second) = (
        Page::first(3),
        Page {
            offset: 3,
            limit: 3,
        },
    );
    assert_eq!(dead(setup, Page::first(usize::MAX)).await.len(), 5);
    assert_eq!(dead(setup, first).await, ["e", "d", "c"]);
    assert_eq!(dead(setup, second).await, ["b", "a"]);
    assert_eq!(
        dead(
            setup,
            Page {
                offset: 5,
                limit: 3
            }
        )
        .await,
        [""; 0]
    );
    assert_eq!(dead(setup, Page::first(0)).await, [""; 0]);
    assert_eq!(dead(setup, Page::first(100)).await.len(), 5);
    setup.nothing_else_for(&mut lane).await;
}

/// Dead letters go back by id, or the oldest first, and start anew.
pub async fn dead_letters_are_requeued_with_their_counters_at_zero(setup: &Setup) {
    let Some(admin) = setup.operated().await else {
        return;
    };
    let mut lane = setup.lane().await;
    bury(setup, &mut lane, &["a", "b", "c", "d", "e"]).await;
    let ids: Vec<_> = dead_letters(
        setup,
        Page {
            offset: 1,
            limit: 1,
        },
    )
    .await
    .into_iter()
    .map(|letter| letter.delivery.id)
    .chain(["nobody's".into()])
    .collect();
    let requeue = admin.requeue(&setup.queue, Some(&ids), 0).await;
    assert_eq!(requeue.expect("requeue"), 1, "those with these ids");
    let requeue = admin.requeue(&setup.queue, None, 2).await;
    assert_eq!(requeue.expect("requeue"), 2, "no more than the limit");
    assert_eq!(dead(setup, Page::first(10)).await, ["e", "c"]);
    let deliveries = lane.receive(3).await;
    for delivery in &deliveries {
        assert_eq!(delivery.attempt(), 1, "{delivery:?}");
        assert_eq!(delivery.headers.get("tenant"), Some("a"));
    }
    let mut received = text(&deliveries);
    received.sort_unstable();
    assert_eq!(received, ["a", "b", "d"]);
    lane.ack(deliveries).await;
    setup.nothing_else_for(&mut lane).await;
}

/// Delayed messages are listed by due time, the next first, with that time.
pub async fn delayed_messages_are_listed_by_due_time(setup: &Setup) {
    let Some(admin) = setup.operated().await else {
        return;
    };
    if !setup.capabilities.delays {
        let listed = admin.delayed(&setup.queue, Page::first(10)).await;
        assert_eq!(listed.map_or(0, |listed| listed.len()), 0);
        return;
    }
    let hours = |n: u64| Duration::from_secs(n * 3_600);
    let delayed =
        [("b", 2), ("a", 1), ("c", 3)].map(|(body, n)| Message::new(body).delay(hours(n)));
    let before = SystemTime::now();
    setup.publish(delayed.into()).await;
    let listed = admin.delayed(&setup.queue, Page::first(2)).await;
    let rest = Page {
        offset: 2,
        limit: 2,
    };
    let all = admin.delayed(&setup.queue, Page::first(usize::MAX)).await;
    assert_eq!(all.expect("all of them").len(), 3);
    let mut listed = listed.expect("delayed messages");
    listed.extend(admin.delayed(&setup.queue, rest).await.expect("the rest"));
    let deliveries: Vec<_> = listed.iter().map(|item| item.delivery.clone()).collect();
    assert_eq!(text(&deliveries), ["a", "b", "c"]);
    for (item, n) in listed.iter().zip(1..) {
        let due = item.due.duration_since(before).expect("it lies ahead");
        let off = due.abs_diff(hours(n));
        assert!(off < Duration::from_secs(60), "{item:?} is {off:?} off");
    }
}

/// Purging a state empties that one, and answers how many messages went.
pub async fn purge_empties_one_state_and_no_other(setup: &Setup) {
    let Some(admin) = setup.operated().await else {
        return;
    };
    let mut lane = setup.lane().await;
    bury(setup, &mut lane, &["dead", "dead"]).await;
    setup.publish(messages(["held"])).await;
    let held = lane.receive(1).await;
    setup.publish(messages(["ready", "ready", "ready"])).await;
    let purge = async |state| admin.purge(&setup.queue, state).await.expect("purge");
    assert_eq!(purge(Purge::Dead).await, 2);
    assert_eq!(purge(Purge::Dead).await, 0);
    if setup.capabilities.delays {
        setup
            .publish(vec![Message::new("x").delay(Duration::from_secs(3_600))])
            .await;
        assert_eq!(purge(Purge::Delayed).await, 1);
    }
    assert_eq!(purge(Purge::Ready).await, 3);
    assert_eq!(lane.extend().await, [], "what is in hands stays there");
    lane.ack(held).await;
    setup.nothing_else_for(&mut lane).await;
}

impl Setup {
    /// The broker's [`Admin`]. One that is not declared is checked to be absent, to refuse, or to have nothing.
    async fn operated(&self) -> Option<&dyn Admin> {
        if self.capabilities.admin {
            return Some(self.admin());
        }
        if let Some(admin) = self.broker.admin() {
            match admin.requeue(&self.queue, None, 1).await {
                Ok(requeued) => assert_eq!(requeued, 0, "there are no dead letters"),
                Err(error) => assert_eq!(error.kind(), BrokerErrorKind::Unsupported, "{error}"),
            }
        }
        None
    }
}

/// Sends messages with these bodies to the dead letters, one after another.
async fn bury(setup: &Setup, lane: &mut Lane, bodies: &[&'static str]) {
    for body in bodies {
        setup
            .publish(vec![Message::new(*body).header("tenant", "a")])
            .await;
        let deliveries = lane.receive(1).await;
        let settled = lane.settle(deliveries, dead_letter("no")).await;
        assert_eq!(settled.stale, 0);
    }
}

async fn dead_letters(setup: &Setup, page: Page) -> Vec<DeadLetter> {
    setup
        .admin()
        .dead(&setup.queue, page)
        .await
        .expect("dead letters")
}

async fn dead(setup: &Setup, page: Page) -> Vec<String> {
    let letters = dead_letters(setup, page).await;
    let deliveries: Vec<_> = letters.into_iter().map(|letter| letter.delivery).collect();
    text(&deliveries).into_iter().map(String::from).collect()
}
