//! The last-good file: what the session held, so that a proxy that restarts while the control plane is away still has
//! a configuration. Written whole or not at all; a file that is damaged, too large or another node's counts as none.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use tulle_proto::own::{LastGood, SavedResource};

/// Name of the file in the state directory.
const FILE: &str = "last-good.bin";

/// Largest file that is written or read.
const MAX_BYTES: usize = 64 << 20;

/// How long changes are gathered before they are written.
pub(super) const DEBOUNCE: Duration = Duration::from_secs(1);

/// The file of one node.
#[derive(Debug)]
pub(super) struct LastGoodFile {
    path: PathBuf,
    node_id: String,
}

impl LastGoodFile {
    /// The file in `dir`, which is made when it is not there.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub(super) fn new(dir: &Path, node_id: String) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { path: dir.join(FILE), node_id })
    }

    /// What was written last; none when there is no file.
    ///
    /// # Errors
    /// When it cannot be read, is not a last-good file, or another node's.
    pub(super) fn load(&self) -> io::Result<Option<LastGood>> {
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let mut bytes = Vec::new();
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > MAX_BYTES {
            return Err(invalid(format!("larger than {MAX_BYTES} bytes")));
        }
        let saved = LastGood::decode(bytes.as_slice()).map_err(|error| invalid(error.to_string()))?;
        if saved.node_id != self.node_id {
            return Err(invalid(format!("written for node {}, not {}", saved.node_id, self.node_id)));
        }
        Ok(Some(saved))
    }

    /// Writes `resources` in place of what was there.
    ///
    /// # Errors
    /// When they are too large or the file cannot be written; then the earlier file is still there.
    pub(super) fn save(&self, resources: Vec<SavedResource>, now: SystemTime) -> io::Result<()> {
        let written_at_seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let bytes = LastGood { node_id: self.node_id.clone(), written_at_seconds, resources }.encode_to_vec();
        if bytes.len() > MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("{} bytes", bytes.len())));
        }
        let temporary = self.path.with_extension("new");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&bytes)?;
        // Without it a power cut may leave an empty file under the name.
        file.sync_data()?;
        fs::rename(&temporary, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str) -> SavedResource {
        SavedResource { name: name.into(), version: "1".into(), resource: None }
    }

    #[test]
    fn what_is_saved_is_loaded_by_the_same_node_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = LastGoodFile::new(&dir.path().join("state"), "reviews.shop".into()).unwrap();
        assert!(file.load().unwrap().is_none());
        let now = UNIX_EPOCH + Duration::from_secs(42);
        file.save(vec![resource("a")], now).unwrap();
        file.save(vec![resource("a"), resource("b")], now).unwrap();
        let saved = file.load().unwrap().unwrap();
        assert_eq!((saved.written_at_seconds, saved.resources.len()), (42, 2));

        let other = LastGoodFile::new(&dir.path().join("state"), "ratings.shop".into()).unwrap();
        assert!(other.load().unwrap_err().to_string().contains("written for node reviews.shop"));
    }

    #[test]
    fn a_damaged_file_is_an_error_not_a_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let file = LastGoodFile::new(dir.path(), "n".into()).unwrap();
        fs::write(dir.path().join(FILE), [0xff; 100]).unwrap();
        assert_eq!(file.load().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
