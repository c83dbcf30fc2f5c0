//! What users of the crate see, from outside.

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
mod suspects;
mod test_worker;
