//! The worker that the pages speak of: with metrics and health, in the process of the test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pythia_core::broker::Broker;
use pythia_core::testing::EventLog;
use pythia_core::{Config, Job, Producer, Route, Runner, WorkError, Worker};
use pythia_metrics::prometheus::Registry;
use pythia_metrics::{MetricsConfig, MetricsServer, PrometheusObserver};
use pythia_redis::testing::RedisServer;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

#[derive(serde::Deserialize)]
struct Order {
    item: String,
}

struct Ship;

impl Worker for Ship {
    type Input = Order;
    type Output = ();

    async fn process(&self, job: &Job<Order>) -> Result<(), WorkError> {
        match &*job.input.item {
            "bomb" => Err(WorkError::permanent("no bombs")),
            "sofa" => Err(WorkError::retry_after(
                Duration::from_secs(3600),
                "no van is free",
            )),
            "broken" => Err(WorkError::retryable("the warehouse is closed")),
            "piano" => {
                let reason = job.cancellation().cancelled().await;
                Err(WorkError::retryable(format!("{reason:?}")))
            }
            _ => Ok(()),
        }
    }
}

pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    broker: Arc<dyn Broker>,
    pub(crate) log: Arc<EventLog>,
    stop: oneshot::Sender<()>,
    run: JoinSet<()>,
}

impl Service {
    /// A worker of the queue `orders` that is subscribed to it.
    pub(crate) async fn start(url: &str, settings: &str) -> Self {
        let toml = format!("{settings}\n[metrics]\naddress = '127.0.0.1:0'\n");
        let config = Config::from_sources(Some(&toml), [("REDIS_URL", url)]).unwrap();
        let broker = pythia_redis::from_config(&config).unwrap();
        let metrics: MetricsConfig = config.section("metrics").unwrap();
        let registry = Registry::new();
        let log = Arc::new(EventLog::new());
        let runner = Runner::builder()
            .config(&config)
            .route(&broker, Route::new("orders", Ship))
            .observer(PrometheusObserver::register_with(&registry, &metrics).unwrap())
            .observer(Arc::clone(&log))
            .build()
            .unwrap();
        let metrics = MetricsServer::bind(&metrics, &registry).await.unwrap();
        let metrics = metrics.health(runner.health());
        let address = metrics.address().unwrap();
        let (stop, stopped) = oneshot::channel();
        let mut run = JoinSet::new();
        run.spawn(async move {
            let stopped = async {
                let _dropped = stopped.await;
            };
            metrics.serve(runner.run_until(stopped)).await.unwrap();
        });
        Self {
            address,
            broker,
            log,
            stop,
            run,
        }
    }

    pub(crate) fn producer(&self) -> Producer {
        Producer::new(Arc::clone(&self.broker))
    }

    pub(crate) async fn end(mut self) {
        // It may have ended by itself, which its task tells.
        let _ended = self.stop.send(());
        while let Some(ended) = self.run.join_next().await {
            ended.unwrap();
        }
    }
}

/// Redis 7 and later.
pub(crate) async fn tells_lag(server: &RedisServer) -> bool {
    let groups = server.cli(&["XINFO", "GROUPS", "orders"]).await;
    groups.contains("lag")
}
