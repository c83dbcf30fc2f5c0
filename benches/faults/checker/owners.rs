//! One owner at a time: nobody settles what is another's, what is settled is gone, and every hold but a release is counted.

use super::deliveries::{Delivery, Life, Owner, Part, Verdict};
use super::{Findings, LATE, Story};
use crate::history::Micros;

impl Story<'_> {
    /// Nobody settles what was handed to another since, and what is settled is gone.
    pub(super) fn check_owners(&self, findings: &mut Findings) {
        for call in self.lives.calls() {
            findings.stale += call.stale;
            let mut parts = call.parts.iter();
            let excused = parts.any(|part| self.allowed_for(part.number).leases_are_lost);
            if call.stale > 0 && !excused {
                findings.violated("a lease was lost without a reason", || {
                    format!(
                        "{} settles of {} were refused",
                        call.stale,
                        self.name(call.owner)
                    )
                });
            }
            let parts = call.parts.iter();
            let parts = parts.filter(|part| !self.allowed_for(part.number).redis_forgets);
            let lives = parts.filter_map(|part| {
                let life = self.lives.get(part.group, part.number)?;
                part.group.is_at_least_once().then_some((part, life))
            });
            let (mut overtaken, mut resurrected) = (0, 0);
            for (part, life) in lives {
                if life.is_overtaken(part) {
                    overtaken += 1;
                } else if life.is_resurrected(part) {
                    resurrected += 1;
                }
            }
            let about = || {
                let first = call.parts.first();
                let first = first.map(|part| format!("{} of {}", part.number, part.group.name()));
                let (size, stale) = (call.parts.len(), call.stale);
                let first = first.unwrap_or_default();
                format!(
                    "by {}, in a batch of {size} from {first} on, of which {stale} were refused",
                    self.name(call.owner)
                )
            };
            if overtaken > call.stale {
                findings.violated("settled by one who had lost it", || {
                    format!("{overtaken} {}", about())
                });
            } else if overtaken + resurrected > call.stale {
                findings.violated("handed out after it was settled", || {
                    format!("{} {}", overtaken + resurrected, about())
                });
            }
        }
        for ((group, number), life) in self.lives.iter() {
            let allowed = self.allowed_for(*number);
            let settles = life.deliveries.iter().flat_map(|one| &one.settles);
            let finals = settles
                .filter(|one| one.verdict == Verdict::Done && one.disposition.is_final())
                .count();
            if group.is_at_least_once() && finals > 1 && !allowed.redis_forgets {
                findings.violated("settled more than once", || {
                    format!("{number} of {}", group.name())
                });
            }
            let told = life.deliveries.iter().filter(|one| one.lost.is_some());
            *findings.refused_renewals.entry(*group).or_default() += told.count() as u64;
            let ended_late = life.done.iter().find_map(|end| {
                let delivery = &life.deliveries[end.delivery?];
                (end.at > delivery.lost? + CANCELLED_BY).then_some(delivery)
            });
            if let Some(delivery) = ended_late {
                findings.violated("went on with what it had lost", || {
                    let owner = self.name(delivery.owner);
                    format!("{owner}, with {number} of {}", group.name())
                });
            }
            // A renewal that crosses a settle is told that what was settled is lost.
            // So it is if the process dies before it can write down that it settles.
            let is_lost = |one: &Delivery| {
                let death = self.killed.get(&one.owner.process);
                let dies = |lost: Micros| death.is_some_and(|death| *death < lost + LATE);
                one.lost.is_some_and(|lost| !dies(lost)) && !one.may_be_settled()
            };
            if let Some(lost) = life.deliveries.iter().find(|one| is_lost(one))
                && !allowed.leases_are_lost
            {
                findings.violated("a lease was lost without a reason", || {
                    format!("{} had {number} of {}", self.name(lost.owner), group.name())
                });
            }
        }
    }

    /// A message carries as many attempts as it has had.
    pub(super) fn check_attempts(&self, findings: &mut Findings) {
        for ((group, number), life) in self.lives.iter() {
            let Some(plan) = self.plans.get(number) else {
                continue;
            };
            let allowed = self.allowed(plan);
            if !group.is_at_least_once() || allowed.redis_forgets {
                continue;
            }
            let (mut least, mut most) = (0, 0);
            for delivery in life.in_order() {
                // Who died may have been handed it without a chance to write that down. The driver writes a death down
                // before the kill, and may be held up between.
                let may_have_held =
                    |death: &Micros| *death < delivery.at && *death + LATE > plan.publishing;
                let unseen = match allowed.answers_are_lost {
                    true => u32::MAX - most,
                    false => self.killed.values().copied().filter(may_have_held).count() as u32,
                };
                if !(least..=most + unseen).contains(&delivery.counted) {
                    findings.violated("a wrong number of attempts", || {
                        format!(
                            "{number} of {} has {}, not {least} to {}",
                            group.name(),
                            delivery.counted,
                            most + unseen
                        )
                    });
                }
                // A failure counts, and so does a crash or a lease that ended; nothing else ends an owner's hold.
                let was_killed = self.was_killed(delivery.owner);
                let may_lapse = was_killed || allowed.leases_are_lost || allowed.answers_are_lost;
                let may_count = may_lapse || delivery.may_be_retried();
                least += u32::from(may_count && !delivery.may_be_released(was_killed));
                most += u32::from(may_count && !delivery.is_released());
            }
        }
    }

    pub(super) fn name(&self, owner: Owner) -> &str {
        &self.histories[owner.process].process
    }
}

impl Life {
    /// The deliveries in the order in which they were handed out. A process that was stopped sees its own late, so the
    /// counters tell more than the times.
    fn in_order(&self) -> Vec<&Delivery> {
        let mut all: Vec<_> = self.deliveries.iter().collect();
        all.sort_by_key(|delivery| (delivery.counted, delivery.at));
        all
    }

    /// Who was handed the message after this one, as far as anybody has written down. Whoever was handed it before, and was
    /// stopped before that was written down, comes later by the clock, but with lower counters: a crash was counted since.
    fn successors(&self, of: usize) -> impl Iterator<Item = &Delivery> {
        let own = &self.deliveries[of];
        let others = self.deliveries.iter().enumerate();
        others
            .filter(move |(at, other)| {
                *at != of && other.at > own.at && other.counted >= own.counted
            })
            .map(|(_, other)| other)
    }

    /// Whether the message was not this owner's any more when it sent the call.
    fn is_overtaken(&self, part: &Part) -> bool {
        let lost = self.deliveries[part.delivery].lost;
        let mut successors = self.successors(part.delivery);
        lost.is_some_and(|lost| lost < part.sent) || successors.any(|one| one.at < part.sent)
    }

    /// Whether this call, if it was carried out, was the end of the message, and yet it was handed out again.
    fn is_resurrected(&self, part: &Part) -> bool {
        part.disposition.is_final() && self.successors(part.delivery).next().is_some()
    }
}

/// A job whose lease turns out to be lost is cancelled; the machine may be slow.
const CANCELLED_BY: Micros = 1_000_000;
