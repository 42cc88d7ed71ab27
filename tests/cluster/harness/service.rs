//! A process of the cluster: its log is a file in the folder of logs, and it ends with its handle.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

use super::enclosure::WORK;

/// A running program.
#[derive(Debug)]
pub(crate) struct Service {
    name: String,
    child: Child,
}

impl Service {
    /// Starts `command`, which logs to `logs/NAME.log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(name: &str, mut command: Command) -> anyhow::Result<Self> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(Path::new(WORK).join(format!("logs/{name}.log")))
            .with_context(|| format!("open the log of {name}"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// An error when it has ended, which no program of the cluster should.
    ///
    /// # Errors
    /// When it has ended; the message has the end of its log.
    pub(crate) fn alive(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let log = std::fs::read_to_string(Path::new(WORK).join(format!("logs/{}.log", self.name)))?;
        let tail = log.lines().rev().take(15).collect::<Vec<_>>();
        anyhow::bail!("{} ended ({status}):\n{}", self.name, tail.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
