//! The control plane as a process whose cost is read from `/proc`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::net::TcpStream;
use tulle_testing::ports;

/// How long it may take to listen.
const START: Duration = Duration::from_secs(30);

/// A control plane that can be killed and started again at the same address.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    binary: PathBuf,
    dir: PathBuf,
    child: Option<Child>,
    /// Where proxies connect.
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
}

impl ControlPlane {
    /// Starts `binary` over the folder `dir/config`, with its state in `dir/state`.
    pub(crate) async fn start(binary: &Path, dir: PathBuf) -> anyhow::Result<Self> {
        let mut this =
            Self { binary: binary.to_owned(), dir, child: None, address: ports::free(), admin: ports::free() };
        this.restart().await?;
        Ok(this)
    }

    /// Where it keeps its keys.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Starts it, and returns once it listens.
    pub(crate) async fn restart(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.binary);
        command
            .args(["--log-level", "error"])
            .arg("--config-dir")
            .arg(self.dir.join("config"))
            .arg("--state-dir")
            .arg(self.state())
            .args(["--xds-address", &self.address.to_string(), "--admin-address", &self.admin.to_string()])
            .stdin(Stdio::null());
        self.child = Some(command.spawn().context("start the control plane")?);
        let end = Instant::now() + START;
        while TcpStream::connect(self.address).await.is_err() {
            ensure!(Instant::now() < end, "the control plane does not listen");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// CPU time of all its threads since it was started.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let mut sum = 0;
        for task in std::fs::read_dir(self.proc("task")?)? {
            // A thread may end while it is looked at.
            let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
            sum += text.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(sum))
    }

    /// Its resident memory now, and the most there ever was, in bytes.
    pub(crate) fn memory(&self) -> anyhow::Result<(u64, u64)> {
        let text = std::fs::read_to_string(self.proc("status")?)?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).context("a field of status")?;
            let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
            anyhow::Ok(kib * 1024)
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }

    fn proc(&self, file: &str) -> anyhow::Result<PathBuf> {
        let child = self.child.as_ref().context("the control plane runs")?;
        Ok(PathBuf::from(format!("/proc/{}/{file}", child.id())))
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.kill();
    }
}
