//! What metrics cost a message: `cargo bench -p pythia-metrics`.
//!
//! Each line is the best of many short rounds: on a shared machine the others measure the neighbours.

#![expect(
    clippy::print_stdout,
    reason = "a program that prints what it measured"
)]

use std::hint::black_box;
use std::time::Duration;

use pythia_core::observe::{Event, JobReport, Observer, SettledCounts};
use pythia_core::{QueueName, WorkErrorKind};
use pythia_metrics::prometheus::{Registry, TextEncoder};
use pythia_metrics::{FamilyOrGroup, MetricsConfig, PrometheusObserver};
use tokio::time::Instant;

const ROUNDS: usize = 100;

fn main() {
    // `cargo test` builds and runs benches too, to see that they work: one round is enough for that.
    let rounds = if std::env::args().any(|argument| argument == "--bench") {
        ROUNDS
    } else {
        1
    };
    batches(
        "three events a batch: all families",
        rounds,
        &MetricsConfig::default(),
    );
    let mut without = MetricsConfig::default();
    without.disabled_families = ["pythia_job_wait_seconds", "pythia_job_processing_seconds"]
        .map(|name| FamilyOrGroup::new(name).unwrap())
        .into();
    batches(
        "three events a batch: without the two histograms of jobs",
        rounds,
        &without,
    );
    failures(rounds);
    contended(rounds);
    scrape(rounds);
}

/// What a runner reports of a batch of messages: received, processed, settled.
fn report(observer: &PrometheusObserver, queue: &QueueName, jobs: &[JobReport]) {
    let count = jobs.len() as u64;
    observer.on_event(&Event::Received { queue, count });
    observer.on_event(&Event::Processed { queue, jobs });
    let mut counts = SettledCounts::default();
    counts.acked = count;
    let took = Duration::from_micros(300);
    observer.on_event(&Event::Settled {
        queue,
        counts,
        took,
    });
}

/// Jobs that took between a tenth of that time and ten times as long, in no order that a processor could learn.
fn jobs(count: usize, took: Duration) -> Vec<JobReport> {
    let mut seed = 1_u64;
    let mut about = move || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let between_0_and_1 = (seed >> 11) as f64 / (1_u64 << 53) as f64;
        took.mul_f64(100_f64.powf(between_0_and_1) / 10.0)
    };
    (0..count)
        .map(|_| JobReport {
            failure: None,
            took: about(),
            waited: Some(about()),
        })
        .collect()
}

fn batches(title: &str, rounds: usize, config: &MetricsConfig) {
    println!("{title}");
    let observer = PrometheusObserver::register_with(&Registry::new(), config).unwrap();
    let queue = QueueName::new("orders").unwrap();
    for took in [
        Duration::from_micros(1),
        Duration::from_millis(5),
        Duration::from_secs(5),
    ] {
        for size in [1, 10, 100, 1_000] {
            let jobs = jobs(size, took);
            let batches = 50_000 / (size + 10);
            let spent = best(rounds, || {
                for _ in 0..batches {
                    report(black_box(&observer), &queue, black_box(&jobs));
                }
            });
            let each = spent.as_nanos() as f64 / (batches * size) as f64;
            println!(
                "  jobs of about {took:>4.0?}, batches of {size:>5}: {each:>7.1} ns a message"
            );
        }
    }
}

fn failures(rounds: usize) {
    println!("the same, all jobs failing");
    let observer = PrometheusObserver::register(&Registry::new()).unwrap();
    let queue = QueueName::new("orders").unwrap();
    let mut jobs = jobs(100, Duration::from_millis(5));
    for job in &mut jobs {
        job.failure = Some(WorkErrorKind::Retryable { after: None });
    }
    let spent = best(rounds, || {
        (0..500).for_each(|_| report(&observer, &queue, &jobs))
    });
    let each = spent.as_nanos() as f64 / (500 * jobs.len()) as f64;
    println!("  batches of   100: {each:>7.1} ns a message");
}

fn contended(rounds: usize) {
    const BATCHES: usize = 2_000;
    println!("two threads on the same queue at once");
    let observer = PrometheusObserver::register(&Registry::new()).unwrap();
    let queue = QueueName::new("orders").unwrap();
    for size in [10, 100] {
        let jobs = jobs(size, Duration::from_millis(5));
        let spent = best(rounds, || {
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| (0..BATCHES).for_each(|_| report(&observer, &queue, &jobs)));
                }
            });
        });
        let each = spent.as_nanos() as f64 / (BATCHES * size) as f64;
        println!("  batches of {size:>5}: {each:>7.1} ns a message of each thread");
    }
}

fn scrape(rounds: usize) {
    println!("one scrape");
    for queues in [1, 10, 100, 1_000] {
        let registry = Registry::new();
        let observer = PrometheusObserver::register(&registry).unwrap();
        let jobs = jobs(10, Duration::from_millis(5));
        for number in 0..queues {
            report(
                &observer,
                &QueueName::new(&format!("queue-{number}")).unwrap(),
                &jobs,
            );
        }
        let encode = || {
            TextEncoder::new()
                .encode_to_string(&registry.gather())
                .unwrap()
        };
        let spent = best(rounds.min(10), || drop(black_box(encode())));
        println!(
            "  {queues:>5} queues: {spent:>8.1?}, {} kB",
            encode().len() / 1_000
        );
    }
}

fn best(rounds: usize, mut work: impl FnMut()) -> Duration {
    let round = |_| {
        let began = Instant::now();
        work();
        Instant::now().saturating_duration_since(began)
    };
    (0..rounds).map(round).min().unwrap_or_default()
}
