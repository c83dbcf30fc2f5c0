//! Redis lists, streams and pub/sub for Pythia workers.

// The foundation lands before its users; this line goes when they are in.
#![allow(dead_code, unused_imports)]

pub mod config;
mod connection;
mod error;
mod keys;
mod script;
#[cfg(feature = "testing")]
pub mod testing;
