//! What the user sees: a progress bar while it runs, a table when it is done.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use pythia_core::Summary;
use pythia_core::observe::{Event, Observer};

use tokio::time::Instant;

use crate::index::FileFacts;

/// Collects what the worker finds and what the runner reports.
#[derive(Default)]
pub(crate) struct Report {
    kinds: Mutex<BTreeMap<String, Totals>>,
    dead: Mutex<Vec<String>>,
    retries: AtomicU64,
    ended: AtomicU64,
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
        let mut kinds = self
            .kinds
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let totals = kinds.entry(kind).or_default();
        totals.files += 1;
        totals.bytes += facts.bytes as u64;
        totals.lines += facts.lines as u64;
        totals.words += facts.words as u64;
        // The exclusive or of all hashes does not depend on the order in which the files were done.
        totals.hashes ^= facts
            .sha256
            .iter()
            .take(8)
            .fold(0, |hash, &byte| hash << 8 | u64::from(byte));
    }

    /// How many messages are done with: indexed or dead.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    pub(crate) fn print(&self, summary: &Summary) {
        println!(
            "{:<12}{:>8}{:>12}{:>10}{:>10}  checksum",
            "kind", "files", "bytes", "lines", "words"
        );
        let mut all = Totals::default();
        for (kind, totals) in &*self
            .kinds
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
        {
            totals.print(kind);
            all.files += totals.files;
            all.bytes += totals.bytes;
            all.lines += totals.lines;
            all.words += totals.words;
            all.hashes ^= totals.hashes;
        }
        all.print("in all");
        let mut dead = self
            .dead
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        dead.sort();
        println!("\nretries      {}", self.retries.load(Ordering::Relaxed));
        println!("dead letters {}", dead.len());
        dead.iter().for_each(|letter| println!("  {letter}"));
        println!("messages     {summary}");
    }
}

impl Totals {
    fn print(&self, kind: &str) {
        let Self {
            files,
            bytes,
            lines,
            words,
            hashes,
        } = self;
        println!(
            "{kind:<12}{:>8}{:>12}{:>10}{:>10}  {hashes:016x}",
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
            Event::Settled { counts, .. } => {
                self.retries.fetch_add(counts.retried, Ordering::Relaxed);
                self.ended
                    .fetch_add(counts.acked + counts.dead, Ordering::Relaxed);
            }
            Event::DeadLettered {
                reason, attempts, ..
            } => {
                let letter = format!(
                    "{}, attempt {attempts}: {}",
                    reason.kind.name(),
                    reason.error
                );
                self.dead
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .push(letter);
            }
            _ => {}
        }
    }
}

/// The bar.
pub(crate) struct Progress {
    bar: ProgressBar,
    report: Arc<Report>,
    began: Instant,
}

impl Progress {
    pub(crate) fn new(report: Arc<Report>) -> Self {
        let bar = ProgressBar::new(0);
        let style =
            ProgressStyle::with_template("indexing  {bar:40} {human_pos}/{human_len} {per_sec}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            bar,
            report,
            began: Instant::now(),
        }
    }

    pub(crate) fn expect(&self, files: usize) {
        self.bar.set_length(files as u64);
    }

    pub(crate) fn show(&self) {
        self.bar.set_position(self.report.ended());
    }

    pub(crate) fn say(&self, text: &str) {
        self.bar.println(text);
    }

    pub(crate) fn finish(&self) {
        self.show();
        self.bar.abandon();
        println!(
            "done in {:.2} s\n",
            Instant::now()
                .saturating_duration_since(self.began)
                .as_secs_f64()
        );
    }
}
