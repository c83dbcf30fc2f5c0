//! For those who test brokers, and what runs on brokers (feature `testing`). How to test a worker is shown in the
//! documentation [of the crate](crate#testing-a-worker).
//!
//! - [`conformance`]: every promise of the contract as a named check, which any broker runs by saying what it can do.
//! - [`FaultyBroker`]: a broker whose n-th operation fails; [`for_every_fault`] repeats a scenario with each of its
//!   operations failing in turn; a [`Ledger`] knows whether anything was lost.
//! - [`EventLog`]: an observer to wait on, in place of a sleep.

pub mod conformance;
mod event_log;
mod faulty;

pub use event_log::{EventLog, Record};
pub use faulty::{FaultRuns, FaultWhen, Faults, FaultyBroker, Ledger, Operation, for_every_fault};
