//! What the rows measure, each at a server of its own.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pythia_core::broker::{Broker, Maintained, Subscription};
use pythia_core::observe::{Event, Observer};
use pythia_core::settlement::Settlement;
use pythia_core::{Config, Delivery, Message, QueueName};
use pythia_redis::config::RedisConfig;
use pythia_redis::testing::RedisServer;
use pythia_redis::{ListBroker, PubSubBroker, StreamBroker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

/// A server, and a configuration that leads to it.
pub(super) struct Bench {
    server: RedisServer,
    config: RedisConfig,
}

pub(super) async fn database_written_to(bench: Bench) -> u64 {
    publish(&bench.list(), "orders", numbered(1)).await;
    // "db3:keys=1,expires=0,avg_ttl=0"
    let keyspace = bench.cli("INFO keyspace").await;
    let (_, database) = keyspace.split_once("db").unwrap();
    database.split_once(':').unwrap().0.parse().unwrap()
}

/// Whether the server is asked for what only the doctor asks for: 1, or 0.
pub(super) async fn examinations_at_the_start(bench: Bench) -> u64 {
    let broker = bench.list();
    let _subscription = broker.subscribe(&name("orders")).await.unwrap();
    // By then it would have been: each of these starts a process, on a thread that has nothing else to do.
    for _ in 0..200 {
        if bench
            .cli("INFO commandstats")
            .await
            .contains("cmdstat_config")
        {
            return 1;
        }
    }
    0
}

pub(super) async fn connections_of_a_producer(bench: Bench) -> u64 {
    let broker = bench.list();
    for _ in 0..10 {
        publish(&broker, "orders", numbered(1)).await;
    }
    // redis-cli has one too.
    bench.cli("CLIENT LIST").await.lines().count() as u64 - 1
}

/// While the server takes connections and says nothing.
pub(super) async fn seconds_to_no_connection(bench: Bench) -> u64 {
    bench.seconds_to_fail(&bench.list()).await
}

/// While the server, to which there is a connection, says nothing.
pub(super) async fn seconds_to_no_answer(bench: Bench) -> u64 {
    let broker = bench.list();
    for _ in 0..bench.config.pool_size.get() {
        publish(&broker, "orders", numbered(1)).await;
    }
    bench.server.pause();
    tokio::time::pause();
    let began = Instant::now();
    let got = broker.store().unwrap().get("key").await;
    assert!(got.unwrap_err().is_unavailable());
    Instant::now().saturating_duration_since(began).as_secs()
}

/// Whether a message arrives with these settings: 1, or 0.
pub(super) async fn arrives(bench: Bench) -> u64 {
    let Ok(broker) = ListBroker::new(bench.config.clone()) else {
        return 0;
    };
    u64::from(broker.publish(&name("orders"), numbered(1)).await.is_ok())
}

/// The same at a server that asks for the password `secret`.
pub(super) async fn arrives_with_the_password(bench: Bench) -> u64 {
    bench.cli("CONFIG SET requirepass secret").await;
    arrives(bench).await
}

/// As the broker says where it leads: the default is not to be connected to.
pub(super) async fn port_that_it_leads_to(bench: Bench) -> u64 {
    let shown = format!("{:?}", bench.list());
    let port = shown.trim_end_matches(')').rsplit(':').next();
    port.unwrap().parse().unwrap()
}

/// Whether the server knows this client by the name `app`: 1, or 0.
pub(super) async fn known_as_app(bench: Bench) -> u64 {
    bench
        .cli("ACL SETUSER app on >secret allkeys allchannels allcommands")
        .await;
    let broker = bench.list();
    publish(&broker, "orders", numbered(1)).await;
    let clients = bench.cli("CLIENT LIST").await;
    u64::from(clients.contains(" user=app "))
}

/// The number of the database that a stored value is in.
pub(super) async fn database_of_the_store(bench: Bench) -> u64 {
    let store = bench.list().store().unwrap();
    store.set("key", "value".into(), None).await.unwrap();
    for database in 0..16 {
        let keys = bench.cli(&format!("-n {database} DBSIZE")).await;
        if keys == "1" {
            return database;
        }
    }
    panic!("the value is in no database");
}

/// How often a command is written to a server that hangs up whenever it reads one.
pub(super) async fn times_that_a_lost_command_is_sent(mut bench: Bench) -> u64 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    bench.config.url = Some(url.parse().unwrap());
    let store = bench.list().store().unwrap();
    let mut times = 0;
    let serving = async {
        let mut request = [0; 1024];
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            while let Ok(length @ 1..) = stream.read(&mut request).await {
                let request = String::from_utf8_lossy(&request[..length]);
                if request.contains("GET") {
                    times += 1;
                    break;
                }
                let answer: &[u8] = match &request {
                    request if request.contains("CLIENT") => b":7\r\n",
                    request if request.contains("INFO") => b"$0\r\n\r\n",
                    _ => b"+PONG\r\n",
                };
                stream.write_all(answer).await.unwrap();
            }
        }
    };
    tokio::select! {
        () = serving => {}
        got = timeout(PATIENCE, store.get("key")) => drop(got.unwrap().unwrap_err()),
    }
    times
}

/// While the server, to which there was a connection, is away.
pub(super) async fn seconds_that_publishing_waits(mut bench: Bench) -> u64 {
    let broker = bench.list();
    for _ in 0..bench.config.pool_size.get() {
        publish(&broker, "orders", numbered(1)).await;
    }
    bench.server.kill().await;
    let began = Instant::now();
    let published = broker.publish(&name("orders"), numbered(1)).await;
    assert!(published.unwrap_err().is_unavailable());
    Instant::now().saturating_duration_since(began).as_secs()
}

/// Signs of life that the server is asked for, before a command that follows a second and a half of silence.
pub(super) async fn pings_after_silence(bench: Bench) -> u64 {
    let broker = bench.list();
    publish(&broker, "orders", numbered(1)).await;
    let before = bench.pings().await;
    sleep(Duration::from_millis(1_500)).await;
    publish(&broker, "orders", numbered(1)).await;
    bench.pings().await - before
}

/// Read back from the socket, as the system shows its timer: 0 if it has none.
pub(super) async fn seconds_to_the_first_keepalive(bench: Bench) -> u64 {
    let broker = bench.list();
    publish(&broker, "orders", numbered(1)).await;
    let peer = format!("0100007F:{:04X}", bench.server.port());
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ours = sockets.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        // Of an established connection: those of the server's start linger for a while.
        let is_ours = columns.get(2..4) == Some(&[peer.as_str(), "01"]);
        is_ours.then(|| columns[5].to_owned())
    });
    // `02:` is the timer of keepalive, and what is left of it in hundredths of a second follows.
    let timer = ours.expect("there is a connection");
    match timer.strip_prefix("02:") {
        Some(left) => u64::from_str_radix(left, 16).unwrap().div_ceil(100),
        None => 0,
    }
}

/// From the loss of the only connection to the next answer.
pub(super) async fn millis_to_reconnect(bench: Bench) -> u64 {
    let broker = bench.list();
    publish(&broker, "orders", numbered(1)).await;
    let began = Instant::now();
    assert_eq!(bench.cli("CLIENT KILL TYPE normal").await, "1");
    // Publishing would not wait for so long.
    broker.store().unwrap().get("key").await.unwrap();
    Instant::now().saturating_duration_since(began).as_millis() as u64
}

/// From the loss of the only connection on, while none of the attempts to make another succeeds.
pub(super) async fn millis_to_five_attempts(mut bench: Bench) -> u64 {
    let broker = bench.list();
    publish(&broker, "orders", numbered(1)).await;
    let began = Instant::now();
    bench.server.kill().await;
    let port = (Ipv4Addr::LOCALHOST, bench.server.port());
    let listener = TcpListener::bind(port).await.unwrap();
    for _ in 0..5 {
        let (attempt, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        drop(attempt);
    }
    Instant::now().saturating_duration_since(began).as_millis() as u64
}

/// A list's, a stream's and a channel's, and that of a stored value.
pub(super) async fn names_under_the_prefix(bench: Bench) -> u64 {
    let (list, pubsub) = (bench.list(), bench.pubsub());
    publish(&list, "orders", numbered(1)).await;
    publish(&bench.stream(), "entries", numbered(1)).await;
    let store = list.store().unwrap();
    store.set("key", "value".into(), None).await.unwrap();
    let _subscribed = subscribe(&pubsub, "news").await;
    let keys = bench.cli("KEYS shop:*").await;
    let channels = bench.cli("PUBSUB CHANNELS shop:*").await;
    (keys.lines().count() + channels.lines().count()) as u64
}

/// By the server, which tells living workers from dead ones by them: of a list's worker and of a group's.
pub(super) async fn seconds_of_two_leases(bench: Bench) -> u64 {
    let list = lease(&bench, &bench.list(), "pythia:{orders}:consumers").await;
    bench.cli("FLUSHALL").await;
    list + lease(&bench, &bench.stream(), "pythia:{orders}:consumers:pythia").await
}

async fn lease(bench: &Bench, broker: &dyn Broker, consumers: &str) -> u64 {
    publish(broker, "orders", numbered(1)).await;
    take(&mut subscribe(broker, "orders").await, 1).await;
    let consumer = bench
        .cli(&format!("ZRANGE {consumers} 0 0 WITHSCORES"))
        .await;
    let ends: u64 = consumer.lines().nth(1).unwrap().parse().unwrap();
    let now = bench.cli("TIME").await;
    let now: u64 = now.lines().next().unwrap().parse().unwrap();
    ends / 1_000 - now
}

pub(super) async fn megabytes_refused(bench: Bench) -> u64 {
    let mut refused = 0;
    for (queue, broker) in bench.all_patterns() {
        let megabyte = vec![Message::new(vec![b' '; 1 << 20])];
        refused += u64::from(broker.publish(&name(queue), megabyte).await.is_err());
    }
    refused
}

pub(super) async fn minutes_of_three_dedupe_keys(bench: Bench) -> u64 {
    for (queue, broker) in bench.all_patterns() {
        publish(&*broker, queue, vec![Message::new("1").dedupe_key("one")]).await;
    }
    let mut minutes = 0;
    for key in bench.cli("KEYS *:dedupe:one").await.lines() {
        let millis = bench.cli(&format!("PTTL {key}")).await;
        minutes += millis.parse::<u64>().unwrap() / 60_000;
    }
    minutes
}

/// Of 300 due messages of a list, and of a stream.
pub(super) async fn promoted_at_once(bench: Bench) -> u64 {
    let mut promoted = 0;
    for (queue, broker) in bench.at_least_once() {
        let soon = |message: Message| message.delay(Duration::from_millis(1));
        let batch = numbered(300).into_iter().map(soon).collect();
        publish(&*broker, queue, batch).await;
        promoted += upkeep(&*broker, queue, |done| done.promoted).await;
    }
    promoted
}

/// Of 600 messages of a dead worker of a list, who took 50 at a time, and of a group's.
pub(super) async fn recovered_at_once(bench: Bench) -> u64 {
    let mut recovered = 0;
    for ((queue, broker), at_a_time) in bench.at_least_once().into_iter().zip([50, 600]) {
        publish(&*broker, queue, numbered(600)).await;
        let mut worker = subscribe(&*broker, queue).await;
        for _ in 0..600 / at_a_time {
            take(&mut worker, at_a_time).await;
        }
        recovered += upkeep(&*broker, queue, |done| done.recovered).await;
    }
    recovered
}

pub(super) async fn trimmed_at_once(bench: Bench) -> u64 {
    let broker = bench.stream();
    process(&broker, 1_200).await;
    upkeep(&broker, "orders", |done| done.trimmed).await
}

pub(super) async fn kept_while_it_is_worked_on(bench: Bench) -> u64 {
    let broker = bench.list();
    publish(&broker, "orders", numbered(1)).await;
    take(&mut subscribe(&broker, "orders").await, 1).await;
    bench.cli("KEYS *:batch:*").await.lines().count() as u64
}

pub(super) async fn pending_in_billing(bench: Bench) -> u64 {
    let broker = bench.stream();
    publish(&broker, "orders", numbered(1)).await;
    take(&mut subscribe(&broker, "orders").await, 1).await;
    let summary = bench.cli("XPENDING orders billing").await;
    let pending = summary.lines().next().unwrap().parse();
    pending.unwrap_or_else(|_| {
        assert!(summary.starts_with("NOGROUP"), "{summary}");
        0
    })
}

/// Of three that were there before the group.
pub(super) async fn entries_that_a_new_group_sees(bench: Bench) -> u64 {
    publish(&bench.stream(), "orders", numbered(3)).await;
    entries_before_the_next(bench).await
}

/// Of three that it has passed.
pub(super) async fn entries_that_an_old_group_sees(bench: Bench) -> u64 {
    publish(&bench.stream(), "orders", numbered(3)).await;
    assert_eq!(bench.cli("XGROUP CREATE orders pythia $").await, "OK");
    entries_before_the_next(bench).await
}

/// What a worker that starts now gets before an entry that is added after its start.
async fn entries_before_the_next(bench: Bench) -> u64 {
    let broker = bench.stream();
    let mut worker = subscribe(&broker, "orders").await;
    publish(&broker, "orders", vec![Message::new("last")]).await;
    take_until(&mut worker, "last").await - 1
}

/// Of a thousand that are processed, in the end.
pub(super) async fn entries_kept(bench: Bench) -> u64 {
    let broker = bench.stream();
    process(&broker, 1_000).await;
    while broker.maintain(&name("orders"), 5).await.unwrap().more {}
    bench.cli("XLEN orders").await.parse().unwrap()
}

async fn process(broker: &StreamBroker, count: usize) {
    publish(broker, "orders", numbered(count)).await;
    let mut worker = subscribe(broker, "orders").await;
    let taken = take(&mut worker, count).await;
    let acks: Vec<_> = taken
        .iter()
        .map(|delivery| Settlement::Ack(delivery.receipt))
        .collect();
    worker.settler.settle(&acks).await.unwrap();
}

pub(super) async fn receivers_of_another_channel(bench: Bench) -> u64 {
    let broker = bench.pubsub();
    let _subscribed = subscribe(&broker, "news.*").await;
    bench.cli("PUBLISH news.sport goal").await.parse().unwrap()
}

/// Of sixteen thousand that are published before it looks.
pub(super) async fn lost_to_a_slow_worker(bench: Bench) -> u64 {
    #[derive(Default)]
    struct Lost(AtomicU64);

    impl Observer for Lost {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::Gap { lost, .. } = event {
                self.0.fetch_add(lost.unwrap(), Relaxed);
            }
        }
    }

    let (broker, lost) = (bench.pubsub(), Arc::new(Lost::default()));
    broker.attach(Arc::clone(&lost) as Arc<dyn Observer>);
    let mut worker = subscribe(&broker, "news").await;
    publish(&broker, "news", numbered(16_000)).await;
    let taken = take_until(&mut worker, "15999").await;
    let lost = lost.0.load(Relaxed);
    assert_eq!(taken + lost, 16_000);
    lost
}

impl Bench {
    /// `SERVER` stands for the server's URL, which is configured unless another place is: the default leads to what may be
    /// somebody's Redis. `PORT` is its port; with any of the files `TLS_CA`, `TLS_CERT` and `TLS_KEY`, it speaks TLS.
    pub(super) async fn new(settings: &str) -> Self {
        let server = if settings.contains("TLS_") {
            RedisServer::start_tls(&[]).await
        } else {
            RedisServer::start().await
        };
        let mut toml = settings
            .replace("SERVER", &server.url())
            .replace("PORT", &server.port().to_string());
        if settings.contains("TLS_") {
            for (name, file) in [
                ("TLS_CA", server.ca_file()),
                ("TLS_CERT", server.client_cert_file()),
                ("TLS_KEY", server.client_key_file()),
            ] {
                toml = toml.replace(name, &format!("{:?}", file.display().to_string()));
            }
        }
        if !["redis.url", "redis.host", "redis.port"]
            .iter()
            .any(|setting| toml.contains(setting))
        {
            toml = format!("redis.url = {:?}\n{toml}", server.url());
        }
        let config = Config::from_toml(&toml).unwrap().section("redis").unwrap();
        Self { server, config }
    }

    /// What a plain client is answered to a command without blanks in its arguments.
    async fn cli(&self, command: &str) -> String {
        let words: Vec<_> = command.split_whitespace().collect();
        self.server.cli(&words).await
    }

    async fn pings(&self) -> u64 {
        let stats = self.cli("INFO commandstats").await;
        let calls = stats
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_ping:calls="));
        calls.map_or(0, |calls| calls.split_once(',').unwrap().0.parse().unwrap())
    }

    fn list(&self) -> ListBroker {
        ListBroker::new(self.config.clone()).expect("valid settings")
    }

    fn stream(&self) -> StreamBroker {
        StreamBroker::new(self.config.clone()).unwrap()
    }

    fn pubsub(&self) -> PubSubBroker {
        PubSubBroker::new(self.config.clone()).expect("valid settings")
    }

    /// Each with a queue of its own.
    fn at_least_once(&self) -> Vec<(&'static str, Box<dyn Broker>)> {
        vec![
            ("a-list", Box::new(self.list())),
            ("a-stream", Box::new(self.stream())),
        ]
    }

    fn all_patterns(&self) -> Vec<(&'static str, Box<dyn Broker>)> {
        let mut all = self.at_least_once();
        all.push(("a-channel", Box::new(self.pubsub())));
        all
    }

    /// How long a command waits for a frozen server. Nothing comes from it, so the clock may run ahead.
    async fn seconds_to_fail(&self, broker: &ListBroker) -> u64 {
        self.server.pause();
        tokio::time::pause();
        let began = Instant::now();
        let published = broker.publish(&name("orders"), numbered(1)).await;
        assert!(published.unwrap_err().is_unavailable());
        Instant::now().saturating_duration_since(began).as_secs()
    }
}

fn name(queue: &str) -> QueueName {
    QueueName::new(queue).unwrap()
}

/// Messages numbered from 0.
fn numbered(count: usize) -> Vec<Message> {
    let numbers = 0..count;
    numbers
        .map(|number| Message::new(number.to_string()))
        .collect()
}

async fn publish(broker: &dyn Broker, queue: &str, batch: Vec<Message>) {
    broker.publish(&name(queue), batch).await.unwrap();
}

async fn subscribe(broker: &dyn Broker, queue: &str) -> Subscription {
    broker.subscribe(&name(queue)).await.unwrap()
}

/// The next messages, as many as that.
async fn take(worker: &mut Subscription, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    let enough = async {
        while taken.len() < count {
            let room = count - taken.len();
            worker.source.receive(room, &mut taken).await.unwrap();
        }
    };
    timeout(PATIENCE, enough).await.expect("they come in time");
    taken
}

/// How many messages come until this one has.
async fn take_until(worker: &mut Subscription, last: &str) -> u64 {
    let mut taken = 0;
    let all = async {
        loop {
            let next = take(worker, 1).await.remove(0);
            taken += 1;
            if next.payload.as_bytes().unwrap() == last {
                return;
            }
        }
    };
    timeout(PATIENCE, all).await.expect("they come in time");
    taken
}

/// What the first round of upkeep has done that has done any of it.
async fn upkeep(broker: &dyn Broker, queue: &str, done: fn(&Maintained) -> u64) -> u64 {
    let rounds = async {
        loop {
            let round = broker.maintain(&name(queue), 5).await.unwrap();
            if done(&round) > 0 {
                return done(&round);
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, rounds).await.expect("it is done in time")
}

const PATIENCE: Duration = Duration::from_secs(10);
