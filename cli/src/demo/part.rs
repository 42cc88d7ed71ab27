//! One process of the demo: this same binary again, with its output in a file. It ends with the demo, whatever ends
//! that: the kernel kills it when its parent is gone.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use tokio::process::{Child, Command};

/// A process.
#[derive(Debug)]
pub(super) struct Part {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Part {
    /// Starts a part of the demo; `words` are its command line after `demo-part --parent PID`. Its output is added to
    /// `NAME.log` in `logs`. It inherits no environment, so that settings of the user's shell do not change the show.
    ///
    /// # Errors
    /// When the process or its log cannot be made.
    pub(super) fn start(logs: &Path, name: &str, words: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log).with_context(|| log.display().to_string())?;
        let err = out.try_clone().context("sharing a log file")?;
        // The file this process runs from, even if a build has replaced it since.
        let child = Command::new("/proc/self/exe")
            .arg0("tulle")
            .args(["demo-part", "--parent", &std::process::id().to_string()])
            .args(words)
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            // Ctrl-C is for the demo, which stops its parts in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), log, child })
    }

    /// Asks it to end, as an orchestrator does.
    pub(super) fn terminate(&self) {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            // A process that is gone already needs no signal.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Ends it at once, as a crash does, and waits until it is gone.
    pub(super) async fn kill(&mut self) {
        // Both fail only for a process that is gone.
        let _ = self.child.start_kill();
        let _ = self.child.wait().await;
    }

    /// Waits for its end; false when it still runs after `limit`.
    pub(super) async fn ended(&mut self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.child.wait()).await.is_ok()
    }

    /// # Errors
    /// When it has ended, with the last lines it wrote.
    pub(super) fn check_running(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait().context("asking for a process")? else { return Ok(()) };
        let written = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = written.lines().collect();
        let last = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n  ");
        bail!("{} ended by itself: {status}; its last words:\n  {last}", self.name)
    }
}

/// In a part: arranges that it dies with the demo, whose process id is `parent`.
///
/// # Errors
/// When the demo is gone already, or the kernel refuses.
pub(super) fn die_with(parent: u32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("tying this process to the demo")?;
    // It may have ended before the line above.
    if getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned()) != Some(parent) {
        bail!("the demo is gone; `tulle demo` starts it");
    }
    Ok(())
}
