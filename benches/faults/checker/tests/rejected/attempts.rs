//! What a message carries.

use super::*;

#[test]
fn too_few_attempts_after_a_retry() {
    let mut tape = sound();
    let of = (Group::List, ANOTHER);
    tape.publish(100, Kind::Retry, &[Group::List], ANOTHER);
    tape.receive(A, 110, of, 0);
    tape.settle(A, 120, (ANOTHER, 0), Disposition::Retry, Answer::Stale(0));
    tape.receive(A, 300, of, 1);
    tape.end(A, 310, of, Outcome::Done);
    tape.settle(A, 320, (ANOTHER, 1), Disposition::Ack, Answer::Stale(0));
    accepts(&tape, STOPPED);
    // The receipt is as before, so nothing else is.
    counted(&mut tape, of, 300, 0);
    let violation = "a wrong number of attempts: 45 of list has 0, not 1 to 1";
    rejects(&tape, STOPPED, &[violation]);
    accepts(&tape, FORGETS);
}

#[test]
fn too_few_attempts_after_a_crash() {
    let mut tape = sound();
    let of = (Group::List, ANOTHER);
    tape.publish(1_900, Kind::Plain, &[Group::List], ANOTHER);
    tape.receive(KILLED, 1_950, of, 0);
    tape.begin(KILLED, 1_951, of, 1);
    tape.receive(B, 4_000, of, 1);
    tape.end(B, 4_002, of, Outcome::Done);
    tape.settle(B, 4_003, (ANOTHER, 1), Disposition::Ack, Answer::Stale(0));
    accepts(&tape, STOPPED);
    counted(&mut tape, of, 4_000, 0);
    let violation = "a wrong number of attempts: 45 of list has 0, not 1 to 2";
    rejects(&tape, STOPPED, &[violation]);
}

/// Nobody had died yet who could have been given it without a trace.
#[test]
fn too_many_attempts() {
    let mut tape = sound();
    counted(&mut tape, (Group::List, RETRIED), 500, 3);
    let violation = "a wrong number of attempts: 2 of list has 3, not 2 to 2";
    rejects(&tape, STOPPED, &[violation]);
    accepts(&tape, FORGETS);
    let answers_are_lost = Allowed {
        answers_are_lost: true,
        ..STOPPED
    };
    accepts(&tape, answers_are_lost);
}

/// One process died, so one attempt may be unknown, and no more; and none of a message that came later.
#[test]
fn more_attempts_than_there_were_deaths() {
    let mut tape = sound();
    tape.publish(1_900, Kind::Plain, &[Group::List], ANOTHER);
    tape.work(B, 4_000, (Group::List, ANOTHER), 2);
    let violation = "a wrong number of attempts: 45 of list has 2, not 0 to 1";
    rejects(&tape, STOPPED, &[violation]);

    let mut tape = sound();
    tape.publish(3_500, Kind::Plain, &[Group::List], ANOTHER);
    tape.work(B, 4_000, (Group::List, ANOTHER), 1);
    let violation = "a wrong number of attempts: 45 of list has 1, not 0 to 0";
    rejects(&tape, STOPPED, &[violation]);
}

/// Two have it at once, and neither was a crash of the other.
#[test]
fn a_message_in_two_hands() {
    let mut tape = sound();
    let of = (Group::List, ANOTHER);
    tape.publish(100, Kind::Plain, &[Group::List], ANOTHER);
    tape.receive(A, 110, of, 0);
    tape.work(B, 120, of, 0);
    let violation = "a wrong number of attempts: 45 of list has 0, not 1 to 1";
    rejects(&tape, STOPPED, &[violation]);
}

#[test]
fn a_release_that_burns_an_attempt() {
    let mut tape = sound();
    counted(&mut tape, (Group::List, RELEASED), 130, 1);
    let violation = "a wrong number of attempts: 11 of list has 1, not 0 to 0";
    rejects(&tape, STOPPED, &[violation]);
}

#[test]
fn a_retry_that_burns_none() {
    let mut tape = sound();
    settled_as(&mut tape, (RELEASED, 0), 120, Disposition::Retry);
    rejects(
        &tape,
        STOPPED,
        &["a wrong number of attempts: 11 of list has 0, not 1 to 1"],
    );
}
