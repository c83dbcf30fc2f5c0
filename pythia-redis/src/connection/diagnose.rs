//! Why a first connection failed, where its error alone does not say it.

use std::time::Duration;

use fred::types::Version;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::endpoint::Endpoint;
use crate::error::{Kind, RedisError};
use crate::url::{Address, Place};

/// TLS spoken to a port without it shows as a time-out, and the reverse as a connection that is reset. So the port is
/// asked what it speaks.
pub(super) async fn plainly(error: RedisError, endpoint: &Endpoint) -> RedisError {
    let (address, kind) = match &endpoint.server.place {
        Place::Server(address) => (Some(address), ""),
        Place::Cluster(nodes) => (nodes.first(), "-cluster"),
        Place::Sentinel { sentinels, .. } => (sentinels.first(), "-sentinel"),
        Place::Socket(_) => (None, ""),
    };
    let Some(address) = address else {
        return error;
    };
    if !matches!(
        error.kind(),
        Kind::Other | Kind::Protocol | Kind::TimedOut | Kind::Tls | Kind::Unavailable
    ) {
        return error;
    }
    let (question, other) = if endpoint.server.tls {
        (
            PING,
            format!("{address} speaks without TLS on this port; begin its URL with redis{kind}://"),
        )
    } else {
        (
            CLIENT_HELLO,
            format!("{address} expects TLS on this port; begin its URL with rediss{kind}://"),
        )
    };
    match timeout(PATIENCE, ask(address, question)).await {
        Ok(Some(answer)) if speaks_other(answer, endpoint.server.tls) => {
            RedisError::new(Kind::Tls, other)
        }
        _ => error,
    }
}

/// What a version is that is too old, as the server names it; one that it does not name may do.
pub(super) fn refuse_too_old(version: Option<&Version>) -> Result<(), RedisError> {
    match version {
        Some(version) if (version.major, version.minor) < OLDEST => Err(RedisError::new(
            Kind::TooOld,
            format!("this is version {version}"),
        )),
        _ => Ok(()),
    }
}

/// The first byte of the answer.
async fn ask(address: &Address, question: &[u8]) -> Option<u8> {
    let mut stream = TcpStream::connect((address.host.as_str(), address.port))
        .await
        .ok()?;
    stream.write_all(question).await.ok()?;
    let mut first = [0];
    stream.read_exact(&mut first).await.ok()?;
    Some(first[0])
}

const fn speaks_other(answer: u8, tls: bool) -> bool {
    if tls {
        matches!(answer, b'+' | b'-')
    } else {
        answer == TLS_ALERT
    }
}

const PING: &[u8] = b"PING\r\n";
/// A record of TLS with a `ClientHello` that is cut short: a server that speaks TLS answers with an alert, and one that
/// does not waits for the end of a line.
const CLIENT_HELLO: &[u8] = &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0];
const TLS_ALERT: u8 = 0x15;
const PATIENCE: Duration = Duration::from_millis(500);
/// `XAUTOCLAIM`, `BLMOVE`, `ZRANGE .. BYSCORE` and more came with it.
const OLDEST: (u64, u64) = (6, 2);
