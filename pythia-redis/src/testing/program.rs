//! Which redis-server and redis-cli the tests run.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// The server's program: `PYTHIA_REDIS_SERVER`, or `redis-server` from the `PATH`.
pub(super) fn server() -> OsString {
    named_by(SERVER_VARIABLE).unwrap_or_else(|| "redis-server".into())
}

/// The client's program: `PYTHIA_REDIS_CLI`, or the one beside the server that was named, or `redis-cli` from the `PATH`.
pub(super) fn cli() -> OsString {
    if let Some(program) = named_by(CLI_VARIABLE) {
        return program;
    }
    let server = named_by(SERVER_VARIABLE).map(PathBuf::from);
    // Valkey calls its client by its own name.
    ["redis-cli", "valkey-cli"]
        .into_iter()
        .filter_map(|name| Some(server.as_ref()?.with_file_name(name)))
        .find(|path| path.is_file())
        .map_or_else(|| "redis-cli".into(), PathBuf::into_os_string)
}

pub(super) fn missing(program: &OsString, error: &std::io::Error) -> ! {
    panic!(
        "cannot run {} ({error}): install it, or run scripts/test, which does",
        program.to_string_lossy()
    )
}

fn named_by(variable: &str) -> Option<OsString> {
    env::var_os(variable).filter(|value| !value.is_empty())
}

const SERVER_VARIABLE: &str = "PYTHIA_REDIS_SERVER";
const CLI_VARIABLE: &str = "PYTHIA_REDIS_CLI";
