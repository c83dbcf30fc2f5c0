//! The pieces of a message's way, one by one: `cargo bench -p benches`.

use std::time::Duration;

use benches::{Prepared, drain};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use pythia_core::codec::{Codec, Encode, Json, MessagePack, Raw};
use pythia_core::envelope::Frame;
use pythia_core::observe::{Event, JobReport, Observer};
use pythia_core::{Job, QueueName, Route, WorkError, worker_fn};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
    customer: String,
    cents: i64,
    note: String,
}

impl Order {
    fn example() -> Self {
        Self {
            id: 123_456,
            customer: "customer-00001234".into(),
            cents: 1_999,
            note: "order of the day".into(),
        }
    }
}

/// Fetch, dispatch and settle, from a broker that costs nothing: by the size of a fetch, and by what is switched on.
fn dispatch(criterion: &mut Criterion) {
    const MESSAGES: u64 = 20_000;
    let mut group = criterion.benchmark_group("dispatch");
    group
        .throughput(Throughput::Elements(MESSAGES))
        .sample_size(20);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let mut case = |name: &str, settings: &str| {
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                let worker = worker_fn(async |_: &Job<Bytes>| Ok::<_, WorkError>(()));
                let route = Route::new("orders", worker).codec(Raw);
                let broker = Prepared::new(MESSAGES, &b"a body"[..]);
                let drained = runtime.block_on(drain(broker, route, MESSAGES, settings));
                drained.expect("it runs");
            });
        });
    };
    for batch in [1, 16, 256] {
        case(
            &format!("batch {batch}"),
            &format!("[worker]\nbatch = {batch}\n{REST}"),
        );
    }
    let off = "isolate_panics = false\n[breaker]\nenabled = false\n[retry]\nenabled = false";
    case(
        "batch 256, no guards",
        &format!("[worker]\nbatch = 256\n{BARE}\n{off}"),
    );
    case(
        "batch 256, no breaker",
        &format!("[worker]\nbatch = 256\n{REST}\n[breaker]\nenabled = false"),
    );
    group.finish();
}

fn envelope(criterion: &mut Criterion) {
    let mut frame = Frame::new(&b"{\"id\":123456,\"customer\":\"customer-00001234\"}"[..]);
    frame.id = Some("0123456789abcdef0123456789abcdef".into());
    frame.headers.insert(
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    );
    let encoded = frame.encode();
    criterion.bench_function("envelope/encode", |bencher| bencher.iter(|| frame.encode()));
    criterion.bench_function("envelope/decode", |bencher| {
        bencher.iter(|| Frame::decode(encoded.clone()));
    });
}

fn codec(criterion: &mut Criterion) {
    fn both<C: Codec<Order> + Encode<Order>>(criterion: &mut Criterion, name: &str, codec: &C) {
        let order = Order::example();
        let payload = codec.encode(&order).expect("it can be written");
        criterion.bench_function(&format!("codec/{name}, encode"), |bencher| {
            bencher.iter(|| codec.encode(&order));
        });
        criterion.bench_function(&format!("codec/{name}, decode"), |bencher| {
            bencher.iter(|| codec.decode(&payload));
        });
    }
    both(criterion, "json", &Json);
    both(criterion, "messagepack", &MessagePack);
}

/// One event tells of a whole batch.
fn observer(criterion: &mut Criterion) {
    let registry = prometheus::Registry::new();
    let observer = pythia_metrics::PrometheusObserver::register(&registry).expect("metrics");
    let queue = QueueName::new("orders").expect("a name");
    let report = JobReport {
        failure: None,
        took: Duration::from_micros(12),
        waited: Some(Duration::from_millis(3)),
    };
    let jobs = [report; 256];
    let mut group = criterion.benchmark_group("observer");
    group.throughput(Throughput::Elements(256));
    group.bench_function("256 jobs", |bencher| {
        bencher.iter(|| {
            observer.on_event(&Event::Processed {
                queue: &queue,
                jobs: &jobs,
            })
        });
    });
    group.finish();
}

const REST: &str = "concurrency = 512\nlanes = 1\n[timeout]\nhard = \"30s\"";
const BARE: &str = "concurrency = 512\nlanes = 1";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    dispatch(&mut criterion);
    envelope(&mut criterion);
    codec(&mut criterion);
    observer(&mut criterion);
    criterion.final_summary();
}
