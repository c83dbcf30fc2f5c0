//! What the server answers.

use std::any::Any;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Registry, TextEncoder};
use pythia_core::Health;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Mutex;
use tokio::task::block_in_place;

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

/// Where `/livez` and `/readyz` get their answers: the health of a runner (`Runner::health`), or a closure that adds to it.
pub trait HealthSource: Send + Sync + 'static {
    /// How it is now. Asked at each probe, so it does not block.
    fn report(&self) -> HealthReport;
}

impl HealthSource for Health {
    fn report(&self) -> HealthReport {
        HealthReport::new(self.live(), self.ready())
    }
}

impl<F: Fn() -> HealthReport + Send + Sync + 'static> HealthSource for F {
    fn report(&self) -> HealthReport {
        self()
    }
}

/// What the pages are made of.
#[derive(Clone)]
pub(crate) struct Pages {
    registry: Registry,
    health: Option<Arc<dyn HealthSource>>,
    /// Many scrapes at once take turns, so that together they use one thread at most.
    turn: Arc<Mutex<()>>,
}

impl Pages {
    pub(crate) fn new(registry: Registry) -> Self {
        Self {
            registry,
            health: None,
            turn: Arc::default(),
        }
    }

    pub(crate) fn ask(&mut self, health: impl HealthSource) {
        self.health = Some(Arc::new(health));
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .fallback(async || {
                (
                    StatusCode::NOT_FOUND,
                    "not found; try /metrics, /livez or /readyz\n",
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
    pages.probe("live", |report| report.live)
}

async fn readyz(State(pages): State<Pages>) -> Response {
    pages.probe("ready", |report| report.ready)
}

impl Pages {
    fn probe(&self, what: &str, part: fn(HealthReport) -> Result<(), Vec<String>>) -> Response {
        let Some(health) = &self.health else {
            return (
                StatusCode::NOT_FOUND,
                "no source of health was given to this server\n",
            )
                .into_response();
        };
        let problems = match catch_unwind(AssertUnwindSafe(|| part(health.report()))) {
            Ok(Ok(())) => return format!("{what}\n").into_response(),
            Ok(Err(problems)) => problems,
            Err(panic) => vec![format!("the check panicked: {}", panic_text(&*panic))],
        };
        let mut text = format!("not {what}\n");
        for problem in problems {
            // Writing to a string can't fail.
            let _infallible = writeln!(text, "{problem}");
        }
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
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

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no text",
    }
}

/// Names of queues are UTF-8.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
