//! A process, or a lane of one, that is up and consumes nothing, while others do its work.

use std::collections::BTreeSet;

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
                let ready = ready.count();
                let received = history.records.iter();
                let received = received.filter_map(|record| source_of(record, group, since));
                let lanes = received.collect::<BTreeSet<_>>().len();
                if ready >= ENOUGH && lanes < LANES {
                    findings.violated("up, and consumes nothing", || {
                        let (process, group) = (&history.process, group.name());
                        let idle = LANES - lanes;
                        format!("{idle} lanes of {process} got none of {ready} of {group}")
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

/// By which source messages of this group were received.
fn source_of(record: &Record, wanted: Group, since: Micros) -> Option<u32> {
    match record {
        Record::Received {
            at, group, source, ..
        } if *group == wanted && *at > since => Some(*source),
        _ => None,
    }
}

/// What all processes work on; what all of them hear is looked at elsewhere, and one alone keeps the order.
const SHARED: [Group; 4] = [Group::List, Group::Fleeting, Group::Stream, Group::Second];
/// What is received at once may have been claimed before the fault.
const SETTLING: Micros = 500_000;
/// Of so many messages each lane of each process gets some: six share them, a few at a time.
const ENOUGH: usize = 300;
/// Of each group in each process, by the configuration of all runs.
const LANES: usize = 2;
