//! Where on the path of its messages a worker process dies.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use tokio::time::timeout;

/// A point on the path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Point {
    AfterFetch,
    DuringProcess,
    BeforeSettle,
    DuringSettle,
    DuringMaintain,
}

impl Point {
    pub(crate) const ALL: [Self; 5] = [
        Self::AfterFetch,
        Self::DuringProcess,
        Self::BeforeSettle,
        Self::DuringSettle,
        Self::DuringMaintain,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AfterFetch => "after-fetch",
            Self::DuringProcess => "during-process",
            Self::BeforeSettle => "before-settle",
            Self::DuringSettle => "during-settle",
            Self::DuringMaintain => "during-maintain",
        }
    }
}

/// When the process is to die: at the n-th time that it comes by that point, or never.
#[derive(Debug)]
pub(crate) struct Death(Option<(Point, AtomicU64)>);

impl Death {
    /// `after-fetch:7` is at the seventh time.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, String> {
        let Some(text) = text else {
            return Ok(Self(None));
        };
        let (name, times) = text
            .split_once(':')
            .ok_or("a point and a number, as after-fetch:7")?;
        let point = Point::ALL.into_iter().find(|point| point.name() == name);
        let point = point.ok_or_else(|| format!("no point is called {name:?}"))?;
        let times: u64 = times
            .parse()
            .map_err(|_| format!("{times:?} is no number"))?;
        Ok(Self(Some((point, AtomicU64::new(times.max(1))))))
    }

    /// Dies here if it is time.
    pub(crate) fn at(&self, point: Point) {
        if self.is_due(point) {
            die();
        }
    }

    /// Dies while this call is under way, if it is time: at some moment that nobody has chosen.
    pub(crate) async fn during<T>(&self, point: Point, call: impl Future<Output = T>) -> T {
        if !self.is_due(point) {
            return call.await;
        }
        let _outcome = timeout(Duration::from_micros(rand::random_range(0..1_500)), call).await;
        die()
    }

    fn is_due(&self, point: Point) -> bool {
        let due = |(of, left): &(Point, AtomicU64)| *of == point && left.fetch_sub(1, Relaxed) == 1;
        self.0.as_ref().is_some_and(due)
    }
}

/// Ends this process as `kill -9` does: nothing is said to anybody.
pub(crate) fn die() -> ! {
    loop {
        kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
    }
}
