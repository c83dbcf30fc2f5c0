//! Pub/sub: what a subscriber did not hear is lost, and counted.

use std::collections::BTreeSet;
use std::time::Duration;

use super::idle::begun;
use super::{Findings, History, Story};
use crate::history::{Micros, Outcome, Record};
use crate::plan::{Group, Kind, Number};

impl Story<'_> {
    /// Between the first and the last that a process has heard, nothing is missing that it has not counted.
    pub(super) fn check_news(&self, findings: &mut Findings) {
        let published: BTreeSet<Number> = self
            .plans
            .iter()
            .filter(|(_, plan)| plan.groups == [Group::News] && plan.published.is_some())
            .map(|(number, _)| *number)
            .collect();
        for history in self.histories {
            let (mut heard, mut done) = (BTreeSet::new(), BTreeSet::new());
            for record in &history.records {
                match record {
                    Record::Received {
                        group: Group::News,
                        deliveries,
                        ..
                    } => {
                        for one in deliveries {
                            if !heard.insert(one.number) {
                                findings.violated("heard twice", || {
                                    format!("{} by {}", one.number, history.process)
                                });
                            }
                        }
                    }
                    Record::Ended {
                        group: Group::News,
                        number,
                        outcome: Outcome::Done,
                        ..
                    } if !done.insert(*number) => {
                        findings.violated("heard once, and done twice", || {
                            format!("{number} by {}", history.process)
                        });
                    }
                    _ => {}
                }
            }
            let is_there = self.was_there_at_the_end(history);
            let (Some(first), Some(mut last)) = (heard.first(), heard.last()) else {
                if is_there {
                    self.check_deaf(findings, history, &published);
                }
                continue;
            };
            // Who was there until the end has to have heard the end.
            if is_there {
                last = published.last().unwrap_or(last).max(last);
            }
            let unheard: Vec<_> = published
                .range(first..=last)
                .filter(|number| !heard.contains(number))
                .collect();
            // Whoever ends in order has done what it has heard.
            let undone = match history.left() {
                Some(_) => heard.difference(&done).count(),
                None => 0,
            };
            let (missing, counted) = (
                (unheard.len() + undone) as u64,
                history.counted(Group::News),
            );
            let counts = findings.mode(Group::News, Kind::Plain);
            counts.messages += published.range(first..=last).count() as u64;
            counts.lost += missing;
            let excused = self.allowed.fleeting_is_lost || self.allowed.messages_are_lost;
            if missing > 0 && !excused {
                findings.violated("pub/sub lost messages without a reason", || {
                    format!("{missing} by {}", history.process)
                });
            }
            if missing > counted {
                findings.violated("pub/sub lost more than it has counted", || {
                    format!(
                        "{missing} by {}, which has counted {counted}",
                        history.process
                    )
                });
            }
            self.measure_deafness(findings, &unheard);
        }
    }

    /// Who has heard nothing at all has missed nothing that it could count: but it must have begun to hear.
    fn check_deaf(&self, findings: &mut Findings, history: &History, published: &BTreeSet<Number>) {
        let begun = history.records.iter().find_map(begun);
        let begun = begun.unwrap_or(Micros::MAX);
        let since = self.ends.iter().copied().max().unwrap_or(0).max(begun);
        let audible = published
            .iter()
            .filter(|number| self.plans[number].publishing > since.saturating_add(DEAF))
            .count();
        if audible > 0 {
            findings.violated("nothing was heard", || {
                format!("{audible} were there for {}", history.process)
            });
        }
    }

    pub(super) fn was_there_at_the_end(&self, history: &History) -> bool {
        let drained = self
            .histories
            .iter()
            .flat_map(|one| &one.records)
            .find_map(|record| match record {
                Record::Drained { at, .. } => Some(*at),
                _ => None,
            });
        let left = history.left();
        left.is_some_and(|(at, _)| drained.is_some_and(|drained| drained < at))
    }

    /// What was published after a fault and not heard shows how long hearing took to come back.
    fn measure_deafness(&self, findings: &mut Findings, missing: &[&Number]) {
        for number in missing {
            let published = self.plans[number].publishing;
            // What was on its way when the next fault began was lost to that one.
            let on_its_way = published..published + IN_FLIGHT;
            if self.begins.iter().any(|begin| on_its_way.contains(begin)) {
                continue;
            }
            if let Some(end) = self.over_since(published) {
                findings.recovery = findings
                    .recovery
                    .max(Duration::from_micros(published - end));
            }
        }
    }
}

/// What a message takes at most, where nothing is wrong, from its publisher to its subscribers.
const IN_FLIGHT: Micros = 200_000;
/// Whoever hears nothing for so long, though nothing is wrong, is deaf.
const DEAF: Micros = 2_000_000;
