//! `redis-sentinel://`: three real sentinels, and a primary that changes.

use std::time::Duration;

use pythia_redis::testing::{RedisServer, Sentinels};

use super::{PATTERNS, all_patterns_work, refusal};
use crate::bench::Bench;

#[tokio::test]
async fn every_pattern_works_by_way_of_sentinels() {
    let sentinels = Sentinels::start().await;
    all_patterns_work(&format!("redis.url = {:?}", sentinels.url())).await;
}

#[tokio::test]
async fn sentinels_and_servers_have_passwords_of_their_own() {
    let sentinels =
        Sentinels::start_with(&["--requirepass", "data"], &["--requirepass", "watch"]).await;
    let url = format!("{}?sentinel_password=watch", sentinels.url());
    all_patterns_work(&format!("redis.url = {url:?}")).await;
}

/// What was published before and after is processed. Meanwhile publishing goes on; but sentinels promote the replica before
/// they demote the primary, and what that one takes in between is lost with it, so this part is published once more.
#[tokio::test]
async fn workers_follow_a_planned_fail_over() {
    let mut sentinels = Sentinels::start().await;
    let url = sentinels.url();
    let benches = PATTERNS.map(|pattern| Bench::new(&url, pattern).apart());
    let [list, stream, pubsub] = &benches;
    let work = async {
        tokio::join!(
            list.reaches(0..100),
            stream.reaches(0..100),
            pubsub.reaches(0..1)
        );
        tokio::join!(list.publish(100..200), stream.publish(100..200));
        sentinels.primary().wait_until_replicated().await;
        tokio::join!(
            sentinels.fail_over(),
            list.publish(200..300),
            stream.publish(200..300)
        );
        tokio::join!(list.reaches(200..400), stream.reaches(200..400));
        pubsub.reaches(1_000..1_001).await;
    };
    run_all(&benches, work).await;
}

#[tokio::test]
async fn workers_follow_when_the_primary_is_killed() {
    let mut sentinels = Sentinels::start().await;
    let url = sentinels.url();
    let benches = PATTERNS.map(|pattern| Bench::new(&url, pattern).apart());
    let [list, stream, pubsub] = &benches;
    let work = async {
        tokio::join!(
            list.reaches(0..100),
            stream.reaches(0..100),
            pubsub.reaches(0..1)
        );
        sentinels.primary().wait_until_replicated().await;
        sentinels.kill_primary().await;
        tokio::join!(list.reaches(100..200), stream.reaches(100..200));
        pubsub.reaches(1_000..1_001).await;
    };
    run_all(&benches, work).await;
}

#[tokio::test]
async fn one_sentinel_that_is_down_keeps_nobody_away() {
    let mut sentinels = Sentinels::start().await;
    sentinels.sentinels_mut()[0].kill().await;
    all_patterns_work(&format!("redis.url = {:?}", sentinels.url())).await;
}

#[tokio::test]
async fn a_service_that_the_sentinels_do_not_know_is_named() {
    let sentinels = Sentinels::start().await;
    let url = sentinels.url().replace("mymaster", "theirs");
    let error = refusal(&format!("redis.url = {url:?}")).await;
    assert!(error.contains("theirs"), "{error}");
    assert!(error.contains("sentinel"), "{error}");
}

/// Runs them all, until the work that goes on beside them is done.
pub(super) async fn run_all(benches: &[Bench; 3], work: impl Future<Output = ()> + Send) {
    let (done, _) = tokio::sync::watch::channel(false);
    let until = |mut done: tokio::sync::watch::Receiver<bool>| async move {
        let _sent = done.wait_for(|done| *done).await;
    };
    let [list, stream, pubsub] = benches;
    tokio::join!(
        list.run(until(done.subscribe())),
        stream.run(until(done.subscribe())),
        pubsub.run(until(done.subscribe())),
        async {
            tokio::time::timeout(Duration::from_secs(120), work)
                .await
                .expect("the workers follow within two minutes");
            done.send_replace(true);
        }
    );
}

#[tokio::test]
async fn sentinels_that_are_away_or_refuse_the_password_are_named() {
    let sentinels = Sentinels::start_with(&[], &["--requirepass", "watch"]).await;
    let wrong = format!("{}?sentinel_password=hunter2", sentinels.url());
    for url in [wrong.as_str(), "redis-sentinel://127.0.0.1:1/mymaster"] {
        let bench = Bench::new(url, "list");
        let error = bench.once(1).await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
        let error = error.to_string();
        assert!(error.contains("no sentinel answers"), "{error}");
        assert!(error.contains("sentinel_password"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_redis_that_is_no_sentinel_is_named() {
    let server = RedisServer::start().await;
    let url = format!("redis-sentinel://127.0.0.1:{}/mymaster", server.port());
    let error = refusal(&format!("redis.url = {url:?}")).await;
    assert!(error.contains("no sentinel"), "{error}");
}
