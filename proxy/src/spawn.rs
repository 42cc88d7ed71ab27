//! The only place that starts a task on a worker thread.

use std::future::Future;

/// Starts a task beside the current one, on the same thread. It ends with its future, at the latest with the thread.
/// Boxed: what is spawned per connection must not be copied on its way into the task.
pub(crate) fn local(future: impl Future<Output = ()> + 'static) {
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    tokio::task::spawn_local(Box::pin(future));
}

/// Bytes of the future that `make` makes: what its task holds from beginning to end.
#[cfg(test)]
pub(crate) fn size<A, F: Future>(_make: impl FnOnce(A) -> F) -> usize {
    size_of::<F>()
}
