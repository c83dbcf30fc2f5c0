//! Where the commands of a page are typed: redis-cli, curl and cargo lead to the servers and programs of the test.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use pythia_redis::testing::RedisServer;
use tempfile::TempDir;

pub(crate) struct Shell {
    /// The working directory; what stands before all else in the `PATH` is in its folder `bin`.
    folder: TempDir,
    /// What the page shows, and what it is here.
    stand_ins: Vec<(&'static str, String)>,
    variables: Vec<(String, String)>,
}

impl Shell {
    pub(crate) fn on(server: &RedisServer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shell = Self {
            folder,
            stand_ins: vec![(REDIS, format!("127.0.0.1:{}", server.port()))],
            variables: Vec::new(),
        };
        // To a terminal it prints types and quotation marks, into a pipe none.
        let cli = std::env::var("PYTHIA_REDIS_CLI").unwrap_or_else(|_| "redis-cli".into());
        let cli = which(&cli);
        shell.program(
            "redis-cli",
            &format!("exec {cli} -p {} $PRINTED \"$@\"", server.port()),
        );
        // `cargo run -q --bin NAME`
        shell.program(
            "cargo",
            &format!(
                "case $4 in explain) exec {} ;; esac",
                env!("CARGO_BIN_EXE_explain")
            ),
        );
        shell
    }

    /// Where the worker of the page has its metrics.
    pub(crate) fn metrics(mut self, address: SocketAddr) -> Self {
        self.stand_ins.push((METRICS, address.to_string()));
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// What a command prints, on both of its outputs.
    pub(crate) async fn run(&self, command: &str) -> String {
        let mut script = format!("exec 2>&1\n{command}");
        for (shown, here) in &self.stand_ins {
            script = script.replace(shown, here);
        }
        let path = std::env::var("PATH").unwrap();
        let bin = self.folder.path().join("bin");
        let mut shell = tokio::process::Command::new("sh");
        for (name, _) in std::env::vars() {
            if name.starts_with("PYTHIA_") || name.starts_with("REDIS_") {
                shell.env_remove(name);
            }
        }
        let printed = if command.contains('|') {
            "--raw"
        } else {
            "--no-raw"
        };
        let output = shell
            .args(["-c", &script])
            .env("PRINTED", printed)
            .env("PATH", format!("{}:{path}", bin.display()))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output();
        let output = output.await.unwrap();
        let says = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code() != Some(NOT_FOUND), "{command}: {says}");
        // INFO ends its lines as protocols do; nobody sees that.
        let mut text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        for (shown, here) in &self.stand_ins {
            text = text.replace(here, shown);
        }
        text
    }

    fn program(&self, name: &str, script: &str) {
        let bin = self.folder.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        let path = bin.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// The path of a program: what is to stand in for it has its name.
fn which(program: &str) -> String {
    if program.contains('/') {
        return program.to_owned();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program));
    let found = found.into_iter().find(|path| path.is_file());
    let Some(found) = found else {
        panic!("{program} is not installed");
    };
    found.display().to_string()
}

/// What a shell ends with that has not found a program.
const NOT_FOUND: i32 = 127;
const REDIS: &str = "127.0.0.1:6379";
const METRICS: &str = "127.0.0.1:9898";
