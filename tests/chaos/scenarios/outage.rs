//! Without a control plane, the real one: traffic goes on, also over new connections; a sidecar that starts meanwhile
//! stays unready; all follow it again when it is back.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;
use tulle_identity::spiffe::{SpiffeId, TrustDomain};
use tulle_identity::token::TokenIssuer;
use tulle_testing::client::Raw;
use tulle_testing::process::Process;
use tulle_testing::sidecar::{Builder, Sidecar};
use tulle_testing::upstream::{Reply, TcpUpstream, Upstream};
use tulle_testing::{ports, wait};

use super::load::Load;
use super::{Outcome, Scale};

pub(super) const HTTP: &str = "app.shop.svc.cluster.local:80";
const OPAQUE: &str = "app.shop.svc.cluster.local:81";

/// How long a sidecar may take to follow a control plane that is back (RB-01).
const RECOVERY: Duration = Duration::from_secs(20);

/// The real control plane over a folder of manifests.
pub(super) struct Plane {
    dir: TempDir,
    pub(super) xds: SocketAddr,
    admin: SocketAddr,
}

impl Plane {
    pub(super) fn new() -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        std::fs::create_dir(dir.path().join("config")).expect("a folder of manifests");
        Self { dir, xds: ports::free(), admin: ports::free() }
    }

    pub(super) async fn start(&self) -> Process {
        let process = Process::start("tulle-control-plane", "tulle-control-plane", |command| {
            command.args(["--log-level", "warn", "--config-dir"]).arg(self.config());
            command.arg("--state-dir").arg(self.state()).args(["--xds-address", &self.xds.to_string()]);
            command.args(["--admin-address", &self.admin.to_string()]);
        })
        .await;
        process.ready(self.admin, "/healthz/ready").await;
        process
    }

    /// Its folder of manifests.
    pub(super) fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    /// Where it keeps its keys.
    pub(super) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Says where the workloads are; the weight of the server's tells what was said last.
    pub(super) fn tell(&self, workloads: &[(&str, IpAddr)], weight: u32) {
        let mut text = "apiVersion: v1\nkind: Service\nmetadata: {name: app, namespace: shop}\nspec:\n  \
             selector: {app: app}\n  ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 81, targetPort: 9000}]\n"
            .to_owned();
        for (name, ip) in workloads {
            let _ = write!(
                text,
                "---\napiVersion: tulle.io/v1alpha1\nkind: Workload\n\
                 metadata: {{name: {name}-1, namespace: shop, labels: {{app: {name}}}}}\n\
                 spec: {{addresses: [{ip}], serviceAccount: {name}, workload: {name}, weight: {weight}}}\n"
            );
        }
        let new = self.dir.path().join("mesh.yaml");
        std::fs::write(&new, text).expect("manifests");
        std::fs::rename(new, self.config().join("mesh.yaml")).expect("manifests are replaced");
    }

    pub(super) fn sidecar(&self, name: &str) -> Builder {
        let id = SpiffeId::workload(&TrustDomain::parse("cluster.local").expect("a domain"), "shop", name);
        let issuer = TokenIssuer::open(&self.state()).expect("the control plane has made its keys");
        let token = issuer.issue(&id.expect("an id"), Duration::from_secs(3600), SystemTime::now()).expect("a token");
        let file = self.dir.path().join(format!("{name}.token"));
        std::fs::write(&file, token).expect("a token file");
        Sidecar::of("shop", name)
            .arg("--control-plane", &self.xds.to_string())
            .arg("--trust-bundle", &self.state().join("trust-bundle.pem").to_string_lossy())
            .arg("--token", &file.to_string_lossy())
            .arg("--workers", "1")
            .arg("--access-log", "off")
    }
}

async fn ready(sidecar: &Sidecar) -> bool {
    let mut probe = Raw::connect(sidecar.status()).await;
    probe.exchange("GET", "/healthz/ready", "localhost").await.status == 200
}

/// The control plane is killed, and started again after a while.
pub(crate) async fn run(scale: Scale) -> Outcome {
    let away = scale.pick(Duration::from_secs(4), Duration::from_secs(120));
    let (plane, app, echo) = (Plane::new(), Upstream::http1(|_| Reply::ok("hello")).await, TcpUpstream::echo().await);
    let control = plane.start().await;
    let server = plane.sidecar("app").receive(8080, app.addr()).receive(9000, echo.addr()).without_waiting();
    let server = server.start().await;
    let client = plane.sidecar("web").send(HTTP).send(OPAQUE).without_waiting().start().await;
    let workloads = [("app", server.status().ip()), ("web", client.status().ip())];
    plane.tell(&workloads, 1);
    for sidecar in [&server, &client] {
        sidecar.process().ready(sidecar.status(), "/healthz/ready").await;
    }
    let load = Load::default();
    let mut wrong = Vec::new();
    let mut recovered = Duration::ZERO;
    let happen = async {
        follows(&client, 1).await;
        control.kill();
        let since = Instant::now();
        let late = plane.sidecar("late").without_waiting().start().await;
        late.process().listening(late.status()).await;
        while since.elapsed() < away {
            if ready(&late).await {
                wrong.push("a sidecar that has no configuration says it is ready".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let _control = plane.start().await;
        let back = Instant::now();
        plane.tell(&[workloads[0], workloads[1], ("late", late.status().ip())], 7);
        follows(&client, 7).await;
        late.process().ready(late.status(), "/healthz/ready").await;
        recovered = back.elapsed();
        load.finish();
    };
    let (http, opaque) = (client.outbound(HTTP), client.outbound(OPAQUE));
    let pace = Duration::from_millis(4);
    let kept = load.http1(http, "app.shop", pace);
    tokio::join!(happen, kept, load.http1(http, "app.shop", pace), load.opaque(opaque, pace));
    let note = format!("away for {} s, followed {:.1} s after it was back", away.as_secs(), recovered.as_secs_f64());
    let mut outcome = load.into_outcome(note);
    outcome.wrong.extend(wrong);
    outcome.check(recovered <= RECOVERY, || format!("followed {recovered:?} after the control plane was back"));
    outcome
}

/// Waits until the sidecar has what was told with `weight`.
async fn follows(sidecar: &Sidecar, weight: u32) {
    let mark = format!("weight={weight} ");
    let end = Instant::now() + RECOVERY + wait::DEADLINE;
    while !sidecar.admin_page("/clusters").await.contains(&mark) {
        assert!(Instant::now() < end, "{mark} did not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
