//! Where a group begins, and how it goes back.

use pythia_redis::config::StreamStart;

use super::*;

fn at(point: &str) -> StreamStart {
    point.to_owned().try_into().expect("a valid point")
}

fn starting(server: &RedisServer, name: &str, start: &str) -> StreamBroker {
    with(server, |config| {
        config.stream.group = name.to_owned();
        config.stream.start = at(start);
    })
}

#[tokio::test]
async fn a_new_group_begins_where_it_is_told() {
    for (start, expected) in [
        ("0", &["1000", "2000", "3000", "9000"][..]),
        ("$", &["9000"]),
        ("2000-7", &["3000", "9000"]),
        ("2000", &["2000", "3000", "9000"]),
        ("1970-01-01T00:00:02Z", &["2000", "3000", "9000"]),
        ("1970-01-01T00:00:00Z", &["1000", "2000", "3000", "9000"]),
    ] {
        let server = RedisServer::start().await;
        let add = async |ms: &str| {
            server
                .cli(&["XADD", "orders", &format!("{ms}-7"), "k", ms])
                .await
        };
        for ms in ["1000", "2000", "3000"] {
            add(ms).await;
        }
        let mut worker = subscribe(&starting(&server, "g", start)).await;
        add("9000").await;
        assert_eq!(
            bodies(&take(&mut worker, expected.len()).await),
            expected,
            "{start}"
        );
    }
}

#[tokio::test]
async fn a_group_that_is_there_stays_where_it_is() {
    let server = RedisServer::start().await;
    publish(&group(&server, "g"), ["a".into()]).await;
    let mut worker = subscribe(&starting(&server, "g", "0")).await;
    let done = take(&mut worker, 1).await;
    assert_eq!(ack(&worker, &done).await, 0);
    let mut later = subscribe(&starting(&server, "g", "0")).await;
    nothing(&mut later).await;
}

#[tokio::test]
async fn a_group_is_moved_back_and_forth() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| {
        config.stream.group = "g".to_owned();
        config.stream.max_length = std::num::NonZeroUsize::new(1_000);
    });
    let mut worker = subscribe(&broker).await;
    let second = {
        xadd(&server, "a").await;
        xadd(&server, "b").await
    };
    xadd(&server, "c").await;
    let all = take(&mut worker, 3).await;
    assert_eq!(ack(&worker, &all).await, 0);
    maintain(&broker).await;
    broker
        .replay(&orders(), &at(&second))
        .await
        .expect("redis runs");
    let again = take(&mut worker, 1).await;
    assert_eq!((bodies(&again), again[0].attempt()), (vec!["c"], 1));
    broker
        .replay(&orders(), &at("0"))
        .await
        .expect("redis runs");
    broker
        .replay(&orders(), &at("$"))
        .await
        .expect("redis runs");
    nothing(&mut worker).await;
    broker
        .replay(&orders(), &at("0"))
        .await
        .expect("redis runs");
    let again = take(&mut worker, 3).await;
    assert_eq!(bodies(&again), ["a", "b", "c"]);
    assert_eq!(ack(&worker, &again).await, 0);
    // The group can be made by it, too.
    let other = group(&server, "other");
    other
        .replay(&orders(), &at(&second))
        .await
        .expect("redis runs");
    assert_eq!(bodies(&take(&mut subscribe(&other).await, 1).await), ["c"]);
}

#[tokio::test]
async fn a_configured_replay_happens_once() {
    let server = RedisServer::start().await;
    let first = xadd(&server, "a").await;
    xadd(&server, "b").await;
    let replaying = |from: &str| {
        let from = at(from);
        with(&server, |config| {
            config.stream.group = "g".to_owned();
            config.stream.replay_from = Some(from);
        })
    };
    let mut worker = subscribe(&group(&server, "g")).await;
    let all = take(&mut worker, 2).await;
    assert_eq!(ack(&worker, &all).await, 0);
    let mut replayed = subscribe(&replaying(&first)).await;
    assert_eq!(bodies(&take(&mut replayed, 1).await), ["b"]);
    let mut restarted = subscribe(&replaying(&first)).await;
    nothing(&mut restarted).await;
    let mut further = subscribe(&replaying("0")).await;
    assert_eq!(bodies(&take(&mut further, 2).await), ["a", "b"]);
}

#[test]
fn what_is_no_point_in_a_stream_is_refused() {
    for bad in [
        "",
        "x",
        "1-2-3",
        "-1",
        "+",
        "2024-13-01T00:00:00Z",
        "yesterday",
    ] {
        let error = StreamStart::try_from(bad.to_owned())
            .expect_err(bad)
            .to_string();
        assert!(error.contains("2025-06-10T06:13:20Z"), "{error}");
    }
}
