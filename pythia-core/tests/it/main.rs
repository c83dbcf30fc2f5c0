//! What users of the crate see, from outside.

mod blocking_reads;
mod conformance;
mod drill;
mod event_log;
mod faults;
mod guarantees;
mod health;
mod hooks;
mod memory;
mod observing;
mod panics;
mod precedence;
mod runtime;
mod sampling;
mod settings;
mod signals;
mod test_worker;
