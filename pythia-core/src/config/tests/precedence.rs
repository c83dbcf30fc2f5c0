//! Which source wins. That code wins over all of them is tested from outside, in `tests/it/precedence.rs`.

use super::*;

/// One layer: a file and variables that say something there, and the text of the source that then is named.
struct Says {
    setting: &'static str,
    toml: &'static str,
    variable: Option<(&'static str, &'static str)>,
    source: &'static str,
}

const fn variable(
    setting: &'static str,
    name: &'static str,
    text: &'static str,
    source: &'static str,
) -> Says {
    Says {
        setting,
        toml: "",
        variable: Some((name, text)),
        source,
    }
}

const fn file(setting: &'static str, toml: &'static str) -> Says {
    Says {
        setting,
        toml,
        variable: None,
        source: "line 1",
    }
}

/// Neighbours, the one that wins first.
const NEIGHBOURS: &[[Says; 2]] = &[
    [
        variable(
            "broker.type",
            "PYTHIA_BROKER__TYPE",
            "list",
            "environment variable PYTHIA_BROKER__TYPE",
        ),
        variable(
            "broker.type",
            "PYTHIA_BROKER_TYPE",
            "stream",
            "environment variable PYTHIA_BROKER_TYPE",
        ),
    ],
    [
        variable(
            "preset",
            "PYTHIA_PRESET",
            "durable",
            "environment variable PYTHIA_PRESET",
        ),
        variable(
            "redis.url",
            "REDIS_URL",
            "redis://a",
            "environment variable REDIS_URL",
        ),
    ],
    [
        variable(
            "redis.url",
            "REDIS_URL",
            "redis://a",
            "environment variable REDIS_URL",
        ),
        variable(
            "redis.host",
            "REDIS_HOST",
            "b",
            "environment variable REDIS_HOST",
        ),
    ],
    [
        variable(
            "redis.host",
            "REDIS_HOST",
            "a",
            "environment variable REDIS_HOST",
        ),
        file("redis.host", "redis.host = \"b\""),
    ],
    [
        file("worker.batch", "worker.batch = 7"),
        variable(
            "worker.batch",
            "PYTHIA_PRESET",
            "throughput",
            "preset \"throughput\"",
        ),
    ],
];

#[test]
fn each_source_wins_over_the_next_one() {
    for [winner, loser] in NEIGHBOURS {
        let sources = |of: &[&Says]| {
            let toml: String = of.iter().map(|says| says.toml).collect();
            let environment: Vec<_> = of.iter().filter_map(|says| says.variable).collect();
            config(&toml, &environment)
        };
        for says in [winner, loser] {
            let alone = sources(&[says]).source(says.setting).unwrap();
            assert_eq!(alone.to_string(), says.source);
        }
        let both = sources(&[winner, loser]);
        let [won, lost] = [winner, loser].map(|says| both.source(says.setting).unwrap());
        assert_eq!(won.to_string(), winner.source);
        if winner.setting == loser.setting {
            assert_eq!(won, lost, "the winner hides the other one");
        } else {
            // They say different things, and whoever reads both asks which of them counts.
            assert!(won > lost && won.layer() > lost.layer(), "{won} {lost}");
        }
    }
}

#[test]
fn a_value_is_that_of_the_greatest_source() {
    let layers = [
        ("PYTHIA_REDIS__PASSWORD", "full"),
        ("REDIS_PASSWORD", "part"),
    ];
    let toml = "[redis]\npassword = \"file\"";
    for (environment, expected) in [(&layers[..], "full"), (&layers[1..], "part"), (&[], "file")] {
        assert_eq!(redis(toml, environment).password.as_deref(), Some(expected));
    }
    let concurrency = |environment: &[(&str, &str)]| {
        let config = config("worker.concurrency = 1", environment);
        config
            .route::<RouteConfig>("any")
            .unwrap()
            .concurrency
            .get()
    };
    let (full, short) = (
        ("PYTHIA_WORKER__CONCURRENCY", "3"),
        ("PYTHIA_MAX_CONCURRENT", "2"),
    );
    assert_eq!(concurrency(&[full, short]), 3);
    assert_eq!(concurrency(&[short]), 2);
    assert_eq!(concurrency(&[]), 1);
}

#[test]
fn the_source_of_a_section_is_the_greatest_in_it() {
    let config = config(
        "[redis]\ndb = 1\n[redis.stream]\ngroup = \"eu\"",
        &[("REDIS_DB", "2"), ("PYTHIA_ROUTES__EU_ORDERS__BATCH", "3")],
    );
    for (name, source) in [
        ("redis", Some("environment variable REDIS_DB")),
        ("redis.stream", Some("line 3")),
        ("redis.stream.group", Some("line 4")),
        ("redis.pool_size", None),
        ("redis.str", None),
        ("worker", None),
        (
            "routes.eu_orders.batch",
            Some("environment variable PYTHIA_ROUTES__EU_ORDERS__BATCH"),
        ),
    ] {
        let found = config.source(name).map(|source| source.to_string());
        assert_eq!(found.as_deref(), source, "{name}");
    }
}

#[test]
fn a_line_is_that_of_the_file_which_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pythia.toml");
    fs::write(&file, "[redis]\n\ndb = 3").unwrap();
    let config = Config::load_from([("PYTHIA_CONFIG".into(), file.clone().into())]).unwrap();
    let source = config.source("redis.db").unwrap().to_string();
    assert_eq!(source, format!("line 3 of {}", file.display()));
}
