//! [`MetricsServer`]: a small HTTP server that slow, silent or hostile clients can't hold up.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::check::Check;
use crate::config::MetricsConfig;
use crate::error::MetricsError;
use crate::pages::{HealthSource, Pages};

/// Serves `/metrics`, `/health`, `/livez` and `/readyz`.
///
/// It listens on the loopback interface unless configured otherwise, and knows neither passwords nor TLS: on any other
/// address whoever reaches it can read the names of queues.
///
/// ```
/// use pythia_core::{Config, Job, MemoryBroker, Route, Runner, worker_fn};
/// use pythia_metrics::prometheus::Registry;
/// use pythia_metrics::{MetricsConfig, MetricsServer, PrometheusObserver};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let broker = MemoryBroker::new();
/// # let greet = worker_fn(async |_: &Job<String>| Ok(()));
/// # let shutdown = async {};
/// // In a service: `Config::load()`, which reads a file and the environment.
/// let config = Config::from_toml("[metrics]\naddress = '127.0.0.1:0'")?;
/// let metrics: MetricsConfig = config.section("metrics")?;
/// let registry = Registry::new();
/// let runner = Runner::builder()
///     .config(&config)
///     .route(&broker, Route::new("greetings", greet))
///     .observer(PrometheusObserver::register_with(&registry, &metrics)?)
///     .build()?;
/// let server = MetricsServer::bind(&metrics, &registry).await?.health(runner.health());
/// if let Some(address) = server.address() {
///     println!("metrics are at http://{address}/metrics");
/// }
/// let summary = server.serve(runner.run_until(shutdown)).await?;
/// println!("{} messages were settled", summary.settled.total());
/// # Ok(())
/// # }
/// ```
pub struct MetricsServer {
    /// `None` if metrics are not enabled.
    listening: Option<(TcpListener, SocketAddr)>,
    pages: Pages,
}

impl MetricsServer {
    /// Listens on the configured address and serves the metrics of that registry: Pythia's and all others in it. Where
    /// metrics are not [`enabled`](MetricsConfig::enabled), it does not listen.
    ///
    /// # Errors
    /// If it can't listen there; the text names the address and what to do.
    pub async fn bind(config: &MetricsConfig, registry: &Registry) -> Result<Self, MetricsError> {
        let listening = if config.enabled {
            Some(
                listen(config.address)
                    .await
                    .map_err(|error| MetricsError::bind(config.address, &error))?,
            )
        } else {
            None
        };
        Ok(Self {
            listening,
            pages: Pages::new(registry.clone(), config.check_timeout),
        })
    }

    /// Where `/livez`, `/readyz` and `/health` get their answers. Without it `/livez` answers 404, and so do the others if
    /// there are no checks: a process that exists says nothing of messages that are consumed.
    #[must_use]
    pub fn health(mut self, source: impl HealthSource) -> Self {
        self.pages.ask(source);
        self
    }

    /// Adds a look at something else that the service depends on, to `/readyz` and `/health`.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.pages.look_at(check);
        self
    }

    /// Where it listens, with the real port if port 0 was configured. `None` if metrics are not enabled.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listening.as_ref().map(|(_, address)| *address)
    }

    /// Serves while `work` runs, and returns what it yields.
    ///
    /// Give it the runner, so that probes are answered until the last message is settled, and not only until the process
    /// is told to end. Answers under way then get two seconds more.
    pub async fn serve<F: Future>(self, work: F) -> F::Output {
        let Some((listener, address)) = self.listening else {
            return work.await;
        };
        tracing::info!(%address, "metrics are served");
        let mut connections = Connections::new(self.pages.router());
        let mut work = pin!(work);
        let output = loop {
            // Cancel safety: a dropped `accept` leaves the connection in the listener's queue, a dropped `next_ended`
            // leaves the task in its set.
            tokio::select! {
                biased;
                output = &mut work => break output,
                () = connections.next_ended() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => connections.add(stream),
                    Err(error) => {
                        tracing::warn!(%error, "a connection for metrics could not be accepted");
                        // Most likely the process is out of file descriptors; the next try at once would spin.
                        tokio::select! {
                            output = &mut work => break output,
                            () = sleep(ACCEPT_PAUSE) => {}
                        }
                    }
                },
            }
        };
        drop(listener);
        connections.close().await;
        output
    }
}

impl fmt::Debug for MetricsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsServer")
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}

async fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// The open connections: a task each, ended with this.
struct Connections {
    router: Router,
    tasks: JoinSet<()>,
    /// The same tasks, the oldest first.
    ages: VecDeque<AbortHandle>,
    stop: watch::Sender<()>,
}

impl Connections {
    fn new(router: Router) -> Self {
        Self {
            router,
            tasks: JoinSet::new(),
            ages: VecDeque::new(),
            stop: watch::Sender::new(()),
        }
    }

    /// Serves one more. If there are too many, the oldest ends: an honest client is served within milliseconds, so the
    /// oldest is one that sends or reads nothing, and a probe gets its answer however many of those there are.
    fn add(&mut self, stream: TcpStream) {
        self.ages.retain(|task| !task.is_finished());
        if self.ages.len() >= MAX_CONNECTIONS
            && let Some(oldest) = self.ages.pop_front()
        {
            oldest.abort();
        }
        let served = serve_one(stream, self.router.clone(), self.stop.subscribe());
        self.ages.push_back(self.tasks.spawn(served));
    }

    /// Waits until a connection has ended; for ever if there is none.
    async fn next_ended(&mut self) {
        match self.tasks.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!(%error, "serving metrics panicked");
            }
            Some(_) => {}
            None => std::future::pending().await,
        }
    }

    async fn close(mut self) {
        self.stop.send_replace(());
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(CLOSE_TIMEOUT, all_ended).await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

/// One request, one answer: scrapes and probes are seconds apart, and a connection kept for the next one is a connection
/// that can be held.
async fn serve_one(stream: TcpStream, router: Router, mut stop: watch::Receiver<()>) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let served = async {
        tokio::select! {
            served = connection.as_mut() => served,
            _ = stop.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    match timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for metrics broke"),
        Err(_) => tracing::debug!("a connection for metrics took too long"),
    }
}

const MAX_CONNECTIONS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 << 10;
/// From the connection to the end of the request's header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// From the connection to the end of the answer; Prometheus itself waits 10 s by default.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
