//! Every metric: its name, kind, labels and help, in one table.
//!
//! `docs/metrics.md` is made of this table, and the observer can export nothing that is not in it.
//!
//! Values of labels are bounded: queues by [`MetricsConfig::max_queues`](crate::MetricsConfig::max_queues), everything
//! else by the fixed sets below.

/// One family of metrics.
#[derive(Debug)]
#[non_exhaustive]
pub struct Family {
    /// The name, unique.
    pub name: &'static str,
    /// What its values do.
    pub kind: Kind,
    /// The labels; the one whose values are free comes last.
    pub labels: &'static [Label],
    /// What it says, in a sentence or two.
    pub help: &'static str,
}

/// What the values of a family do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts durations, in seconds, by the buckets of one of the settings.
    Histogram(Buckets),
}

/// Which setting holds the buckets of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Buckets {
    /// [`MetricsConfig::processing_buckets`](crate::MetricsConfig::processing_buckets).
    Processing,
    /// [`MetricsConfig::round_trip_buckets`](crate::MetricsConfig::round_trip_buckets).
    RoundTrip,
    /// [`MetricsConfig::wait_buckets`](crate::MetricsConfig::wait_buckets).
    Wait,
}

/// A label of a family.
#[derive(Debug)]
#[non_exhaustive]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// The values that it can have; empty where they depend on the configuration.
    pub values: &'static [&'static str],
}

/// The queue of all queues beyond [`MetricsConfig::max_queues`](crate::MetricsConfig::max_queues): what can be added up
/// is counted under it. No queue can have this name, because it has a space in it.
pub const OTHER_QUEUES: &str = "other queues";

/// The command of all commands beyond a hundred different ones.
pub const OTHER_COMMANDS: &str = "other commands";

/// Makes a constant of each family, and [`ALL`] of all of them: a family can't be left out of the list.
macro_rules! families {
    ($($constant:ident = $name:literal, $kind:expr, $labels:expr, $help:literal;)*) => {
        $(pub(crate) const $constant: Family =
            Family { name: $name, kind: $kind, labels: $labels, help: $help };)*

        /// Every family, in the order in which a message meets them.
        pub static ALL: &[Family] = &[$($constant),*];
    };
}

families! {
    // What comes in.
    SUBSCRIPTIONS = "pythia_subscriptions_total", Kind::Counter, &[QUEUE],
        "Subscriptions made, the first of each lane included.";
    BATCHES_RECEIVED = "pythia_batches_received_total", Kind::Counter, &[QUEUE],
        "Batches fetched. Messages received by batches received is the mean size of a batch.";
    MESSAGES_RECEIVED = "pythia_messages_received_total", Kind::Counter, &[QUEUE],
        "Messages fetched, again after a retry included.";
    MESSAGES_IN_FLIGHT = "pythia_messages_in_flight", Kind::Gauge, &[QUEUE],
        "Messages that this process has fetched and not yet settled.";

    // What becomes of it.
    JOB_WAIT_SECONDS = "pythia_job_wait_seconds", Kind::Histogram(Buckets::Wait), &[QUEUE],
        "From publishing to the start of the attempt, where the publishing time is known.";
    JOB_PROCESSING_SECONDS = "pythia_job_processing_seconds", Kind::Histogram(Buckets::Processing), &[QUEUE],
        "From the start of an attempt to its end, layers included.";
    JOB_FAILURES = "pythia_job_failures_total", Kind::Counter, &[FAILURE, QUEUE],
        "Attempts that did not succeed, by what the error means.";
    MESSAGES_SETTLED = "pythia_messages_settled_total", Kind::Counter, &[OUTCOME, QUEUE],
        "Messages settled, by outcome. Stale ones are counted by what they were to be.";
    MESSAGES_STALE = "pythia_messages_stale_total", Kind::Counter, &[QUEUE],
        "Messages settled that were no longer ours to settle. They are among the settled ones as well.";
    DEAD_LETTERS = "pythia_dead_letters_total", Kind::Counter, &[REASON, KEPT, QUEUE],
        "Messages that this process gave up, by reason, and by whether the letter was kept or discarded. Crashed ones are found by its upkeep, whoever held them.";
    SETTLE_SECONDS = "pythia_settle_seconds", Kind::Histogram(Buckets::RoundTrip), &[QUEUE],
        "Time that the broker took to settle a batch, repeats included.";

    // How much is where.
    QUEUE_DEPTH = "pythia_queue_depth", Kind::Gauge, &[STATE, QUEUE],
        "Messages in the queue, by state, when last sampled. Absent where the broker cannot tell.";
    QUEUE_OLDEST_SECONDS = "pythia_queue_oldest_message_age_seconds", Kind::Gauge, &[QUEUE],
        "How long the oldest ready message has waited, when last sampled. Absent where the broker cannot tell.";
    CONSUMER_GROUP_LAG = "pythia_consumer_group_lag", Kind::Gauge, &[QUEUE],
        "Entries that the consumer group has not been given yet. Absent where the broker cannot tell.";
    QUEUE_SAMPLED = "pythia_queue_last_sample_timestamp_seconds", Kind::Gauge, &[QUEUE],
        "When depth, age and lag of the queue were last sampled, in seconds since 1970.";
    ENTRIES_OVER_LIMIT = "pythia_entries_over_limit", Kind::Gauge, &[QUEUE, GROUP],
        "Entries beyond the configured length that cannot be trimmed, and the group that holds them.";

    // Upkeep.
    MESSAGES_MAINTAINED = "pythia_messages_maintained_total", Kind::Counter, &[ACTION, QUEUE],
        "Messages moved by upkeep in this process: delayed ones that became ready, those of dead workers, trimmed ones.";

    // What goes wrong.
    BROKER_FAILURES = "pythia_broker_failures_total", Kind::Counter, &[OPERATION, ERROR, QUEUE],
        "Operations on the broker that failed, each try counted, by kind of error.";
    BREAKER_STATE = "pythia_breaker_state", Kind::Gauge, &[BREAKER, QUEUE],
        "1 for the state that the circuit breaker is in, 0 for the others. Absent where the route has none.";
    BREAKER_TRANSITIONS = "pythia_breaker_transitions_total", Kind::Counter, &[TO, QUEUE],
        "Changes of the circuit breaker, by the state that it went to.";
    LEASES_LOST = "pythia_leases_lost_total", Kind::Counter, &[QUEUE],
        "Messages that went to other workers while this process worked on them.";
    GAPS = "pythia_gaps_total", Kind::Counter, &[CAUSE, QUEUE],
        "Times that an at-most-once broker lost messages, or may have.";
    MESSAGES_LOST = "pythia_messages_lost_total", Kind::Counter, &[CAUSE, QUEUE],
        "Messages known to be lost in gaps. A gap whose losses cannot be known adds nothing here.";
    GAP_SECONDS = "pythia_gap_seconds_total", Kind::Counter, &[CAUSE, QUEUE],
        "Time in which nothing could be received because of gaps, where that is known.";
    LANES_BLOCKED = "pythia_lanes_blocked_total", Kind::Counter, &[QUEUE],
        "Times that a handler was seen holding its thread without awaiting: for half a lease at least, and once more for each further half.";
    LANES_STALLED = "pythia_lanes_stalled_total", Kind::Counter, &[QUEUE],
        "Times that a lane completed no read for too long and its subscription was made again.";

    // The broker's server.
    POOL_CONNECTIONS = "pythia_broker_pool_connections", Kind::Gauge, &[SERVER],
        "Configured size of the connection pool.";
    CLIENTS = "pythia_broker_clients", Kind::Gauge, &[CLIENT, SERVER],
        "Connections to the server, by state, when last sampled.";
    COMMANDS_IN_FLIGHT = "pythia_broker_commands_in_flight", Kind::Gauge, &[SERVER],
        "Commands written and not answered yet, when last sampled.";
    COMMANDS_QUEUED = "pythia_broker_commands_queued", Kind::Gauge, &[SERVER],
        "Commands that wait to be written, when last sampled.";
    RECONNECTS = "pythia_broker_reconnects_total", Kind::Counter, &[SERVER],
        "Connections made again.";
    MEMORY_USED = "pythia_broker_memory_used_bytes", Kind::Gauge, &[SERVER],
        "Memory in use on the server, when last sampled. Absent where the server does not tell.";
    MEMORY_MAX = "pythia_broker_memory_max_bytes", Kind::Gauge, &[SERVER],
        "The memory limit of the server. Absent where it has none.";
    SERVER_SAMPLED = "pythia_broker_last_sample_timestamp_seconds", Kind::Gauge, &[SERVER],
        "When the state of the server was last sampled, in seconds since 1970.";
    COMMAND_SECONDS = "pythia_broker_command_seconds", Kind::Histogram(Buckets::RoundTrip), &[COMMAND],
        "From writing a command to its answer. Commands that wait for data are not among them.";
    COMMAND_FAILURES = "pythia_broker_command_failures_total", Kind::Counter, &[COMMAND],
        "Commands that were answered by an error, or not at all.";
}

/// Families that are switched off together, by the name of the group in `metrics.disabled_families`.
#[derive(Debug)]
#[non_exhaustive]
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// The names of its families.
    pub families: &'static [&'static str],
}

/// Every group. A family can be in several of them, or in none.
pub static GROUPS: &[Group] = &[
    Group {
        name: "breaker",
        families: &[BREAKER_STATE.name, BREAKER_TRANSITIONS.name],
    },
    Group {
        name: "commands",
        families: &[COMMAND_SECONDS.name, COMMAND_FAILURES.name],
    },
    Group {
        name: "gaps",
        families: &[GAPS.name, MESSAGES_LOST.name, GAP_SECONDS.name],
    },
    Group {
        name: "histograms",
        families: &[
            JOB_WAIT_SECONDS.name,
            JOB_PROCESSING_SECONDS.name,
            SETTLE_SECONDS.name,
            COMMAND_SECONDS.name,
        ],
    },
    Group {
        name: "memory",
        families: &[MEMORY_USED.name, MEMORY_MAX.name],
    },
    Group {
        name: "pool",
        families: &[
            POOL_CONNECTIONS.name,
            CLIENTS.name,
            COMMANDS_IN_FLIGHT.name,
            COMMANDS_QUEUED.name,
            RECONNECTS.name,
        ],
    },
    Group {
        name: "queue_depth",
        families: &[
            QUEUE_DEPTH.name,
            QUEUE_OLDEST_SECONDS.name,
            CONSUMER_GROUP_LAG.name,
            QUEUE_SAMPLED.name,
        ],
    },
];

const fn label(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values }
}

const QUEUE: Label = label("queue", &[]);
const GROUP: Label = label("group", &[]);
const SERVER: Label = label("server", &[]);
const COMMAND: Label = label("command", &[]);

const ACTION: Label = label("action", &["dead", "promoted", "recovered", "trimmed"]);
const BREAKER: Label = label("state", &pythia_core::resilience::BreakerState::NAMES);
const CAUSE: Label = label("cause", &pythia_core::observe::GapCause::NAMES);
const CLIENT: Label = label("state", &["connected", "connecting", "disconnected"]);
const ERROR: Label = label("kind", &pythia_core::BrokerErrorKind::NAMES);
const FAILURE: Label = label("kind", &pythia_core::WorkErrorKind::NAMES);
const KEPT: Label = label("kept", &["false", "true"]);
const OPERATION: Label = label("operation", &["extend", "fetch", "maintain", "settle"]);
const OUTCOME: Label = label(
    "outcome",
    &["acked", "dead", "released", "retried", "snoozed"],
);
const REASON: Label = label("reason", &pythia_core::settlement::DeadKind::NAMES);
const STATE: Label = label("state", &["dead", "delayed", "pending", "ready"]);
const TO: Label = label("to", &pythia_core::resilience::BreakerState::NAMES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_keep_the_house_rule() {
        let mut names: Vec<_> = ALL.iter().map(|family| family.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for family in ALL {
            assert!(family.name.starts_with("pythia_"), "{}", family.name);
            assert_eq!(
                family.name.ends_with("_total"),
                family.kind == Kind::Counter,
                "{}",
                family.name
            );
            assert!(family.help.ends_with('.'), "{}", family.name);
        }
    }

    #[test]
    fn every_histogram_is_among_the_histograms() {
        let histograms = ALL
            .iter()
            .filter(|family| matches!(family.kind, Kind::Histogram(_)))
            .map(|family| family.name);
        let group = GROUPS.iter().find(|group| group.name == "histograms");
        assert!(group.unwrap().families.iter().copied().eq(histograms));
    }

    /// A vector of the Prometheus client finds its series by a hash over the label values *without* a separator between
    /// them, so ("ab", "c") and ("a", "bc") are one series to it. With the one free label last that can't happen, as long
    /// as no combination of the fixed values before it is the beginning of another one.
    #[test]
    fn no_two_series_of_a_family_can_be_taken_for_one() {
        // Entries over the limit have two free labels, and a vector for each queue.
        let families = ALL
            .iter()
            .filter(|family| family.name != ENTRIES_OVER_LIMIT.name);
        for family in families {
            let (free, fixed) = family.labels.split_last().unwrap();
            assert!(free.values.is_empty(), "{}", family.name);
            let mut beginnings = vec![String::new()];
            for label in fixed {
                assert!(!label.values.is_empty(), "{}: {}", family.name, label.name);
                beginnings = beginnings
                    .iter()
                    .flat_map(|begin| {
                        label
                            .values
                            .iter()
                            .map(move |value| format!("{begin}{value}"))
                    })
                    .collect();
            }
            beginnings.sort_unstable();
            for pair in beginnings.windows(2) {
                assert!(!pair[1].starts_with(&pair[0]), "{}: {pair:?}", family.name);
            }
        }
    }
}
