//! Whether this is the primary, and whether it takes writes.

use super::finding::{Code, Severity};
use super::node::{Findings, Node};

pub(super) fn examine(node: &mut Node<'_>, found: &mut Findings) {
    node.server.role = node.info("role").map(str::to_owned);
    if node.server.role.as_deref() == Some("slave") {
        replica(node, found);
    } else {
        replicas(node, found);
    }
}

fn replica(node: &Node<'_>, found: &mut Findings) {
    let is_read_only = node.info("slave_read_only") != Some("0");
    let what = match is_read_only {
        true => "this is a read-only replica",
        false => "this is a replica that takes writes (replica-read-only no)",
    };
    let means = match is_read_only {
        true => "every write is refused with READONLY: nothing is published or processed",
        false => {
            "what is written here never reaches the primary, and is gone when the replica next copies it"
        }
    };
    let primary = match (node.info("master_host"), node.info("master_port")) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        _ => "its primary".to_owned(),
    };
    let finding = node
        .finding(Severity::Critical, Code::Replica, what)
        .means(means)
        .advice_is(format!(
            "connect to the primary, {primary} (redis.url), or by way of its sentinels (redis-sentinel://..), so that a \
             fail-over is followed"
        ));
    found.add(finding);
}

/// Redis says how many replicas keep up only where writes wait for some.
fn replicas(node: &Node<'_>, found: &mut Findings) {
    let Some(good) = node.number("min_slaves_good_slaves") else {
        return;
    };
    let wanted = node
        .setting("min-replicas-to-write")
        .and_then(|number| number.parse().ok());
    // There is at least one to wait for, or it would not count them.
    let wanted: u64 = wanted.unwrap_or(1);
    if good >= wanted {
        return;
    }
    let what = format!("min-replicas-to-write is {wanted}, and {good} replicas keep up");
    let finding = node
        .finding(Severity::Critical, Code::TooFewReplicas, what)
        .means("every write is refused with NOREPLICAS: nothing is published or processed")
        .mended_by(format!("CONFIG SET min-replicas-to-write {good}"))
        .advice_is("takes writes that a fail-over may lose; better bring the replicas back (INFO replication)");
    found.add(finding);
}
