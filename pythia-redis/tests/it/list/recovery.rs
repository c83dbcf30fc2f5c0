//! Workers that die, fall silent, or lose their lease.

use super::*;

#[tokio::test]
async fn a_plain_clients_message_keeps_its_id_over_crashes_and_retries() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    lpush(&server, &["a", "b"]).await;
    let mut worker = subscribe(&broker).await;
    let first = take(&mut worker, 2).await;
    drop(worker);
    recovery(&broker).await;
    let mut heir = subscribe(&broker).await;
    let second = take(&mut heir, 2).await;
    settle(&heir, &second, retry(Duration::ZERO)).await;
    maintain(&broker).await;
    let third = take(&mut heir, 2).await;
    for (before, after) in [(&first, &second), (&second, &third)] {
        for (before, after) in before.iter().zip(after) {
            assert_eq!((&before.id, &before.payload), (&after.id, &after.payload));
            assert_eq!(before.attempt() + 1, after.attempt());
        }
    }
}

#[tokio::test]
async fn a_poison_message_takes_no_neighbour_along() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    let mut messages = numbered(300);
    messages[150] = "poison".into();
    publish(&broker, messages.into_iter().map(Message::new)).await;
    let (mut done, mut deaths) = (0, 0);
    let mut worker = subscribe(&broker).await;
    while done < 299 || deaths < MAX_ATTEMPTS {
        let deliveries = take_some(&mut worker).await;
        assert!(!deliveries[0].alone || deliveries.len() == 1);
        if bodies(&deliveries).contains(&"poison".into()) {
            // One death for all that it held, as when its process dies.
            deaths += 1;
            worker = subscribe(&broker).await;
            let round = recovery(&broker).await;
            assert_eq!(round.dead, u64::from(deaths == MAX_ATTEMPTS));
        } else {
            done += deliveries.len();
            assert_eq!(ack(&worker, &deliveries).await, 0);
        }
    }
    assert_eq!((done, deaths), (299, MAX_ATTEMPTS));
    let letters = server
        .cli(&["ZRANGE", "pythia:{orders}:dead", "0", "-1"])
        .await;
    assert_eq!(letters.lines().count(), 1, "{letters}");
    assert!(letters.ends_with("poison"), "{letters}");
}

/// However few attempts there are, one crash of a whole batch kills none of it.
#[tokio::test]
async fn a_crash_alone_kills_nobody_who_had_neighbours() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    lpush(&server, &["a", "b", "c"]).await;
    let mut worker = subscribe(&broker).await;
    take(&mut worker, 3).await;
    drop(worker);
    let patience = Instant::now() + Duration::from_secs(10);
    let round = loop {
        let round = broker.maintain(&orders(), 1).await.expect("redis runs");
        if round.recovered + round.dead > 0 {
            break round;
        }
        assert!(Instant::now() < patience);
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((round.recovered, round.dead), (3, 0));
}

#[tokio::test]
async fn owners_who_could_not_renew_get_half_a_lease_to_do_so() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    lpush(&server, &["a"]).await;
    let mut worker = subscribe(&broker).await;
    let held = take(&mut worker, 1).await;
    maintain(&broker).await;
    server.pause();
    // Longer than a lease.
    sleep(Duration::from_millis(900)).await;
    server.resume();
    assert_eq!(maintain(&broker).await.recovered, 0, "nobody could renew");
    let receipts = [held[0].receipt];
    let lost = worker.settler.extend(&receipts).await;
    assert_eq!(lost.expect("redis runs"), []);
    sleep(Duration::from_millis(400)).await;
    assert_eq!(maintain(&broker).await.recovered, 0, "it has renewed");
    assert_eq!(ack(&worker, &held).await, 0);
}

#[tokio::test]
async fn rare_upkeep_recovers_too() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    lpush(&server, &["a"]).await;
    let mut worker = subscribe(&broker).await;
    take(&mut worker, 1).await;
    drop(worker);
    for _ in 0..5 {
        // Each time more than half a lease after the last, which looks like an outage.
        sleep(Duration::from_millis(400)).await;
        if maintain(&broker).await.recovered == 1 {
            return;
        }
    }
    panic!("it was put off for ever");
}

#[tokio::test]
async fn recovery_is_cut_into_rounds() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| {
        config.maintain.recover = 100.try_into().expect("not zero");
    });
    publish(&broker, numbered(500).into_iter().map(Message::new)).await;
    let mut worker = subscribe(&broker).await;
    for _ in 0..5 {
        assert_eq!(read(&mut worker, 100).await.len(), 100);
    }
    drop(worker);
    let mut round = recovery(&broker).await;
    let mut rounds = 1;
    while round.more {
        assert_eq!(round.recovered, 100);
        round = maintain(&broker).await;
        rounds += 1;
    }
    assert_eq!(rounds, 5);
    let mut heir = subscribe(&broker).await;
    assert_eq!(
        bodies(&take(&mut heir, 500).await),
        numbered(500),
        "in their old order"
    );
}

#[tokio::test]
async fn an_owner_that_comes_back_midway_keeps_what_is_left_to_it() {
    let server = RedisServer::start().await;
    let broker = with(&server, |config| {
        config.maintain.recover = 1.try_into().expect("not zero");
    });
    lpush(&server, &["a", "b", "c", "d"]).await;
    let mut worker = subscribe(&broker).await;
    let mut first = take(&mut worker, 2).await;
    let second = take(&mut worker, 2).await;
    // The newest claim goes first.
    assert_eq!(recovery(&broker).await.recovered, 2);
    first.extend(second);
    let receipts: Vec<_> = first.iter().map(|one| one.receipt).collect();
    let lost = worker.settler.extend(&receipts).await.expect("redis runs");
    assert_eq!(lost, receipts[2..]);
    assert_eq!(maintain(&broker).await.recovered, 0);
    assert_eq!(ack(&worker, &first).await, 2, "the others are lost");
    let mut heir = subscribe(&broker).await;
    assert_eq!(bodies(&take(&mut heir, 2).await), ["c", "d"]);
}

#[tokio::test]
async fn what_the_inbox_holds_is_not_lost_to_plain_clients() {
    let server = RedisServer::start().await;
    let broker = on(&server);
    // A worker died between its wait and its claim.
    server.cli(&["LPUSH", "pythia:{orders}:inbox", "a"]).await;
    lpush(&server, &["b"]).await;
    maintain(&broker).await;
    assert_eq!(server.cli(&["RPOP", "orders"]).await, "a");
    // And workers take it themselves, before all others.
    server.cli(&["LPUSH", "pythia:{orders}:inbox", "c"]).await;
    let mut worker = subscribe(&broker).await;
    assert_eq!(bodies(&take(&mut worker, 2).await), ["c", "b"]);
}

async fn take_some(subscription: &mut Subscription) -> Vec<Delivery> {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let taken = read(subscription, 100).await;
        if !taken.is_empty() {
            return taken;
        }
        assert!(Instant::now() < patience, "nothing came");
    }
}
