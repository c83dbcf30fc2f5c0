//! What becomes of messages.

use super::*;

#[test]
fn a_lost_message() {
    for (of, violation) in [
        ((Group::List, PLAIN), "lost: 1 of list, Plain"),
        ((Group::List, RETRIED), "lost: 2 of list, Retry"),
        ((Group::List, DELAYED), "lost: 3 of list, Delayed"),
        ((Group::Stream, STREAM), "lost: 20 of stream, Plain"),
        ((Group::Second, STREAM), "lost: 20 of second, Plain"),
        ((Group::Ordered, ORDERED[1]), "lost: 31 of ordered, Plain"),
    ] {
        let tape = never_done(of);
        rejects(&tape, STOPPED, &[violation]);
        rejects(&tape, FORGETS_SETTLES, &[violation]);
        assert_eq!(tape.check(STOPPED).total().lost, 2);
        accepts(&tape, FORGETS);
    }
}

#[test]
fn a_lost_dead_letter() {
    for (of, violation) in [
        ((Group::List, DEAD), "lost: 4 of list, Dead"),
        ((Group::Stream, STREAM_DEAD), "lost: 21 of stream, Dead"),
    ] {
        let mut tape = sound();
        tape.remove(
            |record| matches!(record, Record::Dead { group, number } if (*group, *number) == of),
        );
        rejects(&tape, STOPPED, &[violation]);
        accepts(&tape, FORGETS);
    }
}

/// Once the fault is over nothing may be lost, whatever Redis was allowed to forget before.
#[test]
fn a_message_lost_after_the_fault() {
    let tape = never_done((Group::List, AFTERWARDS));
    let violation = "lost after the fault: 12 of list";
    rejects(&tape, FORGETS, &[violation]);
    rejects(&tape, STOPPED, &["lost: 12 of list, Plain", violation]);

    let mut tape = sound();
    tape.publish(12_000, Kind::Plain, &[Group::Fleeting], ANOTHER);
    rejects(&tape, FORGETS, &["lost after the fault: 45 of fleeting"]);
}

#[test]
fn a_run_in_which_messages_are_left() {
    let violation = "not all was done: messages were left at the end";
    let mut tape = sound();
    tape.change(|record| match record {
        Record::Drained { complete, .. } => {
            *complete = false;
            true
        }
        _ => false,
    });
    rejects(&tape, STOPPED, &[violation]);
    let mut tape = sound();
    tape.remove(|record| matches!(record, Record::Drained { .. }));
    rejects(&tape, STOPPED, &[violation]);
}

#[test]
fn an_innocent_among_the_dead_letters() {
    let mut tape = sound();
    tape.dead((Group::List, PLAIN));
    let violation = "an innocent message is dead: 1 of list";
    rejects(&tape, STOPPED, &[violation]);
    rejects(&tape, FORGETS, &[violation]);
}

#[test]
fn a_message_that_is_dead_twice() {
    let mut tape = sound();
    tape.dead((Group::List, DEAD));
    rejects(
        &tape,
        STOPPED,
        &["a message is dead more than once: 4 of list"],
    );
    accepts(&tape, FORGETS);
}

/// Done by one who lived on, was refused nothing, and had lost nothing.
#[test]
fn a_message_done_twice_without_a_reason() {
    let mut tape = sound();
    let of = (Group::List, ANOTHER);
    tape.publish(100, Kind::Plain, &[Group::List], ANOTHER);
    tape.receive(A, 110, of, 0);
    tape.begin(A, 111, of, 1);
    tape.settle(A, 113, (ANOTHER, 0), Disposition::Retry, Answer::Stale(0));
    tape.work(B, 300, of, 1);
    accepts(&tape, STOPPED);
    tape.end(A, 112, of, Outcome::Done);
    let violation = "done twice without a reason: 45 of list, by a";
    rejects(&tape, STOPPED, &[violation]);
    assert_eq!(tape.check(STOPPED).total().duplicated, 4);
    accepts(&tape, FORGETS);
    assert_eq!(tape.check(FORGETS).causes["Redis forgot it"], 1);
}

/// It had been taken away before.
#[test]
fn a_later_death_is_no_reason_to_do_a_message_twice() {
    let mut tape = sound();
    let of = (Group::List, ANOTHER);
    tape.publish(1_900, Kind::Plain, &[Group::List], ANOTHER);
    tape.receive(KILLED, 1_910, of, 0);
    tape.begin(KILLED, 1_911, of, 1);
    tape.end(KILLED, 1_912, of, Outcome::Done);
    tape.work(B, 2_100, of, 1);
    accepts(&tape, STOPPED);
    tape.change(|record| match record {
        Record::Killed { at, .. } => {
            *at = 2_200_000;
            true
        }
        _ => false,
    });
    let violation = "done twice without a reason: 45 of list, by killed";
    rejects(&tape, STOPPED, &[violation]);
}

#[test]
fn a_delivery_processed_twice() {
    let mut tape = sound();
    let of = (Group::List, PLAIN);
    tape.begin(A, 112, of, 1);
    tape.end(A, 113, of, Outcome::Done);
    let violation = "done twice without a reason: 1 of list, by a";
    rejects(&tape, STOPPED, &[violation]);
    rejects(&tape, FORGETS, &[violation]);

    let mut tape = sound();
    tape.end(A, 113, (Group::Fleeting, FLEETING), Outcome::Done);
    let violation = "done more often than handed out, at most once: 40";
    rejects(&tape, STOPPED, &[violation]);

    let mut tape = sound();
    tape.end(A, 113, (Group::News, NEWS[0]), Outcome::Done);
    rejects(&tape, STOPPED, &["heard once, and done twice: 50 by a"]);
}

#[test]
fn a_delayed_message_that_comes_early() {
    let mut tape = sound();
    tape.change(|record| match record {
        Record::Publishing {
            kind: Kind::Delayed,
            delay,
            groups,
            ..
        } if groups[..] == [Group::List] => {
            *delay += 14_000;
            true
        }
        _ => false,
    });
    rejects(
        &tape,
        STOPPED,
        &["a delayed message came early: 3 of list, by 3000 us"],
    );
    let delays_are_short = Allowed {
        delays_are_short: true,
        ..STOPPED
    };
    accepts(&tape, delays_are_short);
}

#[test]
fn a_message_out_of_order() {
    let mut tape = sound();
    tape.change(|record| match record {
        Record::Begun {
            at,
            group: Group::Ordered,
            number,
            ..
        } if *number == ORDERED[0] => {
            *at = 125_000;
            true
        }
        _ => false,
    });
    rejects(&tape, STOPPED, &["out of order: 30 came after 31"]);
    let order_is_broken = Allowed {
        order_is_broken: true,
        ..STOPPED
    };
    accepts(&tape, order_is_broken);
}

/// Others do all the work.
#[test]
fn a_lane_that_consumes_nothing() {
    let mut tape = sound();
    for number in 100..400 {
        tape.publish(9_000, Kind::Plain, &[Group::List], number);
        tape.work(A, 9_010, (Group::List, number), 0);
    }
    let others = [A_TOO, B, lane("b", 1), ZOMBIE, lane("zombie", 1)];
    for (lane, number) in others.into_iter().zip(400..) {
        tape.publish(9_000, Kind::Plain, &[Group::List], number);
        tape.receive(lane, 9_010, (Group::List, number), 0);
        let released = Answer::Stale(0);
        tape.settle(lane, 9_020, (number, 0), Disposition::Release, released);
        tape.work(A, 9_030, (Group::List, number), 0);
    }
    // This one began when most was published.
    let late = lane("late", 0);
    tape.publish(9_600, Kind::Plain, &[Group::Stream], 500);
    tape.work(late, 9_610, (Group::Stream, 500), 0);
    let left = Record::Left {
        at: 10_001_000,
        in_memory: 0,
    };
    tape.write("late", 10_001, left);
    accepts(&tape, STOPPED);
    tape.remove(|record| is_received(record, (Group::List, 404), 9_010));
    let violation = "up, and consumes nothing: 1 lanes of zombie got none of 306 of list";
    rejects(&tape, STOPPED, &[violation]);
    tape.remove(|record| is_received(record, (Group::List, 403), 9_010));
    let violation = "up, and consumes nothing: 2 lanes of zombie got none of 306 of list";
    rejects(&tape, STOPPED, &[violation]);
}

#[test]
fn a_message_that_nobody_has_published() {
    let mut tape = sound();
    tape.begin(A, 130, (Group::List, 99), 1);
    let violation = "a message that nobody has published: 99 of list";
    rejects(&tape, STOPPED, &[violation]);
    rejects(&tape, FORGETS, &[violation]);
}

/// The retry of one group reaches another one.
#[test]
fn a_message_that_was_published_to_others() {
    let mut tape = sound();
    tape.begin(A, 130, (Group::Second, STREAM_DEAD), 1);
    let violation = "a message that nobody has published: 21 of second";
    rejects(&tape, STOPPED, &[violation]);
}
