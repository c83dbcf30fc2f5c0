//! One run: servers, a network, worker processes, a publisher, and the fault that happens to them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pythia_core::QueueName;
use pythia_core::admin::Page;
use pythia_redis::testing::{Cluster, RedisServer, Sentinels};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::history::{Journal, Record, now};
use crate::plan::{Group, number_in};
use crate::proxy::Proxy;
use crate::publisher::{Publisher, Steady};

/// What a fault can do something to.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) redis: Redis,
    /// Between the workers and a single server.
    pub(crate) proxy: Option<Proxy>,
    pub(crate) fleet: Fleet,
    pub(crate) publisher: Publisher,
    pub(crate) rng: StdRng,
    /// Where all files of the run are.
    pub(crate) folder: PathBuf,
    /// What the fault has to say of itself, for the table.
    pub(crate) remark: Option<String>,
    /// The server's own clock, where it has one.
    pub(crate) clock: Option<Clock>,
    journal: Arc<Journal>,
    steady: Option<Steady>,
}

/// Where the messages are.
#[derive(Debug)]
pub(crate) enum Redis {
    Single(RedisServer),
    Sentinels(Sentinels),
    Cluster(Cluster),
}

/// What a run begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) topology: Topology,
    /// Settings of the redis-server.
    pub(crate) server: &'static [&'static str],
    /// Settings of the workers, beside those that all have.
    pub(crate) workers: &'static str,
    pub(crate) groups: &'static [Group],
    pub(crate) processes: usize,
    pub(crate) max_attempts: u32,
    /// A single server goes by a clock that can be set.
    pub(crate) own_clock: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Topology {
    Single,
    Sentinels,
    Cluster,
}

impl Setup {
    /// All modes, on one server that keeps what it has confirmed.
    pub(crate) const ALL: Self = Self {
        topology: Topology::Single,
        server: ALWAYS,
        workers: "",
        groups: &Group::ALL,
        processes: 3,
        // More than there are deaths in any run.
        max_attempts: 30,
        own_clock: false,
    };
}

impl Redis {
    async fn start(setup: Setup, clock: Option<&Clock>) -> Self {
        match setup.topology {
            Topology::Single => {
                let environment = clock.map(Clock::environment);
                let environment = environment.as_ref().map_or(&[][..], |variables| variables);
                Self::Single(RedisServer::start_within(environment, setup.server).await)
            }
            Topology::Sentinels => Self::Sentinels(Sentinels::start_with(setup.server, &[]).await),
            Topology::Cluster => Self::Cluster(Cluster::start_with(setup.server).await),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Single(server) => server.url(),
            Self::Sentinels(sentinels) => sentinels.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    /// The one server that there is.
    pub(crate) fn server(&mut self) -> &mut RedisServer {
        match self {
            Self::Single(server) => server,
            Self::Sentinels(sentinels) => sentinels.primary_mut(),
            Self::Cluster(cluster) => cluster.node_mut(0),
        }
    }
}

impl Scene {
    /// Starts everything, and waits until every process hears and works.
    pub(crate) async fn start(
        setup: Setup,
        folder: &Path,
        seed: u64,
        rate: u64,
    ) -> io::Result<Self> {
        let clock = setup.own_clock.then(|| Clock::new(folder)).transpose()?;
        let redis = Redis::start(setup, clock.as_ref()).await;
        let proxy = match &redis {
            Redis::Single(server) => Some(Proxy::to(server.port()).await?),
            Redis::Sentinels(_) | Redis::Cluster(_) => None,
        };
        let journal = Arc::new(Journal::create(&folder.join("driver.history"))?);
        let fleet = Fleet::new(
            folder,
            Arc::clone(&journal),
            setup.groups.to_vec(),
            setup.processes,
        );
        let settings = |url: &str| {
            let Setup {
                workers,
                max_attempts,
                ..
            } = setup;
            let own = |line: &&str| {
                line.split(" = ")
                    .next()
                    .is_some_and(|key| workers.contains(key))
            };
            let common: String = COMMON
                .lines()
                .filter(|line| !own(line))
                .flat_map(|line| [line, "\n"])
                .collect();
            format!("redis.url = {url:?}\n{common}{workers}retry.max_attempts = {max_attempts}\n")
        };
        fleet.configure(&settings(
            &proxy.as_ref().map_or_else(|| redis.url(), Proxy::url),
        ))?;
        let publisher = Publisher::new(&settings(&redis.url()), setup.groups, Arc::clone(&journal));
        let publisher = publisher.map_err(io::Error::other)?;
        let mut scene = Self {
            redis,
            proxy,
            fleet,
            publisher,
            rng: StdRng::seed_from_u64(seed),
            folder: folder.to_owned(),
            remark: None,
            clock,
            journal,
            steady: None,
        };
        // Otherwise the script publishes first.
        if rate > 0 {
            scene.fleet.start_all()?;
            scene.steady = Some(scene.publisher.begin(rate, seed));
            scene.until_all_work().await?;
        }
        Ok(scene)
    }

    pub(crate) fn proxy(&self) -> &Proxy {
        self.proxy
            .as_ref()
            .expect("a single server is reached by way of the proxy")
    }

    pub(crate) fn fault(&self, begins: bool) {
        self.journal.write(&Record::Fault { at: now(), begins });
    }

    /// Publishes for so long after the fault, then waits until all is done, and ends the workers in order.
    pub(crate) async fn finish(&mut self, tail: Duration) -> io::Result<()> {
        if let Some(steady) = self.steady.take() {
            sleep(tail).await;
            steady.stop().await?;
        }
        let complete = self.drained().await;
        if !complete {
            self.remark = Some(format!("left at the end: {}", self.depths().await));
        }
        self.journal.write(&Record::Drained {
            at: now(),
            complete,
        });
        self.read_dead_letters().await?;
        self.fleet.terminate_all().await
    }

    async fn until_all_work(&self) -> io::Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        while !self.fleet.all_have_received()? {
            if Instant::now() > deadline {
                return Err(io::Error::other("the workers do not begin to work"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Whether all queues became empty, in time.
    pub(crate) async fn drained(&self) -> bool {
        let mut deadline = Instant::now() + DRAIN_PATIENCE;
        let mut least = u64::MAX;
        loop {
            let left = self.left().await;
            if left == Some(0) {
                return true;
            }
            // As long as it becomes less, it is worth waiting.
            if let Some(left) = left.filter(|left| *left < least) {
                least = left;
                deadline = Instant::now() + DRAIN_PATIENCE;
            }
            if Instant::now() > deadline {
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many messages are in the queues, dead letters aside; `None` while that is not known.
    pub(crate) async fn left(&self) -> Option<u64> {
        let mut left = 0;
        for group in self
            .publisher
            .groups()
            .filter(|group| *group != Group::News)
        {
            let broker = self.publisher.broker(group)?;
            let depth = broker.admin()?.depth(&queue(group)).await.ok()?;
            // Of a stream that is not empty, how much is unread is not always known.
            let ready = depth.ready.unwrap_or(1);
            let parts = match group {
                Group::Fleeting => [Some(ready), None, None],
                _ => [Some(ready), depth.pending, depth.delayed],
            };
            left += parts.into_iter().flatten().sum::<u64>();
        }
        Some(left)
    }

    /// What is where, for whoever looks into a run that failed.
    async fn depths(&self) -> String {
        let mut depths = Vec::new();
        for group in self.publisher.groups() {
            if let Some(admin) = self
                .publisher
                .broker(group)
                .and_then(|broker| broker.admin())
            {
                depths.push(format!(
                    "{} {:?}",
                    group.name(),
                    admin.depth(&queue(group)).await
                ));
            }
        }
        depths.join("; ")
    }

    /// How many messages are in workers' hands; `None` while that is not known.
    pub(crate) async fn pending(&self) -> Option<u64> {
        let mut pending = 0;
        for group in self.publisher.groups() {
            let depth = self
                .publisher
                .broker(group)?
                .admin()?
                .depth(&queue(group))
                .await
                .ok()?;
            pending += depth.pending?;
        }
        Some(pending)
    }

    async fn read_dead_letters(&self) -> io::Result<()> {
        const PAGE: usize = 1_000;
        for group in self
            .publisher
            .groups()
            .filter(|group| group.is_at_least_once())
        {
            let broker = self.publisher.broker(group).expect("it is one of them");
            let Some(admin) = broker.admin() else {
                continue;
            };
            for offset in (0..).step_by(PAGE) {
                let letters = admin
                    .dead(
                        &queue(group),
                        Page {
                            offset,
                            limit: PAGE,
                        },
                    )
                    .await
                    .map_err(io::Error::other)?;
                for letter in &letters {
                    let body = letter.delivery.payload.as_bytes();
                    let number = body.and_then(|body| number_in(body)).ok_or_else(|| {
                        io::Error::other(format!("a dead letter is no message of ours: {letter:?}"))
                    })?;
                    self.journal.write(&Record::Dead { group, number });
                }
                if letters.len() < PAGE {
                    break;
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn queue(group: Group) -> QueueName {
    QueueName::new(group.queue()).expect("a plain name")
}

/// Redis answers when the disk has it: what it has confirmed, no kill of its process takes back.
pub(crate) const ALWAYS: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

/// How long a silent worker keeps its messages.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// What all workers have. That many messages fail is the plan, so the breaker opens only if all do.
const COMMON: &str = "\
redis.lease = \"2s\"
redis.connect_timeout = \"2s\"
redis.command_timeout = \"2s\"
redis.health_check_interval = \"1s\"
redis.reconnect_max_delay = \"500ms\"
retry.initial_delay = \"100ms\"
retry.max_delay = \"500ms\"
breaker.failure_ratio = 1.0
runner.drain_timeout = \"10s\"
metrics.enabled = false
worker.lanes = 2
";
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing may become less.
const DRAIN_PATIENCE: Duration = Duration::from_secs(40);
