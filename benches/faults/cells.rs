//! The matrix: what happens, and what has to hold all the same.

mod clock;
mod network;
mod processes;
mod server;
mod size;
mod topology;

use std::io;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::checker::Allowed;
use crate::plan::Group;
use crate::scene::{LEASE, Scene, Setup};

/// One fault, and all modes under it.
#[derive(Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) name: &'static str,
    /// What happens, in a few words.
    pub(crate) what: &'static str,
    pub(crate) setup: Setup,
    /// Messages a second; none: the script publishes by itself.
    pub(crate) rate: u64,
    pub(crate) script: Script,
    pub(crate) allowed: Allowed,
    /// Nothing may be done twice, whatever the reason.
    pub(crate) once: bool,
    /// Of these, some renewals have to come too late.
    pub(crate) refused_renewals: &'static [Group],
    /// Messages of every mode are done while the fault lasts.
    pub(crate) progress: bool,
    /// How long it may take until all is as before.
    pub(crate) limit: Option<Duration>,
    /// Whether it is one of the short deterministic subset.
    pub(crate) quick: bool,
    /// Why it can't be run here.
    pub(crate) needs: fn() -> Result<(), &'static str>,
}

/// What happens. It says by itself when the fault begins and ends.
type Script = for<'a> fn(&'a mut Scene) -> BoxFuture<'a, io::Result<()>>;

impl Cell {
    const fn new(name: &'static str, what: &'static str, script: Script) -> Self {
        Self {
            name,
            what,
            setup: Setup::ALL,
            rate: RATE,
            script,
            allowed: Allowed::NOTHING,
            once: false,
            refused_renewals: &[],
            progress: false,
            limit: None,
            quick: false,
            needs: || Ok(()),
        }
    }

    const fn quick(self) -> Self {
        Self {
            quick: true,
            ..self
        }
    }

    const fn within(self, limit: Duration) -> Self {
        Self {
            limit: Some(limit),
            ..self
        }
    }

    const fn refusing_renewals(self, of: &'static [Group]) -> Self {
        Self {
            refused_renewals: of,
            ..self
        }
    }

    const fn progressing(self) -> Self {
        Self {
            progress: true,
            ..self
        }
    }

    const fn once(self) -> Self {
        Self { once: true, ..self }
    }

    const fn on(self, setup: Setup) -> Self {
        Self { setup, ..self }
    }

    const fn allowing(self, allowed: Allowed) -> Self {
        Self { allowed, ..self }
    }
}

/// All of them, in the order of the table.
pub(crate) fn all() -> Vec<Cell> {
    [
        &processes::CELLS[..],
        &network::CELLS[..],
        &server::CELLS[..],
        &topology::CELLS[..],
        &clock::CELLS[..],
        &size::CELLS[..],
    ]
    .concat()
}

/// Processes die: what they had taken from at-most-once queues is lost, and the one that kept the order is not spared.
const DEATHS: Allowed = Allowed {
    fleeting_is_lost: true,
    order_is_broken: true,
    ..Allowed::NOTHING
};
/// Processes are stopped: their leases end, and by the time that they go on, their calls have run out of time.
const STOPS: Allowed = Allowed {
    answers_are_lost: true,
    leases_are_lost: true,
    ..DEATHS
};
/// Answers are lost: an at-most-once queue has handed out what nobody got.
const LOST_ANSWERS: Allowed = Allowed {
    answers_are_lost: true,
    fleeting_is_lost: true,
    leases_are_lost: true,
    ..Allowed::NOTHING
};
/// Redis is away: who lives keeps its work, however long it takes.
const OUTAGE: Allowed = Allowed {
    leases_are_lost: false,
    ..LOST_ANSWERS
};
const FORGETS: Allowed = Allowed {
    messages_are_lost: true,
    ..FORGETS_SETTLES
};
/// What was settled comes again, and nothing is lost.
const FORGETS_SETTLES: Allowed = Allowed {
    redis_forgets: true,
    fleeting_is_lost: true,
    order_is_broken: true,
    leases_are_lost: true,
    ..Allowed::NOTHING
};

const RATE: u64 = 1_800;
/// What a dead process held is in other hands.
const AFTER_DEATH: Duration = LEASE.saturating_add(Duration::from_secs(2));
const AFTER_CUT: Duration = Duration::from_secs(3);
/// An idle read takes a second.
const AFTER_SILENCE: Duration = Duration::from_secs(5);
const AFTER_RESTART: Duration = Duration::from_secs(3);
