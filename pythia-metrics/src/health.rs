//! `/health`: everything that is known of a worker's state, as JSON. `docs/observe.md` is its documentation, and shows an
//! answer; names of fields are kept.

use std::time::Duration;

use pythia_core::resilience::BreakerState;
use pythia_core::{BrokerStatus, LaneStatus, Ping, QueueStatus};
use serde::Serialize;

use crate::check::{Found, Registered};
use crate::pages::HealthReport;

/// The whole answer.
#[derive(Serialize)]
pub(crate) struct HealthPage {
    pub(crate) status: Status,
    /// Pythia's.
    version: &'static str,
    uptime_seconds: u64,
    /// As `/livez` has it; `None` if there is no source of health.
    live: Option<bool>,
    /// As `/readyz` has it.
    ready: bool,
    /// A line for each thing that is wrong.
    problems: Vec<String>,
    brokers: Vec<Broker>,
    checks: Vec<Check>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// All is well.
    Ok,
    /// Something is wrong, and messages are worked on, or wait where they are safe.
    Degraded,
    /// Messages are not worked on, or soon will not be.
    Failing,
}

#[derive(Serialize)]
struct Broker {
    kind: &'static str,
    server: Option<String>,
    ping: Answer,
    store: Option<Answer>,
    queues: Vec<Queue>,
}

#[derive(Serialize)]
struct Answer {
    ok: bool,
    latency_ms: Option<f64>,
    error: Option<String>,
}

#[derive(Serialize)]
struct Queue {
    queue: String,
    breaker: Option<&'static str>,
    lanes: Vec<Lane>,
}

#[derive(Serialize)]
struct Lane {
    lane: usize,
    state: &'static str,
    waits_for: Option<&'static str>,
    last_read_ms: Option<u64>,
    unsettled_ms: Option<u64>,
}

#[derive(Serialize)]
struct Check {
    name: String,
    required: bool,
    #[serde(flatten)]
    answer: Answer,
}

impl HealthPage {
    pub(crate) fn new(uptime: Duration) -> Self {
        Self {
            status: Status::Ok,
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: uptime.as_secs(),
            live: None,
            ready: true,
            problems: Vec::new(),
            brokers: Vec::new(),
            checks: Vec::new(),
        }
    }

    /// Whether messages are consumed, and lanes connected.
    pub(crate) fn add_report(&mut self, report: HealthReport) {
        self.live = Some(report.live.is_ok());
        self.ready &= report.ready.is_ok();
        for part in [report.live, report.ready] {
            for problem in part.err().unwrap_or_default() {
                self.note(Status::Failing, problem);
            }
        }
    }

    /// A broker, what it answered, and what is done with its queues.
    pub(crate) fn add_broker(&mut self, ping: Ping, status: BrokerStatus) {
        let endpoint = ping.endpoint.to_string();
        let answered = Answer::to_ping(ping.answered);
        let stored = ping.stored.map(Answer::to_ping);
        if let Some(error) = &answered.error {
            self.note(Status::Failing, format!("broker {endpoint}: {error}"));
        }
        if let Some(error) = stored.as_ref().and_then(|stored| stored.error.as_ref()) {
            self.note(Status::Degraded, format!("broker {endpoint}: {error}"));
        }
        for QueueStatus { queue, breaker, .. } in &status.queues {
            let opened = match breaker {
                Some(BreakerState::Open) => "open",
                Some(BreakerState::HalfOpen) => "half open",
                Some(BreakerState::Closed) | None => continue,
            };
            let queue = queue.as_str();
            self.note(
                Status::Degraded,
                format!("queue {queue:?}: the breaker is {opened}"),
            );
        }
        self.brokers.push(Broker {
            kind: ping.endpoint.kind,
            server: ping.endpoint.server,
            ping: answered,
            store: stored,
            queues: status.queues.into_iter().map(Queue::from).collect(),
        });
    }

    /// A check, and what it found.
    pub(crate) fn add_check(&mut self, check: &Registered, found: Found) {
        let answer = Answer::new(found);
        if let Some(error) = &answer.error {
            self.ready &= !check.required;
            let status = if check.required {
                Status::Failing
            } else {
                Status::Degraded
            };
            self.note(status, format!("check {:?}: {error}", check.name));
        }
        self.checks.push(Check {
            name: check.name.clone(),
            required: check.required,
            answer,
        });
    }

    fn note(&mut self, status: Status, problem: String) {
        self.status = self.status.max(status);
        self.problems.push(problem);
    }
}

impl Answer {
    fn to_ping(answered: Result<Duration, pythia_core::BrokerError>) -> Self {
        Self::new(answered.map_err(|error| error.to_string()))
    }

    fn new(answered: Result<Duration, String>) -> Self {
        Self {
            ok: answered.is_ok(),
            // To the microsecond.
            latency_ms: answered
                .as_ref()
                .ok()
                .map(|took| took.as_micros() as f64 / 1_000.0),
            error: answered.err(),
        }
    }
}

impl From<QueueStatus> for Queue {
    fn from(status: QueueStatus) -> Self {
        Self {
            queue: status.queue.to_string(),
            breaker: status.breaker.map(BreakerState::name),
            lanes: status.lanes.into_iter().map(Lane::from).collect(),
        }
    }
}

impl From<LaneStatus> for Lane {
    fn from(status: LaneStatus) -> Self {
        let millis = |duration: Duration| duration.as_millis() as u64;
        Self {
            lane: status.lane,
            state: status.state.name(),
            waits_for: status.waits_for.map(|reason| reason.name()),
            last_read_ms: status.last_read.map(millis),
            unsettled_ms: status.unsettled.map(millis),
        }
    }
}
