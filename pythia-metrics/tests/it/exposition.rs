//! A strict reader of Prometheus' text format.

use std::collections::{BTreeMap, BTreeSet};

use pythia_metrics::names;

/// A page of metrics that was read without a doubt.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    /// Each series as it was written, and its value.
    pub(crate) series: BTreeMap<String, f64>,
    /// Each family and its type.
    pub(crate) families: BTreeMap<String, String>,
}

impl Exposition {
    /// Panics at anything that a strict reader would not take.
    pub(crate) fn parse(text: &str) -> Self {
        let mut page = Self::default();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                current = help
                    .split_once(' ')
                    .expect("help without text")
                    .0
                    .to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("type without a type");
                assert_eq!(name, current, "a type follows the help of its family");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let again = page.families.insert(name.to_owned(), kind.to_owned());
                assert!(again.is_none(), "{name} comes twice");
            } else {
                page.sample(line, &current);
            }
        }
        page.check_histograms();
        page
    }

    fn sample(&mut self, line: &str, family: &str) {
        let (series, value) = line
            .rsplit_once(' ')
            .unwrap_or_else(|| panic!("no value: {line:?}"));
        let value: f64 = value
            .parse()
            .unwrap_or_else(|_| panic!("no number: {line:?}"));
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => {
                let labels = rest
                    .strip_suffix('}')
                    .unwrap_or_else(|| panic!("no end: {line:?}"));
                (name, parse_labels(labels))
            }
            None => (series, Vec::new()),
        };
        let kind = &self.families[family];
        let suffixes: &[&str] = if kind == "histogram" {
            &["_bucket", "_sum", "_count"]
        } else {
            &[""]
        };
        assert!(
            suffixes
                .iter()
                .any(|suffix| name == format!("{family}{suffix}")),
            "{name} among the samples of {family}"
        );
        if kind != "gauge" {
            assert!(value >= 0.0, "{line}");
        }
        check_labels(family, &labels);
        let again = self.series.insert(series.to_owned(), value);
        assert!(again.is_none(), "{series} comes twice");
    }

    fn check_histograms(&self) {
        let mut last: BTreeMap<String, f64> = BTreeMap::new();
        let mut buckets: Vec<(String, f64, f64)> = Vec::new();
        for (series, value) in &self.series {
            if let Some((head, bound)) = series
                .strip_suffix("\"}")
                .and_then(|series| series.rsplit_once("le=\""))
            {
                buckets.push((head.to_owned(), bound.parse().unwrap(), *value));
            }
        }
        buckets.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
        for (head, bound, value) in buckets {
            let before = last.insert(head.clone(), value).unwrap_or_default();
            assert!(value >= before, "{head} shrinks at {bound}");
            if bound.is_infinite() {
                let count = head.replace("_bucket{", "_count{").replace(",}", "}");
                let count = count
                    .strip_suffix(',')
                    .map_or(count.clone(), |count| format!("{count}}}"));
                assert_eq!(self.series.get(&count), Some(&value), "{count}");
            }
        }
    }
}

/// Every label of a family of ours, with a value that the table allows.
fn check_labels(family: &str, labels: &[(String, String)]) {
    let Some(known) = names::ALL.iter().find(|known| known.name == family) else {
        return;
    };
    let given: BTreeSet<&str> = labels
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| *name != "le")
        .collect();
    assert_eq!(
        given,
        known.labels.iter().map(|label| label.name).collect(),
        "{family}"
    );
    for label in known.labels.iter().filter(|label| !label.values.is_empty()) {
        let (_, value) = labels.iter().find(|(name, _)| name == label.name).unwrap();
        assert!(
            label.values.contains(&value.as_str()),
            "{family}: {}={value:?}",
            label.name
        );
    }
}

fn parse_labels(text: &str) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest
            .split_once("=\"")
            .unwrap_or_else(|| panic!("labels: {text:?}"));
        assert!(
            name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
            "{name:?}"
        );
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars
                .next()
                .unwrap_or_else(|| panic!("open quotes: {text:?}"))
            {
                (at, '"') => break at,
                (_, '\\') => match chars.next() {
                    Some((_, '\\')) => value.push('\\'),
                    Some((_, '"')) => value.push('"'),
                    Some((_, 'n')) => value.push('\n'),
                    other => panic!("escape {other:?}: {text:?}"),
                },
                (_, c) => value.push(c),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or_else(|| {
            assert!(rest.is_empty(), "labels: {text:?}");
            rest
        });
    }
    labels
}
