//! Prometheus metrics and health probes for Pythia workers.
//!
//! [`PrometheusObserver`] counts what a runner reports into a [`Registry`](prometheus::Registry) of yours, beside your own
//! metrics; [`MetricsServer`] serves that registry, and whether messages are being consumed:
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | every metric of the registry, in Prometheus' text format |
//! | `/health` | the whole state as JSON: brokers, queues, lanes, checks of yours; 503 if something is failing |
//! | `/livez` | 200 while messages are consumed, or wait for a good reason; else 503, and which lane does not |
//! | `/readyz` | 200 once every lane is connected to its queue, and all is well with what is [required](Check); else 503, and what is not |
//!
//! ```
//! use pythia_core::observe::{Event, Observer};
//! use pythia_metrics::prometheus::{Registry, TextEncoder};
//! use pythia_metrics::{MetricsConfig, PrometheusObserver};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = Registry::new();
//! let observer = PrometheusObserver::register_with(&registry, &MetricsConfig::default())?;
//!
//! // A runner does this, for each batch.
//! let queue = "orders".try_into()?;
//! observer.on_event(&Event::Received { queue: &queue, count: 3 });
//!
//! let text = TextEncoder::new().encode_to_string(&registry.gather())?;
//! assert!(text.contains("pythia_messages_received_total{queue=\"orders\"} 3"));
//! # Ok(())
//! # }
//! ```
//!
//! # What the numbers mean
//!
//! [`names::ALL`] is the table of all families; `docs/metrics.md` shows it. Counters and histograms are this process'
//! own: add them up over processes. The depth, age and lag of a queue are the broker's: every process that samples it
//! exports the same, so take one of them (`max by (queue)`). What a broker can't tell has no series, because a zero would
//! be a statement.
//!
//! # What it costs
//!
//! Events come per batch, and a batch is counted aside before it is added to what is shared; the series of a queue are
//! looked up once. Nothing is measured when Prometheus asks: depths are sampled by the runner, on an interval.

pub mod names;

mod bounded;
mod check;
mod config;
mod error;
mod families;
mod health;
mod observer;
mod pages;
mod queue;
mod server;
mod shared;

pub use prometheus;

pub use check::{Check, CheckFn};
pub use config::{BucketBounds, FamilyOrGroup, MetricsConfig};
pub use error::{MetricsError, MetricsErrorKind};
pub use observer::PrometheusObserver;
pub use pages::{HealthReport, HealthSource};
pub use server::MetricsServer;
