//! Clients of another language: Python's redis writes to queues and looks into them, as `docs/troubleshoot.md` says that they
//! are. What it does is in `clients.py`; redis-cli does its part in `tests/pages`.

mod python;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pythia_core::broker::Broker;
use pythia_core::testing::EventLog;
use pythia_core::{Config, Job, Message, Producer, Route, Runner, WorkError, Worker};
use pythia_redis::testing::RedisServer;

#[derive(serde::Deserialize)]
struct Order {
    id: u64,
    item: String,
}

/// Ships everything but bombs, and sofas an hour later.
#[derive(Clone, Default)]
struct Ship(Arc<Mutex<Vec<u64>>>);

impl Worker for Ship {
    type Input = Order;
    type Output = ();

    async fn process(&self, job: &Job<Order>) -> Result<(), WorkError> {
        match &*job.input.item {
            "bomb" => Err(WorkError::permanent("no bombs")),
            "sofa" => Err(WorkError::retry_after(HOUR, "no van is free")),
            _ => {
                self.0.lock().unwrap().push(job.input.id);
                Ok(())
            }
        }
    }
}

/// A server, a broker of a pattern on it, and the Python that is to use both.
struct Bench {
    server: RedisServer,
    broker: Arc<dyn Broker>,
    python: std::path::PathBuf,
}

impl Bench {
    async fn start(pattern: &str) -> Option<Self> {
        let python = python::python()?;
        let server = RedisServer::start().await;
        let settings = format!("broker.type = {pattern:?}\nredis.url = {:?}", server.url());
        let broker = pythia_redis::from_config(&Config::from_toml(&settings).unwrap()).unwrap();
        Some(Self {
            server,
            broker,
            python,
        })
    }

    /// A step of clients.py, started.
    fn begin(&self, step: &str) -> Child {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/clients.py");
        Command::new(&self.python)
            .arg(script)
            .args([&self.server.port().to_string(), step])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    async fn python(&self, step: &str) {
        end(self.begin(step), step).await;
    }

    /// Runs the worker until so many messages are settled, and answers which orders it has shipped.
    async fn ship(&self, messages: u64, meanwhile: impl Future<Output = ()>) -> Vec<u64> {
        let worker = Ship::default();
        let shipped = Arc::clone(&worker.0);
        let log = Arc::new(EventLog::new());
        let runner = Runner::builder()
            .route(&self.broker, Route::new("orders", worker))
            .observer(Arc::clone(&log))
            .build()
            .unwrap();
        let settled = log.wait_settled(messages);
        let (summary, ()) = tokio::join!(runner.run_until(settled), meanwhile);
        summary.unwrap();
        let mut shipped = shipped.lock().unwrap().clone();
        shipped.sort_unstable();
        shipped
    }

    /// What a producer sends that has more to say than a payload.
    async fn send_a_bed(&self) {
        let bed = serde_json::json!({"id": 4, "item": "bed"});
        let message = Message::new(bed.to_string());
        let message = message.id("order-4").header("tenant", "acme");
        let producer = Producer::new(Arc::clone(&self.broker));
        producer.publish("orders", message).await.unwrap();
    }
}

/// Waits for a step, which fails by an assertion of Python's.
async fn end(step: Child, name: &str) {
    let output = tokio::task::spawn_blocking(|| step.wait_with_output());
    let output = output.await.unwrap().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} failed:\n{errors}");
    assert!(output.stdout.ends_with(b"ok\n"), "{name} has done nothing");
}

#[tokio::test]
async fn python_and_a_worker_share_a_list() {
    let Some(bench) = Bench::start("list").await else {
        return;
    };
    bench.python("list_write").await;
    assert_eq!(bench.ship(4, async {}).await, [1]);
    bench.python("list_look").await;
    bench.send_a_bed().await;
    bench.python("list_read").await;
}

#[tokio::test]
async fn python_and_a_worker_share_a_stream() {
    let Some(bench) = Bench::start("stream").await else {
        return;
    };
    bench.python("stream_write").await;
    assert_eq!(bench.ship(4, async {}).await, [1]);
    bench.python("stream_look").await;
    bench.send_a_bed().await;
    bench.python("stream_read").await;
    // The lamp that came while no worker was there, and the bed.
    assert_eq!(bench.ship(2, async {}).await, [1, 4]);
}

#[tokio::test]
async fn python_and_a_worker_share_a_channel() {
    let Some(bench) = Bench::start("pubsub").await else {
        return;
    };
    let write = async {
        // A channel remembers nothing, so the worker has to be there first.
        let listening = || bench.server.cli(&["PUBSUB", "NUMSUB", "orders"]);
        while !listening().await.ends_with('1') {}
        bench.python("pubsub_write").await;
    };
    assert_eq!(bench.ship(1, write).await, [1]);

    let mut listener = bench.begin("pubsub_read");
    let mut lines = BufReader::new(listener.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "listening\n");
    bench.send_a_bed().await;
    line.clear();
    lines.read_to_string(&mut line).unwrap();
    let output = listener.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && line == "ok\n", "{errors}");
}

const HOUR: Duration = Duration::from_secs(3600);
