//! Files that hold secrets: a private directory, whole-file writes, no loose modes. Or the same files in memory, for
//! whoever keeps them elsewhere, such as in a Secret of a cluster.
//!
//! A file is complete or absent: it is written under another name, synced, and then linked or renamed into place.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// A directory only its owner can enter.
#[derive(Debug, Clone)]
pub(crate) struct Dir {
    dir: PathBuf,
}

impl Dir {
    /// Opens `dir`, making it with mode 0700 when it is not there.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(|e| failed(dir, e))?;
        check_mode(dir, &fs::metadata(dir).map_err(|e| failed(dir, e))?, DIR_MODE)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The bytes of the file `name`, or `None` when there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let path = self.dir.join(name);
        match fs::metadata(&path) {
            Ok(meta) => check_mode(&path, &meta, FILE_MODE)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(&path, e)),
        }
        read_file(&path).map(Some)
    }

    /// Writes the file `name` unless it exists already; says whether it wrote.
    pub(crate) fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        let (path, draft) = self.draft(name, bytes)?;
        // A link, unlike a rename, never replaces: of two processes that start at once, one wins and both read its key.
        let linked = match fs::hard_link(&draft, &path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(failed(&path, e)),
        };
        fs::remove_file(&draft).map_err(|e| failed(&draft, e))?;
        self.sync()?;
        linked
    }

    /// Writes the file `name`, over an old one if there is one.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let (path, draft) = self.draft(name, bytes)?;
        fs::rename(&draft, &path).map_err(|e| failed(&path, e))?;
        self.sync()
    }

    /// Removes the file `name`; one that is not there is fine.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(&path, e)),
            Ok(()) | Err(_) => self.sync(),
        }
    }

    fn draft(&self, name: &str, bytes: &[u8]) -> Result<(PathBuf, PathBuf), StoreError> {
        // Unlike any other writer's, in this process or another.
        let turn = DRAFTS.fetch_add(1, Ordering::Relaxed);
        let draft = self.dir.join(format!(".{name}.{}.{turn}", std::process::id()));
        let write = || -> io::Result<()> {
            let _ = fs::remove_file(&draft); // of a process that had our id and died
            let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&draft)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        write().map_err(|e| failed(&draft, e))?;
        Ok((self.dir.join(name), draft))
    }

    fn sync(&self) -> Result<(), StoreError> {
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(|e| failed(&self.dir, e))
    }
}

/// Reads a file of keys or certificates, at most 1 MiB, whatever its mode.
pub(crate) fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let size = fs::metadata(path).map_err(|e| failed(path, e))?.len();
    if size > MAX_FILE_BYTES {
        return Err(StoreError::TooLarge { path: path.to_owned() });
    }
    fs::read(path).map(Zeroizing::new).map_err(|e| failed(path, e))
}

fn check_mode(path: &Path, meta: &fs::Metadata, wanted: u32) -> Result<(), StoreError> {
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Mode { path: path.to_owned(), mode, wanted });
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
}
