//! [`Check`]: what a service depends on besides its broker, looked at when somebody asks.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pythia_core::WorkError;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};

use crate::pages::panic_text;
use crate::shared::Shared;

/// A look at something that the service depends on, such as a database: a name, and an async closure or function that
/// fails if all is not well.
///
/// A check that is required, as all are by default, fails `/readyz` and `/health`; an informational one makes `/health`
/// say that the service is degraded. None has a part in `/livez`: a restart mends no database, and if every process of a
/// service restarted because of it, nobody would be there when it is back.
///
/// Checks run when they are asked for, all at once, each in a task of its own, so that one that panics or hangs is a failed
/// one and no more. What one of them found is good for a second, for all who ask within it.
///
/// ```
/// use std::time::Duration;
/// # use pythia_metrics::prometheus::Registry;
/// use pythia_metrics::{Check, MetricsConfig, MetricsServer};
///
/// # #[derive(Clone)]
/// # struct Database;
/// # impl Database { async fn ping(&self) -> Result<(), std::io::Error> { Ok(()) } }
/// # async fn reach_geocoder() -> Result<(), String> { Ok(()) }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (mut config, registry, database) = (MetricsConfig::default(), Registry::new(), Database);
/// # config.address.set_port(0);
/// let server = MetricsServer::bind(&config, &registry)
///     .await?
///     .check(Check::with("database", database.clone(), async |database: &Database| database.ping().await))
///     .check(Check::new("geocoder", reach_geocoder).informational().timeout(Duration::from_millis(500)));
/// # Ok(())
/// # }
/// ```
pub struct Check {
    name: String,
    required: bool,
    timeout: Option<Duration>,
    run: Run,
}

type Run = Arc<dyn Fn() -> Running + Send + Sync>;
type Running = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

impl Check {
    /// A check that needs nothing but itself. One that needs something, such as a pool of connections, is made by
    /// [`with`](Self::with): an async closure can't lend to its future what it captured.
    pub fn new<F, Fut, E>(name: impl Into<String>, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        Self::by(name, move || {
            let found = check();
            Box::pin(async move { found.await.map_err(one_line) })
        })
    }

    /// A check and what it needs: a handle that is cheap to clone, or an [`Arc`]; several things are a tuple.
    pub fn with<S, F>(name: impl Into<String>, state: S, check: F) -> Self
    where
        S: Send + Sync + 'static,
        F: for<'a> CheckFn<'a, S>,
    {
        let parts = Arc::new((state, check));
        Self::by(name, move || {
            let parts = Arc::clone(&parts);
            Box::pin(async move {
                let (state, check) = &*parts;
                check.call(state).await.map_err(one_line)
            })
        })
    }

    fn by(name: impl Into<String>, run: impl Fn() -> Running + Send + Sync + 'static) -> Self {
        Self {
            name: name.into(),
            required: true,
            timeout: None,
            run: Arc::new(run),
        }
    }

    /// The service can do its work without it: a failure is shown, and fails no probe.
    #[must_use]
    pub fn informational(self) -> Self {
        Self {
            required: false,
            ..self
        }
    }

    /// How long it may take, if not for [`check_timeout`](crate::MetricsConfig::check_timeout); then it has failed.
    #[must_use]
    pub fn timeout(self, limit: Duration) -> Self {
        Self {
            timeout: Some(limit),
            ..self
        }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("required", &self.required)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Implemented by async functions from `&S` to a result, for [`Check::with`]. (A bound of `AsyncFn` could not say that the
/// future is `Send`.)
#[diagnostic::on_unimplemented(
    message = "this can't be the function of a check",
    label = "not callable as `async |state: &{S}| ..`, or it captures state",
    note = "an async closure can't lend to its future what it captured: make it a part of the state, which may be a tuple"
)]
pub trait CheckFn<'a, S>: Send + Sync + 'static {
    /// What it fails with.
    type Error: Into<Box<dyn Error + Send + Sync>>;
    /// The function's future.
    type Future: Future<Output = Result<(), Self::Error>> + Send;

    /// Calls the function.
    fn call(&self, state: &'a S) -> Self::Future;
}

impl<'a, S: 'a, F, Fut, E> CheckFn<'a, S> for F
where
    F: Fn(&'a S) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Error = E;
    type Future = Fut;

    fn call(&self, state: &'a S) -> Fut {
        self(state)
    }
}

/// A check that belongs to a server.
pub(crate) struct Registered {
    pub(crate) name: String,
    pub(crate) required: bool,
    limit: Duration,
    run: Run,
    /// Taken while it runs: one that does not end, because it blocks its thread, takes no second thread.
    turn: Arc<Semaphore>,
    found: Shared<Found>,
}

/// How long a check took to find that all is well, or what is wrong.
pub(crate) type Found = Result<Duration, String>;

impl Registered {
    pub(crate) fn new(check: Check, limit: Duration) -> Self {
        Self {
            name: check.name,
            required: check.required,
            limit: check.timeout.unwrap_or(limit),
            run: check.run,
            turn: Arc::new(Semaphore::new(1)),
            found: Shared::default(),
        }
    }

    /// Runs it, unless it was run a moment ago.
    pub(crate) async fn look(&self) -> Found {
        self.found.get(self.run()).await
    }

    async fn run(&self) -> Found {
        let asked = Instant::now();
        let limit = self.limit;
        let ended = timeout(limit, async {
            let turn = Arc::clone(&self.turn).acquire_owned().await;
            let run = Arc::clone(&self.run);
            // Dropped with this future, and with it the task, at its next await.
            let mut task = JoinSet::new();
            task.spawn(async move {
                let _turn = turn;
                run().await
            });
            task.join_next().await
        });
        match ended.await {
            Ok(Some(Ok(Ok(())))) => Ok(Instant::now().saturating_duration_since(asked)),
            Ok(Some(Ok(Err(problem)))) => Err(problem),
            Ok(Some(Err(error))) => Err(why_it_ended(error)),
            Ok(None) => Err("it was not run".into()),
            Err(_elapsed) => Err(format!("no answer within {limit:?}")),
        }
    }
}

fn why_it_ended(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => format!("the check panicked: {}", panic_text(&*panic)),
        Err(error) => format!("the check was given up: {error}"),
    }
}

/// The error and its causes, of bounded length; also if it panics when it is asked for its text.
fn one_line(error: impl Into<Box<dyn Error + Send + Sync>>) -> String {
    WorkError::retryable(error).to_string()
}
