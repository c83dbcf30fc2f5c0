//! Integration tests against a real Redis, in one binary: one module a subject.

mod bench;
mod connections;
mod doctor;
mod health;
mod list;
mod pubsub;
mod relay;
mod settings;
mod store;
mod stream;
mod test_worker;
mod worker;
