//! Who settles, and what is left then.

use std::time::Duration;

use super::*;

#[test]
fn a_settle_after_another_one_was_given_the_message() {
    let mut tape = sound();
    let of = (Group::List, ANOTHER);
    tape.publish(5_000, Kind::Plain, &[Group::List], ANOTHER);
    tape.receive(ZOMBIE, 5_010, of, 0);
    tape.work(B, 8_000, of, 1);
    tape.settle(
        ZOMBIE,
        8_300,
        (ANOTHER, 0),
        Disposition::Retry,
        Answer::Stale(1),
    );
    accepts(&tape, STOPPED);
    answered(&mut tape, (ANOTHER, 0), 8_300, Answer::Stale(0));
    let violation = "settled by one who had lost it: 1 by zombie, in a batch of 1 from 45 of list on, of which 0 were refused";
    rejects(&tape, STOPPED, &[violation]);
    accepts(&tape, FORGETS);
}

#[test]
fn a_settle_of_a_batch_of_which_too_few_were_refused() {
    let mut tape = sound();
    answered(&mut tape, (OVERTAKEN, 0), 8_201, Answer::Stale(1));
    let violation = "settled by one who had lost it: 2 by zombie, in a batch of 2 from 7 of list on, of which 1 were refused";
    rejects(&tape, STOPPED, &[violation]);
    accepts(&tape, FORGETS);
}

/// The first try was as late as the repeat, so neither was to be carried out.
#[test]
fn a_repeated_settle_of_what_was_another_ones_before_its_first_try() {
    let mut tape = sound();
    let of = (Group::List, ANOTHER);
    tape.publish(5_000, Kind::Plain, &[Group::List], ANOTHER);
    tape.receive(ZOMBIE, 5_010, of, 0);
    tape.work(B, 8_000, of, 1);
    tape.settle(
        ZOMBIE,
        8_300,
        (ANOTHER, 0),
        Disposition::Retry,
        Answer::None,
    );
    tape.settle(
        ZOMBIE,
        8_400,
        (ANOTHER, 0),
        Disposition::Retry,
        Answer::Stale(1),
    );
    accepts(&tape, STOPPED);
    answered(&mut tape, (ANOTHER, 0), 8_400, Answer::Stale(0));
    let violation = "settled by one who had lost it: 1 by zombie, in a batch of 1 from 45 of list on, of which 0 were refused";
    rejects(&tape, STOPPED, &[violation]);
}

/// It is the same source that has the message now, by another receipt.
#[test]
fn a_settle_by_a_receipt_that_is_not_the_last() {
    let mut tape = sound();
    let of = (Group::List, ANOTHER);
    tape.publish(5_000, Kind::Plain, &[Group::List], ANOTHER);
    tape.receive(ZOMBIE, 5_010, of, 0);
    tape.work(ZOMBIE, 8_000, of, 1);
    tape.settle(
        ZOMBIE,
        8_300,
        (ANOTHER, 0),
        Disposition::Retry,
        Answer::Stale(1),
    );
    accepts(&tape, STOPPED);
    answered(&mut tape, (ANOTHER, 0), 8_300, Answer::Stale(0));
    let violation = "settled by one who had lost it: 1 by zombie, in a batch of 1 from 45 of list on, of which 0 were refused";
    rejects(&tape, STOPPED, &[violation]);
}

#[test]
fn a_settle_after_a_renewal_was_told_that_the_message_is_lost() {
    let mut tape = sound();
    let lost = Record::Lost {
        at: 112_500,
        source: A.source,
        receipts: vec![receipt(PLAIN, 0)],
    };
    tape.write("a", 112, lost);
    let violation = "settled by one who had lost it: 1 by a, in a batch of 1 from 1 of list on, of which 0 were refused";
    rejects(&tape, STOPPED, &[violation]);
}

#[test]
fn a_message_settled_twice() {
    let mut tape = sound();
    let again = (PLAIN, 0);
    tape.settle(A, 130, again, Disposition::Ack, Answer::Stale(0));
    rejects(&tape, STOPPED, &["settled more than once: 1 of list"]);
    accepts(&tape, FORGETS);
}

#[test]
fn a_message_handed_out_after_it_was_settled() {
    let mut tape = sound();
    tape.receive(B, 500, (Group::List, PLAIN), 1);
    let violation = "handed out after it was settled: 1 by a, in a batch of 1 from 1 of list on, of which 0 were refused";
    rejects(&tape, STOPPED, &[violation]);
    accepts(&tape, FORGETS);
}

/// One of two was refused, so the other one was settled, and only one may come again.
#[test]
fn a_message_of_a_batch_handed_out_after_it_was_settled() {
    let mut tape = sound();
    let both = [ANOTHER, ANOTHER + 1];
    for number in both {
        tape.publish(5_000, Kind::Plain, &[Group::List], number);
        tape.receive(ZOMBIE, 5_010, (Group::List, number), 0);
        tape.begin(ZOMBIE, 5_011, (Group::List, number), 1);
        tape.end(ZOMBIE, 5_012, (Group::List, number), Outcome::Done);
    }
    let receipts = both.map(|number| (number, 0));
    tape.settle_all(ZOMBIE, 7_000, &receipts, Disposition::Ack, Answer::Stale(1));
    tape.work(B, 8_000, (Group::List, both[0]), 1);
    accepts(&tape, STOPPED);
    tape.receive(B, 8_000, (Group::List, both[1]), 1);
    let violation = "handed out after it was settled: 2 by zombie, in a batch of 2 from 45 of list on, of which 1 were refused";
    rejects(&tape, STOPPED, &[violation]);
}

/// It was done, and nobody had it any more; but nobody had settled it either.
#[test]
fn a_message_gone_without_being_settled() {
    let mut tape = sound();
    answered(&mut tape, (PLAIN, 0), 113, Answer::Stale(1));
    rejects(&tape, STOPPED, &["gone without being settled: 1 of list"]);
    accepts(&tape, FORGETS);
}

#[test]
fn a_lease_that_nothing_has_ended() {
    let refused = "a lease was lost without a reason: 2 settles of zombie were refused";
    let counted = "a wrong number of attempts: 7 of list has 1, not 0 to 0";
    let counted_too = "a wrong number of attempts: 8 of list has 1, not 0 to 0";
    rejects(&sound(), NOTHING, &[refused, counted, counted_too]);

    // Its process is told by its renewal, and settles nothing.
    let mut tape = Tape::default();
    let of = (Group::List, ANOTHER);
    tape.publish(100, Kind::Plain, &[Group::List], ANOTHER);
    tape.receive(A, 110, of, 0);
    tape.work(B, 120, of, 0);
    tape.finish(10_000, &[("a", 0), ("b", 0)]);
    accepts(&tape, NOTHING);
    let lost = Record::Lost {
        at: 130_000,
        source: A.source,
        receipts: vec![receipt(ANOTHER, 0)],
    };
    tape.write("a", 130, lost);
    let told = "a lease was lost without a reason: a had 45 of list";
    rejects(&tape, NOTHING, &[told]);
}

/// What it holds is to go back without a crash counted, and not to wait for its lease to end.
#[test]
fn a_process_that_ends_in_order_and_hands_nothing_back() {
    let mut tape = Tape::default();
    let of = (Group::List, ANOTHER);
    tape.publish(100, Kind::Plain, &[Group::List], ANOTHER);
    tape.receive(A, 110, of, 0);
    tape.work(B, 2_500, of, 1);
    tape.finish(10_000, &[("a", 0), ("b", 0)]);
    let violation = "a wrong number of attempts: 45 of list has 1, not 0 to 0";
    rejects(&tape, NOTHING, &[violation]);
    assert_eq!(tape.check(NOTHING).recovery.as_millis(), 2_401);
    accepts(&tape, STOPPED);
}

/// Whatever the fault allows, it is over.
#[test]
fn a_message_published_long_after_the_fault_that_two_settle() {
    let mut tape = sound();
    let of = (Group::List, ANOTHER);
    tape.publish(9_000, Kind::Plain, &[Group::List], ANOTHER);
    tape.work(A, 9_010, of, 0);
    tape.work(B, 9_020, of, 0);
    accepts(&tape, FORGETS_SETTLES);
    let found = tape.check_within(FORGETS_SETTLES, Duration::from_millis(2_000));
    let expected = [
        "done twice without a reason: 45 of list, by b",
        "handed out after it was settled: 1 by a, in a batch of 1 from 45 of list on, of which 0 were refused",
        "settled more than once: 45 of list",
    ];
    assert_eq!(found.violations, expected);
    let found = tape.check_within(FORGETS_SETTLES, Duration::from_millis(2_200));
    assert_eq!(found.violations, [""; 0]);
}

#[test]
fn a_job_that_goes_on_after_a_renewal_has_found_its_lease_lost() {
    let told = |ms: u64| {
        let mut tape = sound();
        let of = (Group::List, ANOTHER);
        tape.publish(5_000, Kind::Plain, &[Group::List], ANOTHER);
        tape.receive(ZOMBIE, 5_010, of, 0);
        tape.begin(ZOMBIE, 5_011, of, 1);
        tape.work(B, 8_000, of, 1);
        let lost = Record::Lost {
            at: ms * 1_000,
            source: ZOMBIE.source,
            receipts: vec![receipt(ANOTHER, 0)],
        };
        tape.write("zombie", ms, lost);
        tape.end(ZOMBIE, 9_500, of, Outcome::Done);
        let refused = Answer::Stale(1);
        tape.settle(ZOMBIE, 9_501, (ANOTHER, 0), Disposition::Ack, refused);
        assert_eq!(tape.check(STOPPED).refused_renewals[&Group::List], 1);
        tape
    };
    let violation = "went on with what it had lost: zombie, with 45 of list";
    rejects(&told(8_200), STOPPED, &[violation]);
    accepts(&told(9_000), STOPPED);
}
