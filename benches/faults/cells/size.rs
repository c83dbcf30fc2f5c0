//! Much at once.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Cell, DEATHS};
use crate::plan::{Group, Kind};
use crate::scene::{Scene, Setup};

pub(super) const CELLS: [Cell; 2] = [
    Cell {
        rate: 0,
        ..Cell::new(
            "1,000,000 waiting",
            "half of them in a list, half in a stream of one group; then workers start",
            |scene| Box::pin(million(scene)),
        )
    }
    .once()
    .on(LARGE),
    Cell {
        rate: 0,
        ..Cell::new(
            "100,000 pending",
            "one process holds them all, half of a list, half of a stream, and is killed",
            |scene| Box::pin(pending(scene)),
        )
    }
    .allowing(DEATHS)
    .on(LARGE),
];

const LARGE: Setup = Setup {
    server: &[],
    workers: "worker.batch = 500\nworker.concurrency = 60000\n",
    groups: &[Group::List, Group::Stream],
    ..Setup::ALL
};
const BATCH: usize = 1_000;

async fn million(scene: &mut Scene) -> io::Result<()> {
    fill(scene, Kind::Plain, 500_000).await?;
    let started = Instant::now();
    scene.fleet.start_all()?;
    empty(scene).await?;
    let took = Instant::now().saturating_duration_since(started);
    scene.remark = Some(format!("worked off in {:.0} s", took.as_secs_f64()));
    Ok(())
}

async fn pending(scene: &mut Scene) -> io::Result<()> {
    fill(scene, Kind::Stuck, 50_000).await?;
    scene.fleet.start(0, None)?;
    let deadline = Instant::now() + Duration::from_secs(120);
    while scene.pending().await != Some(100_000) {
        if Instant::now() > deadline {
            return Err(io::Error::other(format!(
                "{:?} are pending",
                scene.pending().await
            )));
        }
        sleep(Duration::from_millis(100)).await;
    }
    scene.fault(true);
    scene.fleet.kill(0)?;
    let killed = Instant::now();
    scene.fleet.start_all()?;
    scene.fault(false);
    empty(scene).await?;
    let took = Instant::now().saturating_duration_since(killed);
    scene.remark = Some(format!(
        "recovered and worked off {:.1} s after the kill",
        took.as_secs_f64()
    ));
    Ok(())
}

async fn fill(scene: &Scene, kind: Kind, each: usize) -> io::Result<()> {
    for group in [Group::List, Group::Stream] {
        for _ in 0..each / BATCH {
            if !scene
                .publisher
                .publish(group, kind, &[0; BATCH], Duration::ZERO)
                .await
            {
                return Err(io::Error::other("publishing failed, without a fault"));
            }
        }
    }
    Ok(())
}

async fn empty(scene: &Scene) -> io::Result<()> {
    match scene.drained().await {
        true => Ok(()),
        false => Err(io::Error::other("the queues do not become empty")),
    }
}
