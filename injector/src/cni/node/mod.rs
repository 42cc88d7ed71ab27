//! The files of a node: the plugin in its folder of programs, and its place in the network configuration. What is written is
//! written whole, beside its place, and moved there. Nothing is remembered between two looks but in these files.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::conflist::{self, EditError, TYPE};
use super::protocol::POD_ANNOTATIONS;

/// What the runtime takes for network configurations; it uses the first by name.
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// Added to the name of a file that is kept as it was found. The runtime does not read such files.
const KEPT: &str = "before-tulle-cni";

/// Folder beside the plugin with the programs it runs.
pub(crate) const TOOLS: &str = "tulle-cni.d";

/// Where things are on the node, and what its plugin is told.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The runtime's folder of plugins.
    pub(crate) bin_dir: PathBuf,
    /// The runtime's folder of network configurations.
    pub(crate) conf_dir: PathBuf,
    /// Namespaces whose pods are never captured.
    pub(crate) exclude_namespaces: Vec<String>,
}

/// How a node was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No network is configured yet.
    NoNetwork,
    /// The plugin is in its place.
    InPlace(PathBuf),
    /// It was not, and now is.
    Added(PathBuf),
}

/// A file that could not be read, written or understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    /// The system's word.
    #[error("{path}: {error}")]
    Io { path: String, error: io::Error },
    /// The file's.
    #[error("{path}: {error}")]
    Edit { path: String, error: EditError },
    /// Two files would have one name.
    #[error("{0} and the list of the same name are both there: which one is the network? Remove the other")]
    Both(String),
}

impl Node {
    /// The plugin's file that says how to reach the API server.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.conf_dir.join("tulle-cni.kubeconfig")
    }

    fn entry(&self) -> Value {
        json!({
            "type": TYPE,
            "capabilities": {POD_ANNOTATIONS: true},
            "excludeNamespaces": self.exclude_namespaces,
            "kubeconfig": self.kubeconfig(),
        })
    }

    /// Puts the plugin `program` and its `tools` in their places. A call that runs meanwhile has the old ones or the new.
    ///
    /// # Errors
    /// For the first file that cannot be written.
    pub(crate) fn place(&self, program: &Path, tools: &Path) -> Result<(), NodeError> {
        let folder = self.bin_dir.join(TOOLS);
        fs::create_dir_all(&folder).map_err(io(&folder))?;
        if tools.is_dir() {
            for tool in fs::read_dir(tools).map_err(io(tools))?.flatten() {
                copy(&tool.path(), &folder.join(tool.file_name()))?;
            }
        }
        copy(program, &self.bin_dir.join(TYPE))
    }

    /// Writes a file that only root may read.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write_kubeconfig(&self, text: &str) -> Result<(), NodeError> {
        write(&self.kubeconfig(), text.as_bytes(), 0o600)
    }

    /// Looks at the network that the runtime uses, and adds the plugin if it is missing or was told something else.
    ///
    /// # Errors
    /// See [`NodeError`]; the configuration is then as it was.
    pub(crate) fn look(&self) -> Result<Found, NodeError> {
        let Some(path) = self.network()? else { return Ok(Found::NoNetwork) };
        let text = fs::read_to_string(&path).map_err(io(&path))?;
        let Some(new) = conflist::with(&text, &self.entry()).map_err(edit(&path))? else {
            return Ok(Found::InPlace(path));
        };
        if path.extension().is_some_and(|extension| extension == "conflist") {
            if conflist::without(&text).map_err(edit(&path))?.is_none() {
                write(&kept(&path), text.as_bytes(), 0o600)?;
            }
            write(&path, new.as_bytes(), mode(&path)?)?;
            return Ok(Found::Added(path));
        }
        let list = path.with_extension("conflist");
        let is_ours = |text: String| conflist::without(&text).is_ok_and(|without| without.is_some());
        if list.exists() && !fs::read_to_string(&list).is_ok_and(is_ours) {
            return Err(NodeError::Both(path.display().to_string()));
        }
        // The list first: without it the runtime would take another network, or none.
        write(&list, new.as_bytes(), mode(&path)?)?;
        fs::rename(&path, kept(&path)).map_err(io(&path))?;
        Ok(Found::Added(list))
    }

    /// Whether the plugin is in its place; changes nothing.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub(crate) fn check(&self) -> Result<bool, NodeError> {
        let Some(path) = self.network()? else { return Ok(false) };
        let text = fs::read_to_string(&path).map_err(io(&path))?;
        Ok(conflist::with(&text, &self.entry()).map_err(edit(&path))?.is_none())
    }

    /// Takes the plugin out of every configuration: each is then as it was found, or as its owner has changed it since. The
    /// program itself stays, for runtimes that end pods by the configuration with which they began.
    ///
    /// # Errors
    /// For the first file that cannot be written; the rest can be taken out by trying again.
    pub(crate) fn remove(&self) -> Result<(), NodeError> {
        for path in self.networks()? {
            let text = fs::read_to_string(&path).map_err(io(&path))?;
            let Ok(Some(without)) = conflist::without(&text) else { continue };
            let single = ["conf", "json"].map(|extension| path.with_extension(extension));
            if let Some(single) = single.iter().find(|single| kept(single).exists()) {
                if single.exists() {
                    forget(&kept(single))?;
                } else {
                    fs::rename(kept(single), single).map_err(io(single))?;
                }
                forget(&path)?;
            } else if fs::read_to_string(kept(&path)).is_ok_and(|kept| conflist::same(&kept, &without)) {
                // As it was, to the byte.
                let before = fs::read(kept(&path)).map_err(io(&path))?;
                write(&path, &before, mode(&path)?)?;
            } else {
                write(&path, without.as_bytes(), mode(&path)?)?;
            }
            forget(&kept(&path))?;
        }
        forget(&self.kubeconfig())?;
        let tools = self.bin_dir.join(TOOLS);
        if tools.exists() { fs::remove_dir_all(&tools).map_err(io(&tools)) } else { Ok(()) }
    }

    /// The network that the runtime uses, or would use if the list we made of it were not there.
    fn network(&self) -> Result<Option<PathBuf>, NodeError> {
        let first = self.networks()?.into_iter().next();
        Ok(first.map(|first| {
            // By name it comes after the list, unlike `.conf`. Its owner has written it anew.
            let single = first.with_extension("json");
            if single.exists() && kept(&single).exists() { single } else { first }
        }))
    }

    /// Network configurations, in the order of the runtime.
    fn networks(&self) -> Result<Vec<PathBuf>, NodeError> {
        let entries = fs::read_dir(&self.conf_dir).map_err(io(&self.conf_dir))?;
        let is_network = |path: &PathBuf| {
            path.extension().and_then(|extension| extension.to_str()).is_some_and(|it| EXTENSIONS.contains(&it))
        };
        let mut networks: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_network).collect();
        networks.sort();
        Ok(networks)
    }
}

fn kept(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(KEPT);
    name.into()
}

fn io(path: &Path) -> impl FnOnce(io::Error) -> NodeError + use<> {
    let path = path.display().to_string();
    move |error| NodeError::Io { path, error }
}

fn edit(path: &Path) -> impl FnOnce(EditError) -> NodeError + use<> {
    let path = path.display().to_string();
    move |error| NodeError::Edit { path, error }
}

fn mode(path: &Path) -> Result<u32, NodeError> {
    Ok(fs::metadata(path).map_err(io(path))?.permissions().mode() & 0o777)
}

fn copy(from: &Path, to: &Path) -> Result<(), NodeError> {
    let content = fs::read(from).map_err(io(from))?;
    if fs::read(to).is_ok_and(|there| there == content) {
        return Ok(());
    }
    write(to, &content, 0o755)
}

/// Beside its place, then moved there: whoever reads sees the old content or the new.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), NodeError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // One that was left half written may have another mode.
    forget(&beside)?;
    let written = || {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(content)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        // A node that loses its power has the old network or the new one.
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    written().map_err(io(path))
}

fn forget(path: &Path) -> Result<(), NodeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io(path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
