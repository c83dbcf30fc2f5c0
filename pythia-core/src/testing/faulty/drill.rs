//! One scenario with each of its operations failing in turn.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::timeout;

use super::{FaultWhen, FaultyBroker, Operation};
use crate::broker::Broker;

/// What [`for_every_fault`] has run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FaultRuns {
    /// The operations of the clean run, in their order. Each has failed twice since, once before and once after it was
    /// carried out.
    pub operations: Vec<Operation>,
}

impl FaultRuns {
    /// How many operations of that kind there were: a scenario that never settles proves nothing about settling.
    pub fn count(&self, operation: Operation) -> usize {
        self.operations
            .iter()
            .filter(|&&run| run == operation)
            .count()
    }
}

/// Runs a scenario cleanly and counts its operations; then, for each of them, runs it again on a fresh broker with that
/// operation failing, once before it is carried out and once after. The scenario asserts what must hold in every run,
/// best by a [`Ledger`](super::Ledger).
///
/// Best under paused time on one thread, where the runs are equal up to the fault.
///
/// # Panics
/// When the scenario does, or hangs; the run is named on standard error.
#[expect(
    clippy::future_not_send,
    reason = "a driver of tests, which stays on its test's thread"
)]
pub async fn for_every_fault<B: Broker>(
    broker: impl Fn() -> B,
    scenario: impl AsyncFn(Arc<FaultyBroker<B>>),
) -> FaultRuns {
    let run = async |fault: Option<(usize, FaultWhen)>| {
        let broker = Arc::new(FaultyBroker::new(broker()));
        let faults = broker.faults().clone();
        if let Some((n, when)) = fault {
            faults.fail(n, when);
        }
        let scenario = timeout(RUN_LIMIT, AssertUnwindSafe(scenario(broker)).catch_unwind());
        let ended = scenario.await;
        let operations = faults.operations();
        if !matches!(ended, Ok(Ok(()))) {
            match fault.and_then(|(n, when)| Some((n, when, operations.get(n - 1)?))) {
                Some((n, when, operation)) => {
                    eprintln!(
                        "in the run whose operation {n} ({operation:?}) failed ({when:?} it was carried out):"
                    );
                }
                None => eprintln!("in a run where nothing has failed:"),
            }
        }
        match ended {
            Ok(Ok(())) => operations,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => panic!("the scenario hangs"),
        }
    };
    let operations = run(None).await;
    for n in 1..=operations.len() {
        for when in [FaultWhen::Before, FaultWhen::After] {
            run(Some((n, when))).await;
        }
    }
    FaultRuns { operations }
}

/// By tokio's clock, so that it costs nothing under paused time.
const RUN_LIMIT: Duration = Duration::from_secs(600);
