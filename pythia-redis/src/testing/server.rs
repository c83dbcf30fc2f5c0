//! One redis-server process.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::certificates::Certificates;
use super::program;

/// A running redis-server. Dropping it kills the server and removes its folder.
#[derive(Debug)]
pub struct RedisServer {
    folder: TempDir,
    pub(super) launch: Launch,
    port: u16,
    child: Option<Child>,
}

/// How a server is started, beyond what all have in common.
#[derive(Debug, Default)]
pub(super) struct Launch {
    /// What stands before all settings on the command line.
    pub(super) first: &'static [&'static str],
    pub(super) settings: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    /// Names and contents of the files that it must find in its folder when it starts for the first time.
    pub(super) files: Vec<(&'static str, String)>,
    /// With these it listens for TLS instead of plain TCP. A replica shares its primary's.
    pub(super) certificates: Option<Arc<Certificates>>,
}

impl RedisServer {
    /// Starts a server without persistence or password.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with further settings, as on its command line: `&["--appendonly", "yes"]`.
    ///
    /// With `--requirepass`, [`cli`](Self::cli) and [`url`](Self::url) use that password.
    pub async fn start_with(settings: &[&str]) -> Self {
        Self::start_within(&[], settings).await
    }

    /// The same with variables in the environment of the process; `LD_PRELOAD`, for example, gives it another clock.
    pub async fn start_within(environment: &[(&str, String)], settings: &[&str]) -> Self {
        let environment = environment.iter();
        Self::launch(Launch {
            settings: settings.iter().map(ToString::to_string).collect(),
            environment: environment
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            ..Launch::default()
        })
        .await
    }

    pub(super) async fn launch(launch: Launch) -> Self {
        let mut server = Self::prepare(launch);
        for _ in 0..PORT_ATTEMPTS {
            if server.spawn_at(free_port()).await {
                return server;
            }
            // Another process took the port between our look and the server's: take another.
        }
        panic!(
            "redis-server found no free port in {PORT_ATTEMPTS} attempts; it says:\n{}",
            server.log()
        );
    }

    /// A server that has its folder, and is not started.
    pub(super) fn prepare(launch: Launch) -> Self {
        let folder = TempDir::with_prefix("pythia-redis-").expect("a folder for redis-server");
        Self {
            folder,
            launch,
            port: 0,
            child: None,
        }
    }

    /// Starts a prepared server on this port; `false` if another process has it.
    pub(super) async fn spawn_at(&mut self, port: u16) -> bool {
        self.port = port;
        self.spawn().await
    }

    /// `redis://127.0.0.1:port`, or `rediss://localhost:port` with TLS; with the password if there is one.
    pub fn url(&self) -> String {
        let (scheme, host) = match self.launch.certificates {
            Some(_) => ("rediss", "localhost"),
            None => ("redis", "127.0.0.1"),
        };
        let credentials = match self.password() {
            Some(password) => format!(":{password}@"),
            None => String::new(),
        };
        format!("{scheme}://{credentials}{host}:{}", self.port)
    }

    /// The unix socket that the server listens on besides its port. It stays the same over restarts.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    /// The password of the setting `--requirepass`.
    pub fn password(&self) -> Option<&str> {
        let settings = &self.launch.settings;
        let at = settings.iter().position(|name| name == "--requirepass")?;
        settings.get(at + 1).map(String::as_str)
    }

    /// The port on 127.0.0.1. It stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Runs `redis-cli` with these arguments and answers what it prints, without the last line break.
    ///
    /// An error reply is such a text too: `WRONGTYPE Operation against ...`.
    pub async fn cli(&self, args: &[&str]) -> String {
        self.cli_with(&[], args).await
    }

    /// As [`cli`](Self::cli), for a command that cannot fail.
    pub(super) async fn must(&self, args: &[&str]) {
        let reply = self.cli(args).await;
        assert_eq!(reply, "OK", "redis-cli {args:?} on port {}", self.port);
    }

    /// As [`cli`](Self::cli), with options of `redis-cli` before the command.
    pub(super) async fn cli_with(&self, options: &[&str], args: &[&str]) -> String {
        let cli = program::cli();
        let mut command = Command::new(&cli);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        if let Some(certificates) = &self.launch.certificates {
            command.arg("--tls");
            command.arg("--cacert").arg(certificates.ca());
            command.arg("--cert").arg(certificates.client_cert());
            command.arg("--key").arg(certificates.client_key());
        }
        if let Some(password) = self.password() {
            command.args(["--no-auth-warning", "-a", password]);
        }
        command.args(options).args(args);
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .expect("redis-cli's thread does not panic")
            .unwrap_or_else(|error| program::missing(&cli, &error));
        let text = if output.stdout.is_empty() {
            output.stderr
        } else {
            output.stdout
        };
        String::from_utf8_lossy(&text).trim_end().to_owned()
    }

    /// Ends the server as an administrator does. Data is kept only if a setting says so.
    pub async fn stop(&mut self) {
        self.signal("TERM");
        self.wait().await;
    }

    /// Ends the server as a power cut does: `kill -9`.
    pub async fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().expect("our own child can be killed");
        }
        self.wait().await;
    }

    /// Starts the server again on its port, with what it has persisted. Kills it first if it still runs.
    pub async fn restart(&mut self) {
        self.kill().await;
        let patience = Instant::now() + START_TIMEOUT;
        // The port can be in other hands for a moment; it must be this one, because clients know it.
        while !self.spawn().await {
            assert!(
                Instant::now() < patience,
                "port {} is taken, so redis-server cannot be restarted; it says:\n{}",
                self.port,
                self.log()
            );
            sleep(LOOK_AGAIN).await;
        }
    }

    /// As [`restart`](Self::restart), with all data gone.
    pub async fn restart_empty(&mut self) {
        self.kill().await;
        let folder = self.folder.path();
        for entry in std::fs::read_dir(folder).expect("the server's folder is readable") {
            let path = entry.expect("the server's folder is readable").path();
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            removed.expect("the server's files are ours");
        }
        self.restart().await;
    }

    /// Freezes the server: its connections stay open and nothing answers. What a half-open connection looks like.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Ends a [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Where the server has its files, such as its append-only file.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the server has logged since its last start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Starts the process and waits until it answers; `false` if another process has the port.
    async fn spawn(&mut self) -> bool {
        for (name, text) in &self.launch.files {
            let path = self.folder.path().join(name);
            if !path.exists() {
                std::fs::write(path, text).expect("the server's folder is writable");
            }
        }
        let program = program::server();
        let mut command = Command::new(&program);
        command
            .args(self.launch.first)
            .args(["--bind", "127.0.0.1"])
            .args(["--save", ""])
            .args(["--daemonize", "no"])
            .args(["--unixsocket", SOCKET])
            // A primary waits for more replicas before it sends its data, by default for seconds.
            .args(["--repl-diskless-sync-delay", "0"]);
        let port = self.port.to_string();
        match &self.launch.certificates {
            None => command.args(["--port", &port]),
            Some(certificates) => command
                .args(["--port", "0", "--tls-port", &port])
                .args(["--tls-replication", "yes", "--tls-ca-cert-file"])
                .arg(certificates.ca())
                .arg("--tls-cert-file")
                .arg(certificates.server_cert())
                .arg("--tls-key-file")
                .arg(certificates.server_key()),
        };
        command
            .args(&self.launch.settings)
            .envs(self.launch.environment.iter().cloned())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        let log = std::fs::File::create(self.log_path()).expect("the server's folder is writable");
        // Complaints about settings go to stderr, everything else to stdout.
        let same = log.try_clone().expect("a file handle can be doubled");
        command.stdout(log).stderr(same);
        let child = command
            .spawn()
            .unwrap_or_else(|error| program::missing(&program, &error));
        let pid = child.id();
        self.child = Some(child);
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.exited() {
                self.child = None;
                let log = self.log();
                assert!(
                    log.contains("Address already in use"),
                    "redis-server ended ({status}); it says:\n{log}"
                );
                return false;
            }
            if self.answering_process().await == Some(pid) {
                return true;
            }
            assert!(
                Instant::now() < deadline,
                "redis-server does not answer after {START_TIMEOUT:?}; it says:\n{}",
                self.log()
            );
            sleep(LOOK_AGAIN).await;
        }
    }

    /// The process that serves our port and has loaded its data. On a port that another process took it is not ours.
    async fn answering_process(&self) -> Option<u32> {
        let ask = async {
            let reply = if self.launch.certificates.is_some() {
                [self.cli(&["PING"]).await, self.cli(INFO).await].join("\n")
            } else {
                self.ask_for_process().await?
            };
            // PING fails while the server loads, INFO does not.
            if !reply.lines().any(|line| line.ends_with("PONG")) {
                return None;
            }
            let line = reply
                .lines()
                .find_map(|line| line.strip_prefix("process_id:"))?;
            line.trim().parse().ok()
        };
        timeout(Duration::from_secs(1), ask).await.ok().flatten()
    }

    /// The same two questions without a process for each: most tests wait for this.
    async fn ask_for_process(&self) -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
            .await
            .ok()?;
        let mut request = String::new();
        if let Some(password) = self.password() {
            request.push_str(&format!("AUTH {password}\r\n"));
        }
        request.push_str("PING\r\nINFO server\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        // The server answers what it has read, then closes too. (A sentinel does not know QUIT.)
        stream.shutdown().await.ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.ok()?;
        Some(reply)
    }

    async fn wait(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        while self.child.is_some() && self.exited().is_none() {
            assert!(Instant::now() < deadline, "redis-server does not end");
            sleep(LOOK_AGAIN).await;
        }
        self.child = None;
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        child.try_wait().expect("our own child can be asked")
    }

    fn signal(&self, name: &str) {
        let pid = self.pid().expect("the server runs");
        let status = Command::new("kill")
            .args([&format!("-{name}"), &pid.to_string()])
            .status()
            .expect("the command kill is there");
        assert!(status.success(), "kill -{name} {pid} failed");
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("redis-server.log")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // SIGKILL also ends a paused server; it has nothing that is worth a clean end.
            let _already_dead = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// A port that nobody listens on, and that the system will not hand out again soon.
pub(super) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port on 127.0.0.1")
        .port()
}

/// Relative to the server's folder, which is also its working directory.
const SOCKET: &str = "redis.sock";
const INFO: &[&str] = &["INFO", "server"];
const PORT_ATTEMPTS: usize = 20;
const START_TIMEOUT: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_starts_answers_and_leaves_nothing_behind() {
        let server = RedisServer::start().await;
        let folder = server.folder.path().to_owned();
        let port = server.port();
        assert_eq!(server.cli(&["SET", "k", "v"]).await, "OK");
        assert_eq!(server.cli(&["GET", "k"]).await, "v");
        drop(server);
        assert!(!folder.exists());
        assert!(
            TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn two_servers_share_nothing() {
        let (one, two) = tokio::join!(RedisServer::start(), RedisServer::start());
        assert_ne!(one.port(), two.port());
        one.cli(&["SET", "k", "v"]).await;
        assert_eq!(two.cli(&["DBSIZE"]).await, "0");
    }

    #[tokio::test]
    async fn a_restart_keeps_the_port_and_only_what_was_persisted() {
        let mut server =
            RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
        let (url, first) = (server.url(), server.pid());
        server.cli(&["SET", "k", "v"]).await;
        server.kill().await;
        server.restart().await;
        assert_eq!(server.url(), url);
        assert_ne!(server.pid(), first);
        assert_eq!(server.cli(&["GET", "k"]).await, "v");
        server.restart_empty().await;
        assert_eq!(server.cli(&["DBSIZE"]).await, "0");

        let mut forgetful = RedisServer::start().await;
        forgetful.cli(&["SET", "k", "v"]).await;
        forgetful.stop().await;
        assert_eq!(forgetful.pid(), None);
        forgetful.restart().await;
        assert_eq!(forgetful.cli(&["DBSIZE"]).await, "0");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_noticed() {
        let mut server = RedisServer::start().await;
        server.kill().await;
        let thief =
            TcpListener::bind((Ipv4Addr::LOCALHOST, server.port())).expect("the port is free");
        assert!(!server.spawn().await);
        drop(thief);
        server.restart().await;
        assert_eq!(server.cli(&["PING"]).await, "PONG");
    }

    #[tokio::test]
    async fn a_paused_server_answers_after_it_resumes() {
        let server = RedisServer::start().await;
        server.pause();
        assert_eq!(server.answering_process().await, None);
        server.resume();
        assert_eq!(server.answering_process().await, server.pid());
    }

    #[tokio::test]
    async fn a_password_is_part_of_the_url_and_used_by_the_cli() {
        let server = RedisServer::start_with(&["--requirepass", "secret"]).await;
        assert!(server.url().starts_with("redis://:secret@127.0.0.1:"));
        assert_eq!(server.cli(&["PING"]).await, "PONG");
    }

    #[tokio::test]
    async fn a_server_listens_on_a_unix_socket_too() {
        let server = RedisServer::start_with(&["--requirepass", "secret"]).await;
        let socket = server.socket();
        let path = socket.to_str().expect("a plain path");
        assert_eq!(server.cli_with(&["-s", path], &["PING"]).await, "PONG");
    }

    #[tokio::test]
    async fn a_server_that_refuses_its_settings_says_so() {
        let start = RedisServer::start_with(&["--no-such-setting", "1"]);
        #[expect(
            clippy::disallowed_methods,
            reason = "the panic of a task can be looked at"
        )]
        let ended = tokio::spawn(start).await.unwrap_err().into_panic();
        let text = ended.downcast_ref::<String>().expect("a text");
        assert!(text.contains("no-such-setting"), "{text}");
    }
}
