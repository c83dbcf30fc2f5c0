//! Runs the cells, one after the other.

use std::io;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use crate::Run;
use crate::cells::{self, Cell};
use crate::checker::{Findings, History, check};
use crate::history;
use crate::report::{Row, Table, Verdict};
use crate::scene::Scene;

/// Whether all cells passed.
pub(crate) async fn run(args: &Run) -> io::Result<bool> {
    let cells = cells_of(args)?;
    if args.list {
        cells.iter().for_each(tell);
        return Ok(true);
    }
    let mut table = Table::new(args.seed)?;
    table.begin();
    let started = Instant::now();
    for cell in &cells {
        let row = match (cell.needs)() {
            Ok(()) => one(cell, args).await?,
            Err(why) => Row {
                cell: *cell,
                findings: Findings::default(),
                remark: None,
                verdict: Verdict::Skipped(why.to_owned()),
            },
        };
        table.add(row);
    }
    table.end(Instant::now().saturating_duration_since(started));
    if let Some(path) = &args.table {
        table.write_into(path)?;
    }
    Ok(table.passed())
}

/// The cells that are asked for: one by its whole name, or all with that text in their names.
fn cells_of(args: &Run) -> io::Result<Vec<Cell>> {
    let mut cells = cells::all();
    cells.retain(|cell| !args.quick || cell.quick);
    if let Some(only) = &args.only {
        let wanted = only.to_lowercase();
        let name = |cell: &Cell| cell.name.to_lowercase();
        match cells.iter().position(|cell| name(cell) == wanted) {
            Some(at) => cells = vec![cells[at]],
            None => cells.retain(|cell| name(cell).contains(&wanted)),
        }
        if cells.is_empty() {
            let part = if args.quick {
                "the short part"
            } else {
                "the matrix"
            };
            return Err(io::Error::other(format!(
                "no cell of {part} has {only:?} in its name: --list names them"
            )));
        }
    }
    Ok(cells)
}

/// What a cell is, and what has to hold under its fault.
fn tell(cell: &Cell) {
    println!("{:<28} {}", cell.name, cell.what);
    let allowed = cell.allowed.words();
    let allowed = match allowed.is_empty() {
        true => "nothing is lost or done twice for it".to_owned(),
        false => format!("allowed: {}", allowed.join("; ")),
    };
    let limit = cell
        .limit
        .map(|limit| format!("; all is as before within {limit:?}"));
    let quick = if cell.quick {
        "; of the short part"
    } else {
        ""
    };
    println!("{:<28} {allowed}{}{quick}", "", limit.unwrap_or_default());
}

async fn one(cell: &Cell, args: &Run) -> io::Result<Row> {
    let folder = TempDir::with_prefix("pythia-faults-")?;
    let rate = if args.quick { cell.rate / 3 } else { cell.rate };
    let (ran, remark) = match play(cell, folder.path(), args.seed, rate).await {
        Ok(remark) => (Ok(()), remark),
        Err(error) => (Err(error), None),
    };
    let (histories, unreadable) = match histories(folder.path()) {
        Ok(histories) => (histories, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let findings = check(&histories, cell.allowed, cell.limit.unwrap_or(LINGERS));
    let mut wrong = findings.violations.clone();
    for error in ran.err().into_iter().chain(unreadable) {
        wrong.insert(0, error.to_string());
    }
    if cell.once && findings.total().duplicated > 0 {
        wrong.push(format!(
            "done twice, without any need: {:?}",
            findings.causes
        ));
    }
    let told = |group| findings.refused_renewals.get(group).copied().unwrap_or(0);
    wrong.extend(
        cell.refused_renewals
            .iter()
            .filter(|group| told(group) == 0)
            .map(|group| {
                let name = group.name();
                format!("no renewal was told that its messages are others': {name}")
            }),
    );
    if cell.progress {
        let groups = cell.setup.groups.iter();
        let stuck = groups.filter(|group| {
            findings
                .meanwhile
                .get(group)
                .is_none_or(|halves| halves.contains(&0))
        });
        wrong.extend(stuck.map(|group| format!("no progress meanwhile: {}", group.name())));
    }
    // The short part runs beside other tests: a disk that is busy holds up Redis, and Redis everybody.
    let patience = if args.quick { 3 } else { 1 };
    let limit = cell.limit.map(|limit| limit * patience);
    if let Some(limit) = limit.filter(|limit| findings.recovery > *limit) {
        wrong.push(format!(
            "recovered after {:.1?}, not within {limit:?}",
            findings.recovery
        ));
    }
    let verdict = match wrong.is_empty() {
        true => Verdict::Passed,
        false => Verdict::Failed(wrong),
    };
    if args.keep || matches!(verdict, Verdict::Failed(_)) {
        let folder = folder.keep();
        let folder = folder.display();
        println!("  histories: {folder}");
        for (what, named) in [("lost", &findings.lost), ("twice", &findings.twice)] {
            let named: Vec<_> = named
                .iter()
                .map(|(group, number)| format!("{number} of {}", group.name()))
                .collect();
            if !named.is_empty() {
                println!(
                    "  {what}: {}, ..: faults --trace {folder} NUMBER tells what became of one",
                    named.join(", ")
                );
            }
        }
    }
    Ok(Row {
        cell: *cell,
        findings,
        remark,
        verdict,
    })
}

/// Plays the run; answers what the fault had to say of itself.
async fn play(cell: &Cell, folder: &Path, seed: u64, rate: u64) -> io::Result<Option<String>> {
    let mut scene = Scene::start(cell.setup, folder, seed, rate).await?;
    (cell.script)(&mut scene).await?;
    scene.finish(TAIL).await?;
    Ok(scene.remark.take())
}

pub(crate) fn histories(folder: &Path) -> io::Result<Vec<History>> {
    let mut histories = Vec::new();
    let entries = std::fs::read_dir(folder)
        .map_err(|error| io::Error::other(format!("{}: {error}", folder.display())))?;
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "history")
        {
            let process = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            histories.push(History {
                process,
                records: history::read(&path)?,
            });
        }
    }
    // The order in which a folder lists its files is nobody's.
    histories.sort_by(|one, other| one.process.cmp(&other.process));
    Ok(histories)
}

/// How long publishing goes on after the fault.
const TAIL: Duration = Duration::from_secs(6);
/// How long a fault has effects where nothing says how long.
const LINGERS: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::Args;

    fn names(args: &[&str]) -> Result<Vec<&'static str>, String> {
        let args = [&["faults"], args].concat();
        let args = Args::try_parse_from(args).map_err(|error| error.to_string())?;
        let cells = cells_of(&args.run).map_err(|error| error.to_string())?;
        Ok(cells.iter().map(|cell| cell.name).collect())
    }

    #[test]
    fn a_cell_goes_by_its_whole_name_before_a_part_of_others() {
        assert_eq!(names(&["--only", "kill"]).unwrap(), ["kill"]);
        let some = names(&["--only", "SENTINEL"]).unwrap();
        assert_eq!(some, ["Sentinel, planned", "Sentinel, killed"]);
        let error = names(&["--quick", "--only", "no such"]).unwrap_err();
        assert!(
            error.contains("no cell of the short part has \"no such\""),
            "{error}"
        );
        assert_eq!(names(&[]).unwrap().len(), cells::all().len());
    }

    /// The published one would become a part of itself.
    #[test]
    fn a_table_is_of_the_whole_matrix() {
        for part in [&["--quick"][..], &["--only", "kill"]] {
            let error = names(&[&["--table", "page.md"], part].concat()).unwrap_err();
            assert!(error.contains("cannot be used with"), "{error}");
        }
    }
}
