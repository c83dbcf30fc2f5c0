//! The tests of docs/test.md, as they stand there.

use std::time::Duration;

use pythia_core::settlement::DeadKind;
use pythia_core::testing::{FaultyBroker, Operation, TestWorker, for_every_fault};
use pythia_core::{
    Config, Job, MemoryBroker, Message, Producer, Route, WorkError, Worker, worker_fn,
    worker_fn_with,
};
use pythia_redis::testing::RedisServer;
use tokio::time::Instant;

const DAY: Duration = Duration::from_hours(24);

#[derive(serde::Deserialize, serde::Serialize)]
struct Order {
    id: u64,
    card: String,
}

struct Charge;

impl Worker for Charge {
    type Input = Order;
    type Output = ();

    async fn process(&self, job: &Job<Order>) -> Result<(), WorkError> {
        match (job.input.card.as_str(), job.attempt()) {
            ("stolen", _) => Err(WorkError::permanent("the card is stolen")),
            ("declined", 1 | 2) => Err(WorkError::retryable("the card is declined")),
            _ => Ok(()),
        }
    }
}

async fn stolen_cards_are_refused(mut test: TestWorker) {
    let stolen = test
        .send(&Order {
            id: 8,
            card: "stolen".into(),
        })
        .await;
    test.run_until_idle().await;
    test.message(&stolen).assert_dead(DeadKind::Permanent);
}

#[tokio::test(start_paused = true)]
async fn a_declined_card_is_tried_again() {
    let mut test = TestWorker::new(Charge);
    let declined = test
        .send(&Order {
            id: 7,
            card: "declined".into(),
        })
        .await;
    let stolen = test
        .send(&Order {
            id: 8,
            card: "stolen".into(),
        })
        .await;
    test.run_until_idle().await;
    test.message(&declined).assert_acked().assert_attempts(3);
    test.message(&stolen)
        .assert_dead(DeadKind::Permanent)
        .assert_attempts(1);
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_read_is_kept() {
    let mut test = TestWorker::new(Charge);
    let junk = Message::new("no JSON").header("tenant", "acme").delay(DAY);
    let junk = test.publish(junk).await;
    test.run_until_idle().await;
    test.message(&junk).assert_dead(DeadKind::Decode);
    let letters = test.dead_letters().await;
    assert_eq!(letters[0].delivery.payload, "no JSON".into());
}

#[tokio::test(start_paused = true)]
async fn the_schedule_is_the_one_of_production() {
    let config = Config::from_toml(
        "[retry]\nmax_attempts = 4\ninitial_delay = '1d'\njitter = 'none'\nmax_delay = '7d'",
    );
    let never = worker_fn(async |_: &Job<u32>| Err::<(), _>(WorkError::retryable("no")));
    let route = Route::new("reports", never).hard_limit(Duration::from_secs(30));
    let mut test = TestWorker::route(route).config(&config.unwrap());
    let report = test.send(&1).await;
    test.run_until_idle().await;
    assert_eq!(test.message(&report).delays(), [DAY, 2 * DAY, 4 * DAY]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_shop_is_waited_for() {
    let snooze = worker_fn_with(Instant::now(), async |opened: &Instant, _: &Job<u32>| {
        let open = Instant::now().saturating_duration_since(*opened) >= DAY;
        if open {
            Ok(())
        } else {
            Err(WorkError::snooze(DAY))
        }
    });
    let mut test = TestWorker::new(snooze);
    let order = test.send(&1).await;
    test.run_ready().await;
    test.message(&order).assert_delayed(DAY).assert_attempts(0);
    tokio::time::advance(DAY + Duration::from_secs(1)).await;
    test.run_ready().await;
    test.message(&order).assert_acked();
}

#[tokio::test(start_paused = true)]
async fn a_welcome_is_mailed() {
    let broker = MemoryBroker::new();
    let mails = Producer::new(broker.clone());
    let welcome = worker_fn_with(mails, async |mails: &Producer, job: &Job<String>| {
        mails
            .send("mails", &format!("welcome, {}", job.input))
            .await?;
        Ok(())
    });
    let mut test = TestWorker::new(welcome).on(broker);
    test.send("Ada").await;
    test.run_until_idle().await;
    assert_eq!(test.take_json::<String>("mails").await, ["welcome, Ada"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_does_no_harm() {
    let broker = FaultyBroker::in_memory();
    let faults = broker.faults().clone();
    let mut test = TestWorker::new(Charge).on(broker);
    let order = test
        .send(&Order {
            id: 7,
            card: "good".into(),
        })
        .await;
    faults.lose_reply(Operation::Settle); // of the next one: done, but the answer is lost
    test.run_until_idle().await;
    test.message(&order).assert_acked().assert_attempts(1);
}

#[tokio::test(start_paused = true)]
async fn no_single_fault_loses_an_order() {
    for_every_fault(MemoryBroker::new, async |broker| {
        let mut test = TestWorker::new(Charge).on(broker);
        test.send(&Order {
            id: 7,
            card: "declined".into(),
        })
        .await;
        test.run_until_idle().await;
        test.assert_all_acked();
    })
    .await;
}

#[tokio::test]
async fn it_works_on_redis_as_well() {
    let Some(redis) = RedisServer::start_if_installed().await else {
        return;
    };
    for test in [
        TestWorker::new(Charge).on(redis.list()),
        TestWorker::new(Charge).on(redis.stream()),
    ] {
        stolen_cards_are_refused(test).await;
    }
}

#[tokio::test]
async fn a_stolen_card_is_refused_for_good() {
    let order = Order {
        id: 8,
        card: "stolen".into(),
    };
    let refused = Charge.process(&Job::for_test(order)).await;
    assert!(refused.unwrap_err().is_permanent());
}

/// Code is compared without its white space: the formatter wraps it for its own width.
#[test]
fn the_guide_and_the_readme_show_these_tests_as_they_are() {
    let dense = |text: &str| -> String {
        let mut dense: String = text.split_whitespace().collect();
        for (wrapped, joined) in [(",}", "}"), (",)", ")"), (",]", "]")] {
            dense = dense.replace(wrapped, joined);
        }
        dense
    };
    let tests = dense(include_str!("guide.rs"));
    let guide = include_str!("../../docs/test.md");
    let shown: Vec<&str> = guide.split("```rust\n").skip(1).collect();
    assert!(shown.len() > 8);
    let readme = include_str!("../../README.md").split("## Test your worker");
    let readme = readme
        .skip(1)
        .flat_map(|rest| rest.split("```rust,no_run\n").nth(1));
    for block in shown.into_iter().chain(readme) {
        let code = block.split("```").next().unwrap_or_default();
        assert!(tests.contains(&dense(code)), "no such test:\n{code}");
    }
}
