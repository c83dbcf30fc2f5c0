//! A client that writes and reads raw bytes.

use std::future::Future;
use std::net::SocketAddr;

use pythia_metrics::{MetricsConfig, MetricsServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

pub(crate) fn config() -> MetricsConfig {
    let mut config = MetricsConfig::default();
    config.address.set_port(0);
    config
}

/// Runs `client` beside the server, then stops the server and waits for its end.
pub(crate) async fn served<F: Future>(
    server: MetricsServer,
    client: impl FnOnce(SocketAddr) -> F,
) -> F::Output {
    let address = server.address().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serve = server.serve(async {
        let _dropped = stopped.await;
    });
    let client = async {
        let output = client(address).await;
        drop(stop);
        output
    };
    tokio::join!(serve, client).1
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        headers
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

pub(crate) async fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    let mut stream = connect(address).await;
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    answer(&mut stream).await
}

/// Reads until the server closes.
pub(crate) async fn answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}
