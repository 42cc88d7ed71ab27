//! A real API server over a real etcd, on loopback, without nodes or controllers: what the control plane reads is
//! written by the test.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kube::{Client, Config};
use tempfile::TempDir;

/// Machines are slow and shared; a test that passes never waits for it.
const DEADLINE: Duration = Duration::from_secs(240);

/// A running API server. Its end is the end of both processes.
pub(crate) struct Api {
    dir: TempDir,
    port: u16,
    etcd_port: u16,
    _etcd: Process,
    server: Option<Process>,
}

/// Ends with its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Api {
    /// Starts one; none, said loudly, when its programs are not there.
    pub(crate) async fn start() -> Option<Self> {
        let (kubernetes, etcd) = (kubernetes(), "/usr/bin/etcd");
        if !kubernetes.is_file() || !Path::new(etcd).is_file() {
            let name = std::thread::current().name().unwrap_or("test").to_owned();
            let kubernetes = kubernetes.display();
            let required = variable("TULLE_REQUIRE_ROOT_TESTS");
            assert_ne!(required.as_deref(), Some("1"), "{name} may not be skipped, but lacks {kubernetes} or {etcd}");
            let line =
                format!("\nSKIPPED {name}: {kubernetes} and {etcd} are needed. `.ci/run` builds and installs them.\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (etcd_port, peer_port, port) = (free_port(), free_port(), free_port());
        let mut command = Command::new(etcd);
        command.arg("--data-dir").arg(dir.path().join("etcd")).args(["--unsafe-no-fsync", "--log-level", "error"]);
        for (flag, port) in [
            ("--listen-client-urls", etcd_port),
            ("--advertise-client-urls", etcd_port),
            ("--listen-peer-urls", peer_port),
            ("--initial-advertise-peer-urls", peer_port),
        ] {
            command.arg(format!("{flag}=http://127.0.0.1:{port}"));
        }
        command.arg(format!("--initial-cluster=default=http://127.0.0.1:{peer_port}"));
        let etcd = Process(logged(&mut command, &dir.path().join("etcd.log")));
        // User, uid, groups by token.
        let tokens = "admin,admin,1,system:masters\nnarrow,narrow,2\n";
        std::fs::write(dir.path().join("tokens.csv"), tokens).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(dir.path().join("accounts.key"), key.serialize_pem()).unwrap();
        std::fs::write(dir.path().join("accounts.pub"), key.public_key_pem()).unwrap();
        let mut api = Self { dir, port, etcd_port, _etcd: etcd, server: None };
        // The server gives up on an etcd that is slow to start.
        let up = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", etcd_port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, up).await.unwrap();
        api.resume().await;
        Some(api)
    }

    /// Starts the server again and waits until it is ready.
    pub(crate) async fn resume(&mut self) {
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
        let log = self.dir.path().join("server.log");
        let mut server = Process(logged(&mut command, &log));
        let ready = async {
            let client = self.client("admin");
            let readyz = || http::Request::get("/readyz").body(Vec::new()).unwrap();
            while client.request_text(readyz()).await.is_err() {
                // Starved of time it gives up by itself, as on a node, where the kubelet starts it again.
                if server.0.try_wait().unwrap().is_some() {
                    server = Process(logged(&mut command, &log));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let came = tokio::time::timeout(DEADLINE, ready).await;
        assert!(came.is_ok(), "it is not ready:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
        self.server = Some(server);
    }

    /// Kills the server, as a crash would.
    pub(crate) fn crash(&mut self) {
        self.server = None;
    }

    /// A kubeconfig of the user with this token.
    pub(crate) fn kubeconfig(&self, token: &str) -> PathBuf {
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port), "insecure-skip-tls-verify": true,
            }}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "users": [{"name": "it", "user": {"token": token}}],
        });
        let path = self.dir.path().join(format!("{token}.kubeconfig"));
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// A client of the user with this token.
    pub(crate) fn client(&self, token: &str) -> Client {
        let mut config = Config::new(format!("https://127.0.0.1:{}", self.port).parse().unwrap());
        config.accept_invalid_certs = true;
        config.auth_info.token = Some(token.to_owned().into());
        Client::try_from(config).unwrap()
    }
}

fn logged(command: &mut Command, log: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
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
