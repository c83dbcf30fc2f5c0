//! `docs/metrics.md` says what the code does. After a change of the table, `PYTHIA_BLESS=1 cargo test -p pythia-metrics
//! --test it docs` writes the list of families anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use pythia_metrics::MetricsConfig;
use pythia_metrics::names::{self, Buckets, Family, Kind};

use crate::promtool::run_promtool;

const BEGIN: &str = "<!-- families: begin -->\n";
const END: &str = "<!-- families: end -->\n";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md")
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

#[test]
fn the_page_names_nothing_that_does_not_exist() {
    let page = page();
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
