//! Tulle's programs as processes of their own, started and ended as a machine would.
//!
//! ```no_run
//! # async fn example() {
//! use tulle_testing::process::Process;
//! let proxy = Process::start("tulle-proxy", "tulle-proxy", |command| {
//!     command.args(["--workers", "1"]);
//! })
//! .await;
//! proxy.listening("127.0.0.1:15020".parse().unwrap()).await;
//! assert!(proxy.terminate().await.success());
//! # }
//! ```

use std::net::SocketAddr;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::bin_path;
use crate::netns::Running;
use crate::wait;

/// A running program of the workspace; its lines are part of the test's output. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    running: Running,
}

impl Process {
    /// Builds (once) and starts the binary `name` of `package`; `configure` adds arguments and environment. Nothing of
    /// the test's environment that begins with `TULLE_` reaches it.
    #[expect(clippy::disallowed_methods, reason = "cargo builds for minutes: not on the test's own thread")]
    pub async fn start(package: &str, name: &str, configure: impl FnOnce(&mut Command)) -> Self {
        let (of, binary) = (package.to_owned(), name.to_owned());
        let path = tokio::task::spawn_blocking(move || bin_path::binary(&of, &binary)).await.expect("the build to end");
        let mut command = Command::new(path.unwrap_or_else(|error| panic!("no {name} to start: {error:#}")));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("TULLE_") {
                command.env_remove(variable);
            }
        }
        configure(&mut command);
        let running = Running::start(name, command).unwrap_or_else(|error| panic!("cannot start {name}: {error:#}"));
        Self { name: name.to_owned(), running }
    }

    /// Waits for a line of its output, past or future, that contains `part`, and gives it.
    ///
    /// # Panics
    /// When it ends, or the deadline passes, without one.
    pub async fn line(&self, part: &str) -> String {
        let what = format!("`{part}` from {}", self.name);
        wait::until_some(&what, || {
            let ended = self.running.ended();
            let line = self.running.lines().into_iter().find(|line| line.contains(part));
            assert!(line.is_some() || !ended, "{} ended without a line with `{part}`", self.name);
            line
        })
        .await
    }

    /// Waits until it accepts connections at `addr`.
    ///
    /// # Panics
    /// When it ends, or the deadline passes, before that.
    pub async fn listening(&self, addr: SocketAddr) {
        let what = format!("{} to listen at {addr}", self.name);
        wait::until_ready(&what, || async move {
            assert!(!self.running.ended(), "{} ended before it listened at {addr}", self.name);
            TcpStream::connect(addr).await.ok().map(drop)
        })
        .await;
    }

    /// Waits until `GET path` at `addr` answers 200, as a readiness probe does.
    ///
    /// # Panics
    /// When it ends, or the deadline passes, before that.
    pub async fn ready(&self, addr: SocketAddr, path: &str) {
        self.listening(addr).await;
        let what = format!("{} to be ready at {addr}{path}", self.name);
        wait::until_ready(&what, || async move {
            assert!(!self.running.ended(), "{} ended before it was ready", self.name);
            let tcp = TcpStream::connect(addr).await.ok()?;
            let mut raw = crate::client::Raw::over(tcp);
            raw.try_send(crate::client::raw::request("GET", path, "localhost", &[], &[])).await.ok()?;
            (raw.try_response("GET").await?.status == 200).then_some(())
        })
        .await;
    }

    /// Everything it printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.running.lines()
    }

    /// Sends a signal by its name, and does not wait for what comes of it.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("the command kill").success(), "SIG{name} to {}", self.pid());
    }

    /// Process id, for signals and for reading `/proc`.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Sends SIGTERM, as a cluster does, and waits for the end.
    ///
    /// # Panics
    /// When it is still there at the deadline.
    pub async fn terminate(self) -> ExitStatus {
        self.terminate_within(wait::DEADLINE).await
    }

    /// [`Process::terminate`], for one that may take longer.
    ///
    /// # Panics
    /// When it is still there after `deadline`.
    #[expect(clippy::disallowed_methods, reason = "waiting for a process blocks a thread")]
    pub async fn terminate_within(self, deadline: Duration) -> ExitStatus {
        let running = self.running;
        let ended = tokio::task::spawn_blocking(move || running.terminate(deadline)).await;
        ended.expect("the wait to end").unwrap_or_else(|error| panic!("{}: {error:#}", self.name))
    }

    /// Kills it at once, as a crash would.
    pub fn kill(self) {
        drop(self);
    }
}
