//! The runner with each operation of its broker failing in turn, before and after it was carried out: nothing is lost,
//! nothing is acknowledged that was not processed, and the runner goes on.

use std::sync::Arc;
use std::time::Duration;

use pythia_core::admin::Page;
use pythia_core::broker::Broker;
use pythia_core::testing::{FaultRuns, FaultyBroker, Ledger, Operation, for_every_fault};
use pythia_core::{
    Job, MemoryBroker, Message, QueueName, Route, Runner, Summary, WorkError, Worker,
    worker_fn_with,
};
use tokio::time::{Instant, sleep};

type Faulty = Arc<FaultyBroker<MemoryBroker>>;

const MESSAGES: usize = 20;
/// How long a job takes at least.
const PACE: Duration = Duration::from_millis(100);

fn queue() -> QueueName {
    QueueName::new("orders").unwrap()
}

/// Of its jobs one fails once, one fails for good, and one takes so long that its lease has to be renewed.
fn worker(ledger: &Ledger) -> impl Worker<Input = usize, Output = ()> + use<> {
    worker_fn_with(ledger.clone(), async |ledger: &Ledger, job: &Job<usize>| {
        sleep(PACE).await;
        match (job.input, job.attempt()) {
            (3, 1) => return Err(WorkError::retryable("not this time")),
            (5, _) => return Err(WorkError::permanent("never")),
            (7, _) => sleep(Duration::from_secs(40)).await,
            _ => {}
        }
        ledger.processed(job.id());
        Ok(())
    })
}

/// Runs the worker on a broker with some messages, until the future ends.
async fn run(broker: &Faulty, ledger: &Ledger, until: impl Future<Output = ()> + Send) -> Summary {
    let messages = (0..MESSAGES).map(|n| Message::new(n.to_string())).collect();
    ledger.publish(broker.inner(), &queue(), messages).await;
    Runner::builder()
        .route(
            broker,
            Route::new("orders", worker(ledger)).batch(4).concurrency(4),
        )
        .build()
        .unwrap()
        .run_until(until)
        .await
        .unwrap()
}

/// Resolves once nothing is ready, pending or delayed. The drill does not count its looks as operations.
async fn idle(broker: &Faulty) {
    let admin = broker.inner().admin().unwrap();
    let deadline = Instant::now() + Duration::from_secs(500);
    loop {
        let depth = admin.depth(&queue()).await.unwrap();
        if (depth.ready, depth.pending, depth.delayed) == (Some(0), Some(0), Some(0)) {
            return;
        }
        assert!(Instant::now() < deadline, "it went on without {depth:?}");
        sleep(Duration::from_millis(250)).await;
    }
}

fn has_used(runs: &FaultRuns, operations: &[Operation]) {
    for &operation in operations {
        assert!(runs.count(operation) > 0, "{operation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_gets_over_every_single_fault_and_loses_nothing() {
    let runs = for_every_fault(MemoryBroker::new, async |broker: Faulty| {
        let ledger = Ledger::new();
        run(&broker, &ledger, idle(&broker)).await;
        ledger.verify(broker.inner(), &queue()).await;
        let admin = broker.inner().admin().unwrap();
        let dead = admin.dead(&queue(), Page::first(10)).await.unwrap();
        let dead: Vec<_> = dead.iter().map(|letter| &letter.delivery.payload).collect();
        assert_eq!(dead, [&"5".into()]);
        assert_eq!(
            ledger.doubles(),
            0,
            "no fault was long enough to lose a lease"
        );
    })
    .await;
    has_used(
        &runs,
        &[
            Operation::Subscribe,
            Operation::Receive,
            Operation::Settle,
            Operation::Extend,
            Operation::Maintain,
            Operation::Close,
        ],
    );
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_is_stopped_midway_loses_nothing_by_any_single_fault() {
    let runs = for_every_fault(MemoryBroker::new, async |broker: Faulty| {
        let ledger = Ledger::new();
        // Some are done by then, some run, some are fetched and not begun, some wait in the broker.
        let summary = run(&broker, &ledger, sleep(PACE * 5 / 2)).await;
        assert!(summary.settled.acked < MESSAGES as u64, "{summary:?}");
        ledger.verify(broker.inner(), &queue()).await;
    })
    .await;
    has_used(
        &runs,
        &[Operation::Receive, Operation::Settle, Operation::Close],
    );
}

/// The broker is away for a while, again and again, in the midst of it all.
#[tokio::test(start_paused = true)]
async fn a_runner_gets_over_outages_and_loses_nothing() {
    let broker = Arc::new(FaultyBroker::new(MemoryBroker::new()));
    let ledger = Ledger::new();
    let outages = async {
        for length in [1, 5, 20, 60, 300] {
            sleep(Duration::from_secs(7)).await;
            broker.faults().take_down();
            let more = (0..MESSAGES).map(|n| Message::new((100 + n).to_string()));
            ledger
                .publish(broker.inner(), &queue(), more.collect())
                .await;
            sleep(Duration::from_secs(length)).await;
            broker.faults().bring_up();
        }
        idle(&broker).await;
    };
    run(&broker, &ledger, outages).await;
    ledger.verify(broker.inner(), &queue()).await;
}
