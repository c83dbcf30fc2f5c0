//! What gets done while a fault lasts: a settle that Redis has answered, or where nothing is settled, an attempt that ended.

use std::collections::HashMap;

use super::{Findings, History, Story};
use crate::history::{Answer, Micros, Outcome, Record};
use crate::plan::Group;

impl Story<'_> {
    pub(super) fn count_progress(&self, findings: &mut Findings) {
        for history in self.histories {
            for (at, group, count) in done(history) {
                if let Some(half) = self.half(at) {
                    findings.meanwhile.entry(group).or_default()[half] += count;
                }
            }
        }
    }

    /// The half of a fault that this moment is in.
    fn half(&self, at: Micros) -> Option<usize> {
        let mut faults = self.begins.iter().zip(&self.ends);
        let (begin, end) = faults.find(|(begin, end)| (**begin..**end).contains(&at))?;
        Some(usize::from(at - begin >= (end - begin) / 2))
    }
}

/// When how many messages of which group were done.
fn done(history: &History) -> impl Iterator<Item = (Micros, Group, u64)> {
    let mut groups = HashMap::new();
    history
        .records
        .iter()
        .filter_map(move |record| match record {
            Record::Received { source, group, .. } => {
                groups.insert(*source, *group);
                None
            }
            Record::Settled {
                at,
                source,
                answer: Answer::Stale(stale),
                settled,
                ..
            } => {
                let group = groups
                    .get(source)
                    .filter(|group| group.is_at_least_once())?;
                let last = settled.iter().filter(|(_, what)| what.is_final());
                let done = (last.count() as u64).saturating_sub(*stale);
                Some((*at, *group, done))
            }
            Record::Ended {
                at,
                group,
                outcome: Outcome::Done,
                ..
            } if !group.is_at_least_once() => Some((*at, *group, 1)),
            _ => None,
        })
}
