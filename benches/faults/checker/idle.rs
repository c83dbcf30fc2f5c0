//! A process that is up and consumes nothing, while others do its work.

use super::{Findings, Story};
use crate::history::{Micros, Record};
use crate::plan::Group;

impl Story<'_> {
    /// After the last fault every process takes its share again.
    pub(super) fn check_idle(&self, findings: &mut Findings) {
        for history in self.histories {
            let begun = history.records.iter().find_map(begun);
            let Some(begun) = begun.filter(|_| self.was_there_at_the_end(history)) else {
                continue;
            };
            let over = self.ends.iter().copied().max().unwrap_or(0);
            let since = over.max(begun) + SETTLING;
            for group in SHARED {
                let plans = self.plans.values();
                let ready = plans
                    .filter(|plan| plan.groups.contains(&group))
                    .filter(|plan| plan.published.is_some_and(|at| at > since));
                let (ready, mut records) = (ready.count(), history.records.iter());
                if ready >= ENOUGH && !records.any(|record| is_received(record, group, since)) {
                    findings.violated("up, and consumes nothing", || {
                        let process = &history.process;
                        format!("{process} got none of {ready} of {}", group.name())
                    });
                }
            }
        }
    }
}

/// When a process had certainly begun, by one of its records.
pub(super) fn begun(record: &Record) -> Option<Micros> {
    match record {
        Record::Received { at, .. } | Record::Publishing { at, .. } => Some(*at),
        _ => None,
    }
}

fn is_received(record: &Record, wanted: Group, since: Micros) -> bool {
    matches!(record, Record::Received { at, group, .. } if *group == wanted && *at > since)
}

/// What all processes work on; what all of them hear is looked at elsewhere, and one alone keeps the order.
const SHARED: [Group; 4] = [Group::List, Group::Fleeting, Group::Stream, Group::Second];
/// What is received at once may have been claimed before the fault.
const SETTLING: Micros = 500_000;
/// Of so many messages each process gets some: three share them, a few at a time.
const ENOUGH: usize = 200;
