use proptest::prelude::*;
use rand::SeedableRng;

use super::*;

const SUCCESS: Tally = Tally {
    successes: 1,
    failures: 0,
};
const FAILURE: Tally = Tally {
    successes: 0,
    failures: 1,
};
const NEITHER: Tally = Tally {
    successes: 0,
    failures: 0,
};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Opens at 10 calls of which half failed, for 5 s, doubled up to 30 s, with 2 probes.
fn breaker() -> Breaker {
    let config = BreakerConfig {
        min_calls: NonZeroU32::new(10).unwrap(),
        open_for: secs(5),
        max_open_for: secs(30),
        jitter: Jitter::None,
        probes: NonZeroU32::new(2).unwrap(),
        ..BreakerConfig::default()
    };
    let policy = config.checked().unwrap().unwrap();
    Breaker::new(policy, StdRng::seed_from_u64(1))
}

fn failures(failures: u64) -> Tally {
    Tally {
        successes: 10 - failures,
        failures,
    }
}

fn opened(now: Instant) -> Breaker {
    let mut breaker = breaker();
    breaker.trip(now, 0, failures(10));
    assert_eq!(breaker.state(), BreakerState::Open);
    breaker
}

fn half_opened(now: Instant) -> Breaker {
    let mut breaker = opened(now - secs(5));
    breaker.pass_time(now);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    breaker
}

#[test]
fn closed_it_lets_all_in_and_opens_at_the_ratio_with_enough_calls() {
    let now = Instant::now();
    let mut breaker = breaker();
    assert_eq!(breaker.position(), Position::Open);
    let admission = breaker.admit(now).unwrap();
    assert!(!admission.probe);
    let nine = Tally {
        successes: 0,
        failures: 9,
    };
    for tally in [nine, failures(4)] {
        breaker.trip(now, admission.generation, tally);
        assert_eq!(breaker.state(), BreakerState::Closed, "{tally:?}");
    }
    breaker.trip(now, admission.generation, failures(5));
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.position(), Position::Shut(now + secs(5)));
}

#[test]
fn open_it_lets_none_in_until_its_time_is_over() {
    let now = Instant::now();
    let mut breaker = opened(now);
    let almost = now + secs(5) - Duration::from_nanos(1);
    assert_eq!(breaker.admit(almost), None);
    assert_eq!(breaker.reserve(10), 0);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert!(breaker.admit(now + secs(5)).unwrap().probe);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert_eq!(breaker.position(), Position::Limited(1));
}

#[test]
fn half_open_it_closes_when_all_probes_have_succeeded() {
    let now = Instant::now();
    let mut breaker = half_opened(now);
    let first = breaker.admit(now).unwrap();
    let second = breaker.admit(now).unwrap();
    assert_eq!(breaker.admit(now), None);
    breaker.probe_ended(now, first.generation, SUCCESS);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert_eq!(breaker.admit(now), None, "two probes are enough to tell");
    breaker.probe_ended(now, second.generation, SUCCESS);
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert_eq!(breaker.position(), Position::Open);
}

#[test]
fn half_open_one_failed_probe_opens_it_for_longer_each_time() {
    let mut now = Instant::now();
    let mut breaker = opened(now);
    for open_for in [5, 10, 20, 30, 30] {
        assert_eq!(breaker.position(), Position::Shut(now + secs(open_for)));
        now += secs(open_for);
        let good = breaker.admit(now).unwrap();
        let bad = breaker.admit(now).unwrap();
        breaker.probe_ended(now, good.generation, SUCCESS);
        breaker.probe_ended(now, bad.generation, FAILURE);
        assert_eq!(breaker.state(), BreakerState::Open);
    }
    now += secs(30);
    for _ in 0..2 {
        let probe = breaker.admit(now).unwrap();
        breaker.probe_ended(now, probe.generation, SUCCESS);
    }
    breaker.trip(now, breaker.generation(), failures(10));
    assert_eq!(
        breaker.position(),
        Position::Shut(now + secs(5)),
        "it was closed between"
    );
}

#[test]
fn a_probe_that_tells_nothing_gives_its_place_to_another() {
    let now = Instant::now();
    let mut breaker = half_opened(now);
    for _ in 0..10 {
        let probe = breaker.admit(now).unwrap();
        breaker.probe_ended(now, probe.generation, NEITHER);
        assert_eq!(breaker.position(), Position::Limited(2));
    }
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
}

#[test]
fn a_batch_as_a_probe_is_judged_by_its_share_of_failures() {
    let now = Instant::now();
    for (tally, state) in [
        (failures(4), BreakerState::HalfOpen),
        (failures(5), BreakerState::Open),
    ] {
        let mut breaker = half_opened(now);
        let probe = breaker.admit(now).unwrap();
        breaker.probe_ended(now, probe.generation, tally);
        assert_eq!(breaker.state(), state);
    }
}

#[test]
fn results_of_an_earlier_state_change_nothing() {
    let now = Instant::now();
    let mut breaker = breaker();
    let early = breaker.admit(now).unwrap();
    breaker.trip(now, early.generation, failures(10));
    breaker.trip(now, early.generation, failures(10));
    assert_eq!(breaker.position(), Position::Shut(now + secs(5)));

    let now = now + secs(5);
    let [first, late] = [0, 1].map(|_| breaker.admit(now).unwrap());
    assert_eq!(breaker.reserve(1), 0);
    breaker.probe_ended(now, first.generation, FAILURE);
    assert_eq!(breaker.position(), Position::Shut(now + secs(10)));

    let now = now + secs(10);
    breaker.pass_time(now);
    for tally in [SUCCESS, FAILURE, NEITHER] {
        breaker.probe_ended(now, late.generation, tally);
        assert_eq!(breaker.position(), Position::Limited(2));
    }
    assert_eq!(breaker.reserve(2), 2);
    breaker.give_back(late.generation, 2);
    assert_eq!(breaker.position(), Position::Limited(0));
    breaker.give_back(breaker.generation(), 2);
    assert_eq!(breaker.position(), Position::Limited(2));
}

#[test]
fn reserved_places_are_for_fetches_and_the_calls_that_they_bring() {
    let now = Instant::now();
    let mut breaker = half_opened(now);
    assert_eq!(breaker.reserve(1), 1);
    assert_eq!(breaker.reserve(9), 1);
    assert_eq!(breaker.reserve(9), 0);
    assert!(breaker.admit(now).is_some() && breaker.admit(now).is_some());
    assert_eq!(breaker.admit(now), None);
    breaker.give_back(breaker.generation(), 2);
    assert_eq!(breaker.reserve(9), 0);
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let refused = |change: fn(&mut BreakerConfig)| {
        let mut config = BreakerConfig::off();
        change(&mut config);
        config.checked().unwrap_err().to_string()
    };
    for ratio in [0.0, -0.5, 1.5, f64::NAN] {
        let config = BreakerConfig {
            failure_ratio: ratio,
            ..BreakerConfig::default()
        };
        let error = config.checked().unwrap_err().to_string();
        assert_eq!(
            error,
            format!("breaker.failure_ratio is {ratio}, it must be above 0 and at most 1")
        );
    }
    assert_eq!(
        refused(|config| config.window = Duration::ZERO),
        "breaker.window is 0ns, it must be between 10ms and 1 day"
    );
    assert_eq!(
        refused(|config| config.open_for = Duration::ZERO),
        "breaker.open_for is 0ns, it must be at least 1ms"
    );
    assert_eq!(
        refused(|config| config.max_open_for = secs(1)),
        "breaker.max_open_for is 1s, less than breaker.open_for, which is 5s"
    );
    assert!(BreakerConfig::off().checked().unwrap().is_none());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Admit,
    /// The n-th oldest of the calls in flight ends.
    End(usize, Tally),
    Reserve(usize),
    GiveBack(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tally = prop_oneof![Just(SUCCESS), Just(FAILURE), Just(NEITHER)];
    let step = prop_oneof![
        4 => Just(Step::Admit),
        4 => (0usize..8, tally).prop_map(|(which, tally)| Step::End(which, tally)),
        1 => (1usize..4).prop_map(Step::Reserve),
        1 => (1usize..4).prop_map(Step::GiveBack),
        1 => (0u64..10_000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..400)
}

proptest! {
    #[test]
    fn whatever_happens_it_keeps_its_rules(steps in steps()) {
        let mut now = Instant::now();
        let mut breaker = breaker();
        let mut calls: Vec<Admission> = Vec::new();
        let mut tally = Tally::default();
        for step in steps {
            let (before, generation) = (breaker.state(), breaker.generation());
            let shut = match breaker.position() {
                Position::Shut(until) => until > now,
                _ => false,
            };
            match step {
                Step::Admit => {
                    let admission = breaker.admit(now);
                    prop_assert!(!(shut && admission.is_some()), "let in while open");
                    prop_assert!(before != BreakerState::Closed || admission.is_some());
                    calls.extend(admission);
                }
                Step::End(which, result) if !calls.is_empty() => {
                    let call = calls.remove(which % calls.len());
                    if call.probe {
                        breaker.probe_ended(now, call.generation, result);
                    } else if call.generation == generation {
                        tally += result;
                        if result.failures > 0 {
                            breaker.trip(now, call.generation, tally);
                        }
                    }
                }
                Step::End(..) => {}
                Step::Reserve(max) => prop_assert!(breaker.reserve(max) <= max.min(2)),
                Step::GiveBack(places) => breaker.give_back(generation, places),
                Step::Wait(millis) => now += Duration::from_millis(millis),
            }
            let probes = calls.iter().filter(|call| call.generation == breaker.generation() && call.probe);
            prop_assert!(probes.count() <= 2, "too many probes in flight");
            let after = breaker.state();
            if after != before {
                prop_assert_eq!(breaker.generation(), generation + 1);
                match (before, after) {
                    (BreakerState::Closed, BreakerState::Open) => {
                        prop_assert!(tally.calls() >= 10 && 2 * tally.failures >= tally.calls(), "{tally:?}");
                    }
                    (BreakerState::Open, BreakerState::HalfOpen) => prop_assert!(!shut),
                    (BreakerState::HalfOpen, BreakerState::Open) => {
                        prop_assert!(matches!(step, Step::End(_, FAILURE)));
                    }
                    (BreakerState::HalfOpen, BreakerState::Closed) => {
                        prop_assert!(matches!(step, Step::End(_, SUCCESS)));
                        tally = Tally::default();
                    }
                    other => prop_assert!(false, "no such change: {other:?}"),
                }
            }
        }
    }
}
