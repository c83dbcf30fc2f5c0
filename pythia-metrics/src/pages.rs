//! What the server answers.

use std::any::Any;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::{join, join_all};
use prometheus::{Registry, TextEncoder};
use pythia_core::{Health, Ping};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Mutex;
use tokio::task::block_in_place;
use tokio::time::Instant;

use crate::check::{Check, Found, Registered};
use crate::health::{HealthPage, Status};
use crate::shared::Shared;

/// How a runner is, for probes: each part `Ok`, or a line for each thing that is wrong, which names queue and lane.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthReport {
    /// Whether messages are being consumed; if not, a restart may help.
    pub live: Result<(), Vec<String>>,
    /// Whether every lane is connected to its queue.
    pub ready: Result<(), Vec<String>>,
}

impl HealthReport {
    /// A report of these two.
    pub const fn new(live: Result<(), Vec<String>>, ready: Result<(), Vec<String>>) -> Self {
        Self { live, ready }
    }
}

/// Where `/livez`, `/readyz` and `/health` get their answers: the health of a runner (`Runner::health`), or a closure that
/// says how things are.
pub trait HealthSource: Send + Sync + 'static {
    /// How it is now. Asked at each probe, so it does not block.
    fn report(&self) -> HealthReport;

    /// The runner whose brokers and queues `/health` shows, if there is one.
    fn runner(&self) -> Option<&Health>;
}

impl HealthSource for Health {
    fn report(&self) -> HealthReport {
        HealthReport::new(self.live(), self.ready())
    }

    fn runner(&self) -> Option<&Health> {
        Some(self)
    }
}

impl<F: Fn() -> HealthReport + Send + Sync + 'static> HealthSource for F {
    fn report(&self) -> HealthReport {
        self()
    }

    fn runner(&self) -> Option<&Health> {
        None
    }
}

/// What the pages are made of.
#[derive(Clone)]
pub(crate) struct Pages {
    registry: Registry,
    health: Option<Arc<dyn HealthSource>>,
    checks: Vec<Arc<Registered>>,
    /// How long a broker and a check may take to answer.
    patience: Duration,
    pings: Arc<Shared<Vec<Ping>>>,
    started: Instant,
    /// Many scrapes at once take turns, so that together they use one thread at most.
    turn: Arc<Mutex<()>>,
}

impl Pages {
    pub(crate) fn new(registry: Registry, patience: Duration) -> Self {
        Self {
            registry,
            health: None,
            checks: Vec::new(),
            patience,
            pings: Arc::default(),
            started: Instant::now(),
            turn: Arc::default(),
        }
    }

    pub(crate) fn ask(&mut self, health: impl HealthSource) {
        self.health = Some(Arc::new(health));
    }

    pub(crate) fn look_at(&mut self, check: Check) {
        let check = Registered::new(check, self.patience);
        self.checks.push(Arc::new(check));
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/health", get(health))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .fallback(async || {
                (
                    StatusCode::NOT_FOUND,
                    "not found; try /metrics, /health, /livez or /readyz\n",
                )
            })
            .with_state(self)
    }
}

async fn metrics(State(pages): State<Pages>) -> Response {
    let _turn = pages.turn.lock().await;
    match without_holding_up_others(|| encode(&pages.registry)) {
        Ok(text) => ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(error, "the metrics could not be encoded");
            let text = format!("the metrics could not be encoded: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

async fn livez(State(pages): State<Pages>) -> Response {
    match pages.report() {
        Some(report) => probed("live", report.live),
        None => no_source(),
    }
}

async fn readyz(State(pages): State<Pages>) -> Response {
    if pages.health.is_none() && pages.checks.is_empty() {
        return no_source();
    }
    let report = pages.report().map_or(Ok(()), |report| report.ready);
    let mut problems = report.err().unwrap_or_default();
    // What is informational is not waited for.
    for (check, found) in pages.look(|check| check.required).await {
        let failed = |problem| format!("check {:?}: {problem}", check.name);
        problems.extend(found.err().map(failed));
    }
    let ready = if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    };
    probed("ready", ready)
}

async fn health(State(pages): State<Pages>) -> Response {
    if pages.health.is_none() && pages.checks.is_empty() {
        return no_source();
    }
    let page = pages.health_page().await;
    let status = match page.status {
        Status::Ok | Status::Degraded => StatusCode::OK,
        Status::Failing => StatusCode::SERVICE_UNAVAILABLE,
    };
    match serde_json::to_string(&page) {
        Ok(text) => (status, [(CONTENT_TYPE, JSON)], text).into_response(),
        Err(error) => {
            let text = format!("the state could not be encoded: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

impl Pages {
    /// What the source says; if it panics, that nothing is well.
    fn report(&self) -> Option<HealthReport> {
        let health = self.health.as_ref()?;
        let report = catch_unwind(AssertUnwindSafe(|| health.report()));
        Some(report.unwrap_or_else(|panic| {
            let problem = format!("the check panicked: {}", panic_text(&*panic));
            HealthReport::new(Err(vec![problem.clone()]), Err(vec![problem]))
        }))
    }

    async fn look(&self, wanted: fn(&Registered) -> bool) -> Vec<(&Registered, Found)> {
        let wanted = self.checks.iter().filter(|check| wanted(check));
        join_all(wanted.map(async |check| (&**check, check.look().await))).await
    }

    async fn health_page(&self) -> HealthPage {
        let runner = self.health.as_ref().and_then(|health| health.runner());
        let pings = async {
            match runner {
                Some(runner) => self.pings.get(runner.ping(self.patience)).await,
                None => Vec::new(),
            }
        };
        let (pings, checks) = join(pings, self.look(|_| true)).await;
        // Last, so that what is seen of lanes and breakers is as fresh as in the probes.
        let mut page = HealthPage::new(Instant::now().saturating_duration_since(self.started));
        if let Some(report) = self.report() {
            page.add_report(report);
        }
        let brokers = runner.map(Health::brokers).unwrap_or_default();
        for (ping, broker) in pings.into_iter().zip(brokers) {
            page.add_broker(ping, broker);
        }
        for (check, found) in checks {
            page.add_check(check, found);
        }
        page
    }
}

fn no_source() -> Response {
    let text = "no source of health was given to this server\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

fn probed(what: &str, part: Result<(), Vec<String>>) -> Response {
    let Err(problems) = part else {
        return format!("{what}\n").into_response();
    };
    let mut text = format!("not {what}\n");
    for problem in problems {
        // Writing to a string can't fail.
        let _infallible = writeln!(text, "{problem}");
    }
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// Metrics of others are in the registry too, and their collectors may panic; so does the encoder, at a metric without a
/// type.
fn encode(registry: &Registry) -> Result<String, String> {
    let encoded = || TextEncoder::new().encode_to_string(&registry.gather());
    match catch_unwind(AssertUnwindSafe(encoded)) {
        Ok(encoded) => encoded.map_err(|error| error.to_string()),
        Err(panic) => Err(format!("a collector panicked: {}", panic_text(&*panic))),
    }
}

/// Lets other tasks of this thread run elsewhere meanwhile: the text of a thousand queues takes longer than a lane may be
/// kept waiting. Not `spawn_blocking`: handlers may have taken all its threads, just when metrics are wanted.
fn without_holding_up_others<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => block_in_place(work),
        _ => work(),
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no text",
    }
}

const JSON: &str = "application/json";
/// Names of queues are UTF-8.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
