//! What happens to clocks. Every lease and every due time is by Redis' clock, so a worker's own may be anything.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;

use super::Cell;
use crate::scene::Scene;

pub(super) const CELLS: [Cell; 1] = [Cell {
    needs: faketime_is_here,
    ..Cell::new(
        "clock of a worker",
        "a worker's wall clock jumps by an hour, forth and back",
        |scene| Box::pin(jump(scene)),
    )
}
.once()];

async fn jump(scene: &mut Scene) -> io::Result<()> {
    let library = faketime().ok_or_else(|| io::Error::other("libfaketime is not installed"))?;
    let offset = scene.folder.join("clock");
    std::fs::write(&offset, "+0")?;
    scene.fleet.terminate(0).await?;
    for (name, value) in [
        ("LD_PRELOAD", library.to_string_lossy()),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_string_lossy()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("FAKETIME_NO_CACHE", "1".into()),
    ] {
        scene.fleet.environment(0, name, &value);
    }
    scene.fleet.start(0, None)?;
    sleep(Duration::from_secs(2)).await;
    for jump in ["+3600", "-3600", "+0"] {
        scene.fault(true);
        std::fs::write(&offset, jump)?;
        sleep(Duration::from_secs(3)).await;
        scene.fault(false);
    }
    Ok(())
}

fn faketime_is_here() -> Result<(), &'static str> {
    faketime().map(drop).ok_or("libfaketime is not here: apt-get install libfaketime, or name libfaketimeMT.so.1 in FAKETIME_LIBRARY")
}

/// The library that gives a process another wall clock.
fn faketime() -> Option<PathBuf> {
    let named = std::env::var_os("FAKETIME_LIBRARY").map(PathBuf::from);
    let usual = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib64/faketime/libfaketimeMT.so.1",
        "/usr/lib/faketime/libfaketimeMT.so.1",
    ];
    let paths = named.into_iter().chain(usual.map(PathBuf::from));
    paths.into_iter().find(|path| path.exists())
}
