//! The series of one queue, resolved once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus::{Histogram, IntCounter, IntGauge, IntGaugeVec};
use pythia_core::admin::Depth;
use pythia_core::broker::{Maintained, OverLimit};
use pythia_core::observe::{GapCause, JobReport, SettledCounts};
use pythia_core::resilience::BreakerState;
use pythia_core::settlement::{DeadKind, DeadReason};
use pythia_core::{BrokerError, QueueName, WorkErrorKind};

use crate::families::Families;
use crate::names::OTHER_QUEUES;

/// One queue's series. Those that move with every batch are handles; the rarer ones are looked up, and but for dead
/// letters exist only once there is something to say.
pub(crate) struct QueueMetrics {
    families: Arc<Families>,
    /// The value of the label `queue`.
    label: Box<str>,
    /// It stands for several queues: a state of one of them would be taken for that of all.
    many: bool,
    subscriptions: IntCounter,
    batches_received: IntCounter,
    messages_received: IntCounter,
    messages_in_flight: IntGauge,
    job_wait_seconds: Option<Histogram>,
    job_processing_seconds: Option<Histogram>,
    job_failures: [IntCounter; WorkErrorKind::NAMES.len()],
    settled: [IntCounter; 5],
    messages_stale: IntCounter,
    settle_seconds: Histogram,
    leases_lost: IntCounter,
    states: Mutex<States>,
}

/// What has to be remembered to see changes.
#[derive(Default)]
struct States {
    breaker: Option<BreakerState>,
    over_limit: Option<IntGaugeVec>,
}

// `with_label_values` panics only if the number of values is not that of the labels: each call below is made by the test
// that sends every event.
impl QueueMetrics {
    /// The series of a queue; without one, those of all queues that are too many to have their own.
    pub(crate) fn new(families: Arc<Families>, queue: Option<&QueueName>) -> Self {
        let label: Box<str> = queue.map_or(OTHER_QUEUES, QueueName::as_str).into();
        let queue_label = [&*label];
        // From zero, because an alert on their increase would not see the first one of a series that begins with it.
        for reason in DeadKind::NAMES {
            for kept in [true, false] {
                if kept || reason != CRASHED {
                    dead_letters(&families, reason, kept, &label);
                }
            }
        }
        Self {
            many: queue.is_none(),
            subscriptions: families.subscriptions.with_label_values(&queue_label),
            batches_received: families.batches_received.with_label_values(&queue_label),
            messages_received: families.messages_received.with_label_values(&queue_label),
            messages_in_flight: families.messages_in_flight.with_label_values(&queue_label),
            job_wait_seconds: families
                .job_wait_seconds
                .as_ref()
                .map(|vec| vec.with_label_values(&queue_label)),
            job_processing_seconds: families
                .job_processing_seconds
                .as_ref()
                .map(|vec| vec.with_label_values(&queue_label)),
            job_failures: WorkErrorKind::NAMES
                .map(|kind| families.job_failures.with_label_values(&[kind, &*label])),
            settled: outcomes(SettledCounts::default()).map(|(outcome, _)| {
                families
                    .messages_settled
                    .with_label_values(&[outcome, &*label])
            }),
            messages_stale: families.messages_stale.with_label_values(&queue_label),
            settle_seconds: families.settle_seconds.with_label_values(&queue_label),
            leases_lost: families.leases_lost.with_label_values(&queue_label),
            states: Mutex::default(),
            label,
            families,
        }
    }

    pub(crate) fn subscribed(&self) {
        self.subscriptions.inc();
    }

    pub(crate) fn received(&self, count: u64) {
        self.batches_received.inc();
        self.messages_received.inc_by(count);
        self.messages_in_flight.add(count as i64);
    }

    /// Counts a batch of jobs aside first: a message then costs a few additions in this thread's cache, and only the batch
    /// touches what is shared. Measured by the bench `observer`: 7 to 22 ns a message in batches of 100 and more, by how
    /// far up its buckets are.
    pub(crate) fn processed(&self, jobs: &[JobReport]) {
        let processing = self.job_processing_seconds.as_ref().map(Histogram::local);
        let wait = self.job_wait_seconds.as_ref().map(Histogram::local);
        let mut failures = [0; WorkErrorKind::NAMES.len()];
        for job in jobs {
            if let Some(processing) = &processing {
                processing.observe(job.took.as_secs_f64());
            }
            if let (Some(wait), Some(waited)) = (&wait, job.waited) {
                wait.observe(waited.as_secs_f64());
            }
            if let Some(failure) = job.failure {
                self.count_failure(failure.name(), &mut failures);
            }
        }
        // Dropped, the local histograms add what they counted.
        for (counter, count) in self.job_failures.iter().zip(failures) {
            counter.inc_by(count);
        }
    }

    fn count_failure(&self, name: &str, failures: &mut [u64; WorkErrorKind::NAMES.len()]) {
        match WorkErrorKind::NAMES.iter().position(|known| *known == name) {
            Some(index) => failures[index] += 1,
            // A kind that core has not listed: counted all the same.
            None => {
                let vec = &self.families.job_failures;
                vec.with_label_values(&[name, &*self.label]).inc();
            }
        }
    }

    pub(crate) fn settled(&self, counts: SettledCounts, took: Duration) {
        for (counter, (_, count)) in self.settled.iter().zip(outcomes(counts)) {
            counter.inc_by(count);
        }
        self.messages_stale.inc_by(counts.stale);
        self.messages_in_flight.sub(counts.total() as i64);
        self.settle_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn dead_lettered(&self, reason: &DeadReason, kept: bool) {
        dead_letters(&self.families, reason.kind.name(), kept, &self.label).inc();
    }

    pub(crate) fn failed(&self, operation: &'static str, error: &BrokerError) {
        self.families
            .broker_failures
            .with_label_values(&[operation, error.kind().name(), &*self.label])
            .inc();
    }

    pub(crate) fn leases_lost(&self, count: u64) {
        self.leases_lost.inc_by(count);
    }

    pub(crate) fn lane_blocked(&self) {
        self.families
            .lanes_blocked
            .with_label_values(&[&*self.label])
            .inc();
    }

    pub(crate) fn stalled(&self) {
        self.families
            .lanes_stalled
            .with_label_values(&[&*self.label])
            .inc();
    }

    pub(crate) fn gap(&self, cause: GapCause, lost: Option<u64>, lasted: Option<Duration>) {
        let labels = [cause.name(), &*self.label];
        self.families.gaps.with_label_values(&labels).inc();
        if let Some(lost) = lost {
            self.families
                .messages_lost
                .with_label_values(&labels)
                .inc_by(lost);
        }
        if let Some(lasted) = lasted {
            let seconds = self.families.gap_seconds.with_label_values(&labels);
            seconds.inc_by(lasted.as_secs_f64());
        }
    }

    /// Its route runs, with a breaker in that state if it has one.
    pub(crate) fn started(&self, breaker: Option<BreakerState>) {
        if let Some(state) = breaker {
            self.states().breaker = Some(state);
            self.show_breaker(state);
        }
    }

    pub(crate) fn breaker_changed(&self, state: BreakerState) {
        let before = self.states().breaker.replace(state);
        if before.unwrap_or(BreakerState::Closed) != state {
            self.families
                .breaker_transitions
                .with_label_values(&[state.name(), &*self.label])
                .inc();
        }
        self.show_breaker(state);
    }

    fn show_breaker(&self, state: BreakerState) {
        if self.many {
            return;
        }
        for other in [
            BreakerState::Closed,
            BreakerState::HalfOpen,
            BreakerState::Open,
        ] {
            let gauge = &self.families.breaker_state;
            gauge
                .with_label_values(&[other.name(), &*self.label])
                .set(i64::from(other == state));
        }
    }

    pub(crate) fn maintained(&self, maintained: &Maintained) {
        for (action, count) in [
            ("dead", maintained.dead),
            ("promoted", maintained.promoted),
            ("recovered", maintained.recovered),
            ("trimmed", maintained.trimmed),
        ] {
            self.families
                .messages_maintained
                .with_label_values(&[action, &*self.label])
                .inc_by(count);
        }
        // A broker keeps every message that it finds to be dead.
        dead_letters(&self.families, CRASHED, true, &self.label).inc_by(maintained.dead);
        if !self.many {
            self.over_limit(maintained.over_limit.as_ref());
        }
    }

    fn over_limit(&self, over_limit: Option<&OverLimit>) {
        let mut states = self.states();
        // At most one group holds the floor: the series of the last one goes.
        if let Some(vec) = &states.over_limit {
            vec.reset();
        }
        let Some(OverLimit { entries, group }) = over_limit else {
            return;
        };
        if states.over_limit.is_none() {
            states.over_limit = self.families.entries_over_limit(&self.label).ok();
        }
        if let Some(vec) = &states.over_limit {
            vec.with_label_values(&[group]).set(*entries as i64);
        }
    }

    pub(crate) fn sampled(&self, depth: &Depth) {
        if self.many {
            return;
        }
        for (state, count) in [
            ("dead", depth.dead),
            ("delayed", depth.delayed),
            ("pending", depth.pending),
            ("ready", depth.ready),
        ] {
            set_or_remove(&self.families.queue_depth, &[state, &self.label], count);
        }
        set_or_remove(&self.families.consumer_group_lag, &[&self.label], depth.lag);
        let oldest = &self.families.queue_oldest_seconds;
        match depth.oldest {
            Some(age) => oldest
                .with_label_values(&[&*self.label])
                .set(age.as_secs_f64()),
            // There may have been no series before, which is no error here.
            None => drop(oldest.remove_label_values(&[&*self.label])),
        }
        self.families
            .queue_sampled
            .with_label_values(&[&*self.label])
            .set(seconds_since_1970());
    }

    fn states(&self) -> MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn dead_letters(families: &Families, reason: &str, kept: bool, queue: &str) -> IntCounter {
    let kept = if kept { "true" } else { "false" };
    let vec = &families.dead_letters;
    vec.with_label_values(&[reason, kept, queue])
}

/// What is not known has no series: a zero would be a statement.
pub(crate) fn set_or_remove(vec: &IntGaugeVec, labels: &[&str], value: Option<u64>) {
    match value {
        Some(value) => vec.with_label_values(labels).set(value as i64),
        // There may have been no series before, which is no error here.
        None => drop(vec.remove_label_values(labels)),
    }
}

pub(crate) fn seconds_since_1970() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// Each outcome's label and count.
const fn outcomes(counts: SettledCounts) -> [(&'static str, u64); 5] {
    [
        ("acked", counts.acked),
        ("dead", counts.dead),
        ("released", counts.released),
        ("retried", counts.retried),
        ("snoozed", counts.snoozed),
    ]
}

const CRASHED: &str = DeadKind::Crashed.name();
