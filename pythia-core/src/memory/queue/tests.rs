//! Random histories of a queue, after each step of which every message is accounted for.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::message::Message;
use crate::settlement::Disposition;

/// Something that may happen to a queue.
#[derive(Clone, Debug)]
enum Step {
    Advance(u64),
    Claim {
        holder: u64,
        max: usize,
    },
    Extend {
        holder: u64,
    },
    Maintain,
    Publish {
        delay: u64,
    },
    Requeue,
    /// Settles what was handed out so long ago, perhaps not for the first time.
    Settle {
        back: usize,
        disposition: Disposition,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let after = (0..20u64).prop_map(Duration::from_secs);
    let reason = DeadReason {
        kind: DeadKind::Permanent,
        error: String::new(),
    };
    let disposition = prop_oneof![
        4 => Just(Disposition::Ack),
        1 => Just(Disposition::DeadLetter { reason }),
        2 => Just(Disposition::Release),
        2 => after.clone().prop_map(|after| Disposition::Retry { after }),
        1 => after.prop_map(|after| Disposition::Snooze { after }),
    ];
    let step = prop_oneof![
        3 => (0..8u64).prop_map(Step::Advance),
        4 => (0..3u64, 0..5usize).prop_map(|(holder, max)| Step::Claim { holder, max }),
        2 => (0..3u64).prop_map(|holder| Step::Extend { holder }),
        2 => Just(Step::Maintain),
        4 => (0..10u64).prop_map(|delay| Step::Publish { delay }),
        1 => Just(Step::Requeue),
        8 => (0..6usize, disposition).prop_map(|(back, disposition)| Step::Settle { back, disposition }),
    ];
    proptest::collection::vec(step, 1..120)
}

/// Every message in every place.
fn places(queue: &Queue) -> Vec<MessageId> {
    let held = queue.claims.values().flat_map(|claim| &claim.slots);
    (queue.ready.iter())
        .chain(held.flatten())
        .map(|entry| &entry.delivery)
        .chain(queue.delayed.values())
        .chain(queue.dead.iter().map(|letter| &letter.delivery))
        .map(|delivery| delivery.id.clone())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever happens, a message is in exactly one place until it is acknowledged, and then in none; and the
    /// queue's own accounts agree.
    #[test]
    fn a_message_is_in_exactly_one_place_until_it_is_acknowledged(steps in steps()) {
        const LEASE: Duration = Duration::from_secs(10);
        let wall = SystemTime::UNIX_EPOCH;
        let (mut queue, mut now) = (Queue::default(), Duration::ZERO);
        let (mut expected, mut published) = (BTreeSet::new(), 0);
        let mut handed_out: Vec<Delivery> = Vec::new();
        for step in steps {
            match step {
                Step::Advance(seconds) => now += Duration::from_secs(seconds),
                Step::Claim { holder, max } => {
                    queue.promote(now, 3);
                    let before = handed_out.len();
                    let count = queue.claim(holder, max, now, LEASE, &mut handed_out);
                    let batch = &handed_out[before..];
                    prop_assert_eq!(count, batch.len());
                    prop_assert!(count <= max);
                    prop_assert!(count == 1 || batch.iter().all(|delivery| delivery.crashes < 2));
                }
                Step::Extend { holder } => {
                    let lost = queue.extend(holder, &[], now, LEASE);
                    prop_assert_eq!(lost, []);
                }
                Step::Maintain => {
                    queue.maintain(now, wall, LEASE, 4, 3);
                }
                Step::Publish { delay } => {
                    published += 1;
                    let message = Message::new("").id(format!("{published:04}"));
                    let incoming = Incoming::new(message, wall);
                    expected.insert(incoming.delivery.id.clone());
                    queue.publish(incoming, now, now + Duration::from_secs(delay), LEASE);
                }
                Step::Requeue => {
                    queue.requeue(None, 1, now);
                }
                Step::Settle { back, disposition } => {
                    let Some(at) = handed_out.len().checked_sub(1 + back) else { continue };
                    let delivery = handed_out[at].clone();
                    let lost = queue.extend(9, &[delivery.receipt], now, LEASE);
                    let acked = disposition == Disposition::Ack;
                    let settlement = Settlement::new(delivery.clone(), disposition);
                    let stale = queue.settle(&[settlement], now, wall);
                    prop_assert_eq!(stale, lost.len() as u64, "lost is stale, and only lost");
                    if acked && stale == 0 {
                        prop_assert!(expected.remove(&delivery.id));
                    }
                }
            }
            let mut there = places(&queue);
            there.sort();
            prop_assert_eq!(&there, &expected.iter().cloned().collect::<Vec<_>>());
            for claim in queue.claims.values() {
                prop_assert_eq!(claim.unsettled, claim.slots.iter().flatten().count());
                prop_assert!(claim.unsettled > 0);
            }
            for (holder, lease) in &queue.leases {
                let claims = queue.claims.values().filter(|claim| claim.holder == *holder);
                prop_assert_eq!(lease.claims, claims.count());
                prop_assert!(lease.claims > 0);
            }
        }
    }
}
