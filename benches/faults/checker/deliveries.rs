//! Who held which message, from when on, and what became of it there.

use std::collections::{BTreeMap, HashMap};

use crate::history::{Answer, Disposition, Micros, Outcome, Record};
use crate::plan::{Group, Number};

/// A source of a process.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Owner {
    /// The place of its history.
    pub(super) process: usize,
    pub(super) source: u32,
}

/// A message in one owner's hands.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) owner: Owner,
    pub(super) at: Micros,
    pub(super) counted: u32,
    /// An attempt at it has begun.
    begun: bool,
    pub(super) settles: Vec<Settle>,
    /// When a renewal was told that it is this owner's no more.
    pub(super) lost: Option<Micros>,
}

/// One try to settle one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settle {
    pub(super) disposition: Disposition,
    pub(super) verdict: Verdict,
}

/// What is known of a try to settle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Done,
    Stale,
    /// Some of its batch were stale, and which is not known; or there was no answer.
    Unknown {
        answered: bool,
    },
}

/// An attempt that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) at: Micros,
    /// Which of the message's deliveries it was.
    pub(super) delivery: Option<usize>,
}

/// What became of one message in one group.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    pub(super) deliveries: Vec<Delivery>,
    /// Attempts that succeeded, or that failed for good.
    pub(super) done: Vec<End>,
    pub(super) succeeded: u64,
}

/// All messages, by group and number, and all calls of settles.
#[derive(Debug, Default)]
pub(super) struct Lives {
    lives: BTreeMap<(Group, Number), Life>,
    calls: Vec<Call>,
}

/// One answered call of a settle.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) owner: Owner,
    pub(super) stale: u64,
    pub(super) parts: Vec<Part>,
}

/// One delivery of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) group: Group,
    pub(super) number: Number,
    /// Which of the message's deliveries.
    pub(super) delivery: usize,
    pub(super) disposition: Disposition,
    /// When the call was made first. A repeat is answered what the first try has done, if that has done it.
    pub(super) sent: Micros,
}

impl Lives {
    /// Takes in what one process has written down.
    pub(super) fn add(&mut self, process: usize, records: &[Record]) {
        // A receipt means something to its source only.
        let mut held: HashMap<(u32, u128), (Group, Number, usize)> = HashMap::new();
        // The attempts that have not ended.
        let mut running: HashMap<(Group, Number), Vec<Option<usize>>> = HashMap::new();
        // When a settle without an answer was tried first.
        let mut unanswered: HashMap<(u32, u128), Micros> = HashMap::new();
        for record in records {
            match record {
                Record::Received {
                    at,
                    source,
                    group,
                    deliveries,
                } => {
                    for one in deliveries {
                        let life = self.lives.entry((*group, one.number)).or_default();
                        held.insert(
                            (*source, one.receipt),
                            (*group, one.number, life.deliveries.len()),
                        );
                        life.deliveries.push(Delivery {
                            owner: Owner {
                                process,
                                source: *source,
                            },
                            at: *at,
                            counted: one.failures + one.crashes,
                            begun: false,
                            settles: Vec::new(),
                            lost: None,
                        });
                    }
                }
                Record::Begun {
                    group,
                    number,
                    attempt,
                    ..
                } => {
                    let life = self.lives.entry((*group, *number)).or_default();
                    let delivery = life.delivery_of(process, *attempt);
                    if let Some(at) = delivery {
                        life.deliveries[at].begun = true;
                    }
                    running.entry((*group, *number)).or_default().push(delivery);
                }
                Record::Ended {
                    at,
                    group,
                    number,
                    outcome,
                } => {
                    let life = self.lives.entry((*group, *number)).or_default();
                    // Of two at once the older one may have been cancelled, and then has no end.
                    let running = running.get_mut(&(*group, *number));
                    let delivery = running.and_then(Vec::pop).flatten();
                    if *outcome != Outcome::Failed {
                        life.done.push(End { at: *at, delivery });
                        life.succeeded += u64::from(*outcome == Outcome::Done);
                    }
                }
                Record::Settled {
                    sent,
                    source,
                    answer,
                    settled,
                    ..
                } => {
                    let owner = Owner {
                        process,
                        source: *source,
                    };
                    let verdict = Verdict::of(*answer, settled.len());
                    let mut parts = Vec::new();
                    for (receipt, disposition) in settled {
                        let Some((group, number, delivery)) = held.get(&(*source, *receipt)) else {
                            continue;
                        };
                        let first = *unanswered.entry((*source, *receipt)).or_insert(*sent);
                        if *answer != Answer::None {
                            unanswered.remove(&(*source, *receipt));
                        }
                        let part = Part {
                            group: *group,
                            number: *number,
                            delivery: *delivery,
                            disposition: *disposition,
                            sent: first,
                        };
                        if let Some(held) = self.delivery_mut(part.group, part.number, *delivery) {
                            held.settles.push(Settle {
                                disposition: *disposition,
                                verdict,
                            });
                        }
                        parts.push(part);
                    }
                    if let Answer::Stale(stale) = *answer {
                        self.calls.push(Call {
                            owner,
                            stale,
                            parts,
                        });
                    }
                }
                Record::Lost {
                    at,
                    source,
                    receipts,
                } => {
                    for receipt in receipts {
                        if let Some((group, number, delivery)) = held.get(&(*source, *receipt))
                            && let Some(held) = self.delivery_mut(*group, *number, *delivery)
                        {
                            held.lost.get_or_insert(*at);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn delivery_mut(&mut self, group: Group, number: Number, at: usize) -> Option<&mut Delivery> {
        self.lives.get_mut(&(group, number))?.deliveries.get_mut(at)
    }

    /// Puts the ends of all processes in the order of their times.
    pub(super) fn sort(&mut self) {
        for life in self.lives.values_mut() {
            life.done.sort_by_key(|end| end.at);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&(Group, Number), &Life)> {
        self.lives.iter()
    }

    pub(super) fn calls(&self) -> &[Call] {
        &self.calls
    }

    pub(super) fn get(&self, group: Group, number: Number) -> Option<&Life> {
        self.lives.get(&(group, number))
    }
}

impl Life {
    /// The delivery that this attempt of a process is at: the last that it was given with such counters, and has not begun
    /// yet; a group that was made again may give it a message twice at once.
    fn delivery_of(&self, process: usize, attempt: u32) -> Option<usize> {
        let own = |one: &Delivery| one.owner.process == process;
        let exact = |one: &Delivery| own(one) && one.counted + 1 == attempt;
        let fresh = |one: &Delivery| exact(one) && !one.begun;
        // An attempt that follows another within the process has counted on by itself.
        let last = |which: &dyn Fn(&Delivery) -> bool| self.deliveries.iter().rposition(which);
        last(&fresh).or_else(|| last(&exact)).or_else(|| last(&own))
    }
}

impl Disposition {
    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::Ack | Self::Dead)
    }
}

impl Verdict {
    fn of(answer: Answer, settled: usize) -> Self {
        match answer {
            Answer::Stale(0) => Self::Done,
            Answer::Stale(stale) if stale >= settled as u64 => Self::Stale,
            Answer::Stale(_) => Self::Unknown { answered: true },
            Answer::None => Self::Unknown { answered: false },
        }
    }
}

impl Delivery {
    /// Whether the broker has confirmed that it carried out what was final.
    pub(super) fn is_settled_for_good(&self) -> bool {
        let mut done = self
            .settles
            .iter()
            .filter(|one| one.verdict == Verdict::Done);
        done.any(|one| one.disposition.is_final())
    }

    /// Whether it may have been the end of the message.
    pub(super) fn may_be_settled_for_good(&self) -> bool {
        self.settles
            .iter()
            .any(|one| one.disposition.is_final() && one.verdict != Verdict::Stale)
    }

    pub(super) fn may_be_settled(&self) -> bool {
        self.settles.iter().any(|one| one.verdict != Verdict::Stale)
    }

    pub(super) fn may_be_retried(&self) -> bool {
        let mut settles = self.settles.iter();
        settles.any(|one| one.disposition == Disposition::Retry && one.verdict != Verdict::Stale)
    }

    pub(super) fn is_released(&self) -> bool {
        self.settles
            .iter()
            .any(|one| one.disposition == Disposition::Release && one.verdict == Verdict::Done)
    }

    /// Whether it may have been handed back, which burns no attempt.
    pub(super) fn may_be_released(&self, owner_was_killed: bool) -> bool {
        // What had to make way for a suspect may have been on its way back when its holder died, and who dies writes no more.
        let on_its_way = owner_was_killed && self.settles.is_empty() && !self.begun;
        let mut settles = self.settles.iter();
        on_its_way
            || settles
                .any(|one| one.disposition == Disposition::Release && one.verdict != Verdict::Stale)
    }
}
