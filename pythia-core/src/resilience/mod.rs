//! Mechanisms that keep a worker going when it, or what it depends on, does not: one a file, each with its settings
//! beside it, each with its switch.
//!
//! ```text
//!  broker                                                                            broker
//!    |                                                                                 ^
//!    v          fetch                                process                           |
//!  rate ──> gate ──> receive ──> decode ──> breaker > timeout > catch_panic > layers > worker ──> settlement::decide
//!             ^                               |                                                       ^
//!             └── shut, limited, open ────────┘                                             retry ────┘
//! ```
//!
//! The order is fixed, and each place has its reason. The breaker is outermost, so that a time-out and a panic count as
//! failures. The timeout is outside of the panic isolation, so that it never has to drop a future that has panicked.
//! Both are outside of the user's layers, which may hang or panic as well as the worker. Retry is not a layer: it is the
//! schedule that [`decide`](crate::settlement::decide) asks, and the message waits in the broker. Rate and gate stand
//! before the read, so that what may not run stays where other workers can take it.

mod backoff;
mod breaker;
mod catch_panic;
mod gate;
mod guard;
mod rate;
mod retry;
mod timeout;
mod window;

pub use backoff::{Backoff, Jitter};
pub use breaker::{BreakerConfig, BreakerState};
pub use rate::RateLimit;
pub use retry::{Retry, RetryConfig};
pub use timeout::TimeoutConfig;

pub(crate) use catch_panic::discard;
pub(crate) use gate::{Allowance, Gate};
pub(crate) use guard::{Guard, Guarded};
pub(crate) use rate::RateLimiter;
