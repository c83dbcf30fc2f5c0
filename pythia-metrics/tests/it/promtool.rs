//! Prometheus' own judge.

use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

/// Runs `promtool check metrics`, which has to have nothing to say.
pub(crate) fn promtool(page: &str) {
    let said = run_promtool(&["check", "metrics"], page);
    assert_eq!(said.unwrap_or_default(), "");
}

/// Runs promtool and answers what it says. Without promtool nothing is checked, unless the full tests were asked for.
pub(crate) fn run_promtool(arguments: &[&str], input: &str) -> Option<String> {
    let started = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match started {
        Ok(promtool) => promtool,
        Err(error)
            if error.kind() == ErrorKind::NotFound
                && std::env::var_os("PYTHIA_TEST_FULL").is_none() =>
        {
            return None;
        }
        Err(error) => panic!("promtool (of Debian's package prometheus): {error}"),
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let said = promtool.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success(), "promtool: {text}");
    Some(text)
}
