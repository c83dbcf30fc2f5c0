//! `docs/metrics.md` says what the code does. After a change of the table, `PYTHIA_BLESS=1 cargo test -p pythia-metrics
//! --test it docs` writes the list of families anew.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use pythia_core::{Job, MemoryBroker, Producer, Route, Runner, RunnerConfig, worker_fn};
use pythia_metrics::names::{self, Buckets, Family, Kind};
use pythia_metrics::prometheus::Registry;
use pythia_metrics::{Check, MetricsConfig, MetricsServer};
use serde_json::Value;

use crate::http::ask;
use crate::promtool::run_promtool;

const BEGIN: &str = "<!-- families: begin -->\n";
const END: &str = "<!-- families: end -->\n";

fn docs(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(file)
}

fn path() -> PathBuf {
    docs("metrics.md")
}

fn page() -> String {
    std::fs::read_to_string(path()).unwrap()
}

/// The list of families as the page has to show it.
fn list() -> String {
    let of_queue = |family: &&Family| family.labels.iter().any(|label| label.name == "queue");
    let (queues, server): (Vec<&Family>, Vec<&Family>) = names::ALL.iter().partition(of_queue);
    let mut text = String::new();
    for (title, families) in [("Of a queue", queues), ("Of the broker's server", server)] {
        writeln!(
            text,
            "\n### {title}\n\n| family | type | labels | |\n|---|---|---|---|"
        )
        .unwrap();
        for family in families {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
                other => panic!("{other:?} has no name here"),
            };
            writeln!(
                text,
                "| `{}` | {kind} | {} | {} |",
                family.name,
                labels(family),
                family.help
            )
            .unwrap();
        }
    }
    text.push_str("\n### Groups\n\n| group | families |\n|---|---|\n");
    for group in names::GROUPS {
        let families = group.families.iter().map(|name| format!("`{name}`"));
        let families = families.collect::<Vec<_>>().join(", ");
        writeln!(text, "| `{}` | {families} |", group.name).unwrap();
    }
    writeln!(
        text,
        "\n### Buckets\n\n| setting | families | default, in seconds |\n|---|---|---|"
    )
    .unwrap();
    let config = MetricsConfig::default();
    for (setting, buckets, bounds) in [
        (
            "processing_buckets",
            Buckets::Processing,
            &config.processing_buckets,
        ),
        (
            "round_trip_buckets",
            Buckets::RoundTrip,
            &config.round_trip_buckets,
        ),
        ("wait_buckets", Buckets::Wait, &config.wait_buckets),
    ] {
        let families = names::ALL
            .iter()
            .filter(|family| family.kind == Kind::Histogram(buckets));
        let families: Vec<_> = families
            .map(|family| format!("`{}`", family.name))
            .collect();
        let bounds: Vec<_> = bounds.as_slice().iter().map(f64::to_string).collect();
        writeln!(
            text,
            "| `metrics.{setting}` | {} | {} |",
            families.join(", "),
            bounds.join(", ")
        )
        .unwrap();
    }
    text.push('\n');
    text
}

fn labels(family: &Family) -> String {
    let label = |label: &names::Label| match label.values {
        [] => format!("`{}`", label.name),
        values => format!("`{}`: {}", label.name, values.join(", ")),
    };
    // The one that all have comes first, though it is last in the table.
    family
        .labels
        .iter()
        .rev()
        .map(label)
        .collect::<Vec<_>>()
        .join("; ")
}

#[test]
fn the_page_lists_every_family() {
    let page = page();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (listed, after) = rest.split_once(END).unwrap();
    if std::env::var_os("PYTHIA_BLESS").is_some() {
        std::fs::write(path(), [before, BEGIN, &list(), END, after].concat()).unwrap();
    } else {
        assert_eq!(
            listed,
            list(),
            "docs/metrics.md is behind: PYTHIA_BLESS=1 writes it anew"
        );
    }
}

/// Each name of a family in that text is one.
fn names_only_what_exists(page: &str) {
    let is_of_a_name = |c: char| c.is_ascii_lowercase() || c == '_';
    for (at, _) in page.match_indices("pythia_") {
        let name = page[at..].split(|c| !is_of_a_name(c)).next().unwrap();
        let exists = names::ALL
            .iter()
            .any(|family| match name.strip_prefix(family.name) {
                Some("") => true,
                Some("_bucket" | "_sum" | "_count") => matches!(family.kind, Kind::Histogram(_)),
                _ => false,
            });
        assert!(exists, "{name}");
    }
}

#[test]
fn the_page_names_nothing_that_does_not_exist() {
    let page = page();
    names_only_what_exists(&page);
    let defaults = MetricsConfig::default();
    assert!(page.contains(&format!("`{}`", defaults.address)));
    assert!(page.contains("`metrics.max_queues` (1,000)") && defaults.max_queues.get() == 1_000);
    assert!(page.contains(&format!("`{}`", names::OTHER_QUEUES)));
}

#[test]
fn promtool_understands_every_query_of_the_page() {
    let page = page();
    let (questions, _) = page.split_once(BEGIN).unwrap();
    let mut rules = "groups:\n- name: page\n  rules:\n".to_owned();
    let rows = questions
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains("pythia_"));
    for (number, row) in rows.enumerate() {
        let query = row
            .trim_end_matches(" |")
            .rsplit(" | ")
            .next()
            .unwrap()
            .trim_matches('`');
        writeln!(rules, "  - record: query_{number}\n    expr: '{query}'").unwrap();
    }
    assert!(rules.matches("record").count() > 15, "{rules}");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("queries.yaml");
    std::fs::write(&file, rules).unwrap();
    run_promtool(&["check", "rules", file.to_str().unwrap()], "");
}

#[test]
fn promtool_understands_the_alerts_and_the_guide_names_each() {
    let alerts = std::fs::read_to_string(docs("alerts.yml")).unwrap();
    names_only_what_exists(&alerts);
    run_promtool(
        &["check", "rules", docs("alerts.yml").to_str().unwrap()],
        "",
    );
    let guide = std::fs::read_to_string(docs("observe.md")).unwrap();
    let declared = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let declared: Vec<_> = declared.collect();
    assert!(declared.len() >= 10, "{declared:?}");
    for alert in declared {
        assert!(guide.contains(&format!("`{alert}`")), "{alert}");
    }
}

#[test]
fn the_guide_gives_the_defaults() {
    let guide = std::fs::read_to_string(docs("observe.md")).unwrap();
    let (metrics, runner) = (MetricsConfig::default(), RunnerConfig::default());
    for said in [
        format!("`{}`", metrics.address),
        format!("`metrics.check_timeout` ({:?})", metrics.check_timeout).replace("s)", " s)"),
        format!("runner.drain_timeout ({:?})", runner.drain_timeout).replace("s)", " s)"),
        format!(
            "after {:?} (2 x runner.stall_after)",
            2 * runner.stall_after
        )
        .replace("s (", " s ("),
    ] {
        assert!(guide.contains(&said), "{said}");
    }
}

/// The names of an answer's fields, with the path to each; of a list those of all its elements.
fn fields(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Array(elements) => {
            for element in elements {
                fields(element, &format!("{path}[]"), into);
            }
        }
        Value::Object(entries) => {
            for (name, value) in entries {
                let path = format!("{path}.{name}");
                fields(value, &path, into);
                into.insert(path);
            }
        }
        _ => {}
    }
}

/// Blessed, the guide shows what was answered here.
#[tokio::test]
async fn the_guide_shows_an_answer_of_health_as_it_is() {
    let broker = MemoryBroker::new();
    let worker = worker_fn(async |_: &Job<String>| Ok(()));
    let runner = Runner::builder()
        .route(&broker, Route::new("orders", worker))
        .build()
        .unwrap();
    let mut config = MetricsConfig::default();
    config.address.set_port(0);
    let refused = async || Err::<(), _>("connection refused");
    let server = MetricsServer::bind(&config, &Registry::new())
        .await
        .unwrap()
        .health(runner.health())
        .check(Check::new("database", async || Ok::<_, String>(())))
        .check(Check::new("geocoder", refused).informational());
    let address = server.address().unwrap();
    let asked = async {
        // An idle lane reads for up to ten seconds; a message ends that.
        Producer::new(broker.clone())
            .send("orders", "x")
            .await
            .unwrap();
        loop {
            let body = ask(address, "GET", "/health").await.body;
            let page: Value = serde_json::from_str(&body).unwrap();
            let lanes = page["brokers"][0]["queues"][0]["lanes"].as_array().unwrap();
            if page["ready"] == true && lanes.iter().any(|lane| lane["last_read_ms"].is_u64()) {
                return page;
            }
        }
    };
    let (done, is_done) = tokio::sync::oneshot::channel::<()>();
    let served = server.serve(runner.run_until(async { drop(is_done.await) }));
    let (summary, answered) = tokio::join!(served, async {
        let answered = asked.await;
        drop(done);
        answered
    });
    summary.unwrap();

    let guide = std::fs::read_to_string(docs("observe.md")).unwrap();
    let (before, rest) = guide.split_once("```json\n").unwrap();
    let (shown, after) = rest.split_once("\n```\n").unwrap();
    if std::env::var_os("PYTHIA_BLESS").is_some() {
        let answer = serde_json::to_string_pretty(&answered).unwrap();
        let page = [before, "```json\n", &answer, "\n```\n", after].concat();
        std::fs::write(docs("observe.md"), page).unwrap();
        return;
    }
    let [shown, answered] = [serde_json::from_str(shown).unwrap(), answered].map(|page: Value| {
        let mut names = BTreeSet::new();
        fields(&page, "", &mut names);
        names
    });
    assert_eq!(
        shown, answered,
        "docs/observe.md is behind: PYTHIA_BLESS=1 writes it anew"
    );
}
