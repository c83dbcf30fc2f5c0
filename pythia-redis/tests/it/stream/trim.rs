//! Trimming removes what every group has processed, and nothing else.

use std::num::NonZeroUsize;

use pythia_redis::config::TrimStrategy;

use super::*;

fn trimming(
    server: &RedisServer,
    name: &str,
    strategy: TrimStrategy,
    approximate: bool,
) -> StreamBroker {
    with(server, |config| {
        config.stream.group = name.to_owned();
        config.stream.trim_strategy = strategy;
        config.stream.trim_approximate = approximate;
        config.stream.max_length = NonZeroUsize::new(100);
        config.stream.retention = Some(Duration::from_millis(1));
        config.maintain.trim = NonZeroUsize::new(300).expect("not zero");
    })
}

/// Full rounds until none of them trims any more. Answers how much was trimmed, and the last round's word on the limit.
async fn trim_all(broker: &StreamBroker) -> (u64, Option<(u64, String)>) {
    let mut trimmed = 0;
    loop {
        // A new handle has no memory of the last full round, so each of these is one.
        let maintained = maintain(broker).await;
        trimmed += maintained.trimmed;
        if !maintained.more {
            return (
                trimmed,
                maintained.over_limit.map(|over| (over.entries, over.group)),
            );
        }
    }
}

#[tokio::test]
async fn nothing_that_a_group_has_yet_to_process_is_removed() {
    for strategy in [TrimStrategy::Maxlen, TrimStrategy::Minid] {
        for approximate in [false, true] {
            let server = RedisServer::start().await;
            let fresh = |name| trimming(&server, name, strategy, approximate);
            let (quick, slow) = (fresh("quick"), fresh("slow"));
            let (mut ours, mut theirs) = (subscribe(&quick).await, subscribe(&slow).await);
            publish(&quick, (0..2_000).map(|i| format!("{i:04}"))).await;
            let all = take(&mut ours, 2_000).await;
            assert_eq!(ack(&ours, &all).await, 0);
            // The slow group has 400 entries in hand and has done 300 of them, the last ones first.
            let held = take(&mut theirs, 400).await;
            assert_eq!(ack(&theirs, &held[100..]).await, 0);
            sleep(Duration::from_millis(5)).await;

            let (trimmed, over) = trim_all(&fresh("quick")).await;
            assert_eq!(trimmed, 0, "{strategy:?}: the first entry is still in hand");
            let (over, holder) = over.expect("the stream is longer than wished for");
            assert_eq!(holder, "slow");
            if matches!(strategy, TrimStrategy::Maxlen) {
                assert_eq!(over, 1_900);
            }
            assert_eq!(ack(&theirs, &held[..100]).await, 0);
            let (trimmed, over) = trim_all(&fresh("quick")).await;
            assert!(
                if approximate {
                    (300..=400).contains(&trimmed)
                } else {
                    trimmed == 400
                },
                "{trimmed}"
            );
            assert_eq!(over.expect("1,600 were not handed out").1, "slow");

            let rest = take(&mut theirs, 1_600).await;
            let expected: Vec<_> = (400..2_000).map(|i| format!("{i:04}")).collect();
            assert_eq!(
                bodies(&rest),
                expected,
                "{strategy:?}, approximate: {approximate}"
            );
            assert_eq!(ack(&theirs, &rest).await, 0);
            sleep(Duration::from_millis(5)).await;
            let (_, over) = trim_all(&fresh("quick")).await;
            assert_eq!(over, None);
            let left = number(&server, &["XLEN", "orders"]).await;
            let wished = if matches!(strategy, TrimStrategy::Maxlen) {
                100
            } else {
                0
            };
            assert!(
                if approximate {
                    (wished..=wished + 100).contains(&left)
                } else {
                    left == wished
                },
                "{left}"
            );
        }
    }
}

#[tokio::test]
async fn retries_do_not_hold_the_floor_and_are_not_trimmed() {
    let server = RedisServer::start().await;
    let broker = trimming(&server, "g", TrimStrategy::Minid, false);
    let mut worker = subscribe(&broker).await;
    publish(&broker, ["again".into(), "later".into(), "no".into()]).await;
    let held = take(&mut worker, 3).await;
    let batch = [
        retry(&held[0], Duration::ZERO),
        retry(&held[1], Duration::from_millis(50)),
        dead(&held[2], "no"),
    ];
    assert_eq!(settle(&worker, &batch).await, 0);
    sleep(Duration::from_millis(5)).await;
    let (trimmed, over) = trim_all(&trimming(&server, "g", TrimStrategy::Minid, false)).await;
    assert_eq!((trimmed, over), (3, None));
    // The delayed one may have become ready in a round above, or does in one of these.
    let again = take_due(&broker, &mut worker, 2).await;
    assert_eq!(bodies(&again), ["again", "later"]);
}

#[tokio::test]
async fn a_group_that_nobody_reads_is_named_until_it_is_dropped() {
    let server = RedisServer::start().await;
    let broker = trimming(&server, "g", TrimStrategy::Maxlen, false);
    let mut worker = subscribe(&broker).await;
    server
        .cli(&["XGROUP", "CREATE", "orders", "forgotten", "0"])
        .await;
    publish(&broker, (0..150).map(|i| i.to_string())).await;
    let all = take(&mut worker, 150).await;
    assert_eq!(ack(&worker, &all).await, 0);
    let again = trimming(&server, "g", TrimStrategy::Maxlen, false);
    assert_eq!(
        trim_all(&again).await,
        (0, Some((50, "forgotten".to_owned())))
    );
    // Rounds between the full ones know it too.
    assert!(maintain(&again).await.over_limit.is_some());
    server
        .cli(&["XGROUP", "DESTROY", "orders", "forgotten"])
        .await;
    assert_eq!(
        trim_all(&trimming(&server, "g", TrimStrategy::Maxlen, false)).await,
        (50, None)
    );
}

#[tokio::test]
async fn without_a_wish_what_is_processed_goes() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| config.stream.trim_approximate = false);
    let mut worker = subscribe(&broker).await;
    publish(&broker, (0..10).map(|i| i.to_string())).await;
    let held = take(&mut worker, 10).await;
    assert_eq!(ack(&worker, &held[..7]).await, 0);
    assert_eq!(
        trim_all(&with(&server, |config| config.stream.trim_approximate = false)).await,
        (7, None)
    );
}
