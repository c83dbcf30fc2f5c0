//! What happened, written down outside of Redis: a file for each process, a line for each event.
//!
//! A line is one `write` to the end of its file, so a process that is killed loses nothing of what it had written. Times are
//! microseconds of the system's monotonic clock, which all processes share and no change of the wall clock moves.

use std::fmt::Write as _;
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
        .map(|line| {
            parse(line)
                .ok_or_else(|| io::Error::other(format!("{}: no event: {line:?}", path.display())))
        })
        .collect()
}

impl Record {
    fn line(&self, line: &mut String) {
        let written = match self {
            Self::Publishing {
                at,
                kind,
                groups,
                numbers,
                delay,
            } => {
                let groups: Vec<_> = groups.iter().map(|group| group.name()).collect();
                write!(
                    line,
                    "P {at} {} {} {} {} {delay}",
                    kind.name(),
                    groups.join(","),
                    numbers.0,
                    numbers.1
                )
            }
            Self::Published { at, first } => write!(line, "A {at} {first}"),
            Self::Unpublished { at, first } => write!(line, "U {at} {first}"),
            Self::Received {
                at,
                source,
                group,
                deliveries,
            } => {
                let mut written = write!(line, "R {at} {source} {}", group.name());
                for one in deliveries {
                    let Received {
                        number,
                        receipt,
                        failures,
                        crashes,
                    } = one;
                    written =
                        written.and(write!(line, " {number}:{receipt:x}:{failures}:{crashes}"));
                }
                written
            }
            Self::Begun {
                at,
                group,
                number,
                attempt,
            } => write!(line, "B {at} {} {number} {attempt}", group.name()),
            Self::Ended {
                at,
                group,
                number,
                outcome,
            } => {
                let outcome = match outcome {
                    Outcome::Done => "done",
                    Outcome::Failed => "failed",
                    Outcome::Permanent => "permanent",
                };
                write!(line, "E {at} {} {number} {outcome}", group.name())
            }
            Self::Settled {
                sent,
                at,
                source,
                answer,
                settled,
            } => {
                let answer = match answer {
                    Answer::Stale(stale) => stale.to_string(),
                    Answer::None => "?".to_owned(),
                };
                let mut written = write!(line, "S {sent} {at} {source} {answer}");
                for (receipt, disposition) in settled {
                    let letter = match disposition {
                        Disposition::Ack => 'a',
                        Disposition::Dead => 'd',
                        Disposition::Release => 'r',
                        Disposition::Retry => 't',
                    };
                    written = written.and(write!(line, " {receipt:x}:{letter}"));
                }
                written
            }
            Self::Lost {
                at,
                source,
                receipts,
            } => {
                let mut written = write!(line, "X {at} {source}");
                for receipt in receipts {
                    written = written.and(write!(line, " {receipt:x}"));
                }
                written
            }
            Self::Gap {
                at,
                group,
                cause,
                lost,
            } => {
                let lost = lost.map_or("?".to_owned(), |lost| lost.to_string());
                write!(line, "G {at} {} {cause} {lost}", group.name())
            }
            Self::Maintained {
                at,
                group,
                promoted,
                recovered,
                dead,
            } => {
                write!(
                    line,
                    "M {at} {} {promoted} {recovered} {dead}",
                    group.name()
                )
            }
            Self::Left { at, in_memory } => write!(line, "L {at} {in_memory}"),
            Self::Killed { at, process } => write!(line, "K {at} {process}"),
            Self::Dead { group, number } => write!(line, "D {} {number}", group.name()),
            Self::Fault { at, begins } => write!(line, "F {at} {}", u8::from(*begins)),
            Self::Drained { at, complete } => write!(line, "Z {at} {}", u8::from(*complete)),
        };
        written.expect("a text takes everything");
    }
}

fn parse(line: &str) -> Option<Record> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    let mut word = || words.next();
    Some(match kind {
        "P" => Record::Publishing {
            at: word()?.parse().ok()?,
            kind: Kind::from_name(word()?)?,
            groups: word()?
                .split(',')
                .map(Group::from_name)
                .collect::<Option<_>>()?,
            numbers: (word()?.parse().ok()?, word()?.parse().ok()?),
            delay: word()?.parse().ok()?,
        },
        "A" => Record::Published {
            at: word()?.parse().ok()?,
            first: word()?.parse().ok()?,
        },
        "U" => Record::Unpublished {
            at: word()?.parse().ok()?,
            first: word()?.parse().ok()?,
        },
        "R" => Record::Received {
            at: word()?.parse().ok()?,
            source: word()?.parse().ok()?,
            group: Group::from_name(word()?)?,
            deliveries: words.map(received).collect::<Option<_>>()?,
        },
        "B" => Record::Begun {
            at: word()?.parse().ok()?,
            group: Group::from_name(word()?)?,
            number: word()?.parse().ok()?,
            attempt: word()?.parse().ok()?,
        },
        "E" => Record::Ended {
            at: word()?.parse().ok()?,
            group: Group::from_name(word()?)?,
            number: word()?.parse().ok()?,
            outcome: match word()? {
                "done" => Outcome::Done,
                "failed" => Outcome::Failed,
                "permanent" => Outcome::Permanent,
                _ => return None,
            },
        },
        "S" => Record::Settled {
            sent: word()?.parse().ok()?,
            at: word()?.parse().ok()?,
            source: word()?.parse().ok()?,
            answer: match word()? {
                "?" => Answer::None,
                stale => Answer::Stale(stale.parse().ok()?),
            },
            settled: words.map(settled).collect::<Option<_>>()?,
        },
        "X" => Record::Lost {
            at: word()?.parse().ok()?,
            source: word()?.parse().ok()?,
            receipts: words.map(receipt).collect::<Option<_>>()?,
        },
        "G" => Record::Gap {
            at: word()?.parse().ok()?,
            group: Group::from_name(word()?)?,
            cause: word()?.to_owned(),
            lost: match word()? {
                "?" => None,
                lost => Some(lost.parse().ok()?),
            },
        },
        "M" => Record::Maintained {
            at: word()?.parse().ok()?,
            group: Group::from_name(word()?)?,
            promoted: word()?.parse().ok()?,
            recovered: word()?.parse().ok()?,
            dead: word()?.parse().ok()?,
        },
        "L" => Record::Left {
            at: word()?.parse().ok()?,
            in_memory: word()?.parse().ok()?,
        },
        "K" => Record::Killed {
            at: word()?.parse().ok()?,
            process: word()?.to_owned(),
        },
        "D" => Record::Dead {
            group: Group::from_name(word()?)?,
            number: word()?.parse().ok()?,
        },
        "F" => Record::Fault {
            at: word()?.parse().ok()?,
            begins: word()? == "1",
        },
        "Z" => Record::Drained {
            at: word()?.parse().ok()?,
            complete: word()? == "1",
        },
        _ => return None,
    })
}

fn received(word: &str) -> Option<Received> {
    let mut parts = word.split(':');
    Some(Received {
        number: parts.next()?.parse().ok()?,
        receipt: receipt(parts.next()?)?,
        failures: parts.next()?.parse().ok()?,
        crashes: parts.next()?.parse().ok()?,
    })
}

fn settled(word: &str) -> Option<(u128, Disposition)> {
    let (text, letter) = word.split_once(':')?;
    let disposition = match letter {
        "a" => Disposition::Ack,
        "d" => Disposition::Dead,
        "r" => Disposition::Release,
        "t" => Disposition::Retry,
        _ => return None,
    };
    Some((receipt(text)?, disposition))
}

fn receipt(word: &str) -> Option<u128> {
    u128::from_str_radix(word, 16).ok()
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
