//! Where the programs come from that write rules: the system's, or those that were brought along to a node that may have none.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The loader of the programs that were brought along, by the name it has beside them.
const LOADER: &str = "loader";

/// How programs are found; the default is the search path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tools {
    folder: Option<PathBuf>,
}

impl Tools {
    /// Programs in `folder` come before those of the search path. A file `loader` there starts them, with the libraries
    /// of the same folder: none of the node's.
    pub fn of(folder: &Path) -> Self {
        Self { folder: Some(folder.to_owned()) }
    }

    pub(super) fn command(&self, program: &str) -> Command {
        let own = self.folder.as_ref().map(|folder| (folder, folder.join(program)));
        let Some((folder, program)) = own.filter(|(_, own)| own.is_file()) else { return Command::new(program) };
        let loader = folder.join(LOADER);
        if !loader.is_file() {
            return Command::new(program);
        }
        let mut command = Command::new(loader);
        // The variable is for what iptables loads by itself: a library for each match and target.
        command.arg("--library-path").arg(folder).arg(program).env("XTABLES_LIBDIR", folder);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_brought_along_comes_first() {
        let folder = std::env::temp_dir().join(format!("tulle-tools-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("nft"), "").unwrap();
        let tools = Tools::of(&folder);
        let words = |command: &Command| {
            let all = std::iter::once(command.get_program()).chain(command.get_args());
            all.map(|word| word.to_string_lossy().replace(&*folder.to_string_lossy(), "DIR")).collect::<Vec<_>>()
        };
        assert_eq!(words(&tools.command("nft")), ["DIR/nft"]);
        std::fs::write(folder.join(LOADER), "").unwrap();
        assert_eq!(words(&tools.command("nft")), ["DIR/loader", "--library-path", "DIR", "DIR/nft"]);
        assert_eq!(words(&tools.command("iptables-save")), ["iptables-save"]);
        assert_eq!(words(&Tools::default().command("nft")), ["nft"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
