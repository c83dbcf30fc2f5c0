//! What an examination comes to: the servers as they are, and the findings.

use std::cmp::Reverse;
use std::fmt;

use serde::Serialize;

use super::finding::{Finding, Severity};
use super::node::Findings;

/// What was examined, and what was found. Its `Display` is for people, its `Serialize` for tools.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    servers: Vec<Server>,
    findings: Vec<Finding>,
}

/// A server as it is. What it does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Server {
    /// Where it is, such as `127.0.0.1:6379/0`.
    pub name: String,
    /// `queues`, `store`, or `queues and store`.
    pub purpose: &'static str,
    /// `Redis` or `Valkey`.
    pub product: &'static str,
    /// Its version, such as `7.0.15`.
    pub version: Option<String>,
    /// `master` or `slave`, in Redis' words.
    pub role: Option<String>,
    /// What it writes to disk.
    pub persistence: Option<Persistence>,
    /// The memory that counts towards the limit, in bytes.
    pub memory_used: Option<u64>,
    /// The limit, in bytes; none if there is none.
    pub memory_max: Option<u64>,
    /// `maxmemory-policy`.
    pub eviction_policy: Option<String>,
    /// By how much its clock is ahead of ours, in milliseconds.
    pub clock_skew_ms: Option<i64>,
    /// Which of several ways this version and these settings lead to.
    pub paths: Vec<&'static str>,
    /// Which process it is, to tell two names of one server from two servers.
    #[serde(skip)]
    pub(super) run_id: Option<String>,
}

/// What a server writes to disk, and what is lost with the machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Persistence {
    /// What it writes, and when.
    pub written: String,
    /// What is lost if the machine loses its power now.
    pub loss_window: String,
}

impl Report {
    /// What was found, the worst first.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The servers that were examined.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The severity of the worst finding.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(Finding::severity).max()
    }

    pub(super) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    pub(super) fn extend(&mut self, server: Server, found: Findings) {
        self.servers.push(server);
        self.findings.extend(found.0);
    }

    pub(super) fn add_all(&mut self, found: Findings) {
        self.findings.extend(found.0);
    }

    pub(super) fn sort(&mut self) {
        self.findings
            .sort_by_key(|finding| Reverse(finding.severity()));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for server in &self.servers {
            writeln!(f, "{server}")?;
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let count = |severity| {
            let of_it = |finding: &&Finding| finding.severity() == severity;
            self.findings.iter().filter(of_it).count()
        };
        let [critical, warnings, notes] =
            [Severity::Critical, Severity::Warning, Severity::Note].map(count);
        write!(f, "{critical} critical, {warnings} warnings, {notes} notes")
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = || "unknown".to_owned();
        let text = |text: &Option<String>| text.clone().unwrap_or_else(unknown);
        let (version, role) = (text(&self.version), text(&self.role));
        let Self {
            name,
            purpose,
            product,
            ..
        } = self;
        writeln!(f, "{name} ({purpose}): {product} {version}, {role}")?;
        if let Some(Persistence {
            written,
            loss_window,
        }) = &self.persistence
        {
            writeln!(f, "    disk:   {written}; a power cut loses {loss_window}")?;
        }
        let used = self.memory_used.map_or_else(unknown, bytes);
        let max = self.memory_max.map_or("no limit".to_owned(), bytes);
        let policy = text(&self.eviction_policy);
        writeln!(f, "    memory: {used} of {max}, {policy}")?;
        if let Some(skew) = self.clock_skew_ms {
            let (size, side) = (
                skew.unsigned_abs(),
                if skew < 0 { "behind" } else { "ahead of" },
            );
            writeln!(f, "    clock:  {size} ms {side} ours")?;
        }
        for path in &self.paths {
            writeln!(f, "    path:   {path}")?;
        }
        Ok(())
    }
}

/// For people: `1.5 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{size:.1} {}", UNITS[unit]),
    }
}
