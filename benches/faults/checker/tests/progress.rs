//! What was done while the fault lasted: from 5,100 to 6,900 ms.

use super::*;

/// How many were done in its two halves, if one was handed out, done and settled at these times.
fn done(group: Group, received: u64, settled: u64, answer: Answer) -> [u64; 2] {
    let mut tape = sound();
    let before = tape.check(STOPPED).meanwhile;
    tape.publish(5_000, Kind::Plain, &[group], ANOTHER);
    let of = (group, ANOTHER);
    tape.receive(A, received, of, 0);
    tape.begin(A, received, of, 1);
    tape.end(A, settled, of, Outcome::Done);
    tape.settle(A, settled, (ANOTHER, 0), Disposition::Ack, answer);
    let after = tape.check(STOPPED).meanwhile;
    let of = |halves: &std::collections::BTreeMap<Group, [u64; 2]>| {
        halves.get(&group).copied().unwrap_or_default()
    };
    let (before, after) = (of(&before), of(&after));
    [after[0] - before[0], after[1] - before[1]]
}

#[test]
fn what_is_settled_within_the_fault_is_progress() {
    assert_eq!(done(Group::List, 5_200, 5_300, Answer::Stale(0)), [1, 0]);
    assert_eq!(done(Group::Stream, 5_200, 6_800, Answer::Stale(0)), [0, 1]);
    assert_eq!(done(Group::Fleeting, 5_200, 6_800, Answer::None), [0, 1]);
}

#[test]
fn what_is_settled_before_or_after_it_or_in_vain_is_none() {
    assert_eq!(done(Group::List, 5_050, 5_090, Answer::Stale(0)), [0, 0]);
    assert_eq!(done(Group::List, 5_200, 7_000, Answer::Stale(0)), [0, 0]);
    assert_eq!(done(Group::List, 5_200, 6_800, Answer::Stale(1)), [0, 0]);
    assert_eq!(done(Group::List, 5_200, 6_800, Answer::None), [0, 0]);
}
