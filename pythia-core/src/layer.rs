//! [`Layer`]: a worker around a worker.

use crate::worker::Worker;

/// Wraps a worker into another that does something before or after: audit, tracing, a transaction.
///
/// ```
/// use pythia_core::{Job, Layer, WorkError, Worker};
///
/// struct Audit;
/// struct Audited<W> { inner: W }
///
/// impl<W: Worker> Layer<W> for Audit {
///     type Worker = Audited<W>;
///
///     fn layer(self, inner: W) -> Audited<W> {
///         Audited { inner }
///     }
/// }
///
/// impl<W: Worker> Worker for Audited<W> {
///     type Input = W::Input;
///     type Output = W::Output;
///
///     async fn process(&self, job: &Job<W::Input>) -> Result<W::Output, WorkError> {
///         let result = self.inner.process(job).await;
///         println!("message {}, attempt {}: success: {}", job.id(), job.attempt(), result.is_ok());
///         result
///     }
///
///     async fn start(&self) -> Result<(), WorkError> {
///         self.inner.start().await
///     }
///
///     async fn stop(&self) {
///         self.inner.stop().await;
///     }
/// }
/// ```
///
/// In `.layer(A).layer(B)`, `B` is the outermost. The framework's own layers are all outside of the user's.
pub trait Layer<W: Worker> {
    /// The worker that comes out.
    type Worker: Worker<Input = W::Input, Output = W::Output>;

    /// Wraps a worker.
    fn layer(self, inner: W) -> Self::Worker;
}
