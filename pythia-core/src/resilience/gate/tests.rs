use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::advance;

use super::*;
use crate::resilience::{BreakerConfig, Jitter};

const SUCCESS: Tally = Tally {
    successes: 1,
    failures: 0,
};
const FAILURE: Tally = Tally {
    successes: 0,
    failures: 1,
};

type States = Arc<Mutex<Vec<BreakerState>>>;

/// Opens at 4 calls of which half failed, for 5 s, with 3 probes.
fn gate() -> (Arc<Gate>, States) {
    let states = States::default();
    let seen = Arc::clone(&states);
    let config = BreakerConfig {
        min_calls: 4.try_into().unwrap(),
        jitter: Jitter::None,
        ..BreakerConfig::default()
    };
    let policy = config.checked().unwrap().unwrap();
    let gate = Gate::new(policy, move |state| seen.lock().unwrap().push(state));
    (gate, states)
}

fn call(gate: &Gate, tally: Tally) -> bool {
    let permit = gate.admit(Instant::now);
    permit.is_some_and(|permit| {
        permit.record(Instant::now(), tally);
        true
    })
}

fn open(gate: &Gate) {
    for _ in 0..4 {
        assert!(call(gate, FAILURE));
    }
    assert!(gate.is_shut());
}

fn seen(states: &States) -> Vec<BreakerState> {
    std::mem::take(&mut states.lock().unwrap())
}

#[tokio::test(start_paused = true)]
async fn while_all_is_well_it_allows_what_is_asked_for() {
    let (gate, states) = gate();
    for _ in 0..100 {
        assert!(call(&gate, SUCCESS));
    }
    for _ in 0..99 {
        assert!(call(&gate, FAILURE));
    }
    let allowance = gate.allowance(512).now_or_never().unwrap();
    assert_eq!(allowance.places(), 512);
    assert!(gate.opens().now_or_never().is_some());
    assert!(gate.shuts().now_or_never().is_none());
    assert_eq!(seen(&states), []);
    call(&gate, FAILURE);
    assert_eq!(seen(&states), [BreakerState::Open]);
}

#[tokio::test(start_paused = true)]
async fn failures_of_long_ago_are_forgotten() {
    let (gate, _) = gate();
    for _ in 0..3 {
        call(&gate, FAILURE);
    }
    advance(Duration::from_secs(10)).await;
    for _ in 0..3 {
        call(&gate, FAILURE);
    }
    assert!(!gate.is_shut());
    call(&gate, FAILURE);
    assert!(gate.is_shut());
}

#[tokio::test(start_paused = true)]
async fn shut_it_holds_fetches_until_the_breaker_may_be_tried_and_then_allows_its_probes() {
    let (gate, states) = gate();
    let began = Instant::now();
    open(&gate);
    assert_eq!(seen(&states), [BreakerState::Open]);
    assert!(!call(&gate, SUCCESS));
    assert!(gate.shuts().now_or_never().is_some());

    // Whichever lane is first has its two places, and the other one what is left of three.
    let (lane_0, lane_1) = tokio::join!(gate.allowance(2), gate.allowance(2));
    assert_eq!(Instant::now() - began, Duration::from_secs(5));
    assert_eq!(lane_0.places() + lane_1.places(), 3);
    assert_eq!(seen(&states), [BreakerState::HalfOpen]);
    assert!(!gate.is_shut());
    assert!(gate.allowance(1).now_or_never().is_none());

    for _ in 0..3 {
        assert!(call(&gate, SUCCESS));
    }
    assert_eq!(seen(&states), [BreakerState::Closed]);
    assert_eq!(gate.allowance(512).now_or_never().unwrap().places(), 512);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_shuts_it_again_and_what_waited_goes_on_waiting() {
    let (gate, states) = gate();
    open(&gate);
    let probes = gate.allowance(3).await;
    let began = Instant::now();
    let waiting = gate.allowance(3);
    let failing = async {
        call(&gate, FAILURE);
        assert_eq!(
            seen(&states),
            [
                BreakerState::Open,
                BreakerState::HalfOpen,
                BreakerState::Open
            ]
        );
        drop(probes);
    };
    let (allowance, ()) = tokio::join!(waiting, failing);
    assert_eq!(Instant::now() - began, Duration::from_secs(10));
    assert_eq!(allowance.places(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_began_before_the_trouble_was_over_is_not_counted_after_it() {
    let (gate, states) = gate();
    let slow: Vec<_> = (0..8).map(|_| gate.admit(Instant::now).unwrap()).collect();
    open(&gate);
    gate.opens().await;
    for _ in 0..3 {
        assert!(call(&gate, SUCCESS));
    }
    for permit in slow {
        permit.record(Instant::now(), FAILURE);
    }
    assert!(call(&gate, FAILURE));
    assert_eq!(seen(&states).last(), Some(&BreakerState::Closed));
}

#[tokio::test(start_paused = true)]
async fn what_was_allowed_and_not_used_is_given_back() {
    let (gate, _) = gate();
    open(&gate);
    let mut allowance = gate.allowance(3).await;
    assert!(gate.allowance(3).now_or_never().is_none());
    allowance.keep(1);
    assert_eq!(allowance.places(), 1);
    assert_eq!(gate.allowance(3).now_or_never().unwrap().places(), 2);
    let waiting = gate.allowance(3);
    let giving = async { drop(allowance) };
    assert_eq!(tokio::join!(waiting, giving).0.places(), 2);
    assert_eq!(gate.allowance(3).now_or_never().unwrap().places(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_allowance_of_an_earlier_state_gives_nothing_back() {
    let (gate, _) = gate();
    open(&gate);
    let stale = gate.allowance(3).await;
    call(&gate, FAILURE);
    let fresh = gate.allowance(3).await;
    drop(stale);
    assert_eq!(fresh.places(), 3);
    assert!(gate.allowance(1).now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_half_way_gives_its_place_back() {
    let (gate, states) = gate();
    open(&gate);
    gate.opens().await;
    let calls: Vec<_> = (0..3).map(|_| gate.admit(Instant::now).unwrap()).collect();
    assert!(gate.admit(Instant::now).is_none());
    assert!(gate.opens().now_or_never().is_none());
    let waiting = gate.opens();
    let dropping = async { drop(calls) };
    tokio::join!(waiting, dropping);
    assert_eq!(gate.allowance(9).now_or_never().unwrap().places(), 3);
    assert_eq!(seen(&states), [BreakerState::Open, BreakerState::HalfOpen]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_dropped_takes_nothing_along() {
    let (gate, _) = gate();
    open(&gate);
    for _ in 0..10 {
        let wait = tokio::time::timeout(Duration::from_millis(499), gate.allowance(3));
        assert!(wait.await.is_err());
    }
    assert_eq!(gate.allowance(9).await.places(), 3);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_it_to_shut_are_woken() {
    let (gate, _) = gate();
    let shutting = async { open(&gate) };
    tokio::join!(gate.shuts(), shutting);
}

#[test]
fn many_threads_see_each_change_once_and_in_order() {
    let (gate, states) = gate();
    let start = Instant::now();
    let clock = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (gate, clock) = (&gate, &clock);
            scope.spawn(move || {
                for turn in 0..20_000u64 {
                    let now =
                        || start + Duration::from_millis(clock.fetch_add(1, Ordering::Relaxed));
                    let Some(permit) = gate.admit(now) else {
                        clock.fetch_add(100, Ordering::Relaxed);
                        continue;
                    };
                    // Good and bad times, by turns.
                    let bad = (turn + thread) / 50 % 2 == 0;
                    permit.record(now(), if bad { FAILURE } else { SUCCESS });
                }
            });
        }
    });
    let states = seen(&states);
    assert!(states.len() > 10, "{}", states.len());
    assert_eq!(states[0], BreakerState::Open);
    for pair in states.windows(2) {
        let legal = match pair[0] {
            BreakerState::Closed => pair[1] == BreakerState::Open,
            BreakerState::HalfOpen => pair[1] != BreakerState::HalfOpen,
            BreakerState::Open => pair[1] == BreakerState::HalfOpen,
        };
        assert!(legal, "{pair:?}");
    }
    let closed = states.last() == Some(&BreakerState::Closed);
    assert_eq!(gate.is_open(), closed);
}
