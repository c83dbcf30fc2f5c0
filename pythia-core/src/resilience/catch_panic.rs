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
        Err(panic) => return Err(error(panic)),
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
        polled.unwrap_or_else(|panic| Poll::Ready(Err(error(panic))))
    }
}

impl<F> Drop for Isolated<'_, F> {
    fn drop(&mut self) {
        report(catch_unwind(AssertUnwindSafe(|| self.0.set(None))));
    }
}

/// Drops what is the user's, whose result stands by now: a panic in there is reported, and changes nothing.
pub(crate) fn discard<T>(value: T) {
    if std::mem::needs_drop::<T>() {
        report(catch_unwind(AssertUnwindSafe(|| drop(value))));
    }
}

fn report(dropped: Result<(), Box<dyn Any + Send>>) {
    if let Err(panic) = dropped {
        tracing::error!(panic = text(&*panic), "a job panicked while it was dropped");
        give_up(panic);
    }
}

fn error(panic: Box<dyn Any + Send>) -> WorkError {
    let error = WorkError::new(WorkErrorKind::Panic, text(&*panic));
    give_up(panic);
    error
}

/// A panic carries a value, and the drop of that may panic, with a value again: that one is leaked.
fn give_up(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    type Nothing = Result<(), WorkError>;

    /// Panics when it is dropped.
    struct Mine;

    impl Drop for Mine {
        fn drop(&mut self) {
            panic!("stepped on");
        }
    }

    #[track_caller]
    fn assert_panic(result: Nothing, expected: &str) {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), WorkErrorKind::Panic);
        assert_eq!(error.to_string(), expected);
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_with_its_text() {
        let constant = catch_panic(true, || async { panic!("no stock") });
        assert_panic(constant.await, "panicked: no stock");
        let formatted = catch_panic(true, || async {
            tokio::task::yield_now().await;
            let order = 7;
            panic!("order {order}")
        });
        assert_panic(formatted.await, "panicked: order 7");
        let other = catch_panic(true, || async { std::panic::panic_any(7) });
        assert_panic(other.await, "panicked with something that is not text");
    }

    #[tokio::test]
    async fn a_panic_where_the_call_is_made_becomes_an_error() {
        let call = || -> std::future::Ready<Nothing> { panic!("too early") };
        assert_panic(catch_panic(true, call).await, "panicked: too early");
    }

    #[tokio::test]
    async fn results_come_through() {
        for enabled in [true, false] {
            let result = catch_panic(enabled, || async {
                tokio::task::yield_now().await;
                Ok(7)
            });
            assert_eq!(result.await.unwrap(), 7);
        }
    }

    #[tokio::test]
    async fn switched_off_it_lets_panics_through() {
        let call = catch_panic(false, || async {
            if true {
                panic!("as you wish");
            }
            Ok(())
        });
        assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    }

    #[test]
    fn a_panic_in_a_drop_half_way_ends_nothing() {
        let mut call = Box::pin(catch_panic(true, || async {
            let _mine = Mine;
            std::future::pending::<Nothing>().await
        }));
        assert!(call.as_mut().now_or_never().is_none());
        drop(call);
    }

    #[test]
    fn a_panic_in_the_drop_of_what_is_done_does_not_change_its_result() {
        let mine = std::mem::ManuallyDrop::new(Mine);
        let result = catch_panic(true, || {
            let mut mine = Some(std::mem::ManuallyDrop::into_inner(mine));
            poll_fn(move |_| {
                let _still_here = &mut mine;
                Poll::Ready(Ok(7))
            })
        });
        assert_eq!(result.now_or_never().unwrap().unwrap(), 7);
    }
}
