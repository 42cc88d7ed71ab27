//! A real API server over a real etcd, on loopback, without nodes or controllers: what is read from it was written by
//! the test. `.ci/run` builds the one and installs the other.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::KeyPair;
use serde_json::json;
use tempfile::TempDir;

use crate::ports;

/// Machines are slow and shared; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(240);

/// Pause between two looks at a program that starts.
const PAUSE: Duration = Duration::from_millis(100);

const ETCD: &str = "/usr/bin/etcd";

/// A running API server. Its end is the end of both processes.
#[derive(Debug)]
pub struct ApiServer {
    dir: TempDir,
    port: u16,
    etcd_port: u16,
    _etcd: Process,
    server: Option<Process>,
}

/// Ends with its handle.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl ApiServer {
    /// Starts one; none, said loudly, when its programs are not there.
    ///
    /// # Panics
    /// Instead of `None` when `TULLE_REQUIRE_ROOT_TESTS=1`, and when it is not ready in time.
    pub async fn start() -> Option<Self> {
        let programs = [kubernetes(), PathBuf::from(ETCD)];
        if let Some(missing) = programs.iter().find(|program| !program.is_file()) {
            skip(missing);
            return None;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let [etcd_port, peer_port, port] = [(); 3].map(|()| ports::reserved());
        let etcd = Process(logged(&mut etcd(dir.path(), etcd_port, peer_port), &dir.path().join("etcd.log")));
        // User, uid, groups by token.
        let tokens = "admin,admin,1,system:masters\nnarrow,narrow,2\n";
        write(&dir.path().join("tokens.csv"), tokens);
        let key = KeyPair::generate().expect("a key");
        write(&dir.path().join("accounts.key"), &key.serialize_pem());
        write(&dir.path().join("accounts.pub"), &key.public_key_pem());
        let mut api = Self { dir, port, etcd_port, _etcd: etcd, server: None };
        // The server gives up on an etcd that is slow to start.
        let up = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", etcd_port)).await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(DEADLINE, up).await.expect("etcd listens");
        api.resume().await;
        Some(api)
    }

    /// Starts the server again and waits until it is ready.
    ///
    /// # Panics
    /// When it is not, in time; with its log.
    pub async fn resume(&mut self) {
        let log = self.dir.path().join("server.log");
        let mut server = Process(logged(&mut self.command(), &log));
        let ready = async {
            while !self.is_ready().await {
                // Starved of time it gives up by itself, as on a node, where the kubelet starts it again.
                if server.0.try_wait().expect("its state").is_some() {
                    server = Process(logged(&mut self.command(), &log));
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let came = tokio::time::timeout(DEADLINE, ready).await;
        assert!(came.is_ok(), "it is not ready:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
        self.server = Some(server);
    }

    /// Kills the server, as a crash would.
    pub fn crash(&mut self) {
        self.server = None;
    }

    /// A kubeconfig of the user with this token: `admin`, who may do everything, and `narrow`, who may do nothing until
    /// a role says otherwise.
    pub fn kubeconfig(&self, token: &str) -> PathBuf {
        let path = self.dir.path().join(format!("{token}.kubeconfig"));
        // Once: a program that was given it may be reading it.
        if !path.exists() {
            let config = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "it",
                "clusters": [{"name": "it", "cluster": {
                    "server": format!("https://127.0.0.1:{}", self.port), "insecure-skip-tls-verify": true,
                }}],
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                "users": [{"name": "it", "user": {"token": token}}],
            });
            write(&path, &config.to_string());
        }
        path
    }

    /// What `kubectl` says, as the admin; `input` is what it reads for `-f -`.
    ///
    /// # Panics
    /// When it fails.
    pub fn kubectl(&self, words: &[&str], input: &str) -> String {
        let mut command = self.kubectl_command();
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("kubectl reads");
        let out = child.wait_with_output().expect("kubectl ends");
        assert!(out.status.success(), "kubectl {words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// What kubectl prints, on standard output and then on standard error, whether it succeeds or not.
    pub fn kubectl_says(&self, words: &[&str], input: &str) -> String {
        let mut command = self.kubectl_command();
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("kubectl reads");
        let out = child.wait_with_output().expect("kubectl ends");
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
    }

    fn kubectl_command(&self) -> Command {
        let mut command = Command::new(kubernetes());
        command.arg("kubectl").env("KUBECONFIG", self.kubeconfig("admin")).env("HOME", self.dir.path());
        command
    }

    async fn is_ready(&self) -> bool {
        tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() && {
            let mut ask = self.kubectl_command();
            ask.args(["get", "--raw", "/readyz"]).stdout(Stdio::null()).stderr(Stdio::null());
            ask.status().expect("kubectl").success()
        }
    }

    fn command(&self) -> Command {
        let path = |file: &str| self.dir.path().join(file).display().to_string();
        let mut command = Command::new(kubernetes());
        command.arg("apiserver").args([
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            format!("--secure-port={}", self.port),
            format!("--cert-dir={}", path("certs")),
            format!("--token-auth-file={}", path("tokens.csv")),
            format!("--service-account-key-file={}", path("accounts.pub")),
            format!("--service-account-signing-key-file={}", path("accounts.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16,fd96::/108".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ]);
        command
    }
}

fn etcd(dir: &Path, port: u16, peer_port: u16) -> Command {
    let mut command = Command::new(ETCD);
    command.arg("--data-dir").arg(dir.join("etcd")).args(["--unsafe-no-fsync", "--log-level", "error"]);
    for (flag, port) in [
        ("--listen-client-urls", port),
        ("--advertise-client-urls", port),
        ("--listen-peer-urls", peer_port),
        ("--initial-advertise-peer-urls", peer_port),
    ] {
        command.arg(format!("{flag}=http://127.0.0.1:{port}"));
    }
    command.arg(format!("--initial-cluster=default=http://127.0.0.1:{peer_port}"));
    command
}

fn logged(command: &mut Command, log: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("a program")
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file");
}

fn skip(missing: &Path) {
    let thread = std::thread::current();
    let (test, missing) = (thread.name().unwrap_or("test"), missing.display());
    let required = variable("TULLE_REQUIRE_ROOT_TESTS");
    assert_ne!(required.as_deref(), Some("1"), "{test} may not be skipped, but lacks {missing}");
    // Not `eprintln!`: a skipped test passes, and the output of passing tests is swallowed.
    let line = format!("\nSKIPPED {test}: {missing} is needed. `.ci/run` builds or installs it.\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Where `.ci/run` and the cluster's test keep it.
fn kubernetes() -> PathBuf {
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Path::new(&variable("HOME").unwrap_or_default()).join(".cache");
    cache.unwrap_or_else(home).join("tulle/cluster/programs/kubernetes")
}

#[expect(clippy::disallowed_methods, reason = "where the user keeps caches, and what may not be skipped")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
