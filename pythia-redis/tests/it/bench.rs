//! A worker of any pattern, wherever its Redis is.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pythia_core::broker::Broker;
use pythia_core::testing::EventLog;
use pythia_core::{Config, Job, Message, QueueName, Route, Runner, worker_fn};
use pythia_redis::testing::RedisServer;
use tokio::time::{Instant, sleep};

/// A worker of one pattern that notes the numbers that it is given.
pub(crate) struct Bench {
    pub(crate) pattern: String,
    pub(crate) config: Config,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) queue: QueueName,
    pub(crate) log: Arc<EventLog>,
    seen: Arc<Mutex<BTreeSet<u64>>>,
}

#[derive(serde::Deserialize)]
struct Number {
    number: u64,
}

impl Bench {
    pub(crate) fn new(url: &str, pattern: &str) -> Self {
        Self::with(&format!("redis.url = {url:?}"), pattern)
    }

    /// With these settings, as in a file.
    pub(crate) fn with(settings: &str, pattern: &str) -> Self {
        let text = format!("broker.type = {pattern:?}\n{settings}");
        let config = Config::from_toml(&text).unwrap();
        Self {
            pattern: pattern.to_owned(),
            broker: pythia_redis::from_config(&config).unwrap(),
            config,
            queue: QueueName::new("orders").unwrap(),
            log: Arc::default(),
            seen: Arc::default(),
        }
    }

    /// For another queue: `orders-list` and so on, for patterns that share one Redis.
    pub(crate) fn apart(mut self) -> Self {
        self.queue = QueueName::new(&format!("orders-{}", self.pattern)).unwrap();
        self
    }

    /// Runs the worker, once it is ready beside what is to happen meanwhile.
    pub(crate) async fn run(&self, meanwhile: impl Future<Output = ()> + Send) {
        let seen = Arc::clone(&self.seen);
        let worker = worker_fn(move |job: &Job<Number>| {
            seen.lock().unwrap().insert(job.input.number);
            async { Ok(()) }
        });
        let runner = Runner::builder()
            .config(&self.config)
            .route(&self.broker, Route::new(self.queue.as_str(), worker))
            .observer(Arc::clone(&self.log))
            .build()
            .unwrap();
        runner.run_until(meanwhile).await.unwrap();
    }

    pub(crate) fn seen(&self) -> Vec<u64> {
        self.seen.lock().unwrap().iter().copied().collect()
    }

    /// Waits until it has seen so many different numbers.
    pub(crate) async fn sees(&self, count: usize) {
        let patience = Instant::now() + Duration::from_secs(60);
        while self.seen().len() < count {
            assert!(
                Instant::now() < patience,
                "{} of {count} were seen",
                self.seen().len()
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until one of the numbers that are published on and on is seen.
    pub(crate) async fn hears_again(&self, server: &RedisServer) {
        let before = self.seen().len();
        for number in 1_000..2_000 {
            self.write_number(server, number).await;
            if self.seen().len() > before {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing was heard after the restart");
    }

    pub(crate) async fn write_number(&self, server: &RedisServer, number: u64) {
        self.write(server, format!(r#"{{"number":{number}}}"#).as_bytes())
            .await;
    }

    /// Writes as a plain client does. By a script, because an argument of redis-cli can't be every byte.
    pub(crate) async fn write(&self, server: &RedisServer, body: &[u8]) {
        let command = match self.pattern.as_str() {
            "list" => "'LPUSH', KEYS[1]",
            "stream" => "'XADD', KEYS[1], '*', 'data'",
            _ => "'PUBLISH', KEYS[1]",
        };
        let body = match body {
            [byte, rest @ ..] if rest.len() > 1_000 => {
                format!("string.rep('\\{byte:03}', {})", 1 + rest.len())
            }
            _ => body.iter().fold(String::from("''"), |text, byte| {
                text + &format!("..'\\{byte:03}'")
            }),
        };
        let script = format!("return redis.call({command}, {body})");
        let patience = Instant::now() + Duration::from_secs(20);
        // On pub/sub the answer is the number of those who hear it: first of all somebody has to.
        while server
            .cli(&["EVAL", &script, "1", self.queue.as_str()])
            .await
            == "0"
        {
            assert!(Instant::now() < patience, "nobody has subscribed");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Publishes this number, once.
    pub(crate) async fn once(&self, number: u64) -> Result<(), pythia_core::BrokerError> {
        let message = Message::new(format!(r#"{{"number":{number}}}"#));
        self.broker
            .publish(&self.queue, vec![message])
            .await
            .map(drop)
    }

    /// Publishes these numbers by the broker's own means, each until it is taken: while a Redis fails over it refuses some.
    pub(crate) async fn publish(&self, numbers: std::ops::Range<u64>) {
        let patience = Instant::now() + Duration::from_secs(60);
        for number in numbers {
            let message = || Message::new(format!(r#"{{"number":{number}}}"#));
            while let Err(error) = self.broker.publish(&self.queue, vec![message()]).await {
                assert!(
                    Instant::now() < patience,
                    "{number} can't be published: {error}"
                );
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Publishes, whatever the pattern: on pub/sub on and on, until one is heard.
    pub(crate) async fn reaches(&self, numbers: std::ops::Range<u64>) {
        if self.pattern != "pubsub" {
            let count = numbers.end as usize;
            self.publish(numbers).await;
            return self.sees(count).await;
        }
        let before = self.seen().len();
        let patience = Instant::now() + Duration::from_secs(60);
        for number in numbers.start.. {
            self.publish(number..number + 1).await;
            if self.seen().len() > before {
                return;
            }
            assert!(Instant::now() < patience, "nothing was heard");
            sleep(Duration::from_millis(20)).await;
        }
    }
}
