//! Memory: how much is left, and what Redis does when none is.

use super::finding::{Code, Finding, Severity};
use super::node::{Findings, Node, Purpose};
use super::report::{Report, bytes};

/// From this share of `maxmemory` on there is a warning.
pub const HEADROOM_WARNING: f64 = 0.80;
/// From this share of `maxmemory` on it is critical.
pub const HEADROOM_CRITICAL: f64 = 0.95;

pub(super) fn examine(node: &mut Node<'_>, found: &mut Findings) {
    // Redis leaves these buffers out when it compares with the limit.
    let uncounted = node.number("mem_not_counted_for_evict").unwrap_or(0);
    let used = node
        .number("used_memory")
        .map(|used| used.saturating_sub(uncounted));
    let max = node.number("maxmemory").filter(|&max| max > 0);
    node.server.memory_used = used;
    node.server.memory_max = max;
    node.server.eviction_policy = node.info("maxmemory_policy").map(str::to_owned);
    let evicts = node
        .server
        .eviction_policy
        .as_deref()
        .is_some_and(|policy| policy != NO_EVICTION);
    if node.holds_messages() && evicts {
        eviction(node, max, found);
    }
    // A cache is full by design.
    let is_cache = evicts && !node.holds_messages();
    if let (Some(used), Some(max), false) = (used, max, is_cache) {
        headroom(node, used, max, found);
    }
}

fn eviction(node: &Node<'_>, max: Option<u64>, found: &mut Findings) {
    let policy = node.server.eviction_policy.as_deref().unwrap_or_default();
    let of_all = policy.starts_with("allkeys");
    let severity = match (of_all, max) {
        (true, Some(_)) => Severity::Critical,
        (true, None) | (false, Some(_)) => Severity::Warning,
        (false, None) => Severity::Note,
    };
    let means = match of_all {
        true => {
            "at maxmemory Redis deletes whole queues without a word: the backlog, the dead letters, the leases"
        }
        false => {
            "at maxmemory Redis deletes what has a time to live: dedupe keys, and what tells a repeated settling from a new one, \
             so messages may double"
        }
    };
    let when = match max {
        Some(max) => format!("the limit is {}", bytes(max)),
        None => "there is no maxmemory yet".to_owned(),
    };
    let finding = node
        .finding(
            severity,
            Code::EvictionPolicy,
            format!("maxmemory-policy is {policy}; {when}"),
        )
        .means(means)
        .mended_by("CONFIG SET maxmemory-policy noeviction")
        .advice_is(
            "and the same in redis.conf, or CONFIG REWRITE: CONFIG SET lasts until Redis restarts",
        );
    found.add(finding);
}

fn headroom(node: &Node<'_>, used: u64, max: u64, found: &mut Findings) {
    let share = used as f64 / max as f64;
    let severity = match share {
        HEADROOM_CRITICAL.. => Severity::Critical,
        HEADROOM_WARNING.. => Severity::Warning,
        _ => return,
    };
    let total = node.number("total_system_memory");
    let machine = match total {
        Some(total) => format!("; the machine has {}", bytes(total)),
        None => String::new(),
    };
    // A limit that the machine does not have would bring the system's own killer.
    let wanted = used.max(max).saturating_mul(2);
    let fits = total.is_none_or(|total| wanted <= total / 4 * 3);
    let what = format!(
        "{:.0} % of maxmemory are used: {} of {}",
        share * 100.0,
        bytes(used),
        bytes(max)
    );
    let finding = node.finding(severity, Code::MemoryHeadroom, what).means(
        "at 100 % publishing is refused, or keys are evicted; workers go on to drain the queues",
    );
    let rest = "process, requeue or purge what has piled up";
    found.add(match fits {
        true => finding
            .mended_by(format!("CONFIG SET maxmemory {wanted}"))
            .advice_is(format!(
                "and the same in redis.conf, if there is so much{machine}; or {rest}"
            )),
        false => finding.advice_is(format!(
            "{rest}, or move Redis to a larger machine{machine}"
        )),
    });
}

/// Stored values may be evicted, and queues may not, so that one policy can't suit both.
pub(super) fn shared_with_a_store(report: &mut Report) {
    let servers = report.servers();
    let is_store = |run_id: &Option<String>| {
        let mut stores = servers
            .iter()
            .filter(|server| server.purpose == Purpose::Store.name());
        run_id.is_some() && stores.any(|store| store.run_id == *run_id)
    };
    let mut findings = Vec::new();
    for server in servers {
        let evicts = server
            .eviction_policy
            .as_deref()
            .is_some_and(|policy| policy != NO_EVICTION);
        let is_shared = server.purpose == Purpose::QueuesAndStore.name()
            || server.purpose == Purpose::Queues.name() && is_store(&server.run_id);
        if evicts && is_shared {
            let what = "queues and stored values are on one instance, and it evicts";
            let finding = Finding::new(Severity::Warning, Code::SharedEviction, &*server.name, what)
                .means("one policy can't suit both: what is right for a cache deletes queues")
                .mended_by("CONFIG SET maxmemory-policy noeviction")
                .advice_is("and an instance of its own for the cache: redis.store_url (another database of this one is none)");
            findings.push(finding);
        }
    }
    for finding in findings {
        report.add(finding);
    }
}

const NO_EVICTION: &str = "noeviction";
