//! Histories made by hand.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{Allowed, Findings, History, check};
use crate::history::{Answer, Disposition, Micros, Outcome, Received, Record};
use crate::plan::{Group, Kind, Number};

/// What all processes write down; times are milliseconds. Whoever is named has a history.
#[derive(Clone, Default)]
pub(super) struct Tape(BTreeMap<&'static str, Vec<(Micros, Record)>>);

/// One source of one process.
#[derive(Clone, Copy)]
pub(super) struct Lane {
    pub(super) process: &'static str,
    pub(super) source: u32,
}

/// A message in a group.
pub(super) type Message = (Group, Number);

impl Tape {
    /// As if the fault's effects never ended.
    pub(super) fn check(&self, allowed: Allowed) -> Findings {
        self.check_within(allowed, Duration::from_secs(3_600))
    }

    pub(super) fn check_within(&self, allowed: Allowed, lingers: Duration) -> Findings {
        let histories: Vec<_> = self
            .0
            .iter()
            .map(|(process, records)| {
                let mut records = records.clone();
                records.sort_by_key(|(at, _)| *at);
                History {
                    process: (*process).to_owned(),
                    records: records.into_iter().map(|(_, record)| record).collect(),
                }
            })
            .collect();
        check(&histories, allowed, lingers)
    }

    /// Writes one event down.
    pub(super) fn write(&mut self, process: &'static str, ms: u64, record: Record) {
        let records = self.0.entry(process).or_default();
        records.push((ms * MS, record));
    }

    /// Changes the one event for which this holds.
    pub(super) fn change(&mut self, mut change: impl FnMut(&mut Record) -> bool) {
        let records = self.0.values_mut().flatten();
        let changed = records.filter_map(|(_, record)| change(record).then_some(()));
        assert_eq!(changed.count(), 1, "one thing is doctored");
    }

    /// Takes out the one event for which this holds.
    pub(super) fn remove(&mut self, which: impl Fn(&Record) -> bool) {
        let before = self.0.values().flatten().count();
        for records in self.0.values_mut() {
            records.retain(|(_, record)| !which(record));
        }
        let removed = before - self.0.values().flatten().count();
        assert_eq!(removed, 1, "one thing is doctored");
    }

    /// Published with a confirmation, a millisecond later.
    pub(super) fn publish(&mut self, ms: u64, kind: Kind, groups: &[Group], number: Number) {
        self.publish_by("driver", ms, kind, groups, number, 0);
    }

    pub(super) fn publish_by(
        &mut self,
        process: &'static str,
        ms: u64,
        kind: Kind,
        groups: &[Group],
        number: Number,
        delay_ms: u64,
    ) {
        let publishing = Record::Publishing {
            at: ms * MS,
            kind,
            groups: groups.to_vec(),
            numbers: (number, number + 1),
            delay: delay_ms * MS,
        };
        let at = (ms + 1) * MS;
        self.write(process, ms, publishing);
        self.write(process, ms + 1, Record::Published { at, first: number });
    }

    pub(super) fn receive(&mut self, lane: Lane, ms: u64, message: Message, failures: u32) {
        self.receive_after(lane, ms, message, failures, 0);
    }

    pub(super) fn receive_after(
        &mut self,
        lane: Lane,
        ms: u64,
        (group, number): Message,
        failures: u32,
        crashes: u32,
    ) {
        let received = Record::Received {
            at: ms * MS,
            source: lane.source,
            group,
            deliveries: vec![Received {
                number,
                receipt: receipt(number, failures + crashes),
                failures,
                crashes,
            }],
        };
        self.write(lane.process, ms, received);
    }

    pub(super) fn begin(&mut self, lane: Lane, ms: u64, (group, number): Message, attempt: u32) {
        let begun = Record::Begun {
            at: ms * MS,
            group,
            number,
            attempt,
        };
        self.write(lane.process, ms, begun);
    }

    pub(super) fn end(&mut self, lane: Lane, ms: u64, message: Message, outcome: Outcome) {
        let (group, number) = message;
        let ended = Record::Ended {
            at: ms * MS,
            group,
            number,
            outcome,
        };
        self.write(lane.process, ms, ended);
    }

    /// A settle of one message, answered a millisecond later.
    pub(super) fn settle(
        &mut self,
        lane: Lane,
        ms: u64,
        (number, counted): (Number, u32),
        disposition: Disposition,
        answer: Answer,
    ) {
        self.settle_all(lane, ms, &[(number, counted)], disposition, answer);
    }

    pub(super) fn settle_all(
        &mut self,
        lane: Lane,
        ms: u64,
        messages: &[(Number, u32)],
        disposition: Disposition,
        answer: Answer,
    ) {
        let receipts = messages
            .iter()
            .map(|(number, counted)| (receipt(*number, *counted), disposition));
        let settled = Record::Settled {
            sent: ms * MS,
            at: (ms + 1) * MS,
            source: lane.source,
            answer,
            settled: receipts.collect(),
        };
        self.write(lane.process, ms + 1, settled);
    }

    /// Received with such counters, done and acknowledged: each a millisecond after the one before.
    pub(super) fn work(&mut self, lane: Lane, ms: u64, message: Message, crashes: u32) {
        self.receive_after(lane, ms, message, 0, crashes);
        self.begin(lane, ms + 1, message, crashes + 1);
        self.end(lane, ms + 2, message, Outcome::Done);
        let receipt = (message.1, crashes);
        self.settle(lane, ms + 3, receipt, Disposition::Ack, Answer::Stale(0));
    }

    pub(super) fn kill(&mut self, ms: u64, process: &'static str) {
        let (at, process) = (ms * MS, process.to_owned());
        self.write("driver", ms, Record::Killed { at, process });
    }

    pub(super) fn fault(&mut self, from: u64, to: u64) {
        for (ms, begins) in [(from, true), (to, false)] {
            self.write(
                "driver",
                ms,
                Record::Fault {
                    at: ms * MS,
                    begins,
                },
            );
        }
    }

    pub(super) fn dead(&mut self, (group, number): Message) {
        self.write("driver", LAST, Record::Dead { group, number });
    }

    pub(super) fn gap(&mut self, process: &'static str, ms: u64, group: Group, lost: Option<u64>) {
        let gap = Record::Gap {
            at: ms * MS,
            group,
            cause: "missing_numbers".to_owned(),
            lost,
        };
        self.write(process, ms, gap);
    }

    /// All queues are empty, and these processes end in order, with so many messages in memory.
    pub(super) fn finish(&mut self, ms: u64, processes: &[(&'static str, u64)]) {
        let drained = Record::Drained {
            at: ms * MS,
            complete: true,
        };
        self.write("driver", ms, drained);
        for (process, in_memory) in processes {
            let left = Record::Left {
                at: (ms + 1) * MS,
                in_memory: *in_memory,
            };
            self.write(process, ms + 1, left);
        }
    }
}

/// A message has another receipt each time that it is handed out.
pub(super) fn receipt(number: Number, counted: u32) -> u128 {
    u128::from(number) * 100 + u128::from(counted)
}

pub(super) const MS: Micros = 1_000;
const LAST: u64 = 1_000_000;
