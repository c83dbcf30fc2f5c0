//! [`RunnerBuilder`]: takes routes and settings, and refuses what can't work before anything runs.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::config::{DeadLetters, RouteConfig, RunnerConfig};
use super::health::{Health, Watched};
use super::lane::LanePlan;
use super::route::{self, Draft, IntoRoute};
use super::{Built, Runner, log, same_broker};
use crate::broker::{Broker, Guarantee};
use crate::config::Config;
use crate::error::ConfigError;
use crate::message::QueueName;
use crate::observe::{Event, Observer, Observers};
use crate::resilience::{Gate, Guard, RateLimiter};

/// Collects the routes of a [`Runner`].
#[derive(Default)]
pub struct RunnerBuilder {
    drafts: Vec<(Arc<dyn Broker>, Draft)>,
    config: Option<Config>,
    runner: Option<RunnerConfig>,
    observers: Observers,
}

impl RunnerBuilder {
    /// Serves a queue of a broker. Any number of routes, on any number of brokers. Logs and metrics tell queues apart by
    /// their names alone, so queues of one name on two brokers appear as one there.
    #[must_use]
    pub fn route<B: Broker + Clone>(mut self, broker: &B, route: impl IntoRoute) -> Self {
        self.drafts.push((
            Arc::new(broker.clone()),
            route::sealed::Sealed::into_draft(route),
        ));
        self
    }

    /// Takes the settings of the runner and of all routes from a configuration. What is set on a route wins.
    #[must_use]
    pub fn config(mut self, config: &Config) -> Self {
        self.config = Some(config.clone());
        self
    }

    /// Sets the runner's own settings, over those of a configuration.
    #[must_use]
    pub fn settings(mut self, settings: RunnerConfig) -> Self {
        self.runner = Some(settings);
        self
    }

    /// Tells this observer what happens.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Checks everything that can be checked without connecting.
    ///
    /// # Errors
    /// No routes, an unusable or doubled queue name, `broker.queue` with several routes, a setting that can't be used, or one
    /// that the broker can't keep: redelivery or dead letters on an at-most-once broker.
    pub fn build(self) -> Result<Runner, ConfigError> {
        let runner = match (self.runner, &self.config) {
            (Some(runner), _) => runner,
            (None, Some(config)) => config.section("runner")?,
            (None, None) => RunnerConfig::default(),
        };
        runner.check()?;
        if let Some(config) = &self.config {
            config.check()?;
            let names = self
                .drafts
                .iter()
                .filter_map(|(_, draft)| draft.name.as_ref().ok());
            for route in config.routes_beside(names.map(QueueName::as_str)) {
                tracing::warn!(
                    "the settings of [routes.{route}] have no effect: this runner has no such route"
                );
            }
        }
        if self.drafts.is_empty() {
            return Err(ConfigError::new(
                "the runner has no routes: add one with `.route(&broker, Route::new(..))`",
            ));
        }
        let queue = match &self.config {
            Some(config) => only_queue(config, self.drafts.len())?,
            None => None,
        };
        let mut observers = self.observers;
        observers.push(Arc::new(log::Log::default()));
        let mut routes: Vec<Built> = Vec::new();
        for (broker, draft) in self.drafts {
            let config = self.config.as_ref();
            let built = built(broker, draft, config, queue.as_deref(), &runner, &observers)?;
            let doubled = |other: &Built| {
                other.queue == built.queue && same_broker(&other.broker, &built.broker)
            };
            if routes.iter().any(doubled) {
                return Err(ConfigError::new(format!(
                    "queue {:?} has two routes on the same broker: a message would go to one of them at random",
                    built.queue
                )));
            }
            routes.push(built);
        }
        let watched = routes.iter().map(|built| Watched {
            queue: built.queue.clone(),
            broker: Arc::clone(&built.broker),
            gate: built.plan.gate.clone(),
            lanes: Mutex::default(),
        });
        let health = Health::new(runner.stall_after, watched.collect());
        Ok(Runner {
            routes,
            config: runner,
            observers,
            health,
        })
    }
}

impl fmt::Debug for RunnerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerBuilder")
            .field("routes", &self.drafts.len())
            .finish_non_exhaustive()
    }
}

/// `broker.queue`, which names the queue of a program's only route. It could not say which one of several it means.
fn only_queue(config: &Config, routes: usize) -> Result<Option<String>, ConfigError> {
    let queue = config.broker_queue()?;
    if let (Some(queue), 2..) = (&queue, routes) {
        let place = config
            .source("broker.queue")
            .map_or_else(String::new, |source| format!(" ({source})"));
        return Err(ConfigError::new(format!(
            "broker.queue is {queue:?}{place}, but there are {routes} routes, and it can't be the queue of all: set \
             `queue` in [routes.NAME] instead"
        )));
    }
    Ok(queue)
}

fn built(
    broker: Arc<dyn Broker>,
    draft: Draft,
    config: Option<&Config>,
    only_queue: Option<&str>,
    runner: &RunnerConfig,
    observers: &Observers,
) -> Result<Built, ConfigError> {
    let name = draft.name?;
    let mut settings: RouteConfig = match config {
        Some(config) => config.route(name.as_str())?,
        None => RouteConfig::default(),
    };
    settings.queue = settings.queue.or(only_queue.map(str::to_owned));
    (draft.settle_settings)(&mut settings);
    let queue = match &settings.queue {
        Some(queue) => QueueName::new(queue)?,
        None => name.clone(),
    };
    if let Some(setting) = draft.zero {
        return Err(ConfigError::new(format!(
            "queue {queue:?}: {setting} is 0, it must be at least 1"
        )));
    }
    let refuse = |asked: &str, setting: &str| {
        // It may have been a preset that asked, and nobody who remembers.
        let source = config.and_then(|config| config.source_for_route(name.as_str(), setting));
        let by = source.map_or_else(String::new, |source| format!(", by {source}"));
        Err(ConfigError::new(format!(
            "queue {queue:?}: {asked}{by} can't be had from an at-most-once broker; use lists or streams with \
             at-least-once delivery, or do without"
        )))
    };
    let at_most_once = broker.guarantee() == Guarantee::AtMostOnce;
    if at_most_once && settings.at_least_once {
        return refuse("redelivery (`at_least_once`)", "at_least_once");
    }
    if at_most_once && settings.dead_letters == DeadLetters::Keep {
        let asked = "keeping dead letters (`dead_letters = \"keep\"`)";
        return refuse(asked, "dead_letters");
    }
    let retry = settings.retry.checked()?;
    let gate = settings.breaker.checked()?.map(|policy| {
        let (queue, observers) = (queue.clone(), observers.clone());
        Gate::new(policy, move |state| {
            observers.on_event(&Event::BreakerChanged {
                queue: &queue,
                state,
            })
        })
    });
    let guard = Guard {
        gate: gate.clone(),
        limits: settings.timeout.checked()?,
        isolate_panics: settings.isolate_panics,
    };
    let max_attempts = retry.as_ref().map_or(1, |retry| retry.max_attempts());
    let concurrency = settings.concurrency.get();
    let lanes = if broker.is_fan_out() {
        1
    } else {
        settings.lanes.get().min(concurrency)
    };
    Ok(Built {
        plan: LanePlan {
            batch: settings.batch.get(),
            batch_bytes: settings.batch_bytes.get(),
            linger: settings.linger,
            retry,
            retries_in_process: at_most_once,
            keeps_dead_letters: !at_most_once && settings.dead_letters != DeadLetters::Discard,
            gate,
            rate: settings.rate.map(|rate| Arc::new(RateLimiter::new(rate))),
            stall_after: runner.stall_after,
        },
        shares: (0..lanes)
            .map(|lane| concurrency / lanes + usize::from(lane < concurrency % lanes))
            .collect(),
        max_attempts,
        route: (draft.finish)(guard),
        queue,
        broker,
    })
}
