//! Work in another network namespace: on a thread that enters it and ends there.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs `work` in the namespace at `path`; the processes that it starts are there as well.
///
/// # Errors
/// When the namespace cannot be entered. A panic of `work` goes on in the caller.
pub(crate) fn inside<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let namespace = File::open(path)?;
    let enter = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(work())
    };
    let done = std::thread::scope(|scope| scope.spawn(enter).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Whether the namespace of this thread has IPv6. `/proc/net` tells of the process's first thread.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/thread-self/net/if_inet6").exists()
}
