//! A sound history, which the checker accepts, and the same with one thing doctored, which it must not.

mod progress;
mod recovery;
mod rejected;
mod sound;
mod tape;

use super::{Allowed, Counts};
use crate::history::{Answer, Disposition, Outcome, Record};
use crate::plan::{Group, Kind, Number};
use tape::{Lane, Tape};

const fn lane(process: &'static str, source: u32) -> Lane {
    Lane { process, source }
}

/// Two processes live on, one is killed after two seconds, and one is stopped for more than a lease.
const A: Lane = lane("a", 0);
const A_TOO: Lane = lane("a", 1);
const B: Lane = lane("b", 0);
const KILLED: Lane = lane("killed", 0);
const ZOMBIE: Lane = lane("zombie", 0);

const NOTHING: Allowed = Allowed::NOTHING;
/// What the sound history needs, because of its zombie.
const STOPPED: Allowed = Allowed {
    leases_are_lost: true,
    ..NOTHING
};
/// And what is handed out at most once may be missed.
const MISSED: Allowed = Allowed {
    fleeting_is_lost: true,
    ..STOPPED
};
const FORGETS_SETTLES: Allowed = Allowed {
    redis_forgets: true,
    ..STOPPED
};
const FORGETS: Allowed = Allowed {
    messages_are_lost: true,
    ..FORGETS_SETTLES
};

const PLAIN: Number = 1;
const RETRIED: Number = 2;
const DELAYED: Number = 3;
const DEAD: Number = 4;
const CRASHED: Number = 5;
const CRASHED_LATE: Number = 6;
const OVERTAKEN: Number = 7;
const OVERTAKEN_TOO: Number = 8;
const REPEATED: Number = 9;
const UNCONFIRMED: Number = 10;
const RELEASED: Number = 11;
const AFTERWARDS: Number = 12;
const STREAM: Number = 20;
const STREAM_DEAD: Number = 21;
const ORDERED: [Number; 3] = [30, 31, 32];
const FLEETING: Number = 40;
const NEWS: [Number; 4] = [50, 51, 52, 53];
const MEMORY: Number = 60;
const MEMORY_DEAD: Number = 61;
const MEMORY_LEFT: Number = 62;
const MEMORY_GONE: Number = 63;
/// Free for more.
const ANOTHER: Number = 45;

/// A little of everything.
fn sound() -> Tape {
    let mut tape = Tape::default();
    tape.fault(5_100, 6_900);
    tape.kill(2_000, "killed");
    list(&mut tape);
    deaths(&mut tape);
    streams(&mut tape);
    others(&mut tape);
    tape.finish(10_000, &[("a", 1), ("b", 0), ("zombie", 0)]);
    tape
}

fn list(tape: &mut Tape) {
    let of = |number| (Group::List, number);
    tape.publish(100, Kind::Plain, &[Group::List], PLAIN);
    tape.work(A, 110, of(PLAIN), 0);

    tape.publish(100, Kind::Retry, &[Group::List], RETRIED);
    for (lane, ms, failures) in [(A, 110, 0), (B, 300, 1)] {
        tape.receive(lane, ms, of(RETRIED), failures);
        tape.begin(lane, ms + 1, of(RETRIED), failures + 1);
        tape.end(lane, ms + 2, of(RETRIED), Outcome::Failed);
        let receipt = (RETRIED, failures);
        tape.settle(lane, ms + 3, receipt, Disposition::Retry, Answer::Stale(0));
    }
    tape.receive(A, 500, of(RETRIED), 2);
    tape.begin(A, 501, of(RETRIED), 3);
    tape.end(A, 502, of(RETRIED), Outcome::Done);
    tape.settle(A, 503, (RETRIED, 2), Disposition::Ack, Answer::Stale(0));

    tape.publish_by("driver", 100, Kind::Delayed, &[Group::List], DELAYED, 200);
    tape.work(B, 310, of(DELAYED), 0);

    tape.publish(100, Kind::Dead, &[Group::List], DEAD);
    tape.receive(A, 110, of(DEAD), 0);
    tape.begin(A, 111, of(DEAD), 1);
    tape.end(A, 112, of(DEAD), Outcome::Permanent);
    tape.settle(A, 113, (DEAD, 0), Disposition::Dead, Answer::Stale(0));
    tape.dead(of(DEAD));

    tape.publish(100, Kind::Plain, &[Group::List], REPEATED);
    tape.receive(B, 110, of(REPEATED), 0);
    tape.begin(B, 111, of(REPEATED), 1);
    tape.end(B, 112, of(REPEATED), Outcome::Done);
    for (ms, answer) in [(113, Answer::None), (120, Answer::Stale(0))] {
        tape.settle(B, ms, (REPEATED, 0), Disposition::Ack, answer);
    }

    tape.publish(100, Kind::Plain, &[Group::List], UNCONFIRMED);
    tape.change(|record| match *record {
        Record::Published { at, first } if first == UNCONFIRMED => {
            *record = Record::Unpublished { at, first };
            true
        }
        _ => false,
    });
    tape.work(B, 110, of(UNCONFIRMED), 0);

    tape.publish(100, Kind::Plain, &[Group::List], RELEASED);
    tape.receive(A, 110, of(RELEASED), 0);
    tape.settle(
        A,
        120,
        (RELEASED, 0),
        Disposition::Release,
        Answer::Stale(0),
    );
    tape.work(B, 130, of(RELEASED), 0);

    tape.publish(9_000, Kind::Plain, &[Group::List], AFTERWARDS);
    tape.work(A, 9_010, of(AFTERWARDS), 0);
}

/// A process dies with two messages in hand, and another is stopped with two.
fn deaths(tape: &mut Tape) {
    let of = |number| (Group::List, number);
    for number in [CRASHED, CRASHED_LATE] {
        tape.publish(1_900, Kind::Plain, &[Group::List], number);
        tape.receive(KILLED, 1_950, of(number), 0);
        tape.begin(KILLED, 1_951, of(number), 1);
        tape.work(B, 4_000, of(number), 1);
    }
    tape.end(KILLED, 1_960, of(CRASHED_LATE), Outcome::Done);

    for number in [OVERTAKEN, OVERTAKEN_TOO] {
        tape.publish(5_000, Kind::Plain, &[Group::List], number);
        tape.receive(ZOMBIE, 5_010, of(number), 0);
        tape.begin(ZOMBIE, 5_011, of(number), 1);
        tape.work(B, 8_000, of(number), 1);
        tape.end(ZOMBIE, 8_200, of(number), Outcome::Done);
    }
    let both = [(OVERTAKEN, 0), (OVERTAKEN_TOO, 0)];
    tape.settle_all(ZOMBIE, 8_201, &both, Disposition::Ack, Answer::Stale(2));
}

fn streams(tape: &mut Tape) {
    tape.publish(100, Kind::Plain, &[Group::Stream, Group::Second], STREAM);
    tape.work(A, 110, (Group::Stream, STREAM), 0);
    tape.work(A_TOO, 110, (Group::Second, STREAM), 0);

    let of = (Group::Stream, STREAM_DEAD);
    tape.publish(100, Kind::Dead, &[Group::Stream], STREAM_DEAD);
    tape.receive(B, 110, of, 0);
    tape.begin(B, 111, of, 1);
    tape.end(B, 112, of, Outcome::Permanent);
    tape.settle(
        B,
        113,
        (STREAM_DEAD, 0),
        Disposition::Dead,
        Answer::Stale(0),
    );
    tape.dead(of);
}

fn others(tape: &mut Tape) {
    for (number, ms) in ORDERED.into_iter().zip([100, 110, 120]) {
        tape.publish(ms, Kind::Plain, &[Group::Ordered], number);
        tape.work(A_TOO, ms + 10, (Group::Ordered, number), 0);
    }

    tape.publish(100, Kind::Plain, &[Group::Fleeting], FLEETING);
    tape.work(A, 110, (Group::Fleeting, FLEETING), 0);

    for (number, ms) in NEWS.into_iter().zip([100, 200, 300, 9_000]) {
        tape.publish(ms, Kind::Plain, &[Group::News], number);
        for (lane, after) in [(A, 10), (B, 11), (ZOMBIE, 12)] {
            tape.work(lane, ms + after, (Group::News, number), 0);
        }
    }
    tape.work(KILLED, 110, (Group::News, NEWS[0]), 0);

    let memory = lane("a", 9);
    for (kind, number) in [
        (Kind::Plain, MEMORY),
        (Kind::Dead, MEMORY_DEAD),
        (Kind::Delayed, MEMORY_LEFT),
    ] {
        tape.publish_by("a", 100, kind, &[Group::Memory], number, 0);
    }
    tape.work(memory, 110, (Group::Memory, MEMORY), 0);
    let of = (Group::Memory, MEMORY_DEAD);
    tape.receive(memory, 110, of, 0);
    tape.begin(memory, 111, of, 1);
    tape.end(memory, 112, of, Outcome::Permanent);
    tape.settle(
        memory,
        113,
        (MEMORY_DEAD, 0),
        Disposition::Dead,
        Answer::Stale(0),
    );
    tape.publish_by(
        "killed",
        1_999,
        Kind::Plain,
        &[Group::Memory],
        MEMORY_GONE,
        0,
    );
}

/// Asserts that nothing is wrong.
#[track_caller]
fn accepts(tape: &Tape, allowed: Allowed) {
    assert_eq!(tape.check(allowed).violations, [""; 0]);
}

/// Asserts what is wrong, and nothing else.
#[track_caller]
fn rejects(tape: &Tape, allowed: Allowed, violations: &[&str]) {
    assert_eq!(tape.check(allowed).violations, violations);
}

#[test]
fn a_sound_history_is_accepted_and_counted() {
    let findings = sound().check(STOPPED);
    assert_eq!(findings.violations, [""; 0]);
    let counts = |messages, lost, duplicated| Counts {
        messages,
        lost,
        duplicated,
    };
    let expected = [
        ("dead letters", counts(2, 0, 0)),
        ("delayed", counts(1, 0, 0)),
        // What was in the memory of the process that was killed.
        ("in memory", counts(4, 1, 0)),
        ("list", counts(8, 0, 3)),
        ("list, at most once", counts(1, 0, 0)),
        ("list, in order", counts(3, 0, 0)),
        // Three hear four each, and the one that is killed has heard one.
        ("pub/sub", counts(13, 0, 0)),
        ("retried", counts(1, 0, 0)),
        ("stream", counts(1, 0, 0)),
        ("stream, second group", counts(1, 0, 0)),
    ];
    assert_eq!(findings.modes, expected.into());
    assert_eq!(findings.total(), counts(35, 1, 3));
    assert_eq!(findings.stale, 2);
    let causes = [("lease lost", 2), ("process died", 1)];
    assert_eq!(findings.causes, causes.into());
    // From the death at 2,000 ms to the end of the first attempt of the next one.
    assert_eq!(findings.recovery.as_millis(), 2_002);
}
