//! Files that hold secrets: a private directory, whole-file writes, no loose modes. Or the same files in memory, for
//! whoever keeps them elsewhere, such as in a Secret of a cluster.
//!
//! A file is complete or absent: it is written under another name, synced, and then linked or renamed into place.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

/// What went wrong with a state directory or a file in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// Group or others may reach a secret. Operator's fault; `chmod` as the text says.
    #[error("{path} has mode {mode:04o}, which lets others at a private key; run: chmod {wanted:o} {path}")]
    Mode {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The loosest bits accepted.
        wanted: u32,
    },
    /// Somebody else made it: what is in it, and who reads what is put there, is not ours to say. Operator's fault.
    #[error(
        "{path} belongs to user {owner}, not to {us}, who runs this; choose another directory, or run: chown {us} {path}"
    )]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// User id of its owner.
        owner: u32,
        /// User id of this process.
        us: u32,
    },
    /// It is a symbolic link, or not the kind of file it should be: somebody may have put it there. Operator's fault.
    #[error("{path} is a symbolic link or a special file; give the path of the directory or file itself")]
    Link {
        /// The file or directory.
        path: PathBuf,
    },
    /// Anybody may replace the directory. Operator's fault.
    #[error(
        "{path} has mode {mode:04o}: anybody may replace what is in it; choose another directory, or run: chmod o-w {path}"
    )]
    Above {
        /// A directory above it.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Far larger than any key or certificate file.
    #[error("{path} is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// Files that are kept elsewhere than in a directory: content by name. The names are fit for keys of a Secret.
pub type Files = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// Where files are.
#[derive(Debug)]
pub(crate) enum Store {
    Dir(Dir),
    Memory(Memory),
}

/// Files in memory.
pub(crate) struct Memory(Mutex<Files>);

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

impl Store {
    /// As [`Dir::open`].
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        Dir::open(dir).map(Self::Dir)
    }

    pub(crate) const fn memory(files: Files) -> Self {
        Self::Memory(Memory(Mutex::new(files)))
    }

    /// The files, of a store in memory.
    pub(crate) fn files(&self) -> Option<Files> {
        match self {
            Self::Dir(_) => None,
            Self::Memory(memory) => Some(memory.files().clone()),
        }
    }

    /// As [`Dir::read`].
    pub(crate) fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        match self {
            Self::Dir(dir) => dir.read(name),
            Self::Memory(memory) => Ok(memory.files().get(name).cloned()),
        }
    }

    /// As [`Dir::create`].
    pub(crate) fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        match self {
            Self::Dir(dir) => dir.create(name, bytes),
            Self::Memory(memory) => {
                let mut files = memory.files();
                let absent = !files.contains_key(name);
                if absent {
                    files.insert(name.to_owned(), Zeroizing::new(bytes.to_vec()));
                }
                Ok(absent)
            }
        }
    }

    /// As [`Dir::replace`].
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        match self {
            Self::Dir(dir) => dir.replace(name, bytes),
            Self::Memory(memory) => {
                memory.files().insert(name.to_owned(), Zeroizing::new(bytes.to_vec()));
                Ok(())
            }
        }
    }

    /// As [`Dir::remove`].
    pub(crate) fn remove(&self, name: &str) -> Result<(), StoreError> {
        match self {
            Self::Dir(dir) => dir.remove(name),
            Self::Memory(memory) => {
                memory.files().remove(name);
                Ok(())
            }
        }
    }
}

impl Memory {
    fn files(&self) -> MutexGuard<'_, Files> {
        // A poisoned lock is harmless: every change is one insertion or removal.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A directory only its owner can enter. It is opened once: whoever replaces its name later replaces nothing here.
#[derive(Debug)]
pub(crate) struct Dir {
    dir: PathBuf,
    opened: OwnedFd,
}

impl Dir {
    /// Opens `dir`, making it with mode 0700 when it is not there.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(|e| failed(dir, e))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::open(dir, flags, Mode::empty()).map_err(|e| match e {
            Errno::LOOP | Errno::NOTDIR => StoreError::Link { path: dir.to_owned() },
            other => failed(dir, other.into()),
        })?;
        check(dir, &opened, DIR_MODE)?;
        replaceable(dir)?;
        Ok(Self { dir: dir.to_owned(), opened })
    }

    /// The bytes of the file `name`, or `None` when there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let path = self.dir.join(name);
        // Not to wait for the writer of a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.opened, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(StoreError::Link { path }),
            Err(error) => return Err(failed(&path, error.into())),
        };
        check(&path, &file, FILE_MODE)?;
        let file = File::from(file);
        if !file.metadata().map_err(|e| failed(&path, e))?.is_file() {
            return Err(StoreError::Link { path });
        }
        read_all(&path, &file).map(Some)
    }

    /// Writes the file `name` unless it exists already; says whether it wrote.
    pub(crate) fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        let draft = self.draft(name, bytes)?;
        // A link, unlike a rename, never replaces: of two processes that start at once, one wins and both read its key.
        let linked = match rustix::fs::linkat(&self.opened, &draft, &self.opened, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(e) => Err(self.failed(name, e)),
        };
        rustix::fs::unlinkat(&self.opened, &draft, AtFlags::empty()).map_err(|e| self.failed(&draft, e))?;
        self.sync()?;
        linked
    }

    /// Writes the file `name`, over an old one if there is one.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let draft = self.draft(name, bytes)?;
        rustix::fs::renameat(&self.opened, &draft, &self.opened, name).map_err(|e| self.failed(name, e))?;
        self.sync()
    }

    /// Removes the file `name`; one that is not there is fine.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StoreError> {
        match rustix::fs::unlinkat(&self.opened, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => self.sync(),
            Err(e) => Err(self.failed(name, e)),
        }
    }

    /// Writes a file under a name of its own, which is returned.
    fn draft(&self, name: &str, bytes: &[u8]) -> Result<String, StoreError> {
        // Unlike any other writer's, in this process or another.
        let turn = DRAFTS.fetch_add(1, Ordering::Relaxed);
        let draft = format!(".{name}.{}.{turn}", std::process::id());
        let write = || -> io::Result<()> {
            // Of a process that had our id and died.
            let _ = rustix::fs::unlinkat(&self.opened, &draft, AtFlags::empty());
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&self.opened, &draft, flags, Mode::from_raw_mode(FILE_MODE))?;
            let mut file = File::from(file);
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(|e| failed(&self.dir.join(&draft), e))?;
        Ok(draft)
    }

    fn sync(&self) -> Result<(), StoreError> {
        rustix::fs::fsync(&self.opened).map_err(|e| failed(&self.dir, e.into()))
    }

    fn failed(&self, name: &str, source: Errno) -> StoreError {
        failed(&self.dir.join(name), source.into())
    }
}

/// Reads a file of keys or certificates that the operator names, at most 1 MiB, whatever its mode and owner.
pub(crate) fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    read_all(path, &File::open(path).map_err(|e| failed(path, e))?)
}

fn read_all(path: &Path, file: &File) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_FILE_BYTES.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| failed(path, e))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(StoreError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Whether the opened file is ours, and nobody else's to reach.
fn check(path: &Path, opened: &OwnedFd, wanted: u32) -> Result<(), StoreError> {
    let stat = rustix::fs::fstat(opened).map_err(|e| failed(path, e.into()))?;
    let us = rustix::process::geteuid().as_raw();
    if stat.st_uid != us {
        return Err(StoreError::Owner { path: path.to_owned(), owner: stat.st_uid, us });
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Mode { path: path.to_owned(), mode, wanted });
    }
    Ok(())
}

/// Whether anybody may put another directory in the place of `dir`: one above it is writable by all, without the
/// sticky bit.
fn replaceable(dir: &Path) -> Result<(), StoreError> {
    let real = fs::canonicalize(dir).map_err(|e| failed(dir, e))?;
    for above in real.ancestors().skip(1) {
        let mode = fs::metadata(above).map_err(|e| failed(above, e))?.mode() & 0o7777;
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            return Err(StoreError::Above { path: above.to_owned(), mode });
        }
    }
    Ok(())
}

fn failed(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), source }
}

static DRAFTS: AtomicU64 = AtomicU64::new(0);

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const MAX_FILE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_and_directory_are_private() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        let store = Store::open(&dir).unwrap();
        assert!(store.create("key", b"one").unwrap());
        store.replace("other", b"two").unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        for name in ["key", "other"] {
            assert_eq!(fs::metadata(dir.join(name)).unwrap().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "no drafts are left");
    }

    #[test]
    fn the_first_writer_wins() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("state")).unwrap();
        assert!(store.create("key", b"one").unwrap());
        assert!(!store.create("key", b"two").unwrap());
        assert_eq!(store.read("key").unwrap().unwrap().as_slice(), b"one");
        store.remove("key").unwrap();
        store.remove("key").unwrap();
        assert!(store.read("key").unwrap().is_none());
    }

    #[test]
    fn loose_modes_are_refused_with_the_cure() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        let store = Store::open(&dir).unwrap();
        store.create("key", b"one").unwrap();
        fs::set_permissions(dir.join("key"), fs::Permissions::from_mode(0o640)).unwrap();
        let error = store.read("key").unwrap_err().to_string();
        assert!(error.contains("0640") && error.contains("chmod 600"), "{error}");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let error = Store::open(&dir).unwrap_err().to_string();
        assert!(error.contains("0755") && error.contains("chmod 700"), "{error}");
    }

    #[test]
    fn hostile_16_what_somebody_else_put_there_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().join("real");
        Store::open(&real).unwrap().create("key", b"one").unwrap();
        // A link in place of the directory, or of a file in it, wherever it leads.
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(matches!(Store::open(&link), Err(StoreError::Link { .. })));
        let store = Store::open(&real).unwrap();
        std::os::unix::fs::symlink(real.join("key"), real.join("other")).unwrap();
        assert!(matches!(store.read("other"), Err(StoreError::Link { .. })));
        // A pipe without a writer is not waited for.
        rustix::fs::mknodat(
            rustix::fs::CWD,
            real.join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(matches!(store.read("pipe"), Err(StoreError::Link { .. })));
        // A directory above that anybody may rename in; with the sticky bit nobody but the owner may.
        let open = root.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(Store::open(&open.join("state")), Err(StoreError::Above { .. })));
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(Store::open(&open.join("state")).is_ok());
        // Of another owner; only root can make one.
        if rustix::process::geteuid().is_root() {
            for name in ["key", ""] {
                std::os::unix::fs::chown(real.join(name), Some(65_534), None).unwrap();
            }
            assert!(matches!(store.read("key"), Err(StoreError::Owner { owner: 65_534, .. })));
            let error = Store::open(&real).unwrap_err().to_string();
            assert!(error.contains("belongs to user 65534") && error.contains("chown"), "{error}");
        }
        // The directory that was opened is meant, whatever has its name now.
        let moved = Store::open(&open.join("state")).unwrap();
        fs::rename(open.join("state"), open.join("was")).unwrap();
        fs::create_dir(open.join("state")).unwrap();
        assert!(moved.create("key", b"two").unwrap());
        assert!(open.join("was/key").exists() && !open.join("state/key").exists());
    }
}
