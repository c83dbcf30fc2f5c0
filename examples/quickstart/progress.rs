//! What the user sees while it runs: a bar, and log lines that do not tear it.

use std::io;

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};
use tokio::time::Instant;

/// The bar.
pub(crate) struct Progress {
    bar: ProgressBar,
    began: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new(0);
        let style =
            ProgressStyle::with_template("indexing  {bar:40} {human_pos}/{human_len} {rate}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.with_key("rate", rate));
        Self {
            bar,
            began: Instant::now(),
        }
    }

    /// Where log lines go: to stderr, above the bar.
    pub(crate) fn log(&self) -> LogLine {
        LogLine(self.bar.clone())
    }

    pub(crate) fn expect(&self, files: usize) {
        self.bar.set_length(files as u64);
    }

    pub(crate) fn expected(&self) -> u64 {
        self.bar.length().unwrap_or_default()
    }

    /// Moves the bar. A queue may hold more than this process has put there, from an earlier run or from another process,
    /// and others may take from it: so it is what is left that counts.
    pub(crate) fn show(&self, ended: u64, left: u64) {
        let length = self.expected().max(ended + left);
        self.bar.set_length(length);
        self.bar.set_position(length - left);
    }

    pub(crate) fn say(&self, text: &str) {
        self.bar.suspend(|| println!("{text}"));
    }

    /// Leaves the bar as it is, and says how it ended. `left` is what an interruption has left.
    pub(crate) fn finish(&self, left: u64) {
        self.bar.abandon();
        if !self.bar.is_hidden() {
            eprintln!();
        }
        let took = Instant::now()
            .saturating_duration_since(self.began)
            .as_secs_f64();
        match left {
            0 => println!("done in {took:.2} s\n"),
            1 => println!("interrupted after {took:.2} s, 1 file left\n"),
            left => println!(
                "interrupted after {took:.2} s, {} files left\n",
                HumanCount(left)
            ),
        }
    }

    /// Takes the bar away: something failed, and only that matters.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn rate(state: &ProgressState, text: &mut dyn std::fmt::Write) {
    // A bar that can't be drawn is not worth an error.
    let _written = write!(text, "{}/s", HumanCount(state.per_sec() as u64));
}

/// Writes to stderr while the bar is out of the way.
#[derive(Clone)]
pub(crate) struct LogLine(ProgressBar);

impl io::Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
