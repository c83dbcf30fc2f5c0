//! What was done while the fault lasted: from 5,100 to 6,900 ms.

use super::*;

/// How many of the list were done meanwhile, if one was handed out and done at these times.
fn done(received: u64, ended: u64) -> u64 {
    let mut tape = sound();
    tape.publish(5_000, Kind::Plain, &[Group::List], ANOTHER);
    let of = (Group::List, ANOTHER);
    tape.receive(A, received, of, 0);
    tape.begin(A, received, of, 1);
    tape.end(A, ended, of, Outcome::Done);
    tape.settle(A, ended, (ANOTHER, 0), Disposition::Ack, Answer::Stale(0));
    tape.check(STOPPED).meanwhile[&Group::List]
}

#[test]
fn what_is_handed_out_and_done_within_the_fault_is_progress() {
    assert_eq!(done(5_200, 6_800), 1);
    assert_eq!(sound().check(STOPPED).meanwhile[&Group::List], 0);
}

#[test]
fn what_was_in_hand_before_or_is_done_after_it_is_none() {
    assert_eq!(done(5_050, 6_800), 0);
    assert_eq!(done(5_200, 7_000), 0);
}
