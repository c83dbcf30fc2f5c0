//! Which server it is, and which ways its version leads to.

use super::finding::{Code, Severity};
use super::node::{Findings, Node, Purpose};
use crate::acl::Pattern;
use crate::config::{Delivery, PubSubMode};

pub(super) fn examine(node: &mut Node<'_>, found: &mut Findings) {
    let valkey = node.info("valkey_version").map(str::to_owned);
    node.server.product = match &valkey {
        Some(_) => "Valkey",
        None => "Redis",
    };
    node.server.version = valkey.or_else(|| node.info("redis_version").map(str::to_owned));
    node.server.run_id = node.info("run_id").map(str::to_owned);
    if node.purpose == Purpose::Store {
        return;
    }
    let Some(version) = node.version() else {
        return;
    };
    let is_seven = version >= (7, 0);
    let config = node.config();
    let mut paths = Vec::new();
    match (node.pattern, config.list.delivery, config.pubsub.mode) {
        (Pattern::List, Delivery::AtLeastOnce, _) => {
            paths.push("claims by script, idle waits by BLMOVE")
        }
        (Pattern::List, Delivery::AtMostOnce, _) if is_seven => {
            paths.push("batches by BLMPOP (7.0 and later)")
        }
        (Pattern::List, Delivery::AtMostOnce, _) => {
            paths.push("BRPOP, then RPOP with a count: BLMPOP is there from 7.0 on");
        }
        (Pattern::Stream, ..) if is_seven => {
            paths.push("reads by XREADGROUP; the lag of a group is known (7.0 and later)")
        }
        (Pattern::Stream, ..) => {
            paths.push("reads by XREADGROUP; the lag of a group is known from 7.0 on")
        }
        (Pattern::PubSub, _, PubSubMode::Channel) => paths.push("SUBSCRIBE"),
        (Pattern::PubSub, _, PubSubMode::Pattern) => paths.push("PSUBSCRIBE"),
        (Pattern::PubSub, _, PubSubMode::Sharded) => {
            paths.push("SSUBSCRIBE: sharded pub/sub (7.0 and later)")
        }
    }
    let is_sharded = config.pubsub.mode == PubSubMode::Sharded;
    node.server.paths = paths;
    if node.pattern == Pattern::PubSub && is_sharded && !is_seven {
        let (major, minor) = version;
        let what = format!("this is version {major}.{minor}, and redis.pubsub.mode is \"sharded\"");
        let finding = node
            .finding(Severity::Critical, Code::UnsupportedVersion, what)
            .means("SSUBSCRIBE is there from 7.0 on: nothing is received")
            .advice_is("set redis.pubsub.mode = \"channel\", or upgrade to Redis 7.0");
        found.add(finding);
    }
}
