//! Integration tests against a real Redis, in one binary: one module a subject.

mod pubsub;
mod store;
