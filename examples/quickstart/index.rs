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

/// The files of the tree, but for what version control and builds put there. A folder that can't be read, or a link to
/// nothing, is among them all the same: whoever works on it meets the error, and the others are indexed.
pub(crate) fn files(tree: &Path) -> Result<Vec<PathBuf>, String> {
    let skipped =
        |name: &std::ffi::OsStr| name == ".git" || name == "target" || name == "node_modules";
    // A pipe would never end, and a link to a folder leads out of the tree or around in it.
    let is_no_file = |path: &Path| path.metadata().is_ok_and(|found| !found.is_file());
    walkdir::WalkDir::new(tree)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| {
            let is_inner_folder = entry.depth() > 0 && entry.file_type().is_dir();
            !(is_inner_folder && skipped(entry.file_name()))
        })
        .filter_map(|entry| match entry {
            Ok(entry) if is_no_file(entry.path()) => None,
            Ok(entry) => Some(Ok(entry.into_path())),
            Err(error) => match (error.depth(), error.path()) {
                (1.., Some(path)) => Some(Ok(path.to_owned())),
                _ => Some(Err(format!(
                    "can't index {}: {}",
                    tree.display(),
                    cause(&error)
                ))),
            },
        })
        .collect()
}

fn cause(error: &walkdir::Error) -> String {
    error
        .io_error()
        .map_or_else(|| error.to_string(), io::Error::to_string)
}
