//! What happens between the workers and Redis.

use std::io;
use std::time::Duration;

use rand::RngExt;
use tokio::time::sleep;

use super::{AFTER_CUT, AFTER_SILENCE, Cell, LOST_ANSWERS, OUTAGE};
use crate::scene::{LEASE, Scene, Setup};

pub(super) const CELLS: [Cell; 8] = [
    Cell::new("cut connections", "all connections end, 5 times", |scene| {
        Box::pin(cuts(scene))
    })
    .allowing(OUTAGE)
    .within(AFTER_CUT)
    .quick(),
    Cell::new(
        "CLIENT KILL",
        "Redis ends all connections, 5 times",
        |scene| Box::pin(client_kill(scene)),
    )
    .allowing(OUTAGE)
    .within(AFTER_CUT),
    Cell::new(
        "CLIENT KILL, one by one",
        "Redis ends a connection at random, 40 times",
        |scene| Box::pin(client_kill_one(scene)),
    )
    .allowing(OUTAGE)
    .within(AFTER_CUT),
    Cell::new(
        "half-open",
        "nothing that is sent arrives any more; new connections work",
        |scene| Box::pin(half_open(scene)),
    )
    .allowing(LOST_ANSWERS)
    .within(AFTER_SILENCE)
    .quick(),
    Cell::new(
        "partition",
        "nothing arrives for two leases, on new connections neither",
        |scene| Box::pin(partition(scene)),
    )
    .allowing(LOST_ANSWERS)
    .within(AFTER_SILENCE),
    Cell::new(
        "latency",
        "200 ms more for each round trip, for 8 s",
        |scene| Box::pin(latency(scene)),
    )
    .allowing(OUTAGE)
    .progressing(),
    Cell::new(
        "slow link",
        "1 KB/s for each connection and direction, for 20 s",
        |scene| Box::pin(slow_link(scene)),
    )
    .on(PATIENT)
    .allowing(LOST_ANSWERS)
    .progressing(),
    Cell::new(
        "lost answers",
        "one answer in 40 is lost, and its connection with it, for 8 s",
        |scene| Box::pin(lost_answers(scene)),
    )
    .allowing(OUTAGE)
    .within(AFTER_CUT)
    .quick(),
];

/// What takes seconds must not be given up after one.
const PATIENT: Setup = Setup {
    workers: "redis.lease = \"10s\"\nredis.command_timeout = \"10s\"\n",
    ..Setup::ALL
};

async fn cuts(scene: &mut Scene) -> io::Result<()> {
    for _ in 0..5 {
        sleep(Duration::from_millis(scene.rng.random_range(300..1_500))).await;
        scene.fault(true);
        scene.proxy().cut();
        scene.fault(false);
    }
    Ok(())
}

async fn client_kill(scene: &mut Scene) -> io::Result<()> {
    for _ in 0..5 {
        sleep(Duration::from_millis(scene.rng.random_range(300..1_500))).await;
        scene.fault(true);
        for kind in ["normal", "pubsub"] {
            scene
                .redis
                .server()
                .cli(&["CLIENT", "KILL", "TYPE", kind])
                .await;
        }
        scene.fault(false);
    }
    Ok(())
}

async fn client_kill_one(scene: &mut Scene) -> io::Result<()> {
    for _ in 0..40 {
        sleep(Duration::from_millis(scene.rng.random_range(50..300))).await;
        let clients = scene.redis.server().cli(&["CLIENT", "LIST"]).await;
        let ids = clients.lines().filter_map(|line| line.strip_prefix("id="));
        let ids: Vec<_> = ids.filter_map(|line| line.split(' ').next()).collect();
        let victim = ids[scene.rng.random_range(0..ids.len())];
        scene.fault(true);
        // It may be the one that asked for the list, which is gone by itself.
        scene
            .redis
            .server()
            .cli(&["CLIENT", "KILL", "ID", victim])
            .await;
        scene.fault(false);
    }
    Ok(())
}

async fn half_open(scene: &mut Scene) -> io::Result<()> {
    for _ in 0..2 {
        scene.fault(true);
        scene.proxy().deafen();
        scene.fault(false);
        sleep(AFTER_SILENCE).await;
    }
    Ok(())
}

async fn partition(scene: &mut Scene) -> io::Result<()> {
    scene.fault(true);
    scene.proxy().partition(true);
    sleep(LEASE * 2).await;
    scene.proxy().partition(false);
    scene.fault(false);
    Ok(())
}

async fn latency(scene: &mut Scene) -> io::Result<()> {
    scene.fault(true);
    scene.proxy().delay(Duration::from_millis(100));
    sleep(Duration::from_secs(8)).await;
    scene.proxy().delay(Duration::ZERO);
    scene.fault(false);
    Ok(())
}

async fn slow_link(scene: &mut Scene) -> io::Result<()> {
    // A link that becomes slow: what is sent once, such as scripts, is there.
    sleep(Duration::from_secs(1)).await;
    scene.fault(true);
    scene.proxy().throttle(Some(1_000));
    sleep(Duration::from_secs(20)).await;
    scene.proxy().throttle(None);
    scene.fault(false);
    Ok(())
}

async fn lost_answers(scene: &mut Scene) -> io::Result<()> {
    scene.fault(true);
    scene.proxy().lose_one_answer_in(40);
    sleep(Duration::from_secs(8)).await;
    scene.proxy().lose_one_answer_in(0);
    scene.fault(false);
    let lost = scene.proxy().lost();
    let lost: Vec<_> = lost
        .iter()
        .map(|(what, times)| format!("{times} to {what}"))
        .collect();
    scene.remark = Some(format!("answers lost: {}", lost.join(", ")));
    Ok(())
}
