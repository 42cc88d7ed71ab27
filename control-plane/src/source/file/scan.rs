//! The directory as bytes: which files count, and what is in them. Parses nothing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Largest file that is read: hundreds of thousands of objects. More is taken for a mistake.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// How often a directory that is swapped while it is read is read again.
const MAX_SWAPS: usize = 5;

/// Name of the symlink that mounted ConfigMaps swap.
const SWAPPED: &str = "..data";

/// A file is taken for the same as long as the kernel says that nothing touched it, but only once it was left alone for
/// this long when it was read: within the clock's grain a second change shows no other time.
const SETTLED: Duration = Duration::from_secs(2);

/// Content by file name.
pub(super) type Contents = BTreeMap<Arc<str>, Content>;

/// What is in a file.
#[derive(Debug)]
pub(super) enum Content {
    /// What was read before.
    Same,
    /// It was read; an error where that failed.
    Read(Result<Vec<u8>, String>),
}

/// The files that were read, as they were then, by name.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<Arc<str>, Stamp>);

/// Device, inode, size, and when content or inode last changed: the last cannot be set by a user.
type Stamp = [i128; 5];

/// Reads every file that counts and is not known as it is. All content is from before or after a swap of `..data`, never
/// from both.
pub(super) fn contents(directory: &Path, known: &mut Known) -> io::Result<Contents> {
    let swapped = directory.join(SWAPPED);
    let mut before = fs::read_link(&swapped).ok();
    let mut seen = Known::default();
    let mut read = once(directory, known, &mut seen)?;
    for _ in 0..MAX_SWAPS {
        let after = fs::read_link(&swapped).ok();
        if before == after {
            break;
        }
        before = after;
        seen = Known::default();
        read = once(directory, known, &mut seen)?;
    }
    *known = seen;
    Ok(read)
}

fn once(directory: &Path, known: &Known, seen: &mut Known) -> io::Result<Contents> {
    let mut contents = Contents::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Some(name) = counts(&entry.file_name()) else {
            continue;
        };
        // Taken before reading: what changes meanwhile has another one.
        let stamp = fs::metadata(entry.path()).ok().map(|metadata| (stamp_of(&metadata), settled(&metadata)));
        if let Some((stamp, true)) = stamp
            && known.0.get(&name) == Some(&stamp)
        {
            seen.0.insert(name.clone(), stamp);
            contents.insert(name, Content::Same);
            continue;
        }
        match content(&entry.path()) {
            Ok(Some(content)) => {
                if let Some((stamp, true)) = stamp {
                    seen.0.insert(name.clone(), stamp);
                }
                contents.insert(name, Content::Read(Ok(content)))
            }
            // A directory, or a file that went away since it was listed.
            Ok(None) => continue,
            Err(error) => contents.insert(name, Content::Read(Err(error.to_string()))),
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
pub(super) fn stamp(directory: &Path) -> Option<Vec<(Arc<str>, Stamp)>> {
    let mut stamps = Vec::new();
    for entry in fs::read_dir(directory).ok()?.flatten() {
        if let (Some(name), Ok(metadata)) = (counts(&entry.file_name()), fs::metadata(entry.path())) {
            stamps.push((name, stamp_of(&metadata)));
        }
    }
    stamps.sort();
    Some(stamps)
}

fn stamp_of(metadata: &Metadata) -> Stamp {
    let (device, inode, size) = (metadata.dev(), metadata.ino(), metadata.size());
    [device.into(), inode.into(), size.into(), metadata.ctime().into(), metadata.ctime_nsec().into()]
}

/// Whether it was left alone for a while. A clock that was set back makes it seem untouched for less, never for more
/// than the files that are read anyway.
fn settled(metadata: &Metadata) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let changed = Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or(u64::MAX));
    now.checked_sub(changed).is_some_and(|age| age > SETTLED)
}
