//! A child process whose output is an event to wait for, and which does not outlive its handle.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// What a finished program left.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Whether it ended with status 0.
    pub success: bool,
    /// Its exit code, if it was not killed by a signal.
    pub code: Option<i32>,
    /// What it printed to stdout.
    pub stdout: String,
    /// What it printed to stderr.
    pub stderr: String,
}

impl Finished {
    /// Runs `command` to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn of(mut command: Command) -> anyhow::Result<Self> {
        let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
        Ok(Self {
            success: output.status.success(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// A running process. Its lines (stdout and stderr) go to the test's own output, which is shown when the test fails.
/// Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    all: Vec<String>,
    /// Streams at their end, of two.
    ended: usize,
}

impl Running {
    /// Starts `command`; `name` marks its lines.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let output = Arc::new(Output::default());
        let streams: [Option<Box<dyn Read + Send>>; 2] =
            [child.stdout.take().map(|s| Box::new(s) as _), child.stderr.take().map(|s| Box::new(s) as _)];
        let readers = streams
            .into_iter()
            .flatten()
            .map(|stream| {
                let (name, output) = (name.to_owned(), Arc::clone(&output));
                std::thread::spawn(move || output.read(&name, stream))
            })
            .collect();
        Ok(Self { name: name.to_owned(), child, output, readers })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line, past or future, that contains `part`, and gives it.
    ///
    /// # Errors
    /// When the process ended or `within` passed without one; the error shows its last lines.
    pub fn line(&self, part: &str, within: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + within;
        let mut lines = self.output.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(line) = lines.all.iter().find(|line| line.contains(part)) {
                return Ok(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || lines.ended == 2 {
                let tail = lines.all.iter().rev().take(20).rev().cloned().collect::<Vec<_>>().join("\n");
                let why = if lines.ended == 2 { "ended" } else { "was slow" };
                bail!("{} {why}: no line with `{part}` within {within:?}. Its last lines:\n{tail}", self.name);
            }
            lines = self.output.changed.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Everything it printed so far, by line.
    pub fn lines(&self) -> Vec<String> {
        self.output.lines.lock().unwrap_or_else(PoisonError::into_inner).all.clone()
    }

    /// Whether it closed its output: it has ended, or is about to.
    pub fn ended(&self) -> bool {
        self.output.lines.lock().unwrap_or_else(PoisonError::into_inner).ended == 2
    }

    /// Sends SIGTERM, as a cluster does, and waits for the end.
    ///
    /// # Errors
    /// When it is still there after `within`.
    pub fn terminate(mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let pid = Pid::from_child(&self.child);
        let handle = pidfd_open(pid, PidfdFlags::empty()).context("open pidfd")?;
        kill_process(pid, Signal::TERM).context("send SIGTERM")?;
        let timeout = Timespec::try_from(within).context("deadline out of range")?;
        let ended = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)).context("wait for the end")?;
        if ended == 0 {
            bail!("{} was still running {within:?} after SIGTERM", self.name);
        }
        Ok(self.child.wait()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Not joined: a grandchild may hold the streams until its namespace goes.
        self.readers.clear();
    }
}

impl Output {
    #[expect(clippy::print_stderr, reason = "libtest shows it with the test that failed")]
    fn read(&self, name: &str, stream: impl Read) {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            eprintln!("{name}: {line}");
            self.lines.lock().unwrap_or_else(PoisonError::into_inner).all.push(line);
            self.changed.notify_all();
        }
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).ended += 1;
        self.changed.notify_all();
    }
}
