//! A message that kills its process takes no neighbour along.

use std::collections::BTreeSet;

use super::*;

#[tokio::test]
async fn one_poison_message_among_ten_thousand_is_the_only_dead_letter() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| config.lease = Duration::from_millis(150));
    publish(&broker, (0..10_000).map(|i| i.to_string())).await;
    let mut done = BTreeSet::new();
    let mut crashes = 0;
    while !life(&server, &mut done).await {
        crashes += 1;
        assert!(crashes <= LIMIT, "a message that is dead is not handed out");
    }
    assert_eq!(crashes, LIMIT);
    assert_eq!(done.len(), 9_999);
    let letters = broker.admin().expect("streams have it");
    let letters = letters
        .dead(&orders(), pythia_core::admin::Page::first(10))
        .await
        .expect("redis runs");
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(
        (body(&letters[0].delivery), letters[0].delivery.crashes),
        (POISON, LIMIT)
    );
    assert_eq!(
        letters[0].reason.as_ref().map(|reason| reason.kind),
        Some(DeadKind::Crashed)
    );
}

/// One process with two lanes and a batch of 100, from its start to its end: `true` if everything is done, `false` if it was
/// killed by what it ran, with all that it held.
async fn life(server: &RedisServer, done: &mut BTreeSet<String>) -> bool {
    let broker = with(server, |config| config.lease = Duration::from_millis(150));
    let mut lanes = [subscribe(&broker).await, subscribe(&broker).await];
    // Killed processes are recovered by their followers, once their leases are over.
    let follower = Instant::now() + Duration::from_millis(500);
    while Instant::now() < follower {
        for lane in &lanes {
            assert_eq!(renew(lane, &[]).await, []);
        }
        maintain(&broker).await;
        sleep(Duration::from_millis(10)).await;
    }
    let mut idle = 0;
    while idle < 2 {
        idle += 1;
        let mut held = Vec::new();
        for lane in &mut lanes {
            let mut read = Vec::new();
            lane.source
                .receive(100, &mut read)
                .await
                .expect("redis runs");
            let alone = read.iter().any(|delivery| delivery.alone);
            assert!(read.len() == 1 || !alone, "a suspect beside others");
            assert!(alone || read.iter().all(|delivery| delivery.crashes < 2));
            held.push((&*lane, read));
            if alone {
                break;
            }
        }
        // A suspect runs last, after what else this process has in hand, as it does in the runtime.
        for (lane, held) in held {
            for delivery in &held {
                if body(delivery) == POISON {
                    return false;
                }
                done.insert(body(delivery).to_owned());
                idle = 0;
            }
            assert_eq!(ack(lane, &held).await, 0);
        }
    }
    true
}

#[tokio::test]
async fn a_suspect_is_handed_out_alone_and_a_second_one_waits_for_the_first() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    publish(&broker, ["a".into(), "b".into()]).await;
    for crash in 1..=2 {
        let mut dies = subscribe(&broker).await;
        assert_eq!(take(&mut dies, 2).await[0].crashes, crash - 1);
        drop(dies);
        recover_all(&broker, 2).await;
    }
    publish(&broker, ["fresh".into()]).await;
    let (mut one, mut two) = (subscribe(&broker).await, subscribe(&broker).await);
    let mut first = Vec::new();
    one.source
        .receive(100, &mut first)
        .await
        .expect("redis runs");
    assert_eq!(
        (first.len(), first[0].alone, first[0].crashes),
        (1, true, 2)
    );
    // The other lane of this process, and this one, get what is harmless, and then nothing.
    let fresh = take(&mut two, 1).await;
    assert_eq!((body(&fresh[0]), fresh[0].alone), ("fresh", false));
    nothing(&mut two).await;
    // Another process has a turn of its own.
    let elsewhere = group(&server, "g");
    let mut three = subscribe(&elsewhere).await;
    let second = take(&mut three, 1).await;
    assert!(second[0].alone);
    assert_eq!(
        settle(&three, &[disposed(&second[0], Disposition::Release)]).await,
        0
    );
    drop(three);
    // Failing does not make it harmless, and neither does a release.
    assert_eq!(
        settle(&one, &[retry(&first[0], Duration::from_millis(1))]).await,
        0
    );
    maintain_until(&broker, |maintained| maintained.promoted == 1).await;
    let next = take(&mut two, 1).await;
    assert_eq!((next[0].alone, &next[0].id), (true, &second[0].id));
    assert_eq!(ack(&two, &next).await, 0);
    let last = take(&mut one, 1).await;
    assert_eq!(
        (last[0].alone, last[0].crashes, last[0].failures),
        (true, 2, 1)
    );
    assert_eq!(ack(&one, &last).await, 0);
}

#[tokio::test]
async fn failures_and_crashes_count_together() {
    let server = RedisServer::start().await;
    let broker = group(&server, "g");
    publish(&broker, ["a".into()]).await;
    let mut worker = subscribe(&broker).await;
    for _ in 0..4 {
        let held = take_one(&mut worker).await;
        assert_eq!(settle(&worker, &[retry(&held, Duration::ZERO)]).await, 0);
    }
    assert_eq!(take_one(&mut worker).await.attempt(), 5);
    drop(worker);
    let maintained = maintain_until(&broker, |maintained| maintained.dead > 0).await;
    assert_eq!((maintained.dead, maintained.recovered), (1, 0));
}

const POISON: &str = "4711";
