//! What can go wrong when metrics are set up. Once they are, nothing that goes wrong here reaches a message.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Why metrics can't be registered or served. The text says what to do.
pub struct MetricsError {
    kind: MetricsErrorKind,
    message: String,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricsErrorKind {
    /// Something listens on the address already.
    AddressInUse,
    /// The registry has metrics of that name already.
    AlreadyRegistered,
    /// The server can't listen on the address.
    Bind,
    /// The registry refuses the metrics.
    Register,
}

impl MetricsError {
    /// What went wrong.
    pub const fn kind(&self) -> MetricsErrorKind {
        self.kind
    }

    /// Whether another address may be all that is needed.
    pub fn is_address_in_use(&self) -> bool {
        self.kind == MetricsErrorKind::AddressInUse
    }

    pub(crate) fn bind(address: SocketAddr, error: &io::Error) -> Self {
        let (kind, advice) = match error.kind() {
            io::ErrorKind::AddrInUse => (
                MetricsErrorKind::AddressInUse,
                "something else, perhaps another worker, listens there: set `metrics.address` to a free one, or its \
                 port to 0 for any that is free",
            ),
            io::ErrorKind::PermissionDenied => (
                MetricsErrorKind::Bind,
                "set `metrics.address` to a port above 1023",
            ),
            _ => (
                MetricsErrorKind::Bind,
                "set `metrics.address` to an address of this machine",
            ),
        };
        Self {
            kind,
            message: format!("could not listen on {address}: {error}; {advice}"),
        }
    }

    pub(crate) fn register(error: &prometheus::Error) -> Self {
        match error {
            prometheus::Error::AlreadyReg => Self {
                kind: MetricsErrorKind::AlreadyRegistered,
                message: "could not register the metrics: this registry has them already; register one observer and \
                          clone it for each runner"
                    .into(),
            },
            error => Self {
                kind: MetricsErrorKind::Register,
                message: format!("could not register the metrics: {error}"),
            },
        }
    }
}

impl fmt::Display for MetricsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for MetricsError {
    /// `main` prints errors by `Debug`, so it reads as text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetricsError: {}", self.message)
    }
}

/// The cause is part of the text, so it is not offered as a source as well.
impl Error for MetricsError {}
