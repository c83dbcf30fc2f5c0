//! A connection to a server that loses answers on demand.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Passes everything on between clients and a server, until it is told to lose an answer. The connection goes with it, and
/// the server has carried the command out.
#[derive(Debug)]
pub(crate) struct Relay {
    port: u16,
    losses: Arc<Losses>,
    _tasks: JoinSet<()>,
}

/// Which answers are to be lost.
#[derive(Debug, Default)]
struct Losses {
    next_large: AtomicBool,
    next_to: Mutex<Option<&'static str>>,
    one_in: AtomicU32,
    hold: Mutex<Option<&'static str>>,
    /// What is held, and the way to the server.
    held: Mutex<Option<(Vec<u8>, OwnedWriteHalf, OwnedReadHalf)>>,
}

impl Relay {
    pub(crate) async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let losses = Arc::new(Losses::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, Arc::clone(&losses)));
        Self {
            port,
            losses,
            _tasks: tasks,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Drops the next answer of more than `LARGE` bytes.
    pub(crate) fn lose_next_large_answer(&self) {
        self.losses.next_large.store(true, SeqCst);
    }

    /// Drops the answer to the next request that contains this text.
    pub(crate) fn lose_next_answer_to(&self, request: &'static str) {
        *self.losses.next_to.lock().expect("no test panics in it") = Some(request);
    }

    /// Drops one answer in so many, by chance. Zero: none.
    pub(crate) fn lose_one_answer_in(&self, answers: u32) {
        self.losses.one_in.store(answers, SeqCst);
    }

    /// Holds the next request that contains this text up, as a slow network does, and drops its connection on this side.
    pub(crate) fn hold_next_request(&self, request: &'static str) {
        *self.losses.hold.lock().expect("no test panics in it") = Some(request);
    }

    /// Delivers what was held up, long after anybody waits for the answer; returns when it is carried out.
    pub(crate) async fn deliver(&self) {
        let held = self
            .losses
            .held
            .lock()
            .expect("no test panics in it")
            .take();
        let (request, mut to_server, mut from_server) = held.expect("a request was held");
        to_server
            .write_all(&request)
            .await
            .expect("the server is there");
        let answered = from_server.read(&mut [0; 64]).await;
        assert!(answered.expect("the server is there") > 0);
    }

    pub(crate) fn has_lost_it(&self) -> bool {
        let next_to = self.losses.next_to.lock().expect("no test panics in it");
        next_to.is_none() && !self.losses.next_large.load(SeqCst)
    }
}

impl Losses {
    fn answer_to(&self, request: &[u8]) -> bool {
        let request = String::from_utf8_lossy(request);
        let meant = |text: &mut &str| request.contains(*text);
        let mut next_to = self.next_to.lock().expect("no test panics in it");
        next_to.take_if(meant).is_some()
    }

    fn is_held(&self, request: &[u8]) -> bool {
        let request = String::from_utf8_lossy(request);
        let meant = |text: &mut &str| request.contains(*text);
        let mut hold = self.hold.lock().expect("no test panics in it");
        hold.take_if(meant).is_some()
    }

    fn answer(&self, len: usize) -> bool {
        let one_in = self.one_in.load(SeqCst);
        len > LARGE && self.next_large.swap(false, SeqCst)
            || one_in > 0 && rand::random_range(0..one_in) == 0
    }
}

async fn accept(listener: TcpListener, server: u16, losses: Arc<Losses>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(pass_on(client, server, Arc::clone(&losses)));
    }
}

async fn pass_on(client: TcpStream, server: u16, losses: Arc<Losses>) {
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
                return std::io::Result::Ok(None);
            }
            if losses.is_held(&buffer[..read]) {
                return Ok(Some(buffer[..read].to_vec()));
            }
            if losses.answer_to(&buffer[..read]) {
                lose_this.store(true, SeqCst);
            }
            to_server.write_all(&buffer[..read]).await?;
        }
    };
    let answers = async {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 || lose_this.load(SeqCst) || losses.answer(read) {
                return std::io::Result::Ok(());
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    // Either end closes both.
    let held = tokio::select! {
        ended = requests => ended.ok().flatten(),
        _ = answers => None,
    };
    if let Some(request) = held {
        let mut slot = losses.held.lock().expect("no test panics in it");
        *slot = Some((request, to_server, from_server));
    }
}

/// Larger than the answers to renewals, settles and greetings.
const LARGE: usize = 600;

/// Passes everything on between clients and a server, with one text of its answers replaced by another as long.
#[derive(Debug)]
pub(crate) struct Forger {
    port: u16,
    _tasks: JoinSet<()>,
}

impl Forger {
    pub(crate) async fn between(server: u16, text: String, forged: String) -> Self {
        assert_eq!(text.len(), forged.len(), "lengths are part of the protocol");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(forge(client, server, text.clone(), forged.clone()));
            }
        });
        Self {
            port,
            _tasks: tasks,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

async fn forge(client: TcpStream, server: u16, text: String, forged: String) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let requests = async { tokio::io::copy(&mut from_client, &mut to_server).await };
    let answers = async {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 {
                return std::io::Result::Ok(());
            }
            let answer = String::from_utf8_lossy(&buffer[..read]).replace(&text, &forged);
            to_client.write_all(answer.as_bytes()).await?;
        }
    };
    // Either end closes both.
    tokio::select! {
        _ = requests => {}
        _ = answers => {}
    }
}
