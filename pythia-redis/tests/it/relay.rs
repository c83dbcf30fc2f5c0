//! A connection to a server that loses answers on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Passes everything on between clients and a server, until it is told to lose an answer.
#[derive(Debug)]
pub(crate) struct Relay {
    port: u16,
    lose: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let lose = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, Arc::clone(&lose)));
        Self {
            port,
            lose,
            _tasks: tasks,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Drops the next answer of more than `LARGE` bytes, and its connection with it: the server has carried the command out.
    pub(crate) fn lose_next_large_answer(&self) {
        self.lose.store(true, SeqCst);
    }

    pub(crate) fn has_lost_it(&self) -> bool {
        !self.lose.load(SeqCst)
    }
}

async fn accept(listener: TcpListener, server: u16, lose: Arc<AtomicBool>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(pass_on(client, server, Arc::clone(&lose)));
    }
}

async fn pass_on(client: TcpStream, server: u16, lose: Arc<AtomicBool>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async move { copy(&mut from_client, &mut to_server).await.map(drop) };
    let answers = async move {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 || read > LARGE && lose.swap(false, SeqCst) {
                return std::io::Result::Ok(());
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    // Either end closes both.
    tokio::select! {
        _ = requests => {}
        _ = answers => {}
    }
}

/// Larger than the answers to renewals, settles and greetings.
const LARGE: usize = 600;
