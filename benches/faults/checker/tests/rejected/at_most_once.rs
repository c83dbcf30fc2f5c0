//! What is kept nowhere, or in its process alone.

use super::*;

#[test]
fn a_message_of_an_at_most_once_list_lost_without_a_fault() {
    let mut tape = sound();
    tape.publish(1_900, Kind::Plain, &[Group::Fleeting], ANOTHER);
    rejects(&tape, STOPPED, &["lost: 45 of fleeting, Plain"]);
    accepts(&tape, FORGETS);
    let fleeting_is_lost = Allowed {
        fleeting_is_lost: true,
        ..STOPPED
    };
    accepts(&tape, fleeting_is_lost);
}

/// Only a worker that died may keep silent about what it lost.
#[test]
fn a_message_of_an_at_most_once_list_lost_without_a_gap() {
    let mut tape = Tape::default();
    tape.publish(100, Kind::Plain, &[Group::Fleeting], FLEETING);
    tape.gap("a", 200, Group::Fleeting, None);
    tape.finish(10_000, &[("a", 0)]);
    let allowed = Allowed {
        fleeting_is_lost: true,
        ..NOTHING
    };
    accepts(&tape, allowed);
    tape.remove(|record| matches!(record, Record::Gap { .. }));
    rejects(&tape, allowed, &["lost without a gap: 40"]);
}

#[test]
fn a_message_of_an_at_most_once_list_received_and_dropped() {
    let tape = never_done((Group::Fleeting, FLEETING));
    let allowed = Allowed {
        fleeting_is_lost: true,
        ..STOPPED
    };
    let violation = "received and not processed, at most once: 1 by a, which has counted 0";
    rejects(&tape, allowed, &[violation]);
}

#[test]
fn a_message_handed_out_twice_at_most_once() {
    let mut tape = sound();
    tape.receive(B, 130, (Group::Fleeting, FLEETING), 0);
    rejects(
        &tape,
        STOPPED,
        &["handed out more than once, at most once: 40"],
    );
    accepts(&tape, FORGETS);
}

#[test]
fn a_message_heard_twice() {
    let mut tape = sound();
    tape.receive(A, 130, (Group::News, NEWS[0]), 0);
    rejects(&tape, STOPPED, &["heard twice: 50 by a"]);
}

#[test]
fn news_that_are_missing() {
    let mut tape = sound();
    tape.remove(|record| is_received(record, (Group::News, NEWS[1]), 211));
    tape.remove(|record| {
        matches!(
            record,
            Record::Begun {
                at: 212_000,
                group: Group::News,
                ..
            }
        )
    });
    tape.remove(|record| {
        matches!(
            record,
            Record::Ended {
                at: 213_000,
                group: Group::News,
                ..
            }
        )
    });
    let missing = "pub/sub lost messages without a reason: 1 by b";
    let uncounted = "pub/sub lost more than it has counted: 1 by b, which has counted 0";
    rejects(&tape, STOPPED, &[missing, uncounted]);
    rejects(&tape, MISSED, &[uncounted]);
    rejects(&tape, FORGETS, &[uncounted]);
    tape.gap("b", 305, Group::News, Some(1));
    rejects(&tape, STOPPED, &[missing]);
    accepts(&tape, MISSED);
    assert_eq!(tape.check(MISSED).modes["pub/sub"].lost, 1);
}

#[test]
fn news_that_are_heard_and_dropped() {
    let mut tape = sound();
    tape.remove(|record| {
        matches!(
            record,
            Record::Ended {
                at: 214_000,
                group: Group::News,
                ..
            }
        )
    });
    let violation = "pub/sub lost more than it has counted: 1 by zombie, which has counted 0";
    rejects(&tape, MISSED, &[violation]);
}

#[test]
fn a_subscriber_that_is_deaf_at_the_end() {
    let mut tape = sound();
    tape.remove(|record| is_received(record, (Group::News, NEWS[3]), 9_012));
    let violation = "pub/sub lost more than it has counted: 1 by zombie, which has counted 0";
    rejects(&tape, MISSED, &[violation]);
}

#[test]
fn a_subscriber_that_is_deaf_from_the_beginning() {
    let mut tape = Tape::default();
    tape.publish(100, Kind::Plain, &[Group::List], PLAIN);
    tape.work(A, 110, (Group::List, PLAIN), 0);
    tape.publish(9_000, Kind::Plain, &[Group::News], NEWS[0]);
    tape.receive(A, 9_010, (Group::News, NEWS[0]), 0);
    tape.end(A, 9_011, (Group::News, NEWS[0]), Outcome::Done);
    tape.finish(10_000, &[("a", 0)]);
    accepts(&tape, NOTHING);
    tape.remove(|record| is_received(record, (Group::News, NEWS[0]), 9_010));
    rejects(&tape, NOTHING, &["nothing was heard: 1 were there for a"]);
}

#[test]
fn a_message_lost_in_memory() {
    let mut tape = sound();
    left_in_memory(&mut tape, 0);
    let violation = "lost in memory: 1 of a, which says that Some(0) are left";
    rejects(&tape, STOPPED, &[violation]);
    rejects(&tape, FORGETS, &[violation]);
    assert_eq!(tape.check(STOPPED).modes["in memory"].lost, 2);
}

/// What was done is still there, and would be done again.
#[test]
fn a_message_left_in_memory_that_was_settled() {
    let mut tape = sound();
    left_in_memory(&mut tape, 2);
    let violation = "lost in memory: 1 of a, which says that Some(2) are left";
    rejects(&tape, STOPPED, &[violation]);
}
