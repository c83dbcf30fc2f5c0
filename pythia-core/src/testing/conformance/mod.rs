//! The conformance suite: every promise of the broker contract as one named check.
//!
//! An adapter gives an async function that makes a fresh broker and an empty queue for each check, says in
//! [`Capabilities`] what the broker can do, and has all checks as tests of its own:
//!
//! ```
//! # use std::sync::Arc;
//! # use pythia_core::{MemoryBroker, QueueName};
//! use pythia_core::testing::conformance::{Capabilities, Setup};
//!
//! async fn setup() -> Setup {
//!     let broker = MemoryBroker::new();
//!     let mut capabilities = Capabilities::at_least_once();
//!     capabilities.virtual_time = true;
//!     Setup::new(Arc::new(broker), QueueName::new("orders").unwrap(), capabilities)
//! }
//!
//! pythia_core::conformance_tests!(#[tokio::test(start_paused = true)] setup);
//! # fn main() {}
//! ```
//!
//! A check of something that the broker can't do asserts the opposite: that it refuses, and drops nothing silently.
//! Give brokers in real time a lease of about a second: each check that a worker died waits for one, and a lease
//! shorter than a hiccup of the test's machine makes live workers look dead.
//!
//! | file | promises |
//! |---|---|
//! | `publishing.rs` | what arrives, in which order, when; what is refused |
//! | `settling.rs` | a message leaves only when settled; retries, snoozes, releases, dead letters |
//! | `leases.rs` | crashes, renewal, lost leases, suspects, closing |
//! | `subscribing.rs` | who gets what: one worker, one worker of each group, or every subscription; at most once |
//! | `operating.rs` | depth, listing, requeue, purge |
//! | `storing.rs` | values with a time to live |
//! | `faults.rs` | receiving again after every fault |

mod faults;
mod lane;
mod leases;
mod operating;
mod publishing;
mod settling;
mod storing;
mod subscribing;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use self::faults::*;
pub use self::leases::*;
pub use self::operating::*;
pub use self::publishing::*;
pub use self::settling::*;
pub use self::storing::*;
pub use self::subscribing::*;
use crate::admin::Admin;
use crate::broker::{Broker, Guarantee, Published};
use crate::error::BrokerError;
use crate::message::{Message, QueueName};

/// Makes one test of each check.
///
/// Takes the attribute that makes a test of an async function, and an async function that makes a
/// [`Setup`](crate::testing::conformance::Setup): see [the suite](crate::testing::conformance).
#[macro_export]
macro_rules! conformance_tests {
    (#[$test:meta] $setup:expr) => {
        $crate::conformance_tests! { @list [#[$test] $setup] }
    };
    (@list [$($form:tt)*]) => {
        $crate::conformance_tests! { $($form)* =>
            // publishing
            what_is_published_arrives_as_it_was
            a_batch_keeps_its_order
            receive_appends_no_more_than_it_was_asked_for
            receive_waits_a_while_and_returns_without_any
            a_dropped_receive_loses_nothing_if_it_is_cancel_safe
            fields_arrive_as_fields_or_are_refused
            an_oversized_message_is_refused_with_its_whole_batch
            a_dedupe_key_is_published_once
            a_delayed_message_waits_for_its_time
            // settling
            only_settled_messages_leave
            a_batch_is_settled_in_parts_and_in_any_order
            a_settlement_repeated_is_not_done_twice
            a_retry_waits_counts_and_survives_its_worker
            a_snooze_burns_no_attempt
            released_messages_are_back_at_once_with_no_attempt_burnt
            dead_letters_keep_every_byte
            // leases
            a_crash_counts_as_an_attempt
            messages_of_the_dead_are_back_within_a_lease_and_a_tick
            a_renewed_lease_keeps_its_messages
            a_lost_lease_is_told_and_settles_nothing
            a_suspect_is_handed_out_alone
            a_poison_message_dies_without_its_neighbours
            close_hands_back_at_once
            // subscribing
            each_message_goes_to_one_subscription_or_to_all
            a_late_subscription_gets_what_waits_or_nothing
            groups_do_not_see_each_others_retries
            at_most_once_keeps_nothing
            what_is_not_received_before_a_close_is_not_lost
            what_a_slow_subscription_loses_is_counted
            // operating
            depth_tells_how_much_is_where
            dead_letters_are_listed_newest_first
            dead_letters_are_requeued_with_their_counters_at_zero
            delayed_messages_are_listed_by_due_time
            purge_empties_one_state_and_no_other
            // storing
            values_live_as_long_as_they_are_told
            one_of_many_sets_an_absent_value
            // faults
            a_lane_receives_again_after_every_fault
            a_ping_is_answered_again_after_every_fault
        }
    };
    (#[$test:meta] $setup:expr => $($check:ident)*) => {
        $(
            #[$test]
            async fn $check() {
                let setup: $crate::testing::conformance::Setup = ($setup)().await;
                setup.maintained($crate::testing::conformance::$check(&setup)).await;
            }
        )*
    };
    (@futures $setup:expr => $($check:ident)*) => {{
        let checks: Vec<$crate::testing::conformance::NamedCheck> = vec![
            $((
                stringify!($check),
                Box::pin(async {
                    let setup: $crate::testing::conformance::Setup = ($setup)().await;
                    setup.maintained($crate::testing::conformance::$check(&setup)).await;
                }),
            )),*
        ];
        checks
    }};
}

/// Makes a future of each check, in place of a test: for a server that is too dear to start for each of them.
///
/// Takes an async closure or function that makes a [`Setup`](crate::testing::conformance::Setup), each with an empty
/// queue, and answers a vector of [`NamedCheck`](crate::testing::conformance::NamedCheck)s. A check that fails panics.
#[macro_export]
macro_rules! conformance_checks {
    ($setup:expr) => {
        $crate::conformance_tests! { @list [@futures $setup] }
    };
}

/// A check of the suite, by its name.
pub type NamedCheck<'a> = (&'static str, Pin<Box<dyn Future<Output = ()> + 'a>>);

/// What a broker can do, and so what its checks expect.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// What it promises.
    pub guarantee: Guarantee,
    /// Every subscription gets every message that is published while it exists.
    pub fan_out: bool,
    /// One source receives messages in the order in which they were published.
    pub ordered: bool,
    /// Released and recovered messages come back before others, in their old order.
    pub returns_to_head: bool,
    /// It holds delayed messages.
    pub delays: bool,
    /// It recognises dedupe keys.
    pub dedupe: bool,
    /// It carries [`Payload::Fields`](crate::Payload::Fields).
    pub fields: bool,
    /// It has an [`Admin`].
    pub admin: bool,
    /// It has a [`KvStore`](crate::store::KvStore).
    pub store: bool,
    /// The largest message that it takes as it is set up, in bytes, headers included; `None` skips the check.
    pub max_message_bytes: Option<usize>,
    /// How many messages a subscription holds for a slow worker before it drops, as it is set up: 200 at least; `None`
    /// if it never drops.
    pub buffer: Option<usize>,
    /// It follows tokio's clock and runs under paused time, so that "within" can be taken at its word.
    pub virtual_time: bool,
}

impl Capabilities {
    /// All that an at-least-once broker can have. Switch off what yours has not.
    pub const fn at_least_once() -> Self {
        Self {
            guarantee: Guarantee::AtLeastOnce,
            fan_out: false,
            ordered: true,
            returns_to_head: true,
            delays: true,
            dedupe: true,
            fields: true,
            admin: true,
            store: true,
            max_message_bytes: None,
            buffer: None,
            virtual_time: false,
        }
    }

    /// The least that an at-most-once broker has. Switch on what yours has more.
    pub const fn at_most_once() -> Self {
        Self {
            guarantee: Guarantee::AtMostOnce,
            fan_out: false,
            ordered: true,
            returns_to_head: false,
            delays: false,
            dedupe: false,
            fields: false,
            admin: false,
            store: false,
            max_message_bytes: None,
            buffer: None,
            virtual_time: false,
        }
    }
}

/// A fresh broker with an empty queue, for one check.
pub struct Setup {
    broker: Arc<dyn Broker>,
    queue: QueueName,
    capabilities: Capabilities,
    other_group: Option<Arc<dyn Broker>>,
    faults: Vec<Fault>,
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

struct Fault {
    name: &'static str,
    strike: Box<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>,
}

impl Setup {
    /// A broker, a queue of it that nobody else uses, and what can be expected of them.
    pub fn new(broker: Arc<dyn Broker>, queue: QueueName, capabilities: Capabilities) -> Self {
        Self {
            broker,
            queue,
            capabilities,
            other_group: None,
            faults: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// The same queue as another consumer group sees it.
    #[must_use]
    pub fn other_group(mut self, broker: Arc<dyn Broker>) -> Self {
        self.other_group = Some(broker);
        self
    }

    /// Something that may befall the broker and that it has to get over: a restart, a dropped connection. The future
    /// ends when it has struck; the broker need not be back by then.
    #[must_use]
    pub fn fault<Fut: Future<Output = ()> + Send + 'static>(
        mut self,
        name: &'static str,
        strike: impl Fn() -> Fut + Send + Sync + 'static,
    ) -> Self {
        self.faults.push(Fault {
            name,
            strike: Box::new(move || Box::pin(strike())),
        });
        self
    }

    /// Keeps something until the check is over: a server, a directory.
    #[must_use]
    pub fn keep(mut self, kept: impl Any + Send + Sync) -> Self {
        self.kept.push(Box::new(kept));
        self
    }

    /// Runs a check beside the rounds of upkeep that a runner would make.
    pub async fn maintained<R>(&self, check: impl Future<Output = R> + Send) -> R {
        let rounds = async {
            loop {
                for broker in [Some(&self.broker), self.other_group.as_ref()] {
                    if let Some(broker) = broker
                        && let Err(error) = broker.maintain(&self.queue, MAX_ATTEMPTS).await
                    {
                        // While a fault lasts; a check that needs upkeep fails without it.
                        eprintln!("upkeep failed: {error}");
                    }
                }
                sleep(TICK).await;
            }
        };
        tokio::select! {
            biased;
            result = check => result,
            () = rounds => unreachable!("rounds go on for ever"),
        }
    }

    async fn publish(&self, batch: Vec<Message>) -> Vec<Published> {
        self.try_publish(batch)
            .await
            .expect("the broker takes these messages")
    }

    async fn try_publish(&self, batch: Vec<Message>) -> Result<Vec<Published>, BrokerError> {
        self.broker.publish(&self.queue, batch).await
    }

    /// The broker's [`Admin`]; the check for its absence is in `operating.rs`.
    fn admin(&self) -> &dyn Admin {
        self.broker
            .admin()
            .expect("a broker that declares `admin` has one")
    }

    /// Waits until nothing is ready, pending or delayed: nothing is on its way to anyone.
    async fn drained(&self) {
        if self.capabilities.admin {
            self.eventually("the queue is empty", || async {
                let depth = self.admin().depth(&self.queue).await.expect("depth");
                [depth.ready, depth.pending, depth.delayed]
                    .into_iter()
                    .flatten()
                    .all(|count| count == 0)
            })
            .await;
        }
    }

    /// Polls until the condition holds.
    async fn eventually<Fut: Future<Output = bool> + Send>(
        &self,
        what: &str,
        condition: impl Fn() -> Fut + Send,
    ) {
        let deadline = Instant::now() + PATIENCE;
        while !condition().await {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
            sleep(TICK).await;
        }
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("broker", &self.broker)
            .field("queue", &self.queue)
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}

/// How many attempts the suite's rounds of upkeep allow.
const MAX_ATTEMPTS: u32 = 5;
/// Between rounds of upkeep, and between looks at a condition.
const TICK: Duration = Duration::from_millis(20);
/// How long a check waits for what must come: far longer than any lease that is sensible here.
const PATIENCE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    /// A check that is written but not named in the macro would never run.
    #[test]
    fn every_check_is_a_test() {
        let macro_text = include_str!("mod.rs");
        for file in [
            include_str!("faults.rs"),
            include_str!("leases.rs"),
            include_str!("operating.rs"),
            include_str!("publishing.rs"),
            include_str!("settling.rs"),
            include_str!("storing.rs"),
            include_str!("subscribing.rs"),
        ] {
            let checks: Vec<&str> = file
                .lines()
                .filter_map(|line| line.strip_prefix("pub async fn ")?.split('(').next())
                .collect();
            assert!(!checks.is_empty());
            for check in checks {
                let listed = format!("            {check}\n");
                assert!(macro_text.contains(&listed), "{check} is not listed");
            }
        }
    }
}
