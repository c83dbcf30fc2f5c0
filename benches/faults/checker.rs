//! Reads what all processes have written down, and decides for every message whether the promises were kept.

mod deliveries;
mod idle;
mod news;
mod outcome;
mod owners;
mod progress;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use crate::history::{Micros, Record};
use crate::plan::{Group, Kind, Number};
use deliveries::{Lives, Owner};

/// What one process has written down.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) process: String,
    pub(crate) records: Vec<Record>,
}

/// What a fault takes from the promises.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed {
    /// Redis itself forgets what it had confirmed, such as that a message was settled.
    pub(crate) redis_forgets: bool,
    /// Redis itself loses messages that it had confirmed.
    pub(crate) messages_are_lost: bool,
    /// Answers are lost on the way: who asked was handed messages that it never saw.
    pub(crate) answers_are_lost: bool,
    /// A process dies with messages of at-most-once queues in hand, or an answer with such messages is lost.
    pub(crate) fleeting_is_lost: bool,
    /// The process that keeps the order ends meanwhile, and another one goes on.
    pub(crate) order_is_broken: bool,
    /// The server's clock jumps.
    pub(crate) delays_are_short: bool,
    /// Processes are stopped, or kept from Redis, for longer than a lease.
    pub(crate) leases_are_lost: bool,
}

impl Allowed {
    /// What it takes, in words.
    pub(crate) fn words(&self) -> Vec<&'static str> {
        let words = [
            (
                self.redis_forgets,
                "Redis forgets what it has confirmed, so settled messages come again",
            ),
            (
                self.messages_are_lost,
                "Redis loses messages that it has confirmed",
            ),
            (
                self.answers_are_lost,
                "answers are lost: who asked was handed messages that it never saw",
            ),
            (self.fleeting_is_lost, "what is at most once is lost"),
            (self.order_is_broken, "the order of what is in hand"),
            (self.delays_are_short, "delays are short"),
            (
                self.leases_are_lost,
                "leases are lost, and what was held is done twice",
            ),
        ];
        let words = words.into_iter().filter(|(is_allowed, _)| *is_allowed);
        words.map(|(_, words)| words).collect()
    }

    /// Every promise is kept.
    pub(crate) const NOTHING: Self = Self {
        redis_forgets: false,
        messages_are_lost: false,
        answers_are_lost: false,
        fleeting_is_lost: false,
        order_is_broken: false,
        delays_are_short: false,
        leases_are_lost: false,
    };
}

/// What the histories say.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) modes: BTreeMap<&'static str, Counts>,
    /// What must not be: no more than a few of a kind are told.
    pub(crate) violations: Vec<String>,
    /// Settles that came too late and were refused.
    pub(crate) stale: u64,
    /// Messages of which a renewal was told that they are others'.
    pub(crate) refused_renewals: BTreeMap<Group, u64>,
    /// The first of those that were lost, and of those that were done twice.
    pub(crate) lost: Vec<(Group, Number)>,
    pub(crate) twice: Vec<(Group, Number)>,
    /// Why messages were processed more than once.
    pub(crate) causes: BTreeMap<&'static str, u64>,
    /// How many messages were done for good in the first and in the second half of faults.
    pub(crate) meanwhile: BTreeMap<Group, [u64; 2]>,
    /// From the end of the fault, or the death of the process that held it, until the last message that it had delayed was
    /// done.
    pub(crate) recovery: Duration,
}

/// How the messages of one mode fared.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) messages: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
}

/// What was published under one number.
#[derive(Clone, Debug)]
struct Plan {
    kind: Kind,
    groups: Vec<Group>,
    publishing: Micros,
    /// When the broker had it; `None`: whether it has is not known.
    published: Option<Micros>,
    delay: Micros,
    /// Who published it.
    process: usize,
}

/// Everything that the checks look at.
#[derive(Debug)]
struct Story<'a> {
    histories: &'a [History],
    allowed: Allowed,
    /// What is published after this moment has no excuse.
    calm: Option<Micros>,
    plans: BTreeMap<Number, Plan>,
    lives: Lives,
    /// When each process was killed, by its place among the histories.
    killed: HashMap<usize, Micros>,
    dead: BTreeMap<(Group, Number), u64>,
    /// When faults ended.
    ends: Vec<Micros>,
    /// When they began.
    begins: Vec<Micros>,
}

/// Decides. So long after the last fault, nothing is allowed any more.
pub(crate) fn check(histories: &[History], allowed: Allowed, lingers: Duration) -> Findings {
    let mut story = Story::tell(histories, allowed);
    let lingers = lingers.as_micros() as Micros;
    story.calm = story
        .ends
        .iter()
        .max()
        .map(|end| end.saturating_add(lingers));
    let mut findings = Findings::default();
    story.check_drained(&mut findings);
    story.check_outcomes(&mut findings);
    story.check_dead_letters(&mut findings);
    story.check_owners(&mut findings);
    story.check_attempts(&mut findings);
    story.check_times(&mut findings);
    story.check_news(&mut findings);
    story.check_idle(&mut findings);
    story.measure_recovery(&mut findings);
    story.count_progress(&mut findings);
    findings
}

impl History {
    /// How many messages of a group the process itself says that it has lost.
    fn counted(&self, of: Group) -> u64 {
        let gaps = self.records.iter().filter_map(|record| match record {
            Record::Gap { group, lost, .. } if *group == of => *lost,
            _ => None,
        });
        gaps.sum()
    }

    /// When the process ended in order, and how many messages were left in its memory then.
    fn left(&self) -> Option<(Micros, u64)> {
        let mut left = self.records.iter().filter_map(|record| match record {
            Record::Left { at, in_memory } => Some((*at, *in_memory)),
            _ => None,
        });
        left.next()
    }

    /// Whether it has said that it may have lost messages of the list that hands out at most once.
    fn has_gaps(&self) -> bool {
        let of_list = |record: &Record| {
            matches!(
                record,
                Record::Gap {
                    group: Group::Fleeting,
                    ..
                }
            )
        };
        self.records.iter().any(of_list)
    }
}

impl Findings {
    /// Notes what must not be; of many alike the first few are enough.
    fn violated(&mut self, what: &str, details: impl FnOnce() -> String) {
        let alike = self
            .violations
            .iter()
            .filter(|one| one.starts_with(what))
            .count();
        if alike < SHOWN {
            self.violations.push(format!("{what}: {}", details()));
        } else if alike == SHOWN {
            self.violations.push(format!("{what}: and more"));
        }
    }

    fn mode(&mut self, group: Group, kind: Kind) -> &mut Counts {
        self.modes.entry(mode(group, kind)).or_default()
    }

    pub(crate) fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.modes.values() {
            total.messages += counts.messages;
            total.lost += counts.lost;
            total.duplicated += counts.duplicated;
        }
        total
    }
}

/// What a message is counted under.
pub(crate) const fn mode(group: Group, kind: Kind) -> &'static str {
    match (group, kind) {
        (Group::Fleeting, _) => "list, at most once",
        (Group::News, _) => "pub/sub",
        (Group::Memory, _) => "in memory",
        (Group::Ordered, _) => "list, in order",
        (_, Kind::Delayed) => "delayed",
        (_, Kind::Retry) => "retried",
        (_, Kind::Dead | Kind::Poison | Kind::Unreadable) => "dead letters",
        (Group::List, _) => "list",
        (Group::Stream, _) => "stream",
        (Group::Second, _) => "stream, second group",
    }
}

impl<'a> Story<'a> {
    fn tell(histories: &'a [History], allowed: Allowed) -> Self {
        let places: HashMap<_, _> = histories
            .iter()
            .enumerate()
            .map(|(at, one)| (one.process.as_str(), at))
            .collect();
        let mut story = Self {
            histories,
            allowed,
            calm: None,
            plans: BTreeMap::new(),
            lives: Lives::default(),
            killed: HashMap::new(),
            dead: BTreeMap::new(),
            ends: Vec::new(),
            begins: Vec::new(),
        };
        for (process, history) in histories.iter().enumerate() {
            let mut batches: HashMap<Number, Number> = HashMap::new();
            for record in &history.records {
                match record {
                    Record::Publishing {
                        at,
                        kind,
                        groups,
                        numbers,
                        delay,
                    } => {
                        batches.insert(numbers.0, numbers.1);
                        for number in numbers.0..numbers.1 {
                            story.plans.insert(
                                number,
                                Plan {
                                    kind: *kind,
                                    groups: groups.clone(),
                                    publishing: *at,
                                    published: None,
                                    delay: *delay,
                                    process,
                                },
                            );
                        }
                    }
                    Record::Published { at, first } => {
                        for number in *first..batches.get(first).copied().unwrap_or(*first) {
                            if let Some(plan) = story.plans.get_mut(&number) {
                                plan.published = Some(*at);
                            }
                        }
                    }
                    Record::Killed { at, process } => {
                        if let Some(place) = places.get(process.as_str()) {
                            story.killed.insert(*place, *at);
                        }
                    }
                    Record::Dead { group, number } => {
                        *story.dead.entry((*group, *number)).or_default() += 1
                    }
                    Record::Fault { at, begins: true } => story.begins.push(*at),
                    Record::Fault { at, begins: false } => story.ends.push(*at),
                    _ => {}
                }
            }
            story.lives.add(process, &history.records);
        }
        story.lives.sort();
        story
    }

    fn allowed(&self, plan: &Plan) -> Allowed {
        match self.calm {
            Some(calm) if plan.publishing > calm => Allowed::NOTHING,
            _ => self.allowed,
        }
    }

    fn allowed_for(&self, number: Number) -> Allowed {
        self.plans
            .get(&number)
            .map_or(self.allowed, |plan| self.allowed(plan))
    }

    fn check_drained(&self, findings: &mut Findings) {
        let drained = self.histories.iter().flat_map(|one| &one.records);
        let mut drained =
            drained.filter(|record| matches!(record, Record::Drained { complete: true, .. }));
        if drained.next().is_none() {
            findings.violated("not all was done", || {
                "messages were left at the end".to_owned()
            });
        }
    }

    fn check_dead_letters(&self, findings: &mut Findings) {
        for ((group, number), times) in &self.dead {
            let innocent = self
                .plans
                .get(number)
                .is_none_or(|plan| !plan.kind.is_to_die());
            if innocent {
                findings.violated("an innocent message is dead", || {
                    format!("{number} of {}", group.name())
                });
            }
            if *times > 1 && !self.allowed_for(*number).redis_forgets {
                findings.violated("a message is dead more than once", || {
                    format!("{number} of {}", group.name())
                });
            }
        }
    }

    /// Delayed messages are not early, nobody is given another's, and where there is an order it is kept.
    fn check_times(&self, findings: &mut Findings) {
        let mut in_order = Vec::new();
        for history in self.histories {
            for record in &history.records {
                let Record::Begun {
                    at, group, number, ..
                } = record
                else {
                    continue;
                };
                let plan = self.plans.get(number);
                let Some(plan) = plan.filter(|plan| plan.groups.contains(group)) else {
                    findings.violated("a message that nobody has published", || {
                        format!("{number} of {}", group.name())
                    });
                    continue;
                };
                if *at + TOLERANCE < plan.publishing + plan.delay
                    && !self.allowed(plan).delays_are_short
                {
                    findings.violated("a delayed message came early", || {
                        format!(
                            "{number} of {}, by {} us",
                            group.name(),
                            plan.publishing + plan.delay - at
                        )
                    });
                }
                // What was published without an answer may have arrived at any time.
                if *group == Group::Ordered && plan.published.is_some() {
                    in_order.push((*at, *number));
                }
            }
        }
        if !self.allowed.order_is_broken {
            in_order.sort_unstable();
            Self::check_order(findings, &in_order);
        }
    }

    fn check_order(findings: &mut Findings, begun: &[(Micros, Number)]) {
        let (mut seen, mut last) = (BTreeSet::new(), 0);
        for (_, number) in begun {
            if seen.insert(*number) && *number < last {
                findings.violated("out of order", || format!("{number} came after {last}"));
            }
            last = last.max(*number);
        }
    }

    fn is_under_fault(&self, at: Micros) -> bool {
        let mut faults = self.begins.iter().zip(&self.ends);
        faults.any(|(begin, end)| (*begin..=*end).contains(&at))
    }

    /// Since when the last fault before this moment has been over; none while one is under way.
    fn over_since(&self, at: Micros) -> Option<Micros> {
        let last = |times: &[Micros]| times.iter().copied().filter(|time| *time < at).max();
        let (begun, ended) = (last(&self.begins), last(&self.ends)?);
        begun.is_none_or(|begun| begun <= ended).then_some(ended)
    }

    /// Of what was done late, how long after the first fault that it had to wait for was over, or after it was ready.
    fn measure_recovery(&self, findings: &mut Findings) {
        let mut recovery = 0;
        for ((group, number), life) in self.lives.iter() {
            let (Some(plan), Some(done)) = (self.plans.get(number), life.done.first()) else {
                continue;
            };
            let Some(published) = plan.published else {
                continue;
            };
            // What is done one by one falls behind on a slow machine.
            let at_once = !matches!(group, Group::Memory | Group::Ordered);
            let usual = matches!(plan.kind, Kind::Plain | Kind::Delayed) && at_once;
            if !usual || done.at < published + plan.delay + LATE {
                continue;
            }
            let ready = published + plan.delay;
            // Who died with it in hand, or else the first fault since it was ready.
            let deaths = life
                .deliveries
                .iter()
                .filter_map(|one| self.killed.get(&one.owner.process));
            let known = deaths.filter(|death| **death < done.at);
            let (known, last) = (known.clone().count(), known.max());
            // A claim whose answer died with its process is written down nowhere: its crash is counted all the same.
            let crashes = life.deliveries.iter().map(|one| one.counted).max();
            let may_have_held = |death: &&Micros| (ready..done.at).contains(*death);
            let unknown = match crashes.is_some_and(|crashes| crashes as usize > known) {
                true => self.killed.values().filter(may_have_held).max(),
                false => None,
            };
            let death = unknown.max(last).copied();
            let over = || {
                let mut ends = self.ends.iter().copied();
                ends.find(|end| *end > ready && *end < done.at)
                    .unwrap_or(ready)
            };
            if death.is_some() || !self.is_under_fault(done.at) {
                recovery = recovery.max(done.at - death.unwrap_or_else(over).max(ready));
            }
        }
        findings.recovery = findings.recovery.max(Duration::from_micros(recovery));
    }

    fn was_killed(&self, owner: Owner) -> bool {
        self.killed.contains_key(&owner.process)
    }
}

/// How many violations of a kind are told.
const SHOWN: usize = 3;
/// Due times are whole milliseconds of the server's clock.
const TOLERANCE: Micros = 2_000;
/// What is done so long after it was ready has been held up.
const LATE: Micros = 1_000_000;
