//! One named network namespace: made, entered, removed with every process in it.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Names are `tulle-PROCESS-NUMBER-NAME`: unique among tests and test processes, and traceable to the one that made it.
const PREFIX: &str = "tulle-";

/// A network namespace with its loopback interface up and its own `/etc/hosts`.
///
/// Dropping it kills the processes that run in it and removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace whose name ends with `name`.
    ///
    /// # Errors
    /// When `ip` fails, mostly for want of privileges.
    pub fn create(name: &str) -> anyhow::Result<Self> {
        static SWEEP: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(sweep);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{name}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.ip_batch("link set lo up\n")?;
        namespace.hosts(&[])?;
        Ok(namespace)
    }

    /// The name by which `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run in the namespace as root, with its `/etc/hosts`. It dies with the thread that started
    /// it, so processes do not outlive a killed test; start it on the test's own thread.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.command_with(&[], program.as_ref())
    }

    /// As [`Namespace::command`], with `id` for user and group, no supplementary groups, and no capability but the one
    /// to read files: binaries and test folders lie where root keeps them. It may write only where `id` may.
    pub fn command_as(&self, id: u32, program: impl AsRef<Path>) -> Command {
        let id = id.to_string();
        let reads = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"];
        let ids = ["--reuid", &id, "--regid", &id, "--clear-groups"];
        self.command_with(&[ids.as_slice(), &reads].concat(), program.as_ref())
    }

    fn command_with(&self, privileges: &[&str], program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "setpriv", "--pdeathsig", "KILL"]);
        command.args(privileges).arg("--").arg(program);
        command
    }

    /// Runs `work` on a thread inside the namespace. Sockets made there stay there, wherever they are used.
    ///
    /// # Errors
    /// When the namespace cannot be entered, and whatever `work` gives. A panic of `work` goes on in the caller.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let file = File::open(self.path()).with_context(|| format!("open namespace {}", self.name))?;
        let inside = || {
            use std::os::fd::AsFd as _;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).context("enter namespace")?;
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Replaces the names that processes started from now on find in `/etc/hosts`; `localhost` is always there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn hosts(&self, entries: &[(IpAddr, &str)]) -> anyhow::Result<()> {
        let mut text = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        text.extend(entries.iter().map(|(address, name)| format!("{address} {name}\n")));
        let dir = self.etc();
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("hosts"), text).with_context(|| format!("write {}/hosts", dir.display()))
    }

    /// Replaces what processes started from now on find in `/etc/resolv.conf`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn resolv_conf(&self, text: &str) -> anyhow::Result<()> {
        let dir = self.etc();
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("resolv.conf"), text).with_context(|| format!("write {}/resolv.conf", dir.display()))
    }

    /// Runs the lines through `ip -batch` inside the namespace.
    pub(super) fn ip_batch(&self, lines: &str) -> anyhow::Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(lines.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "ip -batch in {}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    fn etc(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Servers fork; what they leave behind would keep the namespace alive.
        let pids = ip(&["netns", "pids", &self.name]).unwrap_or_default();
        for pid in pids.lines().filter_map(|line| line.trim().parse().ok()).filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = ip(&["netns", "del", &self.name]);
        let _ = fs::remove_dir_all(self.etc());
    }
}

/// Runs `ip` and gives what it printed.
pub(super) fn ip(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("ip").args(args).output().context("run ip")?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(anyhow!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Removes what test processes left that were killed before they could.
fn sweep() {
    for dir in ["/run/netns", "/etc/netns"] {
        let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
        for name in names.filter_map(|name| name.into_string().ok()) {
            let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).unwrap_or_default();
            if maker.parse::<u32>().is_ok() && !Path::new("/proc").join(maker).exists() {
                let _ = ip(&["netns", "del", &name]);
                let _ = fs::remove_dir_all(Path::new("/etc/netns").join(&name));
            }
        }
    }
}
