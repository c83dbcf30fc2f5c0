//! Panic isolation: a panic of the worker is a failure of its message, and nothing else ends.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use crate::error::{WorkError, WorkErrorKind};

/// Runs a call; a panic where it is made, polled or dropped becomes an error of kind [`Panic`](WorkErrorKind::Panic).
///
/// The worker is used again after it has panicked, as every thread-safe value is after a panic on another thread: what
/// it guards with a `std::sync::Mutex` is poisoned, and that error is again a failure of one message.
pub(super) async fn catch_panic<T, F>(
    enabled: bool,
    call: impl FnOnce() -> F,
) -> Result<T, WorkError>
where
    F: Future<Output = Result<T, WorkError>>,
{
    if !enabled {
        return call().await;
    }
    let call = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(call) => call,
        Err(panic) => return Err(error(&*panic)),
    };
    let mut call = Isolated(pin!(Some(call)));
    poll_fn(|cx| call.poll(cx)).await
}

/// A call of which neither poll nor drop unwinds. It is dropped half-way at a time limit, and when a drain time is over.
struct Isolated<'a, F>(Pin<&'a mut Option<F>>);

impl<T, F: Future<Output = Result<T, WorkError>>> Isolated<'_, F> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, WorkError>> {
        let polled = catch_unwind(AssertUnwindSafe(|| match self.0.as_mut().as_pin_mut() {
            Some(call) => call.poll(cx),
            None => unreachable!("emptied only when dropped"),
        }));
        polled.unwrap_or_else(|panic| Poll::Ready(Err(error(&*panic))))
    }
}

impl<F> Drop for Isolated<'_, F> {
    fn drop(&mut self) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.0.set(None))) {
            tracing::error!(panic = text(&*panic), "a job panicked while it was dropped");
        }
    }
}

fn error(panic: &(dyn Any + Send)) -> WorkError {
    WorkError::new(WorkErrorKind::Panic, text(panic))
}

/// The text of `panic!("..")` and its like.
fn text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        format!("panicked: {text}")
    } else if let Some(text) = panic.downcast_ref::<String>() {
        format!("panicked: {text}")
    } else {
        "panicked with something that is not text".to_owned()
    }
}
