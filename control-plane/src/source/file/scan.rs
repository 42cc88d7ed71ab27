//! The directory as bytes: which files count, and what is in them. Parses nothing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// Largest file that is read: hundreds of thousands of objects. More is taken for a mistake.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// How often a directory that is swapped while it is read is read again.
const MAX_SWAPS: usize = 5;

/// Name of the symlink that mounted ConfigMaps swap.
const SWAPPED: &str = "..data";

/// Content by file name; an error where a file could not be read.
pub(super) type Contents = BTreeMap<Arc<str>, Result<Vec<u8>, String>>;

/// Reads every file that counts. All content is from before or after a swap of `..data`, never from both.
pub(super) fn contents(directory: &Path) -> io::Result<Contents> {
    let swapped = directory.join(SWAPPED);
    let mut before = fs::read_link(&swapped).ok();
    let mut read = once(directory)?;
    for _ in 0..MAX_SWAPS {
        let after = fs::read_link(&swapped).ok();
        if before == after {
            break;
        }
        before = after;
        read = once(directory)?;
    }
    Ok(read)
}

fn once(directory: &Path) -> io::Result<Contents> {
    let mut contents = Contents::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Some(name) = counts(&entry.file_name()) else {
            continue;
        };
        match content(&entry.path()) {
            Ok(Some(content)) => contents.insert(name, Ok(content)),
            // A directory, or a file that went away since it was listed.
            Ok(None) => continue,
            Err(error) => contents.insert(name, Err(error.to_string())),
        };
    }
    Ok(contents)
}

/// The name of a file that counts.
fn counts(name: &OsStr) -> Option<Arc<str>> {
    let name = name.to_str()?;
    let extension = Path::new(name).extension()?.to_str()?;
    (!name.starts_with('.') && ["yaml", "yml", "json"].contains(&extension)).then(|| name.into())
}

fn content(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Looked at first: opening a pipe would block.
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 64 MiB"));
    }
    Ok(Some(bytes))
}

/// What tells cheaply that content may have changed: name, file, size and time of each file that counts.
pub(super) fn stamp(directory: &Path) -> Option<Vec<(Arc<str>, [i128; 5])>> {
    let mut stamps = Vec::new();
    for entry in fs::read_dir(directory).ok()?.flatten() {
        if let (Some(name), Ok(m)) = (counts(&entry.file_name()), fs::metadata(entry.path())) {
            let parts = [m.dev().into(), m.ino().into(), m.size().into(), m.mtime().into(), m.mtime_nsec().into()];
            stamps.push((name, parts));
        }
    }
    stamps.sort();
    Some(stamps)
}
