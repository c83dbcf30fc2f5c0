//! What was measured, as a table or as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Failure;
use crate::part::{Contender, Measured};
use crate::progress::Waits;
use crate::settings::{Settings, What};

/// Everything that was measured.
pub(crate) struct Report {
    what: What,
    pub(crate) settings: Settings,
    pub(crate) server: String,
    pythia: Vec<Measured>,
    by_hand: Vec<Measured>,
}

#[derive(Serialize)]
struct Json<'a> {
    what: What,
    settings: &'a Settings,
    server: &'a str,
    pythia: &'a Row,
    by_hand: Option<&'a Row>,
    /// Pythia's median rate, divided by that of what was written by hand.
    ratio: Option<f64>,
}

/// One contender's medians.
#[derive(Serialize)]
struct Row {
    rate: Rate,
    /// How often the queue was full, and was drained.
    fillings: u64,
    /// Messages per second from the first job of a filling to its last settle: without the start.
    steady: Option<f64>,
    /// Processor time a message, µs.
    worker_us: f64,
    redis_us: Option<f64>,
    /// Of one core.
    worker_percent: f64,
    rss_mib: f64,
    wait_ms: Option<Waits>,
    /// Of all messages.
    error_rate: f64,
    commands_per_second: BTreeMap<String, f64>,
}

/// Messages per second.
#[derive(Serialize)]
struct Rate {
    min: f64,
    median: f64,
    max: f64,
}

impl Report {
    pub(crate) fn new(what: What, settings: Settings) -> Self {
        Self {
            what,
            settings,
            server: "none".into(),
            pythia: Vec::new(),
            by_hand: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, contender: Contender, measured: Measured) {
        match contender {
            Contender::Pythia => self.pythia.push(measured),
            Contender::ByHand => self.by_hand.push(measured),
        }
    }

    pub(crate) fn print(&self) -> Result<(), Failure> {
        let pythia = Row::of(&self.pythia);
        let by_hand = (!self.by_hand.is_empty()).then(|| Row::of(&self.by_hand));
        let paced = matches!(self.what, What::Latency | What::Idle);
        let ratio = by_hand.as_ref().filter(|_| !paced);
        let ratio = ratio.map(|by_hand| pythia.rate.median / by_hand.rate.median);
        if self.settings.json {
            let json = Json {
                what: self.what,
                settings: &self.settings,
                server: &self.server,
                pythia: &pythia,
                by_hand: by_hand.as_ref(),
                ratio,
            };
            println!("{}", serde_json::to_string_pretty(&json)?);
            return Ok(());
        }
        let settings = serde_json::to_value(&self.settings)?;
        let settings = settings.as_object().into_iter().flatten();
        let set = settings.filter(|(name, value)| !value.is_null() && *name != "json");
        let set: Vec<_> = set
            .map(|(name, value)| format!("{name} {}", value.to_string().trim_matches('"')))
            .collect();
        println!(
            "{:?}: {}; server: {}",
            self.what,
            set.join(", "),
            self.server
        );
        match self.what {
            What::Drain | What::Enqueue => {
                println!(
                    "{:<9} {:>32} {:>10} {:>10} {:>9} {:>9} {:>8} {:>24}",
                    "",
                    "msg/s: min / median / max",
                    "steady",
                    "worker us",
                    "redis us",
                    "RSS MiB",
                    "errors",
                    "wait ms: p50 / p95 / p99"
                );
                each(by_hand.as_ref(), &pythia, |name, row| {
                    let Rate { min, median, max } = row.rate;
                    println!(
                        "{name:<9} {min:>10.0} {median:>10.0} {max:>10.0} {:>10} {:>10.2} {:>9} {:>9.1} {:>8} {:>24}",
                        row.steady
                            .map_or_else(String::new, |steady| format!("{steady:.0}")),
                        row.worker_us,
                        row.redis_us
                            .map_or_else(String::new, |us| format!("{us:.2}")),
                        row.rss_mib,
                        row.error_rate,
                        waits(row)
                    );
                });
                if let Some(ratio) = ratio {
                    println!("{:<9} {:>21.2}", "ratio", ratio);
                }
            }
            What::Latency => {
                println!(
                    "{:<9} {:>9} {:>8} {:>8} {:>8} {:>9} {:>8} {:>10}",
                    "", "p50 ms", "p95", "p99", "max", "% of core", "errors", "commands/s"
                );
                each(by_hand.as_ref(), &pythia, |name, row| {
                    if let Some(Waits { p50, p95, p99, max }) = row.wait_ms {
                        println!(
                            "{name:<9} {p50:>9.3} {p95:>8.3} {p99:>8.3} {max:>8.3} {:>9.2} {:>8} {:>10.1}",
                            row.worker_percent,
                            row.error_rate,
                            row.commands_per_second.values().sum::<f64>()
                        );
                    }
                });
            }
            What::Idle => {
                println!(
                    "{:.2} % of a core, {:.1} MiB at its peak",
                    pythia.worker_percent, pythia.rss_mib
                );
                for (name, rate) in &pythia.commands_per_second {
                    println!("{rate:>9.2} {name}/s");
                }
            }
        }
        Ok(())
    }
}

fn each(by_hand: Option<&Row>, pythia: &Row, line: impl Fn(&str, &Row)) {
    line("pythia", pythia);
    by_hand.into_iter().for_each(|row| line("by hand", row));
}

fn waits(row: &Row) -> String {
    row.wait_ms.map_or_else(String::new, |waits| {
        format!("{:.1} / {:.1} / {:.1}", waits.p50, waits.p95, waits.p99)
    })
}

impl Row {
    fn of(rounds: &[Measured]) -> Self {
        let median = |figure: fn(&Measured) -> f64| {
            middle(&sorted(rounds.iter().map(figure))).unwrap_or(f64::NAN)
        };
        let wait = |figure: fn(Waits) -> f64| {
            let waits = rounds.iter().filter_map(|one| one.waits);
            middle(&sorted(waits.map(figure)))
        };
        let redis_us = rounds.iter().filter_map(|one| {
            let cpu = one.redis_cpu?;
            Some(cpu * 1e6 / one.messages.max(1) as f64)
        });
        let rates = sorted(rounds.iter().map(|one| one.rate));
        let mut names: Vec<&String> = rounds.iter().flat_map(|one| one.calls.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let seconds: f64 = rounds.iter().map(|one| one.seconds).sum();
        let commands = names.into_iter().map(|name| {
            let calls = rounds.iter().filter_map(|one| one.calls.get(name));
            (name.clone(), calls.sum::<u64>() as f64 / seconds)
        });
        Self {
            rate: Rate {
                min: rates.first().copied().unwrap_or(f64::NAN),
                median: median(|one| one.rate),
                max: rates.last().copied().unwrap_or(f64::NAN),
            },
            fillings: rounds.iter().map(|one| one.fillings).max().unwrap_or(0),
            steady: middle(&sorted(rounds.iter().filter_map(|one| one.steady))),
            worker_us: median(|one| one.cpu * 1e6 / one.messages.max(1) as f64),
            redis_us: middle(&sorted(redis_us)),
            worker_percent: median(|one| one.cpu * 100.0 / one.seconds),
            rss_mib: median(|one| one.rss_mib),
            wait_ms: wait(|waits| waits.p50).and_then(|p50| {
                Some(Waits {
                    p50,
                    p95: wait(|waits| waits.p95)?,
                    p99: wait(|waits| waits.p99)?,
                    max: wait(|waits| waits.max)?,
                })
            }),
            error_rate: median(|one| one.failed as f64 / (one.messages + one.failed).max(1) as f64),
            commands_per_second: commands.collect(),
        }
    }
}

fn sorted(figures: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures
}

fn middle(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len() / 2).copied()
}
