//! Source `file`: a directory of Kubernetes manifests, watched.
//!
//! The directory is read flat, as `kubectl apply -f DIR` does: `*.yaml`, `*.yml`, `*.json`, nothing whose name starts
//! with a dot. A file that cannot be used is named in a problem and its last good content stays in force.
//!
//! What swaps files atomically is seen whole: editors that rename over a file, and the `..data` symlink of mounted
//! ConfigMaps. The directory is watched, not the files; and it is looked at every `RESCAN` in any case, for file
//! systems that do not tell.

mod documents;
mod files;
mod list;
mod scan;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use std::{io, thread};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use crate::model::Delta;
use crate::model::delta::Item;
use crate::model::problem::{Place, Problem};
use files::Files;
use scan::Known;

/// How often the directory is looked at without being told to: costs one `stat` per file.
const RESCAN: Duration = Duration::from_secs(2);

/// A change is read once nothing more happened for this long, so that a file that is being written is not read half.
const SETTLE: Duration = Duration::from_millis(20);

/// A directory that never comes to rest is read this long after the first change.
const SETTLE_AT_MOST: Duration = Duration::from_millis(250);

/// Why the source did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory is not there, is none, or may not be read. The fault is the user's.
    #[error("the directory of manifests {} cannot be read", .0.display())]
    Directory(PathBuf, #[source] io::Error),
    /// The operating system gave no thread.
    #[error("the thread of the file source could not be started")]
    Thread(#[source] io::Error),
}

/// A running source. Dropping it ends its thread, which may still be handing over a step.
#[derive(Debug)]
pub struct FileSource {
    wake: Sender<Wake>,
}

enum Wake {
    Changed,
    Stop,
}

impl FileSource {
    /// Starts to read and watch `directory`. `sink` gets one step at a time, the first of them with everything, even
    /// when that is nothing; it may block, and returns false to end the source.
    ///
    /// # Errors
    /// [`StartError`]. What is wrong with single files is told through the sink.
    pub fn start(
        directory: impl Into<PathBuf>,
        sink: impl FnMut(Vec<Delta>) -> bool + Send + 'static,
    ) -> Result<Self, StartError> {
        let directory = directory.into();
        let unreadable = |error| StartError::Directory(directory.clone(), error);
        std::fs::read_dir(&directory).map_err(unreadable)?;
        let (wake, woken) = mpsc::channel();
        let watch = Watch::new(directory, wake.clone());
        thread::Builder::new()
            .name("file-source".to_owned())
            .spawn(move || run(watch, &woken, sink))
            .map_err(StartError::Thread)?;
        Ok(Self { wake })
    }
}

impl Drop for FileSource {
    fn drop(&mut self) {
        // An error means that the thread has ended already.
        let _ = self.wake.send(Wake::Stop);
    }
}

/// Reads `directory` once: its objects, and all that is wrong with single files and objects.
pub fn read(directory: &Path) -> (Vec<Item>, Vec<Problem>) {
    let mut files = Files::default();
    match scan::contents(directory, &mut Known::default()) {
        Ok(contents) => {
            files.update(contents);
            files.all()
        }
        Err(error) => (Vec::new(), vec![unreadable(directory, &error)]),
    }
}

/// Names and texts of the files of `directory` that can be read as text; [`read`] has problems for the others.
pub fn texts(directory: &Path) -> Vec<(Arc<str>, String)> {
    let contents = scan::contents(directory, &mut Known::default()).unwrap_or_default();
    let text = |(name, content)| match content {
        scan::Content::Read(Ok(bytes)) => Some((name, String::from_utf8(bytes).ok()?)),
        scan::Content::Read(Err(_)) | scan::Content::Same => None,
    };
    contents.into_iter().filter_map(text).collect()
}

/// The objects written in `text`, none when it is no manifest, and all that is wrong with each by itself.
pub fn parse(text: &str) -> (Vec<Item>, Vec<Problem>) {
    match documents::read(&"".into(), text, &|_| None) {
        Ok(read) => (read.items, read.problems),
        Err(errors) => (Vec::new(), errors),
    }
}

/// The directory and the watch on it.
struct Watch {
    directory: PathBuf,
    watcher: Option<RecommendedWatcher>,
    /// What the watch is on: the directory's name may be a symlink that moves.
    watched: Option<PathBuf>,
}

impl Watch {
    fn new(directory: PathBuf, wake: Sender<Wake>) -> Self {
        let changed = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_change(event.kind)) {
                // An error means that the thread has ended.
                let _ = wake.send(Wake::Changed);
            }
        };
        let watcher = notify::recommended_watcher(changed)
            .inspect_err(|error| tracing::warn!(%error, "no file watch: changes are seen every {RESCAN:?}"))
            .ok();
        let mut watch = Self { directory, watcher, watched: None };
        watch.follow();
        watch
    }

    /// Watches what the directory's name stands for now.
    fn follow(&mut self) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let now = self.directory.canonicalize().ok();
        if now == self.watched {
            return;
        }
        if let Some(before) = self.watched.take() {
            // It fails when the directory is gone, and then there is nothing to end.
            let _ = watcher.unwatch(&before);
        }
        let mut watch = |path: &PathBuf| watcher.watch(path, RecursiveMode::NonRecursive);
        self.watched = now.filter(|path| {
            watch(path)
                .inspect_err(|error| tracing::warn!(%error, "no file watch: changes are seen every {RESCAN:?}"))
                .is_ok()
        });
    }
}

/// Whether an event may mean other content. Reading a file makes events too, and must not.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

fn run(mut watch: Watch, woken: &Receiver<Wake>, mut sink: impl FnMut(Vec<Delta>) -> bool) {
    let (mut files, mut known) = (Files::default(), Known::default());
    let mut failed = false;
    loop {
        // Taken before reading: what changes while reading is seen the next time.
        let seen = scan::stamp(&watch.directory);
        let step = match scan::contents(&watch.directory, &mut known) {
            Ok(contents) => {
                failed = false;
                files.update(contents)
            }
            Err(error) if !failed => {
                failed = true;
                files.forget_problems();
                vec![Delta::Problems(vec![unreadable(&watch.directory, &error)])]
            }
            Err(_) => Vec::new(),
        };
        if !step.is_empty() && !sink(step) {
            return;
        }
        loop {
            match wait(woken) {
                Next::Stop => return,
                Next::Read => break,
                Next::Look if scan::stamp(&watch.directory) != seen => break,
                Next::Look => {}
            }
        }
        watch.follow();
    }
}

enum Next {
    Stop,
    Read,
    Look,
}

/// Waits for a change and until it has settled, or until it is time to look.
fn wait(woken: &Receiver<Wake>) -> Next {
    match woken.recv_timeout(RESCAN) {
        Ok(Wake::Changed) => {}
        Err(RecvTimeoutError::Timeout) => return Next::Look,
        Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return Next::Stop,
    }
    let first = Instant::now();
    while first.elapsed() < SETTLE_AT_MOST {
        match woken.recv_timeout(SETTLE) {
            Ok(Wake::Changed) => {}
            Err(RecvTimeoutError::Timeout) => break,
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return Next::Stop,
        }
    }
    Next::Read
}

fn unreadable(directory: &Path, error: &io::Error) -> Problem {
    let place = Place { file: directory.display().to_string().into(), line: 0, column: 0 };
    Problem::file(place, format!("the directory cannot be read: {error}"))
}
