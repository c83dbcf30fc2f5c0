//! The worker, as a user would write it: it knows nothing of brokers, retries or metrics.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pythia_core::{Job, WorkError, Worker};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::report::Report;

/// The message: index this file.
#[derive(Serialize, Deserialize)]
pub(crate) struct FileJob {
    pub(crate) path: PathBuf,
}

/// What is known of a file afterwards.
pub(crate) struct FileFacts {
    pub(crate) bytes: usize,
    pub(crate) lines: usize,
    pub(crate) words: usize,
    pub(crate) sha256: [u8; 32],
}

pub(crate) struct IndexFile {
    pub(crate) report: Arc<Report>,
    pub(crate) pace: Duration,
}

impl Worker for IndexFile {
    type Input = FileJob;
    type Output = ();

    async fn process(&self, job: &Job<FileJob>) -> Result<(), WorkError> {
        if !self.pace.is_zero() {
            tokio::time::sleep(self.pace).await;
        }
        let path = &job.input.path;
        // `?` makes any error retryable: the file may be readable a moment later.
        let content = tokio::fs::read(path)
            .await
            .map_err(|error| named(path, &error))?;
        // Hashing computes without awaiting, so it goes where it holds up nobody.
        let facts = job
            .blocking(move || facts(&content))
            .await
            .map_err(|error| WorkError::permanent(format!("{}: {error}", path.display())))?;
        self.report.indexed(path, &facts);
        Ok(())
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Counts and hashes. A binary file will not become text by trying again, so that error is permanent.
fn facts(content: &[u8]) -> Result<FileFacts, WorkError> {
    let text = std::str::from_utf8(content).map_err(|_| WorkError::permanent("a binary file"))?;
    Ok(FileFacts {
        bytes: content.len(),
        lines: text.lines().count(),
        words: text.split_whitespace().count(),
        sha256: Sha256::digest(content).into(),
    })
}

/// Everything in the tree that is not a folder, but for what version control and builds put there.
pub(crate) fn files(tree: &Path) -> io::Result<Vec<PathBuf>> {
    let tree = std::path::absolute(tree)?;
    let skipped =
        |name: &std::ffi::OsStr| name == ".git" || name == "target" || name == "node_modules";
    walkdir::WalkDir::new(tree)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| !(entry.file_type().is_dir() && skipped(entry.file_name())))
        .filter(|entry| {
            entry
                .as_ref()
                .map_or(true, |entry| !entry.file_type().is_dir())
        })
        .map(|entry| Ok(entry?.into_path()))
        .collect()
}
