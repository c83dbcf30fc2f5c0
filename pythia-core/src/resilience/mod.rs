//! Mechanisms that keep a worker going, one a file.

mod breaker;
mod retry;

pub use breaker::BreakerState;
pub use retry::Retry;
