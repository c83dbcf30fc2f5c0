//! What is written to disk, and what a power cut would lose.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime_serde::re::humantime::format_rfc3339_seconds;

use super::duration;
use super::finding::{Code, Finding, Severity};
use super::node::{Findings, Node};
use super::report::Persistence;
use crate::connection::Redis;
use crate::error::RedisError;

pub(super) fn examine(node: &mut Node<'_>, found: &mut Findings) {
    let Some(append_only) = node.info("aof_enabled") else {
        return;
    };
    let state = match append_only {
        "1" => append_only_file(node, found),
        _ => snapshots(node, found),
    };
    node.server.persistence = Some(state);
    failures(node, found);
}

fn append_only_file(node: &Node<'_>, found: &mut Findings) -> Persistence {
    let flushed = node.setting("appendfsync");
    let (when, loss) = match flushed {
        Some("always") => ("flushed at every write", "nothing"),
        Some("no") => ("flushed when the system likes to", "up to half a minute"),
        Some(_) => ("flushed every second", "the last 1 to 2 s"),
        None => (
            "flushed as appendfsync says",
            "the last 1 to 2 s, if that is everysec, the default",
        ),
    };
    let pauses = flushed != Some("no") && node.setting("no-appendfsync-on-rewrite") == Some("yes");
    let loss_window = match pauses {
        true => {
            format!("{loss}; up to half a minute while the file is rewritten or a snapshot is made")
        }
        false => loss.to_owned(),
    };
    let persistence = Persistence {
        written: format!("append-only file, {when}"),
        loss_window,
    };
    let finding = match (flushed, pauses) {
        (Some("no"), _) => Some((
            "the append-only file is flushed when the system likes to",
            "if the machine loses its power, messages of up to half a minute are lost, though they were acknowledged",
            "CONFIG SET appendfsync everysec",
        )),
        (_, true) => Some((
            "the append-only file is not flushed while it is rewritten or a snapshot is made",
            "if the machine loses its power in that time, messages of up to half a minute are lost, though they were acknowledged",
            "CONFIG SET no-appendfsync-on-rewrite no",
        )),
        _ => None,
    };
    if let Some((what, means, command)) = finding.filter(|_| node.holds_messages()) {
        let finding = node.finding(Severity::Note, Code::LossWindow, what);
        found.add(finding.means(means).mended_by(command).advice_is(STAYS));
    }
    persistence
}

fn snapshots(node: &Node<'_>, found: &mut Findings) -> Persistence {
    let last = node
        .number("rdb_last_save_time")
        .map(|at| UNIX_EPOCH + Duration::from_secs(at));
    let changes = node.number("rdb_changes_since_last_save").unwrap_or(0);
    // Before the first snapshot it is the time of the start, which Redis gives under the same name.
    let since = last.map_or("the last snapshot or start".to_owned(), |last| {
        let ago = SystemTime::now().duration_since(last).unwrap_or_default();
        let ago = duration(Duration::from_secs(ago.as_secs()));
        format!(
            "the last snapshot or start ({}, {ago} ago, {changes} changes since)",
            format_rfc3339_seconds(last)
        )
    });
    let longest = node.setting("save").map(longest_interval);
    let (persistence, finding) = match longest {
        Some(None) => {
            let finding = node
                .finding(
                    Severity::Warning,
                    Code::NoPersistence,
                    "nothing is written to disk",
                )
                .means("a crash or a restart of Redis loses every message in it");
            let persistence = Persistence {
                written: "nothing".to_owned(),
                loss_window: "everything, and so does a restart".to_owned(),
            };
            (persistence, finding)
        }
        Some(Some(longest)) => {
            let longest = duration(Duration::from_secs(longest));
            let persistence = Persistence {
                written: format!("snapshots only, at the latest {longest} after a change"),
                loss_window: format!("all since {since}, and so does a crash"),
            };
            let finding = node
                .finding(Severity::Note, Code::LossWindow, "there are snapshots, and no append-only file")
                .means(format!(
                    "a crash loses all since {since}; with these save points that is up to {longest} of acknowledged messages"
                ));
            (persistence, finding)
        }
        None => {
            let persistence = Persistence {
                written: "no append-only file; whether there are snapshots is not known".to_owned(),
                loss_window: format!("all since {since}, and so does a crash"),
            };
            let finding = node
                .finding(
                    Severity::Note,
                    Code::LossWindow,
                    "there is no append-only file",
                )
                .means(format!(
                    "a crash loses all since {since}, if there are snapshots at all"
                ));
            (persistence, finding)
        }
    };
    if node.holds_messages() {
        found.add(
            finding
                .mended_by("CONFIG SET appendonly yes")
                .advice_is(STAYS),
        );
    }
    persistence
}

/// Writing that is configured and does not succeed.
fn failures(node: &Node<'_>, found: &mut Findings) {
    if node.info("aof_last_write_status") == Some("err") {
        let finding = node
            .finding(Severity::Critical, Code::PersistenceFailing, "the last write to the append-only file has failed")
            .means("writes are refused with MISCONF until one succeeds: nothing is published or processed")
            .advice_is("look at the server's log and its disk (is it full?); Redis goes on by itself");
        found.add(finding);
    }
    // Where Redis refuses writes for this, it refuses connections as well: see `refuses_everything`.
    if node.info("rdb_last_bgsave_status") == Some("err") {
        let finding = node
            .finding(
                Severity::Warning,
                Code::PersistenceFailing,
                "the last snapshot has failed",
            )
            .means("there is none that is newer, for a restart or as a backup")
            .mended_by("BGSAVE")
            .advice_is(LOOK_FIRST);
        found.add(finding);
    }
}

/// A Redis that fails to write to its disk, and is to be stopped by that, answers nothing else.
pub(super) fn refuses_everything(redis: &Redis, error: &RedisError) -> Finding {
    let (server, code) = (redis.server().name(), Code::PersistenceFailing);
    Finding::new(Severity::Critical, code, server, error.detail())
        .means("every command is refused until a write to the disk succeeds: nothing is published or processed")
        .mended_by("BGSAVE")
        .advice_is(LOOK_FIRST)
}

/// Of `3600 1 300 100`, seconds and changes in turn: the longest wait for a snapshot after a change. None if there are none.
fn longest_interval(points: &str) -> Option<u64> {
    let seconds = points.split_whitespace().step_by(2);
    seconds.filter_map(|seconds| seconds.parse().ok()).max()
}

const STAYS: &str =
    "and the same in redis.conf, or CONFIG REWRITE: CONFIG SET lasts until Redis restarts";
const LOOK_FIRST: &str =
    "once the server's log and its disk (is it full, or read-only?) have been looked at";
