use std::time::Duration;

use super::*;

fn url(text: &str) -> RedisUrl {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refusal(text: &str) -> String {
    let error = text.parse::<RedisUrl>().expect_err(text);
    error.to_string()
}

/// Host and port of the only server.
fn address(text: &str) -> (String, u16) {
    match url(text).place {
        Place::Server(Address { host, port }) => (host, port),
        _ => panic!("{text} is no url of one server"),
    }
}

#[test]
fn a_url_gives_all_its_parts() {
    let full = url("redis://app:p%40ss%2Fw%25@redis.internal:6380/3");
    assert_eq!(full.to_string(), "redis://redis.internal:6380/3");
    assert_eq!(full.username.as_deref(), Some("app"));
    assert_eq!(full.password.as_deref(), Some("p@ss/w%"));
    assert_eq!(full.database, Some(3));
    assert!(!full.tls);
    let local = ("127.0.0.1".to_owned(), 6379);
    assert_eq!(address("redis://127.0.0.1"), local);
    assert_eq!(address("REDIS://127.0.0.1/"), local);
    assert_eq!(address("valkey://127.0.0.1"), local);
    assert_eq!(address("redis://[::1]:7000"), ("::1".to_owned(), 7000));
    assert_eq!(address("redis://[::1]").1, 6379);
    assert_eq!(url("redis://:00123@h").password.as_deref(), Some("00123"));
    assert_eq!(url("redis://:@h").password, None);
    assert_eq!(url("redis://:a@b:c@h").password.as_deref(), Some("a@b:c"));
    assert!(url("rediss://h").tls && url("valkeys://h").tls);
}

#[test]
fn a_unix_socket_has_many_spellings() {
    for text in [
        "unix:///run/redis.sock?db=2",
        "socket:///run/redis.sock?db=2",
        "redis+socket:///run/redis.sock?virtual_host=2",
        "redis+unix:///run/redis.sock?db=2",
        "unix://localhost/run/redis.sock?db=2",
        "redis://?path=/run/redis.sock&db=2",
        "redis://localhost/2?path=/run/redis.sock",
        "unix:///run/r%65dis.sock?db=2",
        "socket://?path=%2Frun%2Fredis.sock&db=2",
    ] {
        let socket = url(text);
        assert!(
            matches!(&socket.place, Place::Socket(path) if path.to_str() == Some("/run/redis.sock")),
            "{text}: {socket}"
        );
        assert_eq!(socket.database, Some(2), "{text}");
        assert_eq!(socket.to_string(), "unix:///run/redis.sock?db=2");
    }
    let login = url("unix://app:hunter2@/run/redis.sock");
    assert_eq!(login.username.as_deref(), Some("app"));
    assert_eq!(login.password.as_deref(), Some("hunter2"));
}

#[test]
fn sentinels_and_nodes_are_listed() {
    let sentinel = url(
        "redis-sentinel://app:pw@s1,s2:26380,[::1]/mymaster/2?sentinel_username=watch&sentinel_password=dog",
    );
    assert_eq!(
        sentinel.to_string(),
        "redis-sentinel://s1:26379,s2:26380,[::1]:26379/mymaster/2"
    );
    assert_eq!(sentinel.password.as_deref(), Some("pw"));
    let Place::Sentinel {
        username, password, ..
    } = &sentinel.place
    else {
        panic!("{sentinel}");
    };
    assert_eq!(username.as_deref(), Some("watch"));
    assert_eq!(password.as_deref(), Some("dog"));

    let cluster = url("rediss-cluster://:pw@n1:7000,n2:7001");
    assert_eq!(cluster.to_string(), "rediss-cluster://n1:7000,n2:7001");
    assert!(cluster.tls);
}

#[test]
fn options_are_settings_by_two_names() {
    let by_others = url(
        "rediss://h?socket_timeout=3&socket_connect_timeout=0.5&socket_keepalive=false&retry_on_timeout=0\
         &health_check_interval=10&max_connections=7&ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem\
         &ssl_cert_reqs=required&ssl_check_hostname=true",
    );
    let by_ours = url(
        "rediss://h?command_timeout=3s&connect_timeout=500ms&command_attempts=1&health_check_interval=10s&pool_size=7\
         &ca_file=/ca.pem&cert_file=/c.pem&key_file=/k.pem",
    );
    let options = by_others.options;
    assert_eq!(options.tcp_keepalive, Some(None));
    let same = UrlOptions {
        tcp_keepalive: None,
        ..options.clone()
    };
    assert!(same == by_ours.options);
    assert_eq!(options.command_timeout, Some(Duration::from_secs(3)));
    assert_eq!(options.connect_timeout, Some(Duration::from_millis(500)));
    assert_eq!(
        url("redis://h?tcp_keepalive=2m").options.tcp_keepalive,
        Some(Some(Duration::from_secs(120)))
    );
    assert_eq!(
        url("redis://h?retry_on_timeout=true")
            .options
            .command_attempts,
        Some(crate::config::COMMAND_ATTEMPTS)
    );
}

#[test]
fn what_is_wrong_with_a_url_is_said() {
    for (text, why) in [
        ("", "begins with redis://"),
        ("localhost:6379", "begins with redis://"),
        ("http://h", "begins with redis://"),
        ("redis://a,b", "redis-cluster://"),
        ("redis://", "lacks a host"),
        ("redis://:6379", "lacks a host"),
        ("redis://h:0", "port"),
        ("redis://h:65536", "port"),
        ("redis://h:port", "port"),
        ("redis://[::1", "]"),
        ("redis://[::1]7000", "]"),
        ("redis://::1", "[::1]"),
        ("redis://h/x", "database"),
        ("redis://h/256", "database"),
        ("redis://h/-1", "database"),
        ("redis://h/1?db=2", "two databases"),
        ("redis://h?db=1&virtual_host=2", "twice"),
        ("redis://h?db=x", "between 0 and 255"),
        ("redis://h#1", "%23"),
        ("redis://user@h", "without a password"),
        ("redis://:100%@h", "%25"),
        ("redis://:%FF@h", "UTF-8"),
        ("redis://h?socket_timeuot=1", "did you mean socket_timeout?"),
        ("redis://h?socket_timeout=0", "longer than 0s"),
        ("redis://h?socket_timeout=-1", "longer than 0s"),
        ("redis://h?socket_timeout=1&command_timeout=1s", "twice"),
        ("redis://h?max_connections=0", "1 or more"),
        ("redis://h?retry_on_timeout=maybe", "true nor false"),
        ("redis://h?ca_file=/ca.pem", "rediss://"),
        ("rediss://h?ca_file=", "lacks its path"),
        ("rediss://h?ssl_cert_reqs=none", "ca_file"),
        ("rediss://h?ssl_check_hostname=false", "ca_file"),
        ("redis://h?sentinel_password=x", "redis-sentinel://"),
        ("unix://", "lacks the path"),
        ("unix://h/run/redis.sock", "three slashes"),
        ("unix:///run/redis.sock?path=/other", "two paths"),
        ("redis://h?path=/run/redis.sock", "names a host as well"),
        ("redis-sentinel://h:26379", "mymaster"),
        ("redis-cluster://h/1", "database 0"),
        ("redis-cluster://h,", "lacks a host"),
        ("redis://:a/b@h", "%2F"),
        (
            "redis-sentinel://s/m?sentinel_username=u",
            "needs sentinel_password",
        ),
    ] {
        let error = refusal(text);
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn a_password_is_never_shown() {
    let login = url("redis://app:hunter2@h:1/2");
    assert_eq!(login.to_string(), "redis://h:1/2");
    assert!(!format!("{login:?}").contains("hunter2"));
    let sentinel = url("redis-sentinel://s/m?sentinel_password=hunter2");
    assert!(!format!("{sentinel} {sentinel:?}").contains("hunter2"));
    for text in [
        "redis://app:hunter2%@h",
        "redis://app:hunter2@h:port",
        "redis://app:hunter2",
        "redis://app:a?hunter2@h",
        "redis://app:pass?h&hunter2=@h",
        "redis://app:pass?hunter&x@h",
        "redis-sentinel://app:26/hunter2@h",
        "redis://h?password=hunter2",
        "redis://h?socket_timeout=hunter2",
        "redis-sentinel://s?sentinel_password=hunter2",
    ] {
        assert!(
            !refusal(text).contains("hunter"),
            "{text}: {}",
            refusal(text)
        );
    }
}
