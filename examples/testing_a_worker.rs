//! A worker under test: no server, no waiting, and assertions that tell what happened to a message.
//!
//! ```sh
//! cargo run --example testing_a_worker     # runs the tests one after the other
//! ```
//!
//! In a project of one's own these are functions under `#[tokio::test(start_paused = true)]`; docs/test.md has more.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::time::Duration;

use pythia_core::settlement::DeadKind;
use pythia_core::testing::{FaultyBroker, Operation, TestWorker, for_every_fault};
use pythia_core::{Job, MemoryBroker, Message, Producer, WorkError, Worker};

/// Sends a mail, and asks for a rating a day later.
struct Welcome {
    mails: Producer,
}

impl Worker for Welcome {
    type Input = String;
    type Output = ();

    async fn process(&self, job: &Job<String>) -> Result<(), WorkError> {
        let name = &job.input;
        if name.is_empty() {
            return Err(WorkError::permanent("nobody is not welcome"));
        }
        if name == "Ada" && job.attempt() < 3 {
            return Err(WorkError::retryable("the mailbox is full"));
        }
        self.mails
            .send("mails", &format!("welcome, {name}"))
            .await?;
        let rating = self.mails.message(&format!("how is it, {name}?"))?;
        let later = rating.delay(Duration::from_hours(24));
        self.mails.publish("mails", later).await?;
        Ok(())
    }
}

// #[tokio::test(start_paused = true)]
async fn a_full_mailbox_is_tried_again() {
    let broker = MemoryBroker::new();
    let mails = Producer::new(broker.clone());
    let mut test = TestWorker::new(Welcome { mails }).on(broker);
    let ada = test.send("Ada").await;
    let nobody = test.send("").await;
    let junk = test
        .publish(Message::new("no JSON").header("tenant", "acme"))
        .await;
    test.run_until_idle().await;

    test.message(&ada).assert_acked().assert_attempts(3);
    test.message(&nobody).assert_dead(DeadKind::Permanent);
    test.message(&junk).assert_dead(DeadKind::Decode);
    let mails: Vec<String> = test.take_json("mails").await;
    assert_eq!(mails, ["welcome, Ada"]);
    assert_eq!(test.delayed("mails").await.len(), 1);
    for message in test.messages() {
        print!("{message}");
    }
}

// #[tokio::test(start_paused = true)]
async fn a_lost_reply_does_no_harm() {
    let broker = FaultyBroker::in_memory();
    let faults = broker.faults().clone();
    let mails = Producer::new(MemoryBroker::new());
    let mut test = TestWorker::new(Welcome { mails }).on(broker);
    let bob = test.send("Bob").await;
    faults.lose_reply(Operation::Settle); // of the next one
    test.run_until_idle().await;
    test.message(&bob).assert_acked().assert_attempts(1);
}

// #[tokio::test(start_paused = true)]
async fn no_single_fault_loses_a_message() {
    let runs = for_every_fault(MemoryBroker::new, async |broker| {
        let mails = Producer::new(MemoryBroker::new());
        let mut test = TestWorker::new(Welcome { mails }).on(broker);
        test.send("Ada").await;
        test.run_until_idle().await;
        test.assert_all_acked();
    });
    let operations = runs.await.operations.len();
    println!("{operations} operations of the broker failed, each in a run of its own, twice");
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    // Each failed attempt would be logged; the tests tell more.
    a_full_mailbox_is_tried_again().await;
    a_lost_reply_does_no_harm().await;
    no_single_fault_loses_a_message().await;
    println!("all tests passed");
}
