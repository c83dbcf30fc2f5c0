//! [`Route`]: which worker serves which queue, and how.

use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::config::{DeadLetters, RouteConfig};
use super::lane::Lane;
use super::prefetch::Batches;
use super::settle::Outbox;
use super::{batch, process};
use crate::codec::{Codec, Json};
use crate::error::{ConfigError, WorkError};
use crate::layer::Layer;
use crate::message::QueueName;
use crate::resilience::{BreakerConfig, Guard, Guarded, RateLimit, RetryConfig};
use crate::worker::{BatchWorker, Worker};

/// A worker on a queue. What is set here wins over the configuration. A count of zero is refused when the runner is
/// built.
pub struct Route<W, C = Json> {
    name: Result<QueueName, ConfigError>,
    worker: W,
    codec: C,
    settings: Settings,
}

/// A [`BatchWorker`] on a queue. A call gets up to [`batch`](Self::batch) messages, or what has come within
/// [`linger`](Self::linger). User layers do not apply to it.
///
/// ```
/// use std::time::Duration;
/// use pythia_core::{BatchRoute, BatchWorker, Job, MemoryBroker, Producer, Runner, WorkError};
/// # use std::sync::Arc;
/// # use pythia_core::testing::EventLog;
///
/// struct InsertRows;
///
/// impl BatchWorker for InsertRows {
///     type Input = u64;
///     type Output = ();
///
///     async fn process(&self, jobs: &[Job<u64>]) -> Vec<Result<(), WorkError>> {
///         assert!(jobs.len() <= 500);
///         jobs.iter().map(|_| Ok(())).collect()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = MemoryBroker::new();
/// # let rows: Vec<u64> = (0..1_200).collect();
/// Producer::new(broker.clone()).send_all("rows", &rows).await?;
/// let route = BatchRoute::new("rows", InsertRows)
///     .batch(500) // rows an `INSERT` at most
///     .linger(Duration::from_millis(50)) // or what has come until then
///     .concurrency(2); // `INSERT`s at once
/// # let log = Arc::new(EventLog::new());
/// # let shutdown = log.wait_settled(1_200);
/// let runner = Runner::builder()
///     .route(&broker, route)
/// #   .observer(Arc::clone(&log))
///     .build()?;
/// let summary = runner.run_until(shutdown).await?; // in a service: `shutdown_signal()`
/// assert_eq!(summary.settled.acked, 1_200);
/// # Ok(())
/// # }
/// ```
pub struct BatchRoute<W, C = Json> {
    name: Result<QueueName, ConfigError>,
    worker: W,
    codec: C,
    settings: Settings,
}

impl<W: Worker> Route<W> {
    /// Serves a queue. The name is also that of the route's table in the configuration, `[routes.NAME]`, which may set
    /// another queue.
    pub fn new<N>(queue: N, worker: W) -> Self
    where
        N: TryInto<QueueName>,
        N::Error: Into<ConfigError>,
    {
        Self {
            name: queue.try_into().map_err(Into::into),
            worker,
            codec: Json,
            settings: Settings::default(),
        }
    }
}

impl<W: BatchWorker> BatchRoute<W> {
    /// Serves a queue. The name is also that of the route's table in the configuration, `[routes.NAME]`, which may set
    /// another queue.
    pub fn new<N>(queue: N, worker: W) -> Self
    where
        N: TryInto<QueueName>,
        N::Error: Into<ConfigError>,
    {
        Self {
            name: queue.try_into().map_err(Into::into),
            worker,
            codec: Json,
            settings: Settings::default(),
        }
    }

    /// How long a call waits for its batch to fill. Default: 10 ms.
    #[must_use]
    pub fn linger(self, linger: Duration) -> Self {
        self.configure(move |config| config.linger = linger)
    }
}

impl<W: Worker, C> Route<W, C> {
    /// Wraps the worker. In `.layer(A).layer(B)`, `B` is the outermost.
    #[must_use]
    pub fn layer<L: Layer<W>>(self, layer: L) -> Route<L::Worker, C> {
        let Self {
            name,
            worker,
            codec,
            settings,
        } = self;
        Route {
            name,
            worker: layer.layer(worker),
            codec,
            settings,
        }
    }
}

macro_rules! common_settings {
    ($route:ident, $worker:ident) => {
        impl<W: $worker, C> $route<W, C> {
            /// Reads payloads by this codec rather than as JSON.
            #[must_use]
            pub fn codec<D: Codec<W::Input>>(self, codec: D) -> $route<W, D> {
                let Self {
                    name,
                    worker,
                    codec: _,
                    settings,
                } = self;
                $route {
                    name,
                    worker,
                    codec,
                    settings,
                }
            }

            /// How many messages one fetch takes at most, from 1. Default: 100.
            #[must_use]
            pub fn batch(self, batch: usize) -> Self {
                self.count("batch", batch, |config, batch| config.batch = batch)
            }

            /// How many jobs may be running at once, in all lanes together, from 1. Default: 100.
            #[must_use]
            pub fn concurrency(self, concurrency: usize) -> Self {
                self.count("concurrency", concurrency, |config, concurrency| {
                    config.concurrency = concurrency
                })
            }

            /// How many readers work side by side, from 1. Default: 2.
            #[must_use]
            pub fn lanes(self, lanes: usize) -> Self {
                self.count("lanes", lanes, |config, lanes| config.lanes = lanes)
            }

            /// How many messages are started in a given time. Default: no limit.
            #[must_use]
            pub fn rate(self, rate: RateLimit) -> Self {
                self.configure(move |config| config.rate = Some(rate))
            }

            /// The schedule of retries.
            #[must_use]
            pub fn retry(self, retry: RetryConfig) -> Self {
                self.configure(move |config| config.retry = retry)
            }

            /// The circuit breaker.
            #[must_use]
            pub fn breaker(self, breaker: BreakerConfig) -> Self {
                self.configure(move |config| config.breaker = breaker)
            }

            /// After this time a job's cancellation says so; the job goes on. Default: none.
            #[must_use]
            pub fn soft_limit(self, limit: Duration) -> Self {
                self.configure(move |config| config.timeout.soft = Some(limit))
            }

            /// After this time a job is dropped and counts as failed. Default: none.
            #[must_use]
            pub fn hard_limit(self, limit: Duration) -> Self {
                self.configure(move |config| config.timeout.hard = Some(limit))
            }

            /// What becomes of dead messages.
            #[must_use]
            pub fn dead_letters(self, dead_letters: DeadLetters) -> Self {
                self.configure(move |config| config.dead_letters = dead_letters)
            }

            /// Refuses to start on a broker that can't hand a message out again.
            #[must_use]
            pub fn at_least_once(self) -> Self {
                self.configure(|config| config.at_least_once = true)
            }

            /// Changes any setting, after the configuration was read.
            #[must_use]
            pub fn configure(
                mut self,
                change: impl FnOnce(&mut RouteConfig) + Send + 'static,
            ) -> Self {
                self.settings.changes.push(Box::new(change));
                self
            }

            fn count(
                mut self,
                setting: &'static str,
                count: usize,
                change: impl FnOnce(&mut RouteConfig, NonZeroUsize) + Send + 'static,
            ) -> Self {
                match NonZeroUsize::new(count) {
                    Some(count) => self.configure(move |config| change(config, count)),
                    None => {
                        self.settings.zero.get_or_insert(setting);
                        self
                    }
                }
            }
        }

        impl<W, C> fmt::Debug for $route<W, C> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($route))
                    .field("name", &self.name)
                    .finish_non_exhaustive()
            }
        }
    };
}

common_settings!(Route, Worker);
common_settings!(BatchRoute, BatchWorker);

/// Settings made in code, in the order in which they were made.
#[derive(Default)]
struct Settings {
    changes: Vec<Change>,
    /// The first count that was set to zero.
    zero: Option<&'static str>,
}

type Change = Box<dyn FnOnce(&mut RouteConfig) + Send>;

impl Settings {
    fn apply(self, config: &mut RouteConfig) {
        self.changes.into_iter().for_each(|change| change(config));
    }
}

/// What [`RunnerBuilder::route`](super::RunnerBuilder::route) takes: a [`Route`] or a [`BatchRoute`].
pub trait IntoRoute: sealed::Sealed {}

impl<R: sealed::Sealed> IntoRoute for R {}

pub(super) mod sealed {
    #[expect(unnameable_types, reason = "a trait that only this crate implements")]
    pub trait Sealed {
        #[doc(hidden)]
        fn into_draft(self) -> super::Draft;
    }
}

/// A route whose types are behind it and whose configuration is still to come.
#[doc(hidden)]
#[expect(unnameable_types, reason = "only passes through the sealed trait")]
pub struct Draft {
    pub(super) name: Result<QueueName, ConfigError>,
    /// A count that was set to zero, for `build()` to refuse.
    pub(super) zero: Option<&'static str>,
    pub(super) settle_settings: Change,
    pub(super) finish: Box<dyn FnOnce(Guard) -> Arc<dyn AnyRoute> + Send>,
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<W: Worker, C: Codec<W::Input>> sealed::Sealed for Route<W, C> {
    fn into_draft(self) -> Draft {
        let Self {
            name,
            worker,
            codec,
            settings,
        } = self;
        Draft {
            name,
            zero: settings.zero,
            settle_settings: Box::new(|config| settings.apply(config)),
            finish: Box::new(|guard| {
                Arc::new(Single {
                    worker: Guarded::new(worker, guard),
                    codec,
                })
            }),
        }
    }
}

impl<W: BatchWorker, C: Codec<W::Input>> sealed::Sealed for BatchRoute<W, C> {
    fn into_draft(self) -> Draft {
        let Self {
            name,
            worker,
            codec,
            settings,
        } = self;
        Draft {
            name,
            zero: settings.zero,
            settle_settings: Box::new(|config| settings.apply(config)),
            finish: Box::new(|guard| {
                Arc::new(Batched {
                    worker: Guarded::new(worker, guard),
                    codec,
                })
            }),
        }
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A route as the runner sees it: called a few times a lane, never per message.
pub(super) trait AnyRoute: Send + Sync + 'static {
    fn start(&self) -> BoxFuture<'_, Result<(), WorkError>>;
    fn stop(&self) -> BoxFuture<'_, ()>;
    /// The process stage of one lane.
    fn process(
        self: Arc<Self>,
        lane: Arc<Lane>,
        fetched: Batches,
        outbox: Outbox,
    ) -> BoxFuture<'static, ()>;
}

struct Single<W, C> {
    worker: Guarded<W>,
    codec: C,
}

impl<W: Worker, C: Codec<W::Input>> AnyRoute for Single<W, C> {
    fn start(&self) -> BoxFuture<'_, Result<(), WorkError>> {
        Box::pin(self.worker.worker().start())
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.worker.worker().stop())
    }

    fn process(
        self: Arc<Self>,
        lane: Arc<Lane>,
        fetched: Batches,
        outbox: Outbox,
    ) -> BoxFuture<'static, ()> {
        Box::pin(
            async move { process::run(&self.worker, &self.codec, &lane, fetched, outbox).await },
        )
    }
}

struct Batched<W, C> {
    worker: Guarded<W>,
    codec: C,
}

impl<W: BatchWorker, C: Codec<W::Input>> AnyRoute for Batched<W, C> {
    fn start(&self) -> BoxFuture<'_, Result<(), WorkError>> {
        Box::pin(self.worker.worker().start())
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.worker.worker().stop())
    }

    fn process(
        self: Arc<Self>,
        lane: Arc<Lane>,
        fetched: Batches,
        outbox: Outbox,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move { batch::run(&self.worker, &self.codec, &lane, fetched, outbox).await })
    }
}
