//! What must not be, one thing at a time.

mod at_most_once;
mod attempts;
mod outcomes;
mod owners;

use super::sound::left_in_memory;
use super::tape::{Message, receipt};
use super::*;

/// The sound history without the event that the last attempt at a message succeeded.
fn never_done((group, number): Message) -> Tape {
    let mut tape = sound();
    tape.remove(|record| {
        matches!(record, Record::Ended { group: of, number: one, outcome: Outcome::Done, .. }
            if (*of, *one) == (group, number))
    });
    tape
}

/// What the settle of this delivery was answered.
fn answered(tape: &mut Tape, of: (Number, u32), sent_ms: u64, to: Answer) {
    tape.change(|record| match record {
        Record::Settled {
            sent,
            answer,
            settled,
            ..
        } if *sent == sent_ms * 1_000 && settled[0].0 == receipt(of.0, of.1) => {
            *answer = to;
            true
        }
        _ => false,
    });
}

/// What this delivery was settled as.
fn settled_as(tape: &mut Tape, of: (Number, u32), sent_ms: u64, to: Disposition) {
    tape.change(|record| match record {
        Record::Settled { sent, settled, .. }
            if *sent == sent_ms * 1_000 && settled[0].0 == receipt(of.0, of.1) =>
        {
            settled[0].1 = to;
            true
        }
        _ => false,
    });
}

/// With which failures a message was handed out at that time.
fn counted(tape: &mut Tape, of: Message, ms: u64, to: u32) {
    tape.change(|record| match record {
        Record::Received {
            at,
            group,
            deliveries,
            ..
        } if *at == ms * 1_000 && (*group, deliveries[0].number) == of => {
            deliveries[0].failures = to;
            true
        }
        _ => false,
    });
}

fn is_received(record: &Record, by: Message, ms: u64) -> bool {
    matches!(record, Record::Received { at, group, deliveries, .. }
        if *at == ms * 1_000 && (*group, deliveries[0].number) == by)
}
