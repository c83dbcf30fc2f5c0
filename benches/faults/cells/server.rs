//! What happens to Redis.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngExt;
use tokio::time::sleep;

use super::{AFTER_CUT, AFTER_RESTART, AFTER_SILENCE, Cell, FORGETS, FORGETS_SETTLES, OUTAGE};
use crate::plan::Group;
use crate::scene::{LEASE, Scene, Setup};

pub(super) const CELLS: [Cell; 12] = [
    Cell::new(
        "restart, AOF always",
        "Redis is killed and started again, twice",
        |scene| Box::pin(restarts(scene, Duration::from_millis(300))),
    )
    .allowing(OUTAGE)
    .within(AFTER_RESTART)
    .quick(),
    Cell::new(
        "restart, AOF everysec",
        "the same, and the last second is not on the disk: so a machine dies",
        |scene| Box::pin(machine_dies(scene)),
    )
    .on(Setup {
        server: &["--appendonly", "yes", "--appendfsync", "everysec"],
        ..Setup::ALL
    })
    .allowing(FORGETS)
    .within(AFTER_RESTART),
    Cell::new(
        "restart, nothing kept",
        "the same without persistence: Redis loses all",
        |scene| Box::pin(restarts(scene, Duration::from_millis(300))),
    )
    .on(Setup {
        server: &[],
        ..Setup::ALL
    })
    .allowing(FORGETS)
    .within(AFTER_RESTART),
    Cell::new(
        "long outage",
        "Redis is away for two leases; workers live on, and keep their work",
        |scene| Box::pin(restarts(scene, LEASE * 2)),
    )
    .allowing(OUTAGE)
    .within(AFTER_RESTART),
    Cell::new("frozen Redis", "SIGSTOP for 30 s", |scene| {
        Box::pin(frozen(scene))
    })
    .allowing(OUTAGE)
    .within(AFTER_SILENCE),
    Cell::new("FLUSHALL", "everything is deleted, twice", |scene| {
        Box::pin(flushall(scene))
    })
    .allowing(FORGETS)
    .within(AFTER_CUT)
    .quick(),
    Cell::new(
        "NOGROUP",
        "the consumer groups are destroyed, twice, and made again a little before where they were",
        |scene| Box::pin(no_group(scene)),
    )
    .allowing(FORGETS_SETTLES)
    .on(STREAMS)
    .within(AFTER_CUT)
    .quick(),
    Cell::new(
        "DEL of the stream",
        "the stream is deleted, twice",
        |scene| Box::pin(no_stream(scene)),
    )
    .allowing(FORGETS)
    .on(STREAMS)
    .within(AFTER_CUT),
    Cell::new(
        "maxmemory",
        "Redis is full for 5 s, under noeviction",
        |scene| Box::pin(full(scene)),
    )
    .allowing(OUTAGE)
    .within(AFTER_CUT),
    Cell::new("read-only", "Redis is a replica for 4 s", |scene| {
        Box::pin(read_only(scene))
    })
    .allowing(OUTAGE)
    .within(AFTER_CUT)
    .quick(),
    Cell::new("SCRIPT FLUSH", "5 times", |scene| {
        Box::pin(script_flush(scene))
    })
    .once()
    .within(AFTER_CUT),
    Cell::new(
        "NOREPLICAS",
        "too few replicas for 3 s: writing is refused",
        |scene| Box::pin(no_replica(scene)),
    )
    .allowing(OUTAGE)
    .within(AFTER_CUT),
];

const STREAMS: Setup = Setup {
    groups: &[Group::Stream, Group::Second],
    ..Setup::ALL
};

async fn restarts(scene: &mut Scene, away: Duration) -> io::Result<()> {
    for _ in 0..2 {
        sleep(Duration::from_millis(scene.rng.random_range(500..1_500))).await;
        scene.fault(true);
        let server = scene.redis.server();
        server.kill().await;
        sleep(away).await;
        server.restart().await;
        scene.fault(false);
    }
    Ok(())
}

/// A process that is killed has written all that it has confirmed; a machine that dies has not.
async fn machine_dies(scene: &mut Scene) -> io::Result<()> {
    for _ in 0..2 {
        sleep(Duration::from_millis(scene.rng.random_range(500..1_500))).await;
        let server = scene.redis.server();
        let on_disk = append_only_files(server.folder())?;
        sleep(Duration::from_secs(1)).await;
        scene.fault(true);
        let server = scene.redis.server();
        server.kill().await;
        for (path, length) in on_disk {
            OpenOptions::new().write(true).open(path)?.set_len(length)?;
        }
        server.restart().await;
        scene.fault(false);
    }
    Ok(())
}

/// What Redis appends to, and how long that is; one folder deep, or, before Redis 7, in its own.
fn append_only_files(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for folder in [folder, &folder.join("appendonlydir")] {
        if !folder.is_dir() {
            continue;
        }
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "aof") {
                files.push((path, entry.metadata()?.len()));
            }
        }
    }
    match files.is_empty() {
        true => Err(io::Error::other("Redis has no append-only file")),
        false => Ok(files),
    }
}

async fn frozen(scene: &mut Scene) -> io::Result<()> {
    scene.fault(true);
    scene.redis.server().pause();
    sleep(Duration::from_secs(30)).await;
    scene.redis.server().resume();
    scene.fault(false);
    Ok(())
}

async fn flushall(scene: &mut Scene) -> io::Result<()> {
    for _ in 0..2 {
        sleep(Duration::from_millis(scene.rng.random_range(500..1_500))).await;
        scene.fault(true);
        scene.redis.server().cli(&["FLUSHALL"]).await;
        scene.fault(false);
    }
    Ok(())
}

async fn no_group(scene: &mut Scene) -> io::Result<()> {
    for _ in 0..2 {
        sleep(Duration::from_millis(scene.rng.random_range(500..1_500))).await;
        scene.fault(true);
        for group in ["pythia", "second"] {
            scene
                .redis
                .server()
                .cli(&["XGROUP", "DESTROY", Group::Stream.queue(), group])
                .await;
        }
        scene.fault(false);
    }
    Ok(())
}

async fn no_stream(scene: &mut Scene) -> io::Result<()> {
    for _ in 0..2 {
        sleep(Duration::from_millis(scene.rng.random_range(500..1_500))).await;
        scene.fault(true);
        scene
            .redis
            .server()
            .cli(&["DEL", Group::Stream.queue()])
            .await;
        scene.fault(false);
    }
    Ok(())
}

async fn full(scene: &mut Scene) -> io::Result<()> {
    scene.fault(true);
    let server = scene.redis.server();
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    sleep(Duration::from_secs(5)).await;
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    scene.fault(false);
    Ok(())
}

/// A replica whose primary can't be reached keeps its data, and refuses to write.
async fn read_only(scene: &mut Scene) -> io::Result<()> {
    scene.fault(true);
    let server = scene.redis.server();
    server.cli(&["REPLICAOF", "127.0.0.1", "1"]).await;
    sleep(Duration::from_secs(4)).await;
    server.promote().await;
    scene.fault(false);
    Ok(())
}

async fn script_flush(scene: &mut Scene) -> io::Result<()> {
    for _ in 0..5 {
        sleep(Duration::from_millis(scene.rng.random_range(200..1_000))).await;
        scene.fault(true);
        scene.redis.server().cli(&["SCRIPT", "FLUSH"]).await;
        scene.fault(false);
    }
    Ok(())
}

async fn no_replica(scene: &mut Scene) -> io::Result<()> {
    scene.fault(true);
    let server = scene.redis.server();
    server
        .cli(&["CONFIG", "SET", "min-replicas-to-write", "1"])
        .await;
    sleep(Duration::from_secs(3)).await;
    server
        .cli(&["CONFIG", "SET", "min-replicas-to-write", "0"])
        .await;
    scene.fault(false);
    Ok(())
}
