//! The circuit breaker: a pure state machine.

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// Messages flow.
    Closed,
    /// A few probes are let through to see whether the trouble is over.
    HalfOpen,
    /// Messages wait in the broker.
    Open,
}
