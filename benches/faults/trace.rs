//! What became of one message, from the histories that a run has kept.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use crate::checker::History;
use crate::history::{Micros, Record};
use crate::plan::Number;
use crate::run::histories;

/// Prints all that was written down about a message, and the faults and deaths meanwhile, in the order of time.
pub(crate) fn print(folder: &Path, number: Number) -> io::Result<()> {
    let histories = histories(folder)?;
    let mut lines: Vec<_> = histories
        .iter()
        .flat_map(|history| lines(history, number))
        .collect();
    if !lines
        .iter()
        .any(|(_, _, line)| matches!(line, About::Message(_)))
    {
        let folder = folder.display();
        return Err(io::Error::other(format!(
            "the histories in {folder} do not know message {number}"
        )));
    }
    lines.sort_by_key(|(at, ..)| *at);
    let start = lines.first().map_or(0, |(at, ..)| *at);
    for (at, process, line) in lines {
        let (About::Message(text) | About::Scene(text)) = line;
        let at = match at {
            Micros::MAX => "at the end".to_owned(),
            at => format!("{:.6} s", at.saturating_sub(start) as f64 / 1e6),
        };
        println!("{at:>12}  {process:<12} {text}");
    }
    Ok(())
}

/// A line of the story.
enum About {
    Message(String),
    /// What happens to all.
    Scene(String),
}

fn lines(history: &History, number: Number) -> Vec<(Micros, &str, About)> {
    let mut ours = HashSet::new();
    let mut first = None;
    let mut lines = Vec::new();
    for record in &history.records {
        let said = match record {
            Record::Publishing {
                at,
                kind,
                groups,
                numbers,
                delay,
            } if (numbers.0..=numbers.1).contains(&number) => {
                first = Some(numbers.0);
                let groups: Vec<_> = groups.iter().map(|group| group.name()).collect();
                let what = format!(
                    "publishing: {}, for {}, delay {delay} us",
                    kind.name(),
                    groups.join(" and ")
                );
                Some((*at, About::Message(what)))
            }
            Record::Published { at, first: of } if Some(*of) == first => {
                Some((*at, About::Message("published".to_owned())))
            }
            Record::Unpublished { at, first: of } if Some(*of) == first => Some((
                *at,
                About::Message("publishing failed: it may be in Redis, or not".to_owned()),
            )),
            Record::Received {
                at,
                source,
                group,
                deliveries,
            } => {
                let one = deliveries.iter().find(|one| one.number == number);
                one.map(|one| {
                    ours.insert((*source, one.receipt));
                    let what = format!(
                        "received from {} by reader {source}: failures {}, crashes {}",
                        group.name(),
                        one.failures,
                        one.crashes
                    );
                    (*at, About::Message(what))
                })
            }
            Record::Begun {
                at,
                group,
                number: of,
                attempt,
            } if *of == number => Some((
                *at,
                About::Message(format!("begun, {}, attempt {attempt}", group.name())),
            )),
            Record::Ended {
                at,
                group,
                number: of,
                outcome,
            } if *of == number => Some((
                *at,
                About::Message(format!("ended, {}: {outcome:?}", group.name())),
            )),
            Record::Settled {
                sent,
                at,
                source,
                answer,
                settled,
            } => {
                let one = settled
                    .iter()
                    .find(|(receipt, _)| ours.contains(&(*source, *receipt)));
                one.map(|(_, disposition)| {
                    let took = at.saturating_sub(*sent);
                    let of = settled.len();
                    let what = format!(
                        "settled by reader {source}: {disposition:?}, in a call about {of} that was answered after {took} us: {answer:?}"
                    );
                    (*at, About::Message(what))
                })
            }
            Record::Lost {
                at,
                source,
                receipts,
            } => {
                let is_ours = receipts
                    .iter()
                    .any(|receipt| ours.contains(&(*source, *receipt)));
                is_ours.then(|| {
                    (
                        *at,
                        About::Message(format!("reader {source} is told that it has lost it")),
                    )
                })
            }
            Record::Dead { group, number: of } if *of == number => {
                // Looked for when all was over.
                let what = format!("is a dead letter of {}", group.name());
                Some((Micros::MAX, About::Message(what)))
            }
            Record::Fault { at, begins } => {
                let what = if *begins {
                    "THE FAULT BEGINS"
                } else {
                    "THE FAULT ENDS"
                };
                Some((*at, About::Scene(what.to_owned())))
            }
            Record::Killed { at, process } => {
                Some((*at, About::Scene(format!("{process} IS KILLED"))))
            }
            _ => None,
        };
        lines.extend(said.map(|(at, about)| (at, history.process.as_str(), about)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answer, Disposition, Received};
    use crate::plan::Group;

    #[test]
    fn what_is_told_is_about_that_message_and_nothing_else() {
        let received = |number, receipt| Received {
            number,
            receipt,
            failures: 0,
            crashes: 1,
        };
        let settled = |source, receipt| Record::Settled {
            sent: 3,
            at: 5,
            source,
            answer: Answer::Stale(0),
            settled: vec![(receipt, Disposition::Ack)],
        };
        let history = History {
            process: "worker".to_owned(),
            records: vec![
                Record::Received {
                    at: 2,
                    source: 1,
                    group: Group::List,
                    deliveries: vec![received(6, 60), received(7, 70)],
                },
                settled(1, 60),
                // The same receipt of another reader is another message's.
                settled(2, 70),
                settled(1, 70),
                Record::Dead {
                    group: Group::List,
                    number: 6,
                },
            ],
        };
        let told: Vec<_> = lines(&history, 7)
            .into_iter()
            .map(|(at, _, about)| match about {
                About::Message(text) | About::Scene(text) => (at, text),
            })
            .collect();
        let settled =
            "settled by reader 1: Ack, in a call about 1 that was answered after 2 us: Stale(0)";
        assert_eq!(
            told,
            [
                (
                    2,
                    "received from list by reader 1: failures 0, crashes 1".to_owned()
                ),
                (5, settled.to_owned())
            ]
        );
    }
}
