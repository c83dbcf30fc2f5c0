//! The table: on the terminal line by line, and as Markdown.

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::cells::Cell;
use crate::checker::Findings;

/// One cell, run.
pub(crate) struct Row {
    pub(crate) cell: Cell,
    pub(crate) findings: Findings,
    pub(crate) remark: Option<String>,
    pub(crate) verdict: Verdict,
}

pub(crate) enum Verdict {
    Passed,
    /// What was wrong.
    Failed(Vec<String>),
    /// Why it was not run.
    Skipped(String),
}

pub(crate) struct Table {
    server: String,
    seed: u64,
    rows: Vec<Row>,
    took: Duration,
}

impl Table {
    /// An empty one.
    ///
    /// # Errors
    /// If there is no server to run.
    pub(crate) fn new(seed: u64) -> io::Result<Self> {
        Ok(Self {
            server: server_version()?,
            seed,
            rows: Vec::new(),
            took: Duration::ZERO,
        })
    }

    pub(crate) fn begin(&self) {
        println!("{}, seed {}", self.server, self.seed);
        println!(
            "{:<28} {:>9} {:>6} {:>10} {:>6} {:>9}  verdict",
            "fault", "messages", "lost", "duplicated", "stale", "recovery"
        );
    }

    pub(crate) fn add(&mut self, row: Row) {
        let Row {
            cell,
            findings,
            remark,
            verdict,
        } = &row;
        let total = findings.total();
        print!(
            "{:<28} {:>9} {:>6} {:>10} {:>6} {:>7.1} s  ",
            cell.name,
            total.messages,
            total.lost,
            total.duplicated,
            findings.stale,
            findings.recovery.as_secs_f64()
        );
        match verdict {
            Verdict::Passed => println!("ok"),
            Verdict::Failed(_) => println!("FAILED"),
            Verdict::Skipped(why) => println!("skipped: {why}"),
        }
        for line in details(findings, remark.as_deref()) {
            println!("    {line}");
        }
        if let Verdict::Failed(wrong) = verdict {
            for line in wrong {
                println!("    WRONG: {line}");
            }
        }
        self.rows.push(row);
    }

    pub(crate) fn end(&mut self, took: Duration) {
        self.took = took;
        let failed = self.count(|verdict| matches!(verdict, Verdict::Failed(_)));
        println!("{}, {failed} failed", self.sum());
    }

    pub(crate) fn passed(&self) -> bool {
        self.rows
            .iter()
            .all(|row| !matches!(row.verdict, Verdict::Failed(_)))
    }

    fn count(&self, is_counted: fn(&Verdict) -> bool) -> usize {
        let verdicts = self.rows.iter().map(|row| &row.verdict);
        verdicts.filter(|verdict| is_counted(verdict)).count()
    }

    fn sum(&self) -> String {
        let messages: u64 = self
            .rows
            .iter()
            .map(|row| row.findings.total().messages)
            .sum();
        let skipped = self.count(|verdict| matches!(verdict, Verdict::Skipped(_)));
        let runs = self.rows.len() - skipped;
        let skipped = match skipped {
            0 => String::new(),
            skipped => format!(" ({skipped} skipped)"),
        };
        let seconds = self.took.as_secs_f64();
        format!("{messages} messages in {runs} runs{skipped}, {seconds:.0} s")
    }

    /// Replaces what stands between the markers of this kind of server.
    pub(crate) fn write_into(&self, path: &Path) -> io::Result<()> {
        let kind = self.server.split('.').next().unwrap_or_default();
        let (begin, end) = (
            format!("<!-- the matrix on {kind}: begin -->"),
            format!("<!-- the matrix on {kind}: end -->"),
        );
        let page = std::fs::read_to_string(path)?;
        let place = page
            .split_once(&begin)
            .and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
        let (before, after) = place.ok_or_else(|| {
            let path = path.display();
            io::Error::other(format!(
                "{path} has no place for the table: {begin:?} and {end:?}"
            ))
        })?;
        std::fs::write(
            path,
            format!("{before}{begin}\n{}\n{end}{after}", self.markdown()),
        )
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "{}, seed {}: {}.\n\n\
             | fault | what happens | messages | lost | duplicated | stale settles refused | recovery | |\n\
             |---|---|--:|--:|--:|--:|--:|---|\n",
            self.server,
            self.seed,
            self.sum()
        );
        for Row {
            cell,
            findings,
            remark,
            verdict,
        } in &self.rows
        {
            let total = findings.total();
            let verdict = match verdict {
                Verdict::Passed => "passed".to_owned(),
                Verdict::Failed(_) => "**failed**".to_owned(),
                Verdict::Skipped(why) => format!("skipped: {why}"),
            };
            let details = details(findings, remark.as_deref()).join("; ");
            let told = if details.is_empty() {
                verdict
            } else {
                format!("{verdict}; {details}")
            };
            text.push_str(&format!(
                "| {} | {} | {} | {} | {} | {} | {:.1} s | {told} |\n",
                cell.name,
                cell.what,
                total.messages,
                total.lost,
                total.duplicated,
                findings.stale,
                findings.recovery.as_secs_f64()
            ));
        }
        text
    }
}

/// Where messages were lost, why some were done twice, and what the fault says of itself.
fn details(findings: &Findings, remark: Option<&str>) -> Vec<String> {
    let lost = findings.modes.iter().filter(|(_, counts)| counts.lost > 0);
    let lost: Vec<_> = lost
        .map(|(mode, counts)| format!("{} of {mode}", counts.lost))
        .collect();
    let twice: Vec<_> = findings
        .causes
        .iter()
        .map(|(cause, times)| format!("{times} ({cause})"))
        .collect();
    let mut details = Vec::new();
    if !lost.is_empty() {
        details.push(format!("lost: {}", lost.join(", ")));
    }
    if !twice.is_empty() {
        details.push(format!("twice: {}", twice.join(", ")));
    }
    details.extend(remark.map(ToOwned::to_owned));
    details
}

/// What the redis-server of the runs says of itself.
///
/// # Errors
/// If it can't be run.
pub(crate) fn said_by_server() -> io::Result<String> {
    let program =
        std::env::var("PYTHIA_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let said = Command::new(&program).arg("--version").output();
    let said = said.map_err(|error| {
        io::Error::other(format!(
            "{program} can't be run ({error}): install it, or name another server by PYTHIA_REDIS_SERVER"
        ))
    })?;
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

fn server_version() -> io::Result<String> {
    let said = said_by_server()?;
    let name = if said.contains("Valkey") {
        "Valkey"
    } else {
        "Redis"
    };
    let version = said
        .split("v=")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    Ok(format!(
        "{name} {}",
        version.unwrap_or("of unknown version")
    ))
}

#[cfg(test)]
mod tests {
    use crate::cells;

    /// A table that was made before the matrix was changed proves something else.
    #[test]
    fn the_tables_that_are_published_are_of_this_matrix() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/GUARANTEES.md");
        let page = std::fs::read_to_string(page).expect("it is there");
        let cells = cells::all();
        let wanted: Vec<_> = cells.iter().map(|cell| (cell.name, cell.what)).collect();
        let tables: Vec<_> = page.split(": begin -->").skip(1).collect();
        assert!(!tables.is_empty());
        for table in tables {
            let table = table.split("<!--").next().unwrap_or_default();
            let rows = table.lines().filter_map(|line| line.strip_prefix("| "));
            let rows = rows.filter_map(|row| {
                let mut columns = row.split(" | ");
                Some((columns.next()?, columns.next()?))
            });
            let rows: Vec<_> = rows.skip(1).collect();
            assert_eq!(
                rows, wanted,
                "make it again: faults --table docs/GUARANTEES.md"
            );
            assert!(!table.contains("**failed**"));
        }
    }
}
