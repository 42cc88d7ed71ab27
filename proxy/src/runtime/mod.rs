//! Threads, listeners, accepting and shutting down: what a worker runs on, not what it does with a connection.

/// Sockets of all workers.
pub mod listen;

/// Connections off a listener.
pub mod accept;

/// When to stop, and how.
pub mod shutdown;

/// One OS thread for each worker.
pub(crate) mod thread;
