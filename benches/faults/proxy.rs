//! The network between the workers and Redis, with its faults.

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Passes everything on between clients and one server, as well as its network does.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    network: watch::Sender<Network>,
    connections: AtomicU64,
    /// One answer in so many is lost, and its connection with it; zero: none.
    losing: AtomicU32,
    lost: Mutex<BTreeMap<&'static str, u64>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Network {
    /// Connections with a lower number end.
    cut_below: u64,
    /// What is sent on connections with a lower number goes nowhere.
    deaf_below: u64,
    /// As the last, for all that are made meanwhile.
    partitioned: bool,
    delay: Duration,
    /// None: as fast as it goes.
    bytes_per_second: Option<u32>,
}

impl Proxy {
    pub(crate) async fn to(server: u16) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            network: watch::Sender::default(),
            connections: AtomicU64::new(0),
            losing: AtomicU32::new(0),
            lost: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, Arc::clone(&shared)));
        Ok(Self {
            port,
            shared,
            _tasks: tasks,
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends all connections, now.
    pub(crate) fn cut(&self) {
        let next = self.shared.connections.load(Relaxed);
        self.shared
            .network
            .send_modify(|network| network.cut_below = next);
    }

    /// All connections stay, and nothing that is sent on them arrives any more. New ones work.
    pub(crate) fn deafen(&self) {
        let next = self.shared.connections.load(Relaxed);
        self.shared
            .network
            .send_modify(|network| network.deaf_below = next);
    }

    /// Nothing arrives any more, on new connections neither, until this is taken back; those of that time stay deaf.
    pub(crate) fn partition(&self, partitioned: bool) {
        let next = self.shared.connections.load(Relaxed);
        self.shared.network.send_modify(|network| {
            network.partitioned = partitioned;
            network.deaf_below = next;
        });
    }

    /// Everything takes that much longer, in each direction.
    pub(crate) fn delay(&self, delay: Duration) {
        self.shared
            .network
            .send_modify(|network| network.delay = delay);
    }

    /// Each direction of each connection passes so many bytes in a second.
    pub(crate) fn throttle(&self, bytes_per_second: Option<u32>) {
        self.shared
            .network
            .send_modify(|network| network.bytes_per_second = bytes_per_second);
    }

    /// Loses one answer in so many, and the connection with it: the server has carried the command out. Zero: none.
    pub(crate) fn lose_one_answer_in(&self, answers: u32) {
        self.shared.losing.store(answers, Relaxed);
    }

    /// How many answers were lost, by what was asked.
    pub(crate) fn lost(&self) -> BTreeMap<&'static str, u64> {
        self.shared
            .lost
            .lock()
            .expect("nobody panics with it")
            .clone()
    }
}

async fn accept(listener: TcpListener, server: u16, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let number = shared.connections.fetch_add(1, Relaxed);
        if shared.network.borrow().partitioned {
            shared
                .network
                .send_modify(|network| network.deaf_below = number + 1);
        }
        connections.spawn(connection(client, server, number, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(client: TcpStream, server: u16, number: u64, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
        return;
    };
    // Small answers are not to wait for more to send along.
    if client
        .set_nodelay(true)
        .and(server.set_nodelay(true))
        .is_err()
    {
        return;
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asked = Mutex::new("greeting");
    let mut network = shared.network.subscribe();
    let mut cut = pin!(async {
        let _ended = network.wait_for(|network| number < network.cut_below).await;
    });
    // Either end closes both, and so does a cut.
    tokio::select! {
        _ended = pass_on(&mut from_client, &mut to_server, number, &shared, |request| {
            *asked.lock().expect("nobody panics with it") = question(request);
            true
        }) => {}
        _ended = pass_on(&mut from_server, &mut to_client, number, &shared, |_answer| {
            let losing = shared.losing.load(Relaxed);
            if losing == 0 || rand::random_range(0..losing) > 0 {
                return true;
            }
            let asked = *asked.lock().expect("nobody panics with it");
            *shared.lost.lock().expect("nobody panics with it").entry(asked).or_default() += 1;
            false
        }) => {}
        () = &mut cut => return,
    }
    // But not where nothing arrives any more: a server does not hear that its client is gone, and goes on serving it.
    if number < shared.network.borrow().deaf_below {
        let mut nowhere = tokio::io::sink();
        tokio::select! {
            _ended = tokio::io::copy(&mut from_server, &mut nowhere) => {}
            () = cut => {}
        }
    }
}

/// One direction. What `may_pass` refuses ends the connection.
async fn pass_on(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    number: u64,
    shared: &Shared,
    may_pass: impl Fn(&[u8]) -> bool + Send + Sync,
) -> io::Result<()> {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let reading = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 || !may_pass(&buffer[..read]) {
                return io::Result::Ok(());
            }
            let network = *shared.network.borrow();
            let chunk = (Instant::now() + network.delay, buffer[..read].to_vec());
            if number >= network.deaf_below && sender.send(chunk).await.is_err() {
                return Ok(());
            }
        }
    };
    let writing = async {
        while let Some((due, chunk)) = receiver.recv().await {
            sleep_until(due).await;
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let network = *shared.network.borrow();
                if number < network.deaf_below {
                    break;
                }
                let Some(rate) = network.bytes_per_second else {
                    to.write_all(rest).await?;
                    break;
                };
                // A tenth of a second's worth at a time.
                let some = rest.len().min((rate / 10).max(1) as usize);
                to.write_all(&rest[..some]).await?;
                rest = &rest[some..];
                sleep(Duration::from_secs_f64(some as f64 / f64::from(rate))).await;
            }
        }
        io::Result::Ok(())
    };
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}

/// What a request asks for, as far as its text tells.
fn question(request: &[u8]) -> &'static str {
    let has = |text: &str| {
        request
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    let questions = [
        ("XREADGROUP", "read"),
        ("BLMOVE", "read"),
        ("BLMPOP", "read"),
        ("SUBSCRIBE", "subscribe"),
        ("PING", "ping"),
        ("EVAL", "script"),
    ];
    let found = questions.into_iter().find(|(text, _)| has(text));
    found.map_or("other", |(_, question)| question)
}
