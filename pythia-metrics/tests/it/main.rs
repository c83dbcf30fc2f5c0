//! The crate as its users see it: events in, text out, over HTTP.

mod bounds;
mod clients;
mod docs;
mod end_to_end;
mod events;
mod exposition;
mod health;
mod http;
mod metrics;
mod promtool;
mod properties;
mod registry;
mod samples;
mod server;
mod settings;
