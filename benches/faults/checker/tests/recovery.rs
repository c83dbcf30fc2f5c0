//! How long it took until all was as before.

use std::time::Duration;

use super::*;

/// One message of a list, which was done late.
fn late(publish: u64, done: u64) -> Tape {
    let mut tape = Tape::default();
    tape.publish(publish, Kind::Plain, &[Group::List], PLAIN);
    tape.receive_after(B, done - 10, (Group::List, PLAIN), 0, 1);
    tape.begin(B, done - 10, (Group::List, PLAIN), 2);
    tape.end(B, done, (Group::List, PLAIN), Outcome::Done);
    tape.settle(B, done, (PLAIN, 1), Disposition::Ack, Answer::Stale(0));
    tape.finish(20_000, &[("b", 0)]);
    tape
}

#[track_caller]
fn recovers(tape: &Tape, ms: u64) {
    let allowed = Allowed {
        answers_are_lost: true,
        fleeting_is_lost: true,
        ..NOTHING
    };
    accepts(tape, allowed);
    let recovery = tape.check(allowed).recovery;
    assert_eq!(recovery, Duration::from_millis(ms));
}

#[test]
fn it_begins_with_the_death_of_who_held_the_message() {
    let mut tape = late(1_000, 5_000);
    tape.receive(KILLED, 1_500, (Group::List, PLAIN), 0);
    tape.kill(2_000, "killed");
    // Another fault ends in the meantime: it is the death that is to blame.
    tape.fault(4_000, 4_500);
    recovers(&tape, 3_000);
}

/// The second of those who held it died before it could write that down.
#[test]
fn it_begins_with_the_last_death_if_more_crashes_are_counted_than_are_written_down() {
    let mut tape = late(1_000, 5_000);
    tape.kill(1_500, "killed");
    tape.publish_by("killed", 1_400, Kind::Plain, &[Group::Memory], MEMORY, 0);
    tape.kill(3_000, "killed too");
    tape.publish_by(
        "killed too",
        2_900,
        Kind::Plain,
        &[Group::Memory],
        MEMORY_DEAD,
        0,
    );
    tape.fault(900, 1_600);
    recovers(&tape, 2_000);
}

#[test]
fn it_begins_with_the_end_of_the_first_fault_since_the_message_was_there() {
    let mut tape = late(1_000, 5_000);
    tape.fault(500, 2_000);
    tape.fault(2_100, 2_500);
    tape.fault(6_000, 7_000);
    recovers(&tape, 3_000);
}

/// Nothing has happened that could have held it up.
#[test]
fn without_a_fault_it_begins_when_the_message_was_there() {
    recovers(&late(1_000, 5_000), 3_999);
}

#[test]
fn it_begins_when_the_message_was_there_if_that_was_later() {
    let mut tape = late(2_999, 5_000);
    tape.fault(500, 2_500);
    recovers(&tape, 2_000);
}

#[test]
fn what_is_done_in_time_needs_none() {
    let mut tape = late(4_000, 5_000);
    tape.fault(4_100, 4_200);
    recovers(&tape, 0);
}

/// A subscriber that misses what was published at 1,500 and at 3,500 ms.
fn deaf() -> Tape {
    let mut tape = Tape::default();
    tape.fault(1_000, 2_000);
    for (number, ms) in NEWS.into_iter().zip([500, 1_500, 3_500, 4_000]) {
        tape.publish(ms, Kind::Plain, &[Group::News], number);
        if ![NEWS[1], NEWS[2]].contains(&number) {
            tape.work(A, ms + 10, (Group::News, number), 0);
        }
    }
    tape.gap("a", 4_005, Group::News, Some(2));
    tape.finish(20_000, &[("a", 0)]);
    tape
}

#[test]
fn it_lasts_until_a_subscriber_hears_again() {
    recovers(&deaf(), 1_500);
}

#[test]
fn what_was_on_its_way_when_the_next_fault_began_says_nothing_of_the_one_before() {
    let mut tape = deaf();
    tape.fault(3_550, 3_600);
    recovers(&tape, 0);
    let mut tape = deaf();
    tape.fault(3_800, 3_900);
    recovers(&tape, 1_500);
}

/// While a fault is under way there is nothing to recover to.
#[test]
fn what_is_done_within_a_fault_needs_none() {
    let mut tape = late(1_000, 5_000);
    tape.fault(500, 2_000);
    tape.fault(3_000, 7_000);
    recovers(&tape, 0);
}
