//! An event as a line of text, and back.

use std::fmt::Write as _;

use super::{Answer, Disposition, Outcome, Received, Record};
use crate::plan::{Group, Kind};

impl Record {
    pub(super) fn line(&self, line: &mut String) {
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

pub(super) fn parse(line: &str) -> Option<Record> {
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
