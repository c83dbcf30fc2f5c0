//! A wall clock that can be set, for one process: libfaketime's, with the system's monotonic clock as it is.

use std::io;
use std::path::{Path, PathBuf};

/// The clock of the processes that have its environment.
#[derive(Debug)]
pub(crate) struct Clock {
    library: PathBuf,
    /// The file that says how far it is from the system's.
    offset: PathBuf,
}

impl Clock {
    /// A clock that is right. Its file is in this folder.
    pub(crate) fn new(folder: &Path) -> io::Result<Self> {
        let clock = Self {
            library: library().ok_or_else(|| io::Error::other(MISSING))?,
            offset: folder.join("clock"),
        };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets it so many seconds before or after the system's.
    pub(crate) fn set(&self, seconds: i64) -> io::Result<()> {
        std::fs::write(&self.offset, format!("{seconds:+}"))
    }

    /// What a process needs in its environment to go by this clock.
    pub(crate) fn environment(&self) -> [(&'static str, String); 4] {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        [
            ("LD_PRELOAD", text(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.offset)),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
        ]
    }
}

/// Whether there can be such clocks here.
pub(crate) fn is_here() -> Result<(), &'static str> {
    library().map(drop).ok_or(MISSING)
}

fn library() -> Option<PathBuf> {
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

const MISSING: &str = "libfaketime is not here: apt-get install libfaketime, or name libfaketimeMT.so.1 in FAKETIME_LIBRARY";
