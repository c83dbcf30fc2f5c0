//! What happens to clocks. Every lease and every due time is by Redis' clock, so a worker's own may be anything.

use std::io;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use super::Cell;
use crate::checker::Allowed;
use crate::clock::{Clock, is_here};
use crate::report;
use crate::scene::{Scene, Setup};

pub(super) const CELLS: [Cell; 2] = [
    Cell {
        needs: is_here,
        ..Cell::new(
            "clock of a worker",
            "a worker's wall clock jumps by an hour, forth and back",
            |scene| Box::pin(jump(scene)),
        )
    }
    .once(),
    Cell {
        needs: server_takes_it,
        ..Cell::new(
            "clock of Redis",
            "the server's wall clock jumps an hour ahead, then 10 s back",
            |scene| Box::pin(jump_of_server(scene)),
        )
    }
    .on(Setup {
        own_clock: true,
        ..Setup::ALL
    })
    .allowing(Allowed {
        delays_are_short: true,
        ..Allowed::NOTHING
    })
    .once(),
];

async fn jump(scene: &mut Scene) -> io::Result<()> {
    let clock = Clock::new(&scene.folder)?;
    scene.fleet.terminate(0).await?;
    for (name, value) in clock.environment() {
        scene.fleet.environment(0, name, &value);
    }
    scene.fleet.start(0, None)?;
    sleep(BETWEEN).await;
    if !scene.fleet.mapped(0)?.contains("faketime") {
        return Err(io::Error::other(
            "the worker has not taken the clock: is it a libfaketimeMT.so.1?",
        ));
    }
    set(scene, &clock, &[3_600, -3_600, 0]).await
}

/// What is delayed when the clock goes back waits for so much longer: by an hour would be too long for a run.
async fn jump_of_server(scene: &mut Scene) -> io::Result<()> {
    let clock = scene.clock.take();
    let clock = clock.ok_or_else(|| io::Error::other("the server has the system's clock"))?;
    set(scene, &clock, &[3_600, 3_590]).await?;
    let time = scene.redis.server().cli(&["TIME"]).await;
    let time: i64 = time
        .lines()
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(io::Error::other)?;
    match (time - now.as_secs() as i64 - 3_590).abs() < 5 {
        true => Ok(()),
        false => Err(io::Error::other("the server has not taken the clock")),
    }
}

async fn set(scene: &Scene, clock: &Clock, times: &[i64]) -> io::Result<()> {
    for seconds in times {
        scene.fault(true);
        clock.set(*seconds)?;
        sleep(BETWEEN).await;
        scene.fault(false);
    }
    Ok(())
}

fn server_takes_it() -> Result<(), &'static str> {
    is_here()?;
    match report::said_by_server().is_ok_and(|said| said.contains("malloc=libc")) {
        true => Ok(()),
        false => Err("libfaketime needs a redis-server that was built with MALLOC=libc"),
    }
}

const BETWEEN: Duration = Duration::from_secs(3);
