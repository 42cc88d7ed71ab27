//! The only place that starts a task on a worker thread.

use std::future::Future;

/// Starts a task beside the current one, on the same thread. It ends with its future, at the latest with the thread.
/// Boxed: what is spawned per connection must not be copied on its way into the task.
pub(crate) fn local(future: impl Future<Output = ()> + 'static) {
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    tokio::task::spawn_local(Box::pin(future));
}
