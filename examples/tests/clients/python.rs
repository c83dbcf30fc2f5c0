//! A Python with the package `redis`, in a virtual environment below target/ that all tests and runs share.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What pip is asked for. Another text here makes the environment anew.
const PACKAGE: &str = "redis>=4.5";

/// The interpreter; `None` where there is no Python, or where pip can't get the package. That is said on standard error, and
/// in a file whose text `scripts/test` repeats at its end: nextest does not show what a test that passed has printed.
pub(super) fn python() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(folder).unwrap();
    // Tests are processes that start at once: the first one makes the environment, the others wait for it.
    let lock = File::create(folder.join("python.lock")).unwrap();
    lock.lock().unwrap();
    let environment = folder.join("python");
    let made = environment.join("made");
    let skipped = folder.join("python.skipped");
    let program = environment.join("bin").join("python");
    if fs::read_to_string(&made).is_ok_and(|package| package == PACKAGE) {
        return Some(program);
    }
    match make(&environment, &program) {
        Ok(()) => {
            fs::write(made, PACKAGE).unwrap();
            // It may have been skipped before.
            let _absent = fs::remove_file(skipped);
            Some(program)
        }
        Err(reason) => {
            let text = format!("the tests with Python's redis were skipped: {reason}");
            eprintln!("{text}");
            fs::write(skipped, text).unwrap();
            None
        }
    }
}

fn make(environment: &Path, program: &Path) -> Result<(), String> {
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(environment))?;
    // Without a network it has to give up before a test is taken for one that hangs.
    let patience = ["--timeout", "15", "--retries", "1"];
    run(Command::new(program)
        .args(["-m", "pip", "install", "--quiet"])
        .args(patience)
        .arg(PACKAGE))
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.stdin(Stdio::null()).output() {
        Err(error) => Err(format!("{command:?}: {error}")),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let last = said
                .lines()
                .rfind(|line| !line.trim().is_empty())
                .unwrap_or_default();
            Err(format!("{command:?}: {last}"))
        }
    }
}
