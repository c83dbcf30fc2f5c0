//! What became of each message: done, lost, or done more than once, and why.

use std::collections::BTreeMap;

use super::deliveries::{Delivery, Life, Verdict};
use super::{Findings, History, Plan, Story};
use crate::history::Micros;
use crate::plan::{Group, Kind, Number};

impl Story<'_> {
    /// Every message that a broker had confirmed was processed, once unless there is a reason.
    pub(super) fn check_outcomes(&self, findings: &mut Findings) {
        let nothing = Life::default();
        let mut in_memory: BTreeMap<usize, Unprocessed> = BTreeMap::new();
        let mut dropped: BTreeMap<usize, u64> = BTreeMap::new();
        for (number, plan) in &self.plans {
            for group in plan
                .groups
                .iter()
                .copied()
                .filter(|group| *group != Group::News)
            {
                let life = self.lives.get(group, *number).unwrap_or(&nothing);
                let case = Case {
                    group,
                    number: *number,
                    plan,
                    life,
                };
                let is_done = self.is_done(case);
                if plan.published.is_some() {
                    findings.mode(group, plan.kind).messages += 1;
                }
                if group == Group::Memory {
                    let unprocessed = in_memory.entry(plan.process).or_default();
                    match plan.published {
                        _ if is_done => {}
                        Some(_) => unprocessed.confirmed += 1,
                        None => unprocessed.unsure += 1,
                    }
                } else if plan.published.is_some() && !is_done {
                    self.lost(findings, case);
                }
                if group == Group::Fleeting && !is_done {
                    let receivers = life.deliveries.iter().map(|one| one.owner);
                    for owner in receivers.filter(|owner| !self.was_killed(*owner)) {
                        *dropped.entry(owner.process).or_default() += 1;
                    }
                }
                self.check_repeats(findings, case);
                self.check_end(findings, case);
            }
        }
        for (process, unprocessed) in in_memory {
            self.check_memory(findings, process, unprocessed);
        }
        for (process, dropped) in dropped {
            let history = &self.histories[process];
            let counted = history.counted(Group::Fleeting);
            if dropped > counted {
                findings.violated("received and not processed, at most once", || {
                    format!(
                        "{dropped} by {}, which has counted {counted}",
                        history.process
                    )
                });
            }
        }
    }

    fn is_done(&self, case: Case<'_>) -> bool {
        let Case {
            group,
            number,
            plan,
            life,
        } = case;
        match (plan.kind.is_to_die(), group) {
            // The broker in memory is gone when its dead letters could be read.
            (true, Group::Memory | Group::Fleeting) => !life.done.is_empty(),
            (true, _) => self.dead.contains_key(&(group, number)),
            (false, _) => life.succeeded > 0,
        }
    }

    fn lost(&self, findings: &mut Findings, case: Case<'_>) {
        let Case {
            group,
            number,
            plan,
            life,
        } = case;
        findings.mode(group, plan.kind).lost += 1;
        name(&mut findings.lost, group, number);
        let allowed = self.allowed(plan);
        let may_be = match group {
            Group::Fleeting => allowed.fleeting_is_lost || allowed.messages_are_lost,
            _ => allowed.messages_are_lost,
        };
        if !may_be {
            findings.violated("lost", || {
                format!("{number} of {}, {:?}", group.name(), plan.kind)
            });
        }
        // Nobody died with it: then a connection did, and its owner has to say so.
        let is_told = !self.killed.is_empty() || self.histories.iter().any(History::has_gaps);
        let is_unseen = group == Group::Fleeting && life.deliveries.is_empty();
        if is_unseen && !is_told && !allowed.messages_are_lost {
            findings.violated("lost without a gap", || format!("{number}"));
        }
        // Once the fault is over, there is nothing that may lose a message. What was under way may have come before it.
        let published = plan.publishing;
        let spared = if group == Group::Fleeting {
            LATE_LOSS
        } else {
            0
        };
        if !self.ends.is_empty() && self.ends.iter().all(|end| *end + spared < published) {
            findings.violated("lost after the fault", || {
                format!("{number} of {}", group.name())
            });
        }
    }

    /// What is in memory dies with its process, and with nothing else.
    fn check_memory(&self, findings: &mut Findings, process: usize, unprocessed: Unprocessed) {
        let Unprocessed { confirmed, unsure } = unprocessed;
        let history = &self.histories[process];
        let left = history.left().map(|(_, in_memory)| in_memory);
        let lost = confirmed.saturating_sub(left.unwrap_or(0));
        findings.mode(Group::Memory, Kind::Plain).lost += lost;
        if self.killed.contains_key(&process) {
            return;
        }
        // What the process was publishing when it ended may have been taken in.
        let expected = confirmed..=confirmed + unsure;
        if !left.is_some_and(|left| expected.contains(&left)) {
            findings.violated("lost in memory", || {
                format!(
                    "{confirmed} of {}, which says that {left:?} are left",
                    history.process
                )
            });
        }
    }

    fn check_repeats(&self, findings: &mut Findings, case: Case<'_>) {
        let Case {
            group,
            number,
            plan,
            life,
        } = case;
        if !group.is_at_least_once() {
            if life.deliveries.len() > 1 && !self.allowed(plan).redis_forgets {
                findings.violated("handed out more than once, at most once", || {
                    format!("{number}")
                });
            }
            if life.done.len() > life.deliveries.len() {
                findings.violated("done more often than handed out, at most once", || {
                    format!("{number}")
                });
            }
            return;
        }
        // One time is as it should be: that of the delivery that was settled, or else the last.
        let mut ends: Vec<_> = life.done.iter().map(|end| end.delivery).collect();
        let usual = ends
            .iter()
            .position(|at| at.is_some_and(|at| life.deliveries[at].is_settled_for_good()));
        if let Some(usual) = usual.or(ends.len().checked_sub(1)) {
            let usual = ends.swap_remove(usual);
            for end in ends {
                findings.mode(group, plan.kind).duplicated += 1;
                name(&mut findings.twice, group, number);
                let cause = end
                    .filter(|_| end != usual)
                    .and_then(|at| self.cause(plan, life, &life.deliveries[at]));
                match cause {
                    Some(cause) => *findings.causes.entry(cause).or_default() += 1,
                    None => {
                        let by = end.map(|at| self.name(life.deliveries[at].owner));
                        findings.violated("done twice without a reason", || {
                            format!(
                                "{number} of {}, by {}",
                                group.name(),
                                by.unwrap_or("one who was not given it")
                            )
                        });
                    }
                }
            }
        }
    }

    /// What was done left the broker because it was settled, or a dying process did so and could not write it down.
    fn check_end(&self, findings: &mut Findings, case: Case<'_>) {
        let Case {
            group,
            number,
            plan,
            life,
        } = case;
        // What is in memory may go with its process; dead letters are looked for among the dead letters.
        let applies = group.is_at_least_once() && group != Group::Memory && !plan.kind.is_to_die();
        if !applies || life.done.is_empty() || self.allowed(plan).redis_forgets {
            return;
        }
        let mut done = life.done.iter().filter_map(|end| end.delivery);
        let is_settled = life
            .deliveries
            .iter()
            .any(Delivery::may_be_settled_for_good);
        if !is_settled && !done.any(|at| self.was_killed(life.deliveries[at].owner)) {
            findings.violated("gone without being settled", || {
                format!("{number} of {}", group.name())
            });
        }
    }

    /// Why a message was done, and yet had to be done again.
    fn cause(&self, plan: &Plan, life: &Life, delivery: &Delivery) -> Option<&'static str> {
        let has = |wanted| {
            delivery
                .settles
                .iter()
                .any(|settle| settle.verdict == wanted)
        };
        if has(Verdict::Stale)
            || has(Verdict::Unknown { answered: true })
            || delivery.lost.is_some()
        {
            Some("lease lost")
        } else if has(Verdict::Unknown { answered: false }) {
            Some("settle not answered")
        } else if self.died_with(life, delivery) {
            Some("process died")
        } else if self.allowed(plan).redis_forgets {
            Some("Redis forgot it")
        } else {
            None
        }
    }

    /// Whether its owner died before the message was handed out again.
    fn died_with(&self, life: &Life, delivery: &Delivery) -> bool {
        let death = self.killed.get(&delivery.owner.process);
        death.is_some_and(|death| life.deliveries.iter().any(|next| next.at > *death))
    }
}

/// A message in one of its groups.
#[derive(Clone, Copy)]
struct Case<'a> {
    group: Group,
    number: Number,
    plan: &'a Plan,
    life: &'a Life,
}

/// What was published to a broker in memory and not processed.
#[derive(Clone, Copy, Debug, Default)]
struct Unprocessed {
    confirmed: u64,
    /// Whether the broker had them is not known.
    unsure: u64,
}

/// A server may go on for so long handing messages to connections that are gone, where there is nobody to hand them back.
const LATE_LOSS: Micros = 5_000_000;

/// A few to begin with, for whoever wants to know what became of them.
fn name(named: &mut Vec<(Group, Number)>, group: Group, number: Number) {
    if named.len() < NAMED {
        named.push((group, number));
    }
}

const NAMED: usize = 10;
