//! What happens to the worker processes.

use std::io;
use std::ops::Range;
use std::time::Duration;

use rand::RngExt;
use tokio::time::{Instant, sleep};

use super::{AFTER_DEATH, Cell, DEATHS, STOPS};
use crate::plan::{Group, Kind};
use crate::scene::{LEASE, Scene, Setup};

pub(super) const CELLS: [Cell; 15] = [
    Cell::new("no fault", "nothing happens", |scene| {
        Box::pin(nothing(scene))
    })
    .once()
    .quick(),
    Cell::new("kill", "6 SIGKILLs at random", |scene| {
        Box::pin(kills(scene))
    })
    .allowing(DEATHS)
    .within(AFTER_DEATH)
    .quick(),
    Cell::new(
        "kill after fetch",
        "6 deaths with a batch just fetched",
        |scene| Box::pin(deaths(scene, "after-fetch", 1..120)),
    )
    .allowing(DEATHS)
    .within(AFTER_DEATH),
    Cell::new(
        "kill during process",
        "6 deaths within a handler",
        |scene| Box::pin(deaths(scene, "during-process", 1..400)),
    )
    .allowing(DEATHS)
    .within(AFTER_DEATH),
    Cell::new(
        "kill before settle",
        "6 deaths with results not yet sent",
        |scene| Box::pin(deaths(scene, "before-settle", 1..200)),
    )
    .allowing(DEATHS)
    .within(AFTER_DEATH)
    .quick(),
    Cell::new(
        "kill during settle",
        "6 deaths with a settle under way",
        |scene| Box::pin(deaths(scene, "during-settle", 1..200)),
    )
    .allowing(DEATHS)
    .within(AFTER_DEATH),
    Cell::new(
        "kill during upkeep",
        "6 deaths with a round of upkeep under way",
        |scene| Box::pin(deaths(scene, "during-maintain", 6..20)),
    )
    .allowing(DEATHS)
    .within(AFTER_DEATH),
    Cell::new(
        "power cut",
        "all processes are gone without a word, twice: Redis goes on serving their connections",
        |scene| Box::pin(power_cuts(scene)),
    )
    .allowing(DEATHS)
    .within(AFTER_DEATH)
    .quick(),
    Cell::new(
        "rolling restarts",
        "6 SIGTERMs under load, a new process after each",
        |scene| Box::pin(restarts(scene)),
    )
    .once()
    .within(AT_ONCE)
    .quick(),
    Cell::new(
        "zombie",
        "SIGSTOP for 1.75 leases, then SIGCONT, 3 times",
        |scene| Box::pin(zombies(scene)),
    )
    .allowing(STOPS)
    .quick(),
    Cell::new(
        "late renewal",
        "the same with jobs that outlast the stop: the zombie's first act is a renewal",
        |scene| Box::pin(late_renewals(scene)),
    )
    .allowing(STOPS)
    .refusing_renewals(&RENEWING)
    .within(LEASE.saturating_mul(4)),
    Cell::new("ten leases", "40 handlers of ten leases each", |scene| {
        Box::pin(ten_leases(scene))
    })
    .once(),
    Cell::new(
        "poison",
        "one message kills every process that runs it",
        |scene| Box::pin(poison(scene)),
    )
    .allowing(DEATHS)
    .on(WITHOUT_ORDER)
    .quick(),
    Cell::new(
        "failures among innocents",
        "every fourth message fails for good",
        |scene| Box::pin(among_innocents(scene, Kind::Dead)),
    )
    .once(),
    Cell::new(
        "unreadable among innocents",
        "every fourth message is not what its worker can decode",
        |scene| Box::pin(among_innocents(scene, Kind::Unreadable)),
    )
    .once(),
];

/// The zombies hold jobs of these that outlast their leases.
const RENEWING: [Group; 2] = [Group::List, Group::Stream];
/// What is handed back waits for no lease to end.
const AT_ONCE: Duration = LEASE.saturating_sub(Duration::from_millis(500));
/// The process that keeps the order would begin anew again and again.
const WITHOUT_ORDER: Setup = Setup {
    groups: &[
        Group::List,
        Group::Fleeting,
        Group::Stream,
        Group::Second,
        Group::News,
        Group::Memory,
    ],
    max_attempts: 5,
    ..Setup::ALL
};

async fn nothing(scene: &mut Scene) -> io::Result<()> {
    scene.fault(true);
    sleep(Duration::from_secs(3)).await;
    scene.fault(false);
    Ok(())
}

async fn kills(scene: &mut Scene) -> io::Result<()> {
    for _ in 0..6 {
        sleep(Duration::from_millis(scene.rng.random_range(200..1_500))).await;
        let victim = scene.rng.random_range(0..scene.fleet.len());
        scene.fault(true);
        scene.fleet.replace(victim).await?;
        scene.fault(false);
    }
    Ok(())
}

/// One process after the other is replaced by one that dies by itself at that point, and that one by a sound one.
async fn deaths(scene: &mut Scene, point: &str, times: Range<u64>) -> io::Result<()> {
    for round in 0..6 {
        let victim = round % scene.fleet.len();
        scene.fleet.terminate(victim).await?;
        let times = scene.rng.random_range(times.clone());
        scene.fault(true);
        scene
            .fleet
            .start(victim, Some(&format!("{point}:{times}")))?;
        let status = scene.fleet.ended(victim).await?;
        if status.success() {
            return Err(io::Error::other(
                "the process was to die, and ended in order",
            ));
        }
        scene.fleet.start(victim, None)?;
        scene.fault(false);
    }
    Ok(())
}

async fn power_cuts(scene: &mut Scene) -> io::Result<()> {
    for _ in 0..2 {
        scene.fault(true);
        scene.proxy().deafen();
        for slot in 0..scene.fleet.len() {
            scene.fleet.kill(slot)?;
        }
        scene.fleet.start_all()?;
        scene.fault(false);
        sleep(AFTER_DEATH).await;
    }
    Ok(())
}

async fn restarts(scene: &mut Scene) -> io::Result<()> {
    for round in 0..6 {
        sleep(Duration::from_millis(scene.rng.random_range(200..800))).await;
        let slot = round % scene.fleet.len();
        // Before it has begun, SIGTERM simply ends it.
        scene.fleet.begun(slot).await?;
        scene.fault(true);
        let status = scene.fleet.terminate(slot).await?;
        if !status.success() {
            return Err(io::Error::other(format!(
                "after SIGTERM a worker ended with {status}"
            )));
        }
        scene.fleet.start(slot, None)?;
        scene.fault(false);
    }
    Ok(())
}

async fn zombies(scene: &mut Scene) -> io::Result<()> {
    for slot in 0..scene.fleet.len() {
        sleep(Duration::from_millis(scene.rng.random_range(100..600))).await;
        stop_for(scene, slot, LEASE.mul_f64(1.75)).await?;
    }
    Ok(())
}

async fn stop_for(scene: &Scene, slot: usize, long: Duration) -> io::Result<()> {
    scene.fault(true);
    scene.fleet.stop(slot)?;
    sleep(long).await;
    scene.fleet.resume(slot)?;
    scene.fault(false);
    Ok(())
}

/// The jobs are still running when the process goes on, so it renews before it settles.
async fn late_renewals(scene: &mut Scene) -> io::Result<()> {
    for slot in 0..scene.fleet.len() {
        let takes = [(LEASE * 3).as_millis() as u64; 30];
        for group in RENEWING {
            scene
                .publisher
                .publish(group, Kind::Slow, &takes, Duration::ZERO)
                .await;
        }
        sleep(LEASE / 2).await;
        stop_for(scene, slot, LEASE.mul_f64(1.75)).await?;
        // What was in two zombies' hands is a suspect, and runs alone: until then these jobs are done.
        sleep(LEASE * 4).await;
    }
    Ok(())
}

async fn ten_leases(scene: &mut Scene) -> io::Result<()> {
    scene.fault(true);
    let takes = [(LEASE * 10).as_millis() as u64; 20];
    for group in [Group::List, Group::Stream] {
        scene
            .publisher
            .publish(group, Kind::Slow, &takes, Duration::ZERO)
            .await;
    }
    sleep(LEASE * 10).await;
    scene.fault(false);
    Ok(())
}

/// A supervisor starts each process again that dies.
async fn poison(scene: &mut Scene) -> io::Result<()> {
    scene.fault(true);
    for group in [Group::List, Group::Stream] {
        scene
            .publisher
            .publish(group, Kind::Poison, &[0], Duration::ZERO)
            .await;
    }
    let mut deaths = 0;
    let mut quiet_since = Instant::now();
    // A death is a lease and a round of upkeep after the one before.
    while Instant::now().saturating_duration_since(quiet_since) < LEASE * 4 {
        for slot in 0..scene.fleet.len() {
            if scene.fleet.reap(slot)?.is_some() {
                deaths += 1;
                quiet_since = Instant::now();
                scene.fleet.start(slot, None)?;
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
    scene.fault(false);
    scene.remark = Some(format!("{deaths} deaths by 3 poisoned deliveries"));
    Ok(())
}

async fn among_innocents(scene: &mut Scene, kind: Kind) -> io::Result<()> {
    scene.fault(true);
    for _ in 0..100 {
        for group in [Group::List, Group::Stream] {
            scene
                .publisher
                .publish(group, kind, &[0; 5], Duration::ZERO)
                .await;
        }
        sleep(Duration::from_millis(40)).await;
    }
    scene.fault(false);
    Ok(())
}
