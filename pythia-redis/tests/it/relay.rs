//! A connection to a server that loses answers on demand.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Passes everything on between clients and a server, until it is told to lose an answer.
#[derive(Debug)]
pub(crate) struct Relay {
    port: u16,
    lose: Arc<AtomicBool>,
    lose_to: Arc<Mutex<Option<&'static str>>>,
    _tasks: JoinSet<()>,
}

impl Relay {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let lose = Arc::new(AtomicBool::new(false));
        let lose_to = Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(
            listener,
            server,
            Arc::clone(&lose),
            Arc::clone(&lose_to),
        ));
        Self {
            port,
            lose,
            lose_to,
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

    /// Drops the answer to the next request that contains this text, and its connection with it.
    pub(crate) fn lose_next_answer_to(&self, request: &'static str) {
        *self.lose_to.lock().expect("no test panics in it") = Some(request);
    }

    pub(crate) fn has_lost_it(&self) -> bool {
        !self.lose.load(SeqCst) && self.lose_to.lock().expect("no test panics in it").is_none()
    }
}

async fn accept(
    listener: TcpListener,
    server: u16,
    lose: Arc<AtomicBool>,
    lose_to: Arc<Mutex<Option<&'static str>>>,
) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(pass_on(
            client,
            server,
            Arc::clone(&lose),
            Arc::clone(&lose_to),
        ));
    }
}

async fn pass_on(
    client: TcpStream,
    server: u16,
    lose: Arc<AtomicBool>,
    lose_to: Arc<Mutex<Option<&'static str>>>,
) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let lose_this = AtomicBool::new(false);
    let requests = async {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = from_client.read(&mut buffer).await?;
            if read == 0 {
                return std::io::Result::Ok(());
            }
            let request = String::from_utf8_lossy(&buffer[..read]);
            let meant = |text: &mut &str| request.contains(*text);
            if lose_to
                .lock()
                .expect("no test panics in it")
                .take_if(meant)
                .is_some()
            {
                lose_this.store(true, SeqCst);
            }
            to_server.write_all(&buffer[..read]).await?;
        }
    };
    let answers = async {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = from_server.read(&mut buffer).await?;
            let lost = lose_this.load(SeqCst) || read > LARGE && lose.swap(false, SeqCst);
            if read == 0 || lost {
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
