//! What looks wrong, and is not.

use super::*;

/// A process was stopped when it had been given a message and had not written that down; another one has it since.
#[test]
fn who_was_stopped_before_it_wrote_down_what_it_was_given_overtakes_nobody() {
    let mut tape = sound();
    let of = (Group::List, ANOTHER);
    tape.publish(5_000, Kind::Plain, &[Group::List], ANOTHER);
    tape.receive_after(B, 8_000, of, 0, 1);
    tape.begin(B, 8_001, of, 2);
    tape.receive(ZOMBIE, 8_100, of, 0);
    tape.end(B, 8_200, of, Outcome::Done);
    tape.settle(B, 8_201, (ANOTHER, 1), Disposition::Ack, Answer::Stale(0));
    accepts(&tape, STOPPED);
}

/// The first try was not carried out, and when it was made again another one had the message.
#[test]
fn a_repeated_settle_may_find_the_lease_lost() {
    let mut tape = sound();
    let of = (Group::List, ANOTHER);
    tape.publish(5_000, Kind::Plain, &[Group::List], ANOTHER);
    tape.receive(A, 5_010, of, 0);
    tape.begin(A, 5_011, of, 1);
    tape.end(A, 5_012, of, Outcome::Done);
    tape.settle(A, 5_013, (ANOTHER, 0), Disposition::Ack, Answer::None);
    tape.work(B, 8_000, of, 1);
    tape.settle(A, 8_100, (ANOTHER, 0), Disposition::Ack, Answer::Stale(1));
    accepts(&tape, STOPPED);
    assert_eq!(tape.check(STOPPED).causes["lease lost"], 3);
}

#[test]
fn a_settle_whose_answer_never_came_is_a_reason_to_do_it_again() {
    let mut tape = sound();
    let of = (Group::List, ANOTHER);
    tape.publish(5_000, Kind::Plain, &[Group::List], ANOTHER);
    tape.receive(A, 5_010, of, 0);
    tape.begin(A, 5_011, of, 1);
    tape.end(A, 5_012, of, Outcome::Done);
    tape.settle(A, 5_013, (ANOTHER, 0), Disposition::Ack, Answer::None);
    tape.work(B, 8_000, of, 1);
    accepts(&tape, STOPPED);
    assert_eq!(tape.check(STOPPED).causes["settle not answered"], 1);
}

/// What the process that was killed had been given it may have had no time to write down.
#[test]
fn a_claim_whose_reply_died_with_its_process_is_a_crash() {
    let mut tape = sound();
    tape.publish(1_900, Kind::Plain, &[Group::List], ANOTHER);
    tape.work(B, 4_000, (Group::List, ANOTHER), 1);
    accepts(&tape, STOPPED);
}

#[test]
fn a_settle_that_died_with_its_process_may_have_been_carried_out() {
    let mut tape = sound();
    let of = (Group::List, ANOTHER);
    tape.publish(1_900, Kind::Plain, &[Group::List], ANOTHER);
    tape.receive(KILLED, 1_950, of, 0);
    tape.begin(KILLED, 1_951, of, 1);
    tape.end(KILLED, 1_960, of, Outcome::Done);
    accepts(&tape, STOPPED);
}

/// What could not begin beside a suspect was handed back, and its process died before that was answered.
#[test]
fn what_had_not_begun_may_have_been_on_its_way_back() {
    let mut tape = sound();
    let of = (Group::List, ANOTHER);
    tape.publish(100, Kind::Plain, &[Group::List], ANOTHER);
    for (counted, ms) in [(0, 110), (1, 1_000)] {
        tape.receive(A, ms, of, counted);
        tape.settle(
            A,
            ms + 1,
            (ANOTHER, counted),
            Disposition::Retry,
            Answer::Stale(0),
        );
    }
    tape.receive(KILLED, 1_950, of, 2);
    tape.work(B, 4_000, of, 2);
    accepts(&tape, STOPPED);
}

/// A release that was carried out and not answered: the repeat is answered what the first try has done.
#[test]
fn a_repeated_release_is_not_late_because_the_message_is_with_another() {
    let mut tape = sound();
    let of = (Group::List, ANOTHER);
    tape.publish(100, Kind::Plain, &[Group::List], ANOTHER);
    tape.receive(A, 110, of, 0);
    tape.settle(A, 113, (ANOTHER, 0), Disposition::Release, Answer::None);
    tape.work(B, 117, of, 0);
    tape.settle(A, 130, (ANOTHER, 0), Disposition::Release, Answer::Stale(0));
    accepts(&tape, STOPPED);
}

#[test]
fn at_most_once_a_message_may_die_with_its_process() {
    let mut tape = sound();
    tape.publish(1_900, Kind::Plain, &[Group::Fleeting], ANOTHER);
    tape.receive(KILLED, 1_950, (Group::Fleeting, ANOTHER), 0);
    let allowed = Allowed {
        fleeting_is_lost: true,
        ..STOPPED
    };
    accepts(&tape, allowed);
}

#[test]
fn what_was_published_without_an_answer_has_no_place_in_the_order() {
    let mut tape = sound();
    let of = ORDERED[2] + 1;
    let publishing = Record::Publishing {
        at: 100_000,
        kind: Kind::Plain,
        groups: vec![Group::Ordered],
        numbers: (of, of + 1),
        delay: 0,
    };
    tape.write("driver", 100, publishing);
    tape.work(A_TOO, 105, (Group::Ordered, of), 0);
    accepts(&tape, STOPPED);
}

/// The process that kept the order was told to end, and the next one has a name that comes before its own.
#[test]
fn who_keeps_the_order_may_change() {
    let mut tape = sound();
    for (number, ms, process) in [(33, 9_000, "slot-0.9"), (34, 9_100, "slot-0.10")] {
        tape.publish(ms, Kind::Plain, &[Group::Ordered], number);
        tape.work(lane(process, 0), ms + 10, (Group::Ordered, number), 0);
    }
    accepts(&tape, STOPPED);
}

#[test]
fn a_message_that_is_done_again_keeps_its_first_place_in_the_order() {
    let mut tape = sound();
    let of = (Group::Ordered, 33);
    tape.publish(5_000, Kind::Plain, &[Group::Ordered], 33);
    tape.publish(5_001, Kind::Plain, &[Group::Ordered], 34);
    tape.receive(ZOMBIE, 5_010, of, 0);
    tape.begin(ZOMBIE, 5_011, of, 1);
    tape.work(B, 8_000, (Group::Ordered, 34), 0);
    tape.work(B, 8_100, of, 1);
    accepts(&tape, STOPPED);
}

/// A renewal that crosses a settle finds that the message is not there any more.
#[test]
fn what_was_settled_meanwhile_is_not_lost() {
    let mut tape = Tape::default();
    tape.publish(100, Kind::Plain, &[Group::List], PLAIN);
    tape.work(A, 110, (Group::List, PLAIN), 0);
    let lost = Record::Lost {
        at: 113_500,
        source: A.source,
        receipts: vec![tape::receipt(PLAIN, 0)],
    };
    tape.write("a", 113, lost);
    tape.finish(10_000, &[("a", 0)]);
    accepts(&tape, NOTHING);
}

/// And if the process dies before the settle is answered, it is written down nowhere.
#[test]
fn what_was_settled_by_a_dying_process_is_not_lost() {
    let told = |ms: u64| {
        let mut tape = Tape::default();
        let of = (Group::List, ANOTHER);
        tape.publish(100, Kind::Plain, &[Group::List], ANOTHER);
        tape.receive(KILLED, 110, of, 0);
        tape.begin(KILLED, 111, of, 1);
        tape.end(KILLED, 112, of, Outcome::Done);
        let lost = Record::Lost {
            at: ms * 1_000,
            source: KILLED.source,
            receipts: vec![tape::receipt(ANOTHER, 0)],
        };
        tape.write("killed", ms, lost);
        tape.kill(2_000, "killed");
        tape.finish(10_000, &[("a", 0)]);
        tape.check(DIES).violations
    };
    const DIES: Allowed = Allowed {
        fleeting_is_lost: true,
        ..NOTHING
    };
    assert_eq!(told(1_950), [""; 0]);
    let violation = "a lease was lost without a reason: killed had 45 of list";
    assert_eq!(told(150), [violation]);
}

/// Two attempts of one message within one process: the one whose lease was lost waited so long that both run.
#[test]
fn a_process_may_be_given_again_what_it_still_works_on() {
    let mut tape = sound();
    let of = (Group::List, ANOTHER);
    tape.publish(5_000, Kind::Plain, &[Group::List], ANOTHER);
    tape.receive(A, 5_010, of, 0);
    tape.receive_after(A_TOO, 8_000, of, 0, 1);
    tape.begin(A, 8_001, of, 1);
    tape.begin(A_TOO, 8_002, of, 2);
    tape.end(A_TOO, 8_003, of, Outcome::Done);
    tape.end(A, 8_004, of, Outcome::Done);
    tape.settle(A, 8_005, (ANOTHER, 0), Disposition::Ack, Answer::Stale(1));
    let receipt = (ANOTHER, 1);
    tape.settle(A_TOO, 8_006, receipt, Disposition::Ack, Answer::Stale(0));
    accepts(&tape, STOPPED);
}

/// A group that was made again has the message twice, and one process is given both at once.
#[test]
fn what_redis_forgot_may_be_given_to_one_process_twice_at_once() {
    let mut tape = sound();
    let of = (Group::Stream, ANOTHER);
    tape.publish(5_000, Kind::Plain, &[Group::Stream], ANOTHER);
    for lane in [A, A_TOO] {
        tape.receive(lane, 5_010, of, 0);
    }
    for lane in [A, A_TOO] {
        tape.begin(lane, 5_011, of, 1);
    }
    for lane in [A, A_TOO] {
        tape.end(lane, 5_012, of, Outcome::Done);
        tape.settle(
            lane,
            5_013,
            (ANOTHER, 0),
            Disposition::Ack,
            Answer::Stale(0),
        );
    }
    accepts(&tape, FORGETS_SETTLES);
    let twice = "done twice without a reason: 45 of stream, by a";
    let settled = "settled more than once: 45 of stream";
    let found = tape.check(STOPPED).violations;
    for violation in [twice, settled] {
        assert!(found.iter().any(|one| one == violation), "{found:?}");
    }
}

/// The process ends while it publishes to its own broker.
#[test]
fn what_was_being_published_in_memory_may_be_left() {
    let mut tape = sound();
    let publishing = Record::Publishing {
        at: 9_999_000,
        kind: Kind::Plain,
        groups: vec![Group::Memory],
        numbers: (64, 65),
        delay: 0,
    };
    tape.write("a", 9_999, publishing);
    accepts(&tape, STOPPED);
    left_in_memory(&mut tape, 2);
    accepts(&tape, STOPPED);
}

#[test]
fn what_an_at_most_once_worker_drops_and_counts_is_a_loss_that_is_allowed() {
    let mut tape = sound();
    tape.publish(5_000, Kind::Plain, &[Group::Fleeting], ANOTHER);
    tape.receive(A, 5_010, (Group::Fleeting, ANOTHER), 0);
    tape.gap("a", 5_020, Group::Fleeting, Some(1));
    let allowed = Allowed {
        fleeting_is_lost: true,
        ..STOPPED
    };
    accepts(&tape, allowed);
}

/// A server goes on handing out to connections that are gone for a while.
#[test]
fn at_most_once_a_message_may_be_lost_shortly_after_the_fault() {
    let mut tape = sound();
    tape.publish(9_000, Kind::Plain, &[Group::Fleeting], ANOTHER);
    let allowed = Allowed {
        fleeting_is_lost: true,
        ..STOPPED
    };
    accepts(&tape, allowed);
}

/// Changes what the first process says is left in its memory.
pub(super) fn left_in_memory(tape: &mut Tape, messages: u64) {
    tape.change(|record| match record {
        Record::Left { in_memory, .. } if *in_memory > 0 => {
            *in_memory = messages;
            true
        }
        _ => false,
    });
}
