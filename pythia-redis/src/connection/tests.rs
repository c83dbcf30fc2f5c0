//! The connections against a real server: started, stopped, frozen and cut off.

use std::sync::Mutex;

use futures_util::StreamExt;
use pythia_core::QueueName;
use tokio::io::copy;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use tokio::time::timeout;

use super::*;
use crate::testing::RedisServer;

/// A hundred messages in, their number and themselves out: what a claim looks like.
static ECHO: Script = Script::new("test/echo", "return {#ARGV, ARGV}");

fn redis(url: &str) -> Redis {
    Redis::new(config(url)).expect("valid settings")
}

fn config(url: &str) -> RedisConfig {
    RedisConfig {
        connect_timeout: Duration::from_secs(2),
        command_timeout: Duration::from_secs(3),
        ..RedisConfig::from_url(url).expect("a valid url")
    }
}

async fn run(
    redis: &Redis,
    name: &'static str,
    args: &[&'static str],
) -> Result<Reply, RedisError> {
    redis
        .pool()
        .command(name, Args::new().args(args.iter().copied()))
        .await
}

async fn pop(reader: &mut Reader, wait: u64) -> Result<Reply, RedisError> {
    let args = Args::new().key("q").arg(wait);
    reader
        .blocking("BRPOP", args, Duration::from_secs(wait))
        .await
}

fn text(reply: &Reply) -> &str {
    reply.text().expect("text")
}

#[test]
fn every_future_may_move_between_threads() {
    fn send<T: Send>(_: T) {}
    let redis = Redis::new(RedisConfig::default()).expect("valid settings");
    let channels = Channels::Exact(Vec::new());
    let (mut reader, mut subscriber) = (redis.reader(), redis.subscriber(1, channels));
    send(redis.pool().command("PING", Args::new()));
    send(redis.pool().eval(&ECHO, &[], Args::new()));
    send(reader.blocking("BRPOP", Args::new(), Duration::ZERO));
    send(reader.eval(&ECHO, &[], Args::new()));
    send(subscriber.next(Duration::ZERO));
}

mod first_connect {
    use super::*;

    async fn failure(url: &str) -> RedisError {
        let began = Instant::now();
        let error = run(&redis(url), "PING", &[])
            .await
            .expect_err("no connection");
        let took = Instant::now() - began;
        assert!(took < Duration::from_secs(1), "{error}: after {took:?}");
        error
    }

    #[tokio::test]
    async fn a_refused_connection_is_named_at_once() {
        let mut server = RedisServer::start().await;
        let url = server.url();
        server.kill().await;
        let error = failure(&url).await;
        assert_eq!(error.kind(), Kind::Unavailable);
        assert_eq!(
            error.to_string(),
            format!("redis is unavailable: no connection to {url}: connection refused")
        );
    }

    #[tokio::test]
    async fn the_next_command_tries_again() {
        let mut server = RedisServer::start().await;
        server.kill().await;
        let redis = redis(&server.url());
        let mut reader = redis.reader();
        run(&redis, "PING", &[])
            .await
            .expect_err("the server is down");
        pop(&mut reader, 1).await.expect_err("the server is down");
        server.restart().await;
        run(&redis, "LPUSH", &["q", "a"]).await.unwrap();
        let [_, a] = pop(&mut reader, 1).await.unwrap().into_tuple().unwrap();
        assert_eq!(text(&a), "a");
    }

    #[tokio::test]
    async fn an_unknown_host_is_named() {
        let error = failure("redis://no-such-host.invalid").await;
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(
            error.to_string().contains("no-such-host.invalid"),
            "{error}"
        );
        assert!(error.to_string().contains("lookup"), "{error}");
    }

    #[tokio::test]
    async fn credentials_are_refused_at_once_and_never_shown() {
        let server = RedisServer::start_with(&["--requirepass", "right"]).await;
        for login in ["", ":wrong%21@", "someone:wrong%21@"] {
            let error = failure(&format!("redis://{login}127.0.0.1:{}", server.port())).await;
            assert_eq!(error.kind(), Kind::Auth, "{login}: {error}");
            assert!(
                !format!("{error} {error:?}").contains("wrong!"),
                "{error:?}"
            );
        }
        run(&redis(&server.url()), "PING", &[]).await.unwrap();
        let shown = format!("{:?}", redis(&server.url()));
        assert!(!shown.contains("right"), "{shown}");
    }

    #[tokio::test]
    async fn a_password_that_the_server_does_not_want_is_no_mistake() {
        let server = RedisServer::start().await;
        run(
            &redis(&format!("redis://:any@127.0.0.1:{}", server.port())),
            "PING",
            &[],
        )
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_database_that_does_not_exist_is_named() {
        let server = RedisServer::start().await;
        let error = failure(&format!("{}/99", server.url())).await;
        assert_eq!(error.kind(), Kind::NoSuchDatabase, "{error}");
        let third = redis(&format!("{}/3", server.url()));
        run(&third, "SET", &["k", "v"]).await.unwrap();
        assert_eq!(server.cli(&["-n", "3", "GET", "k"]).await, "v");
    }

    #[tokio::test]
    async fn a_server_that_takes_the_connection_and_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let redis = Redis::new(RedisConfig {
            connect_timeout: Duration::from_millis(200),
            ..config(&url)
        })
        .expect("valid settings");
        let error = run(&redis, "PING", &[]).await.expect_err("nobody answers");
        assert_eq!(error.kind(), Kind::TimedOut);
        assert!(
            error.to_string().contains("no connection within 200ms"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn many_callers_share_one_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let redis = Redis::new(RedisConfig {
            connect_timeout: Duration::from_millis(200),
            ..config(&url)
        })
        .expect("valid settings");
        let settler = redis.dedicated();
        let began = Instant::now();
        let pings = (0..50).map(|_| settler.command("PING", Args::new()));
        for pong in futures_util::future::join_all(pings).await {
            assert_eq!(pong.expect_err("nobody answers").kind(), Kind::TimedOut);
        }
        assert!(Instant::now() - began < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn many_callers_make_one_connection_and_leave_none_behind() {
        let server = RedisServer::start().await;
        let redis = redis(&server.url());
        let settler = redis.dedicated();
        let pings = (0..50).map(|_| settler.command("PING", Args::new()));
        for pong in futures_util::future::join_all(pings).await {
            assert_eq!(text(&pong.unwrap()), "PONG");
        }
        assert_eq!(connected_clients(&server).await, 1);
        assert_eq!(redis.stats().connected, 1);
        drop(settler);
        let gone = async { while connected_clients(&server).await > 0 {} };
        timeout(Duration::from_secs(5), gone)
            .await
            .expect("the connection is closed");
        assert_eq!(redis.stats().connected, 0);
    }
}

mod running {
    use super::*;

    #[tokio::test]
    async fn a_blocking_read_gives_what_comes_and_nil_when_nothing_does() {
        let server = RedisServer::start().await;
        let redis = redis(&server.url());
        let mut reader = redis.reader();
        assert!(pop(&mut reader, 1).await.unwrap().is_nil());
        let (popped, pushed) = tokio::join!(pop(&mut reader, 1), run(&redis, "LPUSH", &["q", "a"]));
        pushed.unwrap();
        let [queue, a] = popped.unwrap().into_tuple().unwrap();
        assert_eq!((text(&queue), text(&a)), ("q", "a"));
    }

    #[tokio::test]
    async fn commands_go_on_after_a_restart() {
        let mut server =
            RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
        let redis = redis(&server.url());
        let mut reader = redis.reader();
        run(&redis, "LPUSH", &["q", "a"]).await.unwrap();
        run(&redis, "PING", &[]).await.unwrap();
        pop(&mut reader, 1).await.unwrap();

        // One command is on its way when the server dies. It waits for the next one, within its time.
        let (reply, ()) = tokio::join!(run(&redis, "LPUSH", &["q", "b"]), server.restart());
        reply.unwrap();
        let popped = loop {
            match pop(&mut reader, 1).await {
                Ok(reply) => break reply,
                Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{error}"),
            }
        };
        assert_eq!(text(&popped.into_array().unwrap()[1]), "b");
        run(&redis, "PING", &[]).await.unwrap();
        run(&redis, "PING", &[]).await.unwrap();
        let stats = redis.stats();
        assert!(stats.reconnects >= 2, "{stats:?}");
        assert_eq!((stats.connected, stats.in_flight), (3, 0), "{stats:?}");
    }

    #[tokio::test]
    async fn a_server_that_stays_away_is_named_and_nothing_is_sent_late() {
        let mut server = RedisServer::start().await;
        let redis = redis(&server.url());
        let (mut reader, settler) = (redis.reader(), redis.dedicated());
        pop(&mut reader, 1).await.unwrap();
        settler.command("PING", Args::new()).await.unwrap();
        server.kill().await;

        for _ in 0..3 {
            let error = pop(&mut reader, 1).await.expect_err("the server is down");
            assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        }
        let error = pop(&mut reader, 1).await.expect_err("the server is down");
        assert!(error.to_string().contains("connection refused"), "{error}");
        let ping = settler.command("PING", Args::new());
        assert_eq!(
            ping.await.expect_err("the server is down").to_string(),
            "redis did not answer in time: the connection is down: connection refused"
        );
        assert_eq!(redis.stats().connected, 0);

        server.restart().await;
        let back = async { while reader.command("PING", Args::new()).await.is_err() {} };
        timeout(Duration::from_secs(10), back)
            .await
            .expect("connected again");
        run(&redis, "LPUSH", &["q", "a"]).await.unwrap();
        // A read that failed while the server was away would be served here, to nobody.
        assert_eq!(server.cli(&["LLEN", "q"]).await, "1");
    }

    #[tokio::test]
    async fn a_client_that_has_ended_is_replaced() {
        let server = RedisServer::start().await;
        let redis = redis(&server.url());
        let (settler, mut reader) = (redis.dedicated(), redis.reader());
        for _ in 0..2 {
            settler.command("PING", Args::new()).await.unwrap();
            reader.command("PING", Args::new()).await.unwrap();
            // What fred does by itself on an error that it takes for final.
            for link in [&settler.links[0], &reader.link] {
                let live = link.live().await.unwrap();
                live.client.quit().await.unwrap();
                while Arc::ptr_eq(&live, &link.live().await.unwrap()) {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_changed_password_is_named_and_healed_when_it_is_put_back() {
        let server = RedisServer::start_with(&["--requirepass", "one"]).await;
        let redis = redis(&server.url());
        let mut reader = redis.reader();
        reader.command("PING", Args::new()).await.unwrap();
        let admin = redis.dedicated();
        let words = |words: &[&'static str]| Args::new().args(words.iter().copied());
        admin
            .command("CONFIG", words(&["SET", "requirepass", "two"]))
            .await
            .unwrap();
        let others = ["KILL", "TYPE", "normal", "SKIPME", "yes"];
        admin.command("CLIENT", words(&others)).await.unwrap();
        let named = async {
            loop {
                match reader.command("PING", Args::new()).await {
                    Err(error) if error.kind() == Kind::Auth => break error.to_string(),
                    _ => {}
                }
            }
        };
        let error = timeout(Duration::from_secs(10), named)
            .await
            .expect("named");
        assert!(error.contains("WRONGPASS"), "{error}");
        admin
            .command("CONFIG", words(&["SET", "requirepass", "one"]))
            .await
            .unwrap();
        let healed = async { while reader.command("PING", Args::new()).await.is_err() {} };
        timeout(Duration::from_secs(10), healed)
            .await
            .expect("healed");
    }

    #[tokio::test]
    async fn a_pool_passes_over_a_connection_that_is_down() {
        let server = RedisServer::start_with(&["--requirepass", "one"]).await;
        let redis = redis(&server.url());
        let words = |words: &[&'static str]| Args::new().args(words.iter().copied());
        let mut ids = Vec::new();
        for _ in 0..2 {
            let id = run(&redis, "CLIENT", &["ID"]).await.unwrap();
            ids.push(id.as_integer().unwrap().to_string());
        }
        assert_ne!(ids[0], ids[1], "each has its turn");
        let admin = redis.dedicated();
        let set = |password| words(&["SET", "requirepass", password]);
        let kill = |id: &String| words(&["KILL", "ID"]).arg(id.clone());
        admin.command("CONFIG", set("two")).await.unwrap();
        admin.command("CLIENT", kill(&ids[0])).await.unwrap();
        let lost = async {
            while !redis.pool().links[0].is_down() {
                sleep(STATE_POLL).await;
            }
        };
        timeout(Duration::from_secs(10), lost).await.expect("lost");
        for _ in 0..4 {
            let id = run(&redis, "CLIENT", &["ID"]).await.unwrap();
            assert_eq!(id.as_integer().unwrap().to_string(), ids[1]);
        }
        redis.pool().up().await.unwrap();
        admin.command("CLIENT", kill(&ids[1])).await.unwrap();
        let lost = async { while redis.pool().up().await.is_ok() {} };
        timeout(Duration::from_secs(10), lost)
            .await
            .expect("none is up");
        admin.command("CONFIG", set("one")).await.unwrap();
        let back = async { while redis.pool().up().await.is_err() {} };
        timeout(Duration::from_secs(10), back)
            .await
            .expect("one is back");
        run(&redis, "PING", &[]).await.unwrap();
    }

    #[tokio::test]
    async fn a_frozen_server_ends_the_read_and_heals() {
        let server = RedisServer::start().await;
        let redis = redis(&server.url());
        let mut reader = redis.reader();
        pop(&mut reader, 1).await.unwrap();
        server.pause();
        let began = Instant::now();
        let error = pop(&mut reader, 1).await.expect_err("the server is frozen");
        let took = Instant::now() - began;
        assert_eq!(error.kind(), Kind::TimedOut, "{error}");
        assert!(took < Duration::from_secs(8), "{took:?}");
        server.resume();
        run(&redis, "LPUSH", &["q", "a"]).await.unwrap();
        let healed = async { while pop(&mut reader, 1).await.is_err() {} };
        timeout(Duration::from_secs(20), healed)
            .await
            .expect("healed");
    }

    #[tokio::test]
    async fn a_half_open_connection_is_replaced() {
        let server = RedisServer::start().await;
        let line = Line::to(server.port()).await;
        let redis = redis(&line.url());
        let (mut reader, settler) = (redis.reader(), redis.dedicated());
        pop(&mut reader, 1).await.unwrap();
        settler.command("PING", Args::new()).await.unwrap();

        line.cut_silently();
        let began = Instant::now();
        let (popped, answered) = tokio::join!(
            pop(&mut reader, 1),
            settler.command("LPUSH", Args::new().key("other").arg("a"))
        );
        // The writer was not told, and not kept waiting for its whole time-out.
        answered.unwrap();
        assert_eq!(popped.expect_err("cut").kind(), Kind::TimedOut);
        assert!(Instant::now() - began < Duration::from_secs(5));
        // The reader is connected again already.
        pop(&mut reader, 1).await.unwrap();
    }

    #[tokio::test]
    async fn a_half_open_connection_is_replaced_under_load_too() {
        let server = RedisServer::start().await;
        let line = Line::to(server.port()).await;
        let redis = Redis::new(RedisConfig {
            command_timeout: Duration::from_secs(1),
            ..config(&line.url())
        })
        .expect("valid settings");
        let settler = redis.dedicated();
        settler.command("PING", Args::new()).await.unwrap();
        line.cut_silently();
        let mut pings = futures_util::stream::FuturesUnordered::new();
        let mut more = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..80 {
            tokio::select! {
                _ = more.tick() => pings.push(settler.command("PING", Args::new())),
                Some(pong) = pings.next() => if pong.is_ok() { return },
            }
        }
        panic!("no answer over several time-outs");
    }

    /// Renewals are given up after a part of the lease, and made again: as long as nobody waits to the end, somebody has to
    /// find out all the same. The time of a command is over before that of the question, too.
    #[tokio::test]
    async fn a_half_open_connection_is_replaced_though_nobody_waits_for_long() {
        let server = RedisServer::start().await;
        let line = Line::to(server.port()).await;
        let redis = Redis::new(RedisConfig {
            health_check_interval: Duration::from_millis(500),
            command_timeout: Duration::from_secs(1),
            ..config(&line.url())
        })
        .expect("valid settings");
        let settler = redis.dedicated();
        settler.command("PING", Args::new()).await.unwrap();
        line.cut_silently();
        let began = Instant::now();
        while timeout(
            Duration::from_millis(200),
            settler.command("PING", Args::new()),
        )
        .await
        .is_err()
        {
            assert!(Instant::now() - began < Duration::from_secs(5));
        }
    }

    #[tokio::test]
    async fn commands_are_reported_with_their_names() {
        #[derive(Default)]
        struct Seen(Mutex<Vec<(&'static str, bool)>>);
        impl Observer for Seen {
            fn on_event(&self, event: &Event<'_>) {
                if let Event::Command { command, ok, .. } = event {
                    self.0.lock().unwrap().push((command, *ok));
                }
            }
        }
        let server = RedisServer::start().await;
        let redis = redis(&server.url());
        let seen = Arc::new(Seen::default());
        redis.attach(Arc::clone(&seen) as Arc<dyn Observer>);
        run(&redis, "SET", &["k", "v"]).await.unwrap();
        run(&redis, "LPUSH", &["k", "v"])
            .await
            .expect_err("a string");
        redis.pool().eval(&ECHO, &[], Args::new()).await.unwrap();
        pop(&mut redis.reader(), 1).await.unwrap();
        assert_eq!(
            *seen.0.lock().unwrap(),
            [("SET", true), ("LPUSH", false), ("test/echo", true)]
        );
    }
}

mod scripts {
    use super::*;

    #[tokio::test]
    async fn a_flushed_script_is_loaded_again() {
        let server = RedisServer::start().await;
        let redis = redis(&server.url());
        let mut reader = redis.reader();
        for _ in 0..2 {
            let reply = redis
                .pool()
                .eval(&ECHO, &[], Args::new().arg("a"))
                .await
                .unwrap();
            assert_eq!(reply.into_array().unwrap()[0], Reply::integer(1));
            assert_eq!(server.cli(&["SCRIPT", "EXISTS", ECHO.digest()]).await, "1");
            server.cli(&["SCRIPT", "FLUSH"]).await;
            reader.eval(&ECHO, &[], Args::new().arg("a")).await.unwrap();
            server.cli(&["SCRIPT", "FLUSH"]).await;
        }
    }

    #[tokio::test]
    async fn keys_and_arguments_arrive_apart_and_unchanged() {
        static SPLIT: Script = Script::new("test/split", "return {#KEYS, KEYS, ARGV}");
        let server = RedisServer::start().await;
        let redis = redis(&server.url());
        let keys = [&ByteString::from("one"), &ByteString::from("two")];
        let bytes = bytes::Bytes::from_static(b"\xF5PY\0\r\n");
        let args = Args::new()
            .arg(bytes.clone())
            .arg(-7_i64)
            .arg(u64::MAX)
            .arg("");
        let reply = redis.pool().eval(&SPLIT, &keys, args).await.unwrap();
        let [n, keys, args] = reply.into_tuple().unwrap();
        assert_eq!(n.as_count().unwrap(), 2);
        let keys = keys.into_array().unwrap();
        assert_eq!((text(&keys[0]), text(&keys[1])), ("one", "two"));
        let args = args.into_array().unwrap();
        assert_eq!(args[0], Reply::bytes(bytes));
        assert_eq!(args[1].as_integer().unwrap(), -7);
        assert_eq!(text(&args[2]), "18446744073709551615");
        assert_eq!(text(&args[3]), "");
    }

    #[tokio::test]
    async fn data_that_looks_like_pub_sub_comes_through_when_nested() {
        let server = RedisServer::start().await;
        let redis = redis(&server.url());
        for word in [
            "message",
            "pmessage",
            "smessage",
            "subscribe",
            "unsubscribe",
            "pubsub",
        ] {
            for length in 3..=5 {
                let args = Args::new().args(vec![word; length]);
                let reply = redis.pool().eval(&ECHO, &[], args).await.unwrap();
                let [n, words] = reply.into_tuple().unwrap();
                assert_eq!(n.as_count().unwrap(), length as u64);
                assert_eq!(text(&words.into_array().unwrap()[0]), word);
            }
        }
    }

    #[tokio::test]
    #[should_panic(expected = "nest it")]
    async fn a_script_that_returns_flat_data_is_caught_in_debug_builds() {
        static FLAT: Script = Script::new("test/flat", "return ARGV");
        let server = RedisServer::start().await;
        let flat = Args::new().arg("any").arg("text");
        let _reply = redis(&server.url()).pool().eval(&FLAT, &[], flat).await;
    }
}

mod refusals {
    use super::*;

    #[tokio::test]
    async fn each_refusal_is_told_by_its_meaning() {
        let server = RedisServer::start().await;
        let redis = redis(&server.url());
        run(&redis, "SET", &["text", "v"]).await.unwrap();
        run(&redis, "XADD", &["stream", "*", "k", "v"])
            .await
            .unwrap();
        let read = &["GROUP", "g", "c", "STREAMS", "stream", ">"];
        for (name, args, kind) in [
            ("LPUSH", &["text", "v"] as &[_], Kind::WrongType),
            ("XREADGROUP", read, Kind::NoGroup),
            ("NOSUCH", &["text"], Kind::UnknownCommand),
            ("EXPIRE", &["text", "soon"], Kind::Other),
        ] {
            let error = run(&redis, name, args).await.expect_err("refused");
            assert_eq!(error.kind(), kind, "{error}");
        }
        let error = run(&redis, "LPUSH", &["text", "v"])
            .await
            .expect_err("refused");
        let error = error.during("publish", &QueueName::new("text").unwrap());
        assert_eq!(
            error.to_string(),
            "could not publish on queue \"text\": the key holds another type, give each pattern a queue name of its own: \
             WRONGTYPE Operation against a key holding the wrong kind of value"
        );
    }

    #[tokio::test]
    async fn scripts_are_refused_by_the_same_meanings() {
        static PUSH: Script = Script::new("test/push", "return redis.call('LPUSH', KEYS[1], 'v')");
        let server = RedisServer::start().await;
        let redis = redis(&server.url());
        run(&redis, "SET", &["text", "v"]).await.unwrap();
        let push = |key: &'static str| {
            let redis = redis.clone();
            async move {
                let key = ByteString::from_static(key);
                redis.pool().eval(&PUSH, &[&key], Args::new()).await
            }
        };
        push("q").await.unwrap();
        assert_eq!(
            push("text").await.expect_err("a string").kind(),
            Kind::WrongType
        );
        server.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
        assert_eq!(push("q").await.expect_err("full").kind(), Kind::OutOfMemory);
    }

    #[tokio::test]
    async fn memory_and_permissions_are_told_apart() {
        let server = RedisServer::start().await;
        let rules = [
            "ACL",
            "SETUSER",
            "worker",
            "on",
            ">pw",
            "~q*",
            "+@all",
            "-flushall",
        ];
        server.cli(&rules).await;
        let redis = redis(&format!("redis://worker:pw@127.0.0.1:{}", server.port()));
        run(&redis, "LPUSH", &["q", "v"]).await.unwrap();
        for (name, args) in [("LPUSH", &["other", "v"] as &[_]), ("FLUSHALL", &[])] {
            let error = run(&redis, name, args).await.expect_err("not allowed");
            assert_eq!(error.kind(), Kind::NoPermission, "{error}");
        }
        server.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
        let error = run(&redis, "LPUSH", &["q", "v"]).await.expect_err("full");
        assert_eq!(error.kind(), Kind::OutOfMemory, "{error}");
    }

    #[tokio::test]
    async fn a_user_needs_no_permission_but_for_its_commands() {
        let server = RedisServer::start().await;
        server
            .cli(&[
                "ACL", "SETUSER", "worker", "on", ">pw", "~q", "-@all", "+lpush",
            ])
            .await;
        let redis = redis(&format!("redis://worker:pw@127.0.0.1:{}", server.port()));
        run(&redis, "LPUSH", &["q", "v"]).await.unwrap();
    }

    #[tokio::test]
    async fn a_replica_refuses_writes_and_is_connected_to_anew() {
        let server = RedisServer::start().await;
        let redis = redis(&server.url());
        let settler = redis.dedicated();
        let push = || settler.command("LPUSH", Args::new().key("q").arg("v"));
        push().await.unwrap();
        server.cli(&["REPLICAOF", "127.0.0.1", "1"]).await;
        assert_eq!(push().await.expect_err("a replica").kind(), Kind::ReadOnly);
        assert_eq!(redis.stats().reconnects, 1);
        server
            .cli(&["CONFIG", "SET", "replica-serve-stale-data", "no"])
            .await;
        let get = settler.command("LLEN", Args::new().key("q"));
        let error = get.await.expect_err("its primary is down");
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        server.cli(&["REPLICAOF", "NO", "ONE"]).await;
        push().await.unwrap();
    }
}

mod subscriptions {
    use super::*;

    const WAIT: Duration = Duration::from_secs(5);

    fn channels(names: &[&'static str]) -> Channels {
        Channels::Exact(names.iter().copied().map(ByteString::from_static).collect())
    }

    async fn next(subscriber: &mut Subscriber) -> Notice {
        subscriber
            .next(WAIT)
            .await
            .unwrap()
            .expect("something happens")
    }

    fn message(channel: &'static str, payload: &'static [u8]) -> Notice {
        Notice::Message {
            channel: ByteString::from_static(channel),
            payload: payload.into(),
        }
    }

    #[tokio::test]
    async fn what_is_published_after_the_confirmation_arrives() {
        hears(channels(&["a"]), "a", "PUBLISH").await;
        let pattern = vec![ByteString::from_static("a?c*")];
        hears(Channels::Patterns(pattern), "abcd", "PUBLISH").await;
    }

    #[tokio::test]
    async fn sharded_channels_work_on_a_subscription() {
        let shard = vec![ByteString::from_static("shard")];
        hears(Channels::Sharded(shard), "shard", "SPUBLISH").await;
    }

    async fn hears(what: Channels, published: &'static str, publish: &'static str) {
        let server = RedisServer::start().await;
        let redis = redis(&server.url());
        let mut subscriber = redis.subscriber(16, what);
        subscriber.subscribe().await.unwrap();
        let args = Args::new()
            .arg(published)
            .arg(bytes::Bytes::from_static(b"\xFF\0"));
        let receivers = redis.pool().command(publish, args).await.unwrap();
        assert_eq!(receivers, Reply::integer(1), "{publish}");
        assert_eq!(next(&mut subscriber).await, message(published, b"\xFF\0"));
        assert_eq!(subscriber.try_next(), None);
        assert_eq!(subscriber.next(Duration::ZERO).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_full_buffer_drops_the_oldest_and_counts_them() {
        let server = RedisServer::start().await;
        let redis = redis(&server.url());
        let mut subscriber = redis.subscriber(8, channels(&["a"]));
        subscriber.subscribe().await.unwrap();
        for number in 0..20 {
            let args = Args::new().arg("a").arg(number);
            redis.pool().command("PUBLISH", args).await.unwrap();
        }
        // Published on another connection, so "all arrived" has to be awaited.
        let mut dropped = 0;
        let mut taken = Vec::new();
        while dropped + taken.len() as u64 != 20 {
            match next(&mut subscriber).await {
                Notice::Dropped(count) => dropped += count,
                Notice::Message { payload, .. } => taken.push(payload),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(taken.last().unwrap(), "19");
        assert!(dropped > 0);
    }

    #[tokio::test]
    async fn a_lost_connection_is_reported_once_and_subscribed_again() {
        let mut server = RedisServer::start().await;
        let redis = redis(&server.url());
        let mut subscriber = redis.subscriber(16, channels(&["a"]));
        subscriber.subscribe().await.unwrap();
        server.restart().await;
        assert!(matches!(
            next(&mut subscriber).await,
            Notice::Resubscribed { .. }
        ));
        run(&redis, "PUBLISH", &["a", "v"]).await.unwrap();
        assert_eq!(next(&mut subscriber).await, message("a", b"v"));
        server.kill().await;
        let error = loop {
            match subscriber.next(Duration::from_millis(10)).await {
                Ok(None) => {}
                Ok(Some(notice)) => panic!("{notice:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_in_silence_is_noticed() {
        cut_in_silence(RedisConfig::default().command_timeout).await;
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_in_silence_is_noticed_where_commands_have_little_time() {
        cut_in_silence(Duration::from_secs(1)).await;
    }

    async fn cut_in_silence(command_timeout: Duration) {
        let server = RedisServer::start().await;
        let line = Line::to(server.port()).await;
        let redis = Redis::new(RedisConfig {
            command_timeout,
            ..config(&line.url())
        })
        .expect("valid settings");
        let mut subscriber = redis.subscriber(16, channels(&["a"]));
        subscriber.subscribe().await.unwrap();
        line.cut_silently();
        let began = Instant::now();
        let away = loop {
            match subscriber.next(Duration::from_secs(1)).await {
                Ok(Some(Notice::Resubscribed { away })) => break away,
                Ok(Some(notice)) => panic!("{notice:?}"),
                Ok(None) => assert!(Instant::now() - began < Duration::from_secs(15)),
                Err(error) => assert_eq!(error.kind(), Kind::TimedOut, "{error}"),
            }
        };
        // From the last sign of life on, anything may be missing.
        assert!(away > Duration::from_secs(5), "{away:?}");
        run(&redis, "PUBLISH", &["a", "v"]).await.unwrap();
        assert_eq!(next(&mut subscriber).await, message("a", b"v"));
    }

    #[tokio::test]
    async fn a_channel_that_is_not_allowed_is_refused() {
        let server = RedisServer::start().await;
        server
            .cli(&[
                "ACL",
                "SETUSER",
                "worker",
                "on",
                ">pw",
                "~*",
                "+@all",
                "resetchannels",
                "&mine",
            ])
            .await;
        let redis = redis(&format!("redis://worker:pw@127.0.0.1:{}", server.port()));
        redis
            .subscriber(16, channels(&["mine"]))
            .subscribe()
            .await
            .unwrap();
        // Often, because a refusal that is not put right is only taken for a success now and then.
        for _ in 0..20 {
            let mut subscriber = redis.subscriber(16, channels(&["mine", "yours"]));
            let error = subscriber.next(WAIT).await.expect_err("not allowed");
            assert_eq!(error.kind(), Kind::NoPermission, "{error}");
            let error = subscriber.subscribe().await.expect_err("still not");
            assert_eq!(error.kind(), Kind::NoPermission, "{error}");
        }
    }

    #[tokio::test]
    async fn control_channels_share_a_connection_but_not_their_messages() {
        let server = RedisServer::start().await;
        let redis = redis(&server.url());
        let mut one = redis.control(vec![ByteString::from_static("one")]);
        let mut two = redis.control(vec![ByteString::from_static("two")]);
        one.subscribe().await.unwrap();
        two.subscribe().await.unwrap();
        assert_eq!(connected_clients(&server).await, 1);
        run(&redis, "PUBLISH", &["one", "1"]).await.unwrap();
        run(&redis, "PUBLISH", &["two", "2"]).await.unwrap();
        assert_eq!(next(&mut two).await, message("two", b"2"));
        assert_eq!(next(&mut one).await, message("one", b"1"));
        assert_eq!(one.next(Duration::ZERO).await.unwrap(), None);
        assert_eq!(redis.stats().connected, 3);
    }
}

async fn connected_clients(server: &RedisServer) -> usize {
    // redis-cli is one of them.
    server.cli(&["CLIENT", "LIST"]).await.lines().count() - 1
}

/// A TCP line to a server that can be cut without either end being told.
struct Line {
    port: u16,
    cuts: watch::Sender<u32>,
    _task: JoinSet<()>,
}

impl Line {
    async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cuts, cut) = watch::channel(0);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let mut cut = cut.clone();
                cut.mark_unchanged();
                lines.spawn(async move {
                    let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    tokio::select! {
                        _ = copy(&mut from_client, &mut to_server) => {}
                        _ = copy(&mut from_server, &mut to_client) => {}
                        _ = cut.changed() => {
                            // Both sockets stay open, and nothing passes.
                            std::future::pending::<()>().await;
                        }
                    }
                });
            }
        });
        Self {
            port,
            cuts,
            _task: task,
        }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Cuts every line that is open now; new ones work.
    fn cut_silently(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}
