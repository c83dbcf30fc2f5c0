//! What the user sees when it is done: a table, and what became of the messages.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{HumanBytes, HumanCount};
use pythia_core::observe::{Event, Observer};
use pythia_core::settlement::DeadKind;
use pythia_core::{Summary, WorkErrorKind};

use crate::index::FileFacts;

/// Collects what the worker finds and what the runner reports.
#[derive(Default)]
pub(crate) struct Report {
    kinds: Mutex<HashMap<String, Totals>>,
    dead: Mutex<Vec<String>>,
    /// Failed attempts that another one may follow.
    failed: AtomicU64,
    /// Those of them that were the last one all the same.
    exhausted: AtomicU64,
    ended: AtomicU64,
    lost: AtomicU64,
}

#[derive(Default)]
struct Totals {
    files: u64,
    bytes: u64,
    lines: u64,
    words: u64,
    hashes: u64,
}

impl Report {
    pub(crate) fn indexed(&self, path: &Path, facts: &FileFacts) {
        let kind = path
            .extension()
            .map_or("(none)".into(), |kind| kind.to_string_lossy().into_owned());
        let totals = Totals {
            files: 1,
            bytes: facts.bytes as u64,
            lines: facts.lines as u64,
            words: facts.words as u64,
            hashes: facts
                .sha256
                .iter()
                .take(8)
                .fold(0, |hash, &byte| hash << 8 | u64::from(byte)),
        };
        locked(&self.kinds).entry(kind).or_default().add(&totals);
    }

    /// How many messages are done with: indexed, dead or lost.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed) + self.lost()
    }

    /// How many messages a channel has not handed out, or has handed out to a process that ended too early.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Prints it, in 80 columns. Paths are shown from the tree on.
    pub(crate) fn print(&self, summary: &Summary, tree: &Path) {
        self.print_table();
        let failed = self.failed.load(Ordering::Relaxed);
        let retries = failed.saturating_sub(self.exhausted.load(Ordering::Relaxed));
        println!("\nretries      {}", HumanCount(retries));
        self.print_dead(tree);
        let lost = self.lost();
        if lost > 0 {
            println!("lost         {}", HumanCount(lost));
        }
        println!(
            "messages     received {}, acked {}, dead {}, handed back {}",
            summary.received, summary.settled.acked, summary.settled.dead, summary.settled.released
        );
    }

    /// The kinds with the most files, and all others together.
    fn print_table(&self) {
        println!(
            "{:<12}{:>10}{:>12}{:>14}{:>14}  checksum",
            "kind", "files", "bytes", "lines", "words"
        );
        let kinds = locked(&self.kinds);
        let mut kinds: Vec<_> = kinds.iter().collect();
        kinds.sort_by_key(|&(kind, totals)| (Reverse(totals.files), kind));
        let (common, rare) = kinds.split_at(kinds.len().min(ROWS));
        for (kind, totals) in common {
            totals.print(kind);
        }
        if !rare.is_empty() {
            Totals::sum(rare).print("other");
        }
        Totals::sum(&kinds).print("in all");
    }

    fn print_dead(&self, tree: &Path) {
        let mut dead = locked(&self.dead);
        dead.sort();
        println!("dead letters {}", HumanCount(dead.len() as u64));
        let tree = format!("{}/", tree.display());
        for letter in dead.iter().take(ROWS) {
            println!("  {}", cut(&letter.replace(&tree, ""), COLUMNS - 2));
        }
        if dead.len() > ROWS {
            println!("  and {} more", HumanCount((dead.len() - ROWS) as u64));
        }
    }
}

impl Totals {
    fn sum(kinds: &[(&String, &Self)]) -> Self {
        let mut all = Self::default();
        kinds.iter().for_each(|(_, totals)| all.add(totals));
        all
    }

    fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.lines += other.lines;
        self.words += other.words;
        // The exclusive or of all hashes does not depend on the order in which the files were done.
        self.hashes ^= other.hashes;
    }

    fn print(&self, kind: &str) {
        let Self {
            files,
            bytes,
            lines,
            words,
            hashes,
        } = self;
        println!(
            "{:<12}{:>10}{:>12}{:>14}{:>14}  {hashes:016x}",
            cut(kind, 12),
            HumanCount(*files).to_string(),
            HumanBytes(*bytes).to_string(),
            HumanCount(*lines).to_string(),
            HumanCount(*words).to_string()
        );
    }
}

impl Observer for Report {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            // Counted by attempts rather than by what was settled: an at-most-once broker settles a message once, and
            // its retries happen in this process.
            Event::Processed { jobs, .. } => {
                let failed = jobs.iter().filter(|job| {
                    matches!(
                        job.failure,
                        Some(
                            WorkErrorKind::Retryable { .. }
                                | WorkErrorKind::Panic
                                | WorkErrorKind::Timeout
                        )
                    )
                });
                self.failed
                    .fetch_add(failed.count() as u64, Ordering::Relaxed);
            }
            Event::Settled { counts, .. } => {
                self.ended
                    .fetch_add(counts.acked + counts.dead, Ordering::Relaxed);
            }
            Event::DeadLettered {
                reason, attempts, ..
            } => {
                if reason.kind == DeadKind::Exhausted {
                    self.exhausted.fetch_add(1, Ordering::Relaxed);
                }
                // What follows is the number that the operating system has for it, in words already.
                let error = reason.error.split(" (os error ").next().unwrap_or_default();
                let kind = reason.kind.name();
                locked(&self.dead).push(format!("{kind}, attempt {attempts}: {error}"));
            }
            Event::Gap {
                lost: Some(lost), ..
            } => {
                self.lost.fetch_add(*lost, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A text of at most so many characters. What is too long loses its middle: a letter begins with what happened to which
/// file, and ends with the reason.
fn cut(text: &str, columns: usize) -> String {
    let long = text.chars().count();
    if long <= columns {
        return text.to_owned();
    }
    let end = (columns - 1) / 2;
    let start = columns - 1 - end;
    let skipped = text.chars().skip(long - end);
    text.chars()
        .take(start)
        .chain(['…'])
        .chain(skipped)
        .collect()
}

const ROWS: usize = 10;
const COLUMNS: usize = 80;
