//! What happened, written down outside of Redis: a file for each process, a line for each event.
//!
//! A line is one `write` to the end of its file, so a process that is killed loses nothing of what it had written. Times are
//! microseconds of the system's monotonic clock, which all processes share and no change of the wall clock moves.

mod line;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use crate::plan::{Group, Kind, Number};

/// Microseconds since some moment before all processes.
pub(crate) type Micros = u64;

/// The time, by a clock that all processes share.
pub(crate) fn now() -> Micros {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1_000
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    /// These numbers are about to be published.
    Publishing {
        at: Micros,
        kind: Kind,
        groups: Vec<Group>,
        numbers: (Number, Number),
        delay: Micros,
    },
    /// The broker has them.
    Published { at: Micros, first: Number },
    /// Whether the broker has them is not known: publishing failed.
    Unpublished { at: Micros, first: Number },
    /// A source handed these out.
    Received {
        at: Micros,
        source: u32,
        group: Group,
        deliveries: Vec<Received>,
    },
    /// The worker begins with a message.
    Begun {
        at: Micros,
        group: Group,
        number: Number,
        attempt: u32,
    },
    /// The worker has ended with it.
    Ended {
        at: Micros,
        group: Group,
        number: Number,
        outcome: Outcome,
    },
    /// A settle was sent and answered.
    Settled {
        sent: Micros,
        at: Micros,
        source: u32,
        answer: Answer,
        settled: Vec<(u128, Disposition)>,
    },
    /// A renewal was told that these now belong to others.
    Lost {
        at: Micros,
        source: u32,
        receipts: Vec<u128>,
    },
    /// An at-most-once broker reports a gap.
    Gap {
        at: Micros,
        group: Group,
        cause: String,
        lost: Option<u64>,
    },
    /// A round of upkeep did something.
    Maintained {
        at: Micros,
        group: Group,
        promoted: u64,
        recovered: u64,
        dead: u64,
    },
    /// The process ended in order; so many messages are left in its in-memory broker.
    Left { at: Micros, in_memory: u64 },
    /// The driver ended the process of this file.
    Killed { at: Micros, process: String },
    /// A message is among the dead letters at the end.
    Dead { group: Group, number: Number },
    /// The fault begins, and ends.
    Fault { at: Micros, begins: bool },
    /// All that was published is done, or given up.
    Drained { at: Micros, complete: bool },
}

/// A message as it was handed out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Received {
    pub(crate) number: Number,
    pub(crate) receipt: u128,
    pub(crate) failures: u32,
    pub(crate) crashes: u32,
}

/// How the worker ended with a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Done,
    Failed,
    Permanent,
}

/// What was to become of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Disposition {
    Ack,
    Dead,
    Release,
    Retry,
}

/// What the broker answered to a settle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    /// So many were no longer ours.
    Stale(u64),
    /// None: it failed, and may have been carried out all the same.
    None,
}

/// The file that a process writes to.
#[derive(Debug)]
pub(crate) struct Journal(File);

impl Journal {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(file))
    }

    /// Writes the event, whole. What can't be written down must not go on.
    pub(crate) fn write(&self, record: &Record) {
        let mut line = String::with_capacity(64);
        record.line(&mut line);
        line.push('\n');
        (&self.0)
            .write_all(line.as_bytes())
            .expect("the history can be written");
    }
}

/// All events of one file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Record>> {
    let text = std::fs::read_to_string(path)?;
    // A machine that ran full may have cut the last line.
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    text[..whole]
        .lines()
        .map(|written| {
            line::parse(written).ok_or_else(|| {
                io::Error::other(format!("{}: no event: {written:?}", path.display()))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_read_as_it_was_written() {
        let delivery = Received {
            number: 7,
            receipt: u128::MAX,
            failures: 1,
            crashes: 2,
        };
        let group = Group::Stream;
        let records = [
            Record::Publishing {
                at: 1,
                kind: Kind::Retry,
                groups: vec![Group::Stream, Group::Second],
                numbers: (1, 9),
                delay: 5,
            },
            Record::Published { at: 2, first: 1 },
            Record::Unpublished { at: 2, first: 1 },
            Record::Received {
                at: 3,
                source: 4,
                group,
                deliveries: vec![delivery, delivery],
            },
            Record::Begun {
                at: 4,
                group,
                number: 7,
                attempt: 4,
            },
            Record::Ended {
                at: 5,
                group,
                number: 7,
                outcome: Outcome::Done,
            },
            Record::Ended {
                at: 5,
                group,
                number: 7,
                outcome: Outcome::Failed,
            },
            Record::Ended {
                at: 5,
                group,
                number: 7,
                outcome: Outcome::Permanent,
            },
            Record::Settled {
                sent: 5,
                at: 6,
                source: 4,
                answer: Answer::Stale(3),
                settled: vec![
                    (1, Disposition::Ack),
                    (2, Disposition::Dead),
                    (3, Disposition::Release),
                    (4, Disposition::Retry),
                ],
            },
            Record::Settled {
                sent: 5,
                at: 6,
                source: 4,
                answer: Answer::None,
                settled: vec![],
            },
            Record::Lost {
                at: 7,
                source: 4,
                receipts: vec![1, u128::MAX],
            },
            Record::Gap {
                at: 8,
                group: Group::News,
                cause: "disconnected".into(),
                lost: None,
            },
            Record::Gap {
                at: 8,
                group: Group::News,
                cause: "missing_numbers".into(),
                lost: Some(3),
            },
            Record::Maintained {
                at: 9,
                group,
                promoted: 1,
                recovered: 2,
                dead: 3,
            },
            Record::Left {
                at: 10,
                in_memory: 4,
            },
            Record::Killed {
                at: 11,
                process: "worker-1.2".into(),
            },
            Record::Dead { group, number: 7 },
            Record::Fault {
                at: 12,
                begins: true,
            },
            Record::Drained {
                at: 13,
                complete: false,
            },
        ];
        let file = tempfile::NamedTempFile::new().unwrap();
        let journal = Journal::create(file.path()).unwrap();
        for record in &records {
            journal.write(record);
        }
        assert_eq!(read(file.path()).unwrap(), records);
    }
}
