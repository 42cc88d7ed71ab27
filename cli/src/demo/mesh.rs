//! The processes of the demo: control plane, sidecars and applications, and the manifests they live by. What an
//! orchestrator does to pods, this does to processes: start, stop, kill, and say so in the manifests.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use tulle_identity::spiffe::SpiffeId;
use tulle_identity::token::TokenIssuer;

use super::part::Part;
use super::shop::{
    self, ADMIN, APP, CONTROL_ADMIN, INBOUND, NAMESPACE, Net, PODS, Pod, SERVICES, STATUS, TO_CATALOG, XDS,
};
use crate::args::Service;
use crate::ask;

/// Lifetime of the sidecars' tokens; longer than `--keep` is likely to be left running.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);

/// Longest wait for a part to become ready, or to end when asked to.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Mesh {
    net: Net,
    dir: PathBuf,
    leaf_ttl: Duration,
    /// None while it is killed.
    control_plane: Option<Part>,
    sidecars: BTreeMap<&'static str, Part>,
    apps: BTreeMap<&'static str, Part>,
}

impl Mesh {
    /// Writes the manifests and tokens to `dir`, starts every part and waits until all are ready. Certificates live for
    /// `leaf_ttl`.
    ///
    /// # Errors
    /// When a part does not start or become ready; the others end with the value returned.
    pub(super) async fn start(dir: &Path, net: Net, leaf_ttl: Duration) -> anyhow::Result<Self> {
        for name in ["manifests", "logs", "tokens"] {
            std::fs::create_dir(dir.join(name)).with_context(|| format!("making {name} in {}", dir.display()))?;
        }
        write(&dir.join("manifests/shop.yaml"), SERVICES)?;
        for pod in &PODS {
            write_manifest(dir, net, pod, "ready")?;
        }
        write_tokens(dir)?;
        let control_plane = Some(start_control_plane(dir, net, leaf_ttl)?);
        let mut mesh = Self {
            net,
            dir: dir.to_owned(),
            leaf_ttl,
            control_plane,
            sidecars: BTreeMap::new(),
            apps: BTreeMap::new(),
        };
        mesh.wait("the control plane to be ready", async |mesh| mesh.control_plane_ready().await).await?;
        for pod in &PODS {
            mesh.start_app(pod)?;
            mesh.start_sidecar(pod)?;
        }
        mesh.wait("all sidecars to be ready", async |mesh| all(mesh.sidecars.keys(), |pod| mesh.ready(pod)).await)
            .await?;
        Ok(mesh)
    }

    /// Processes that run.
    pub(super) fn processes(&self) -> usize {
        usize::from(self.control_plane.is_some()) + self.sidecars.len() + self.apps.len()
    }

    /// Names of the pods whose sidecar runs.
    pub(super) fn sidecars(&self) -> Vec<&'static str> {
        self.sidecars.keys().copied().collect()
    }

    /// Stops a replica as an orchestrator does: says so, drains its sidecar, ends its application, removes it. Returns
    /// how long the sidecar took to drain.
    ///
    /// # Errors
    /// When it does not end, or its manifest cannot be changed.
    pub(super) async fn stop(&mut self, name: &'static str) -> anyhow::Result<Duration> {
        let pod = shop::pod(name);
        write_manifest(&self.dir, self.net, pod, "draining")?;
        let begun = Instant::now();
        let mut sidecar = self.sidecars.remove(name).with_context(|| format!("{name} has no sidecar"))?;
        sidecar.terminate();
        if !sidecar.ended(PATIENCE).await {
            bail!("the sidecar of {name} does not drain");
        }
        let drained = begun.elapsed();
        if let Some(mut app) = self.apps.remove(name) {
            app.terminate();
            if !app.ended(PATIENCE).await {
                bail!("{name} does not end");
            }
        }
        let manifest = self.dir.join(format!("manifests/{name}.yaml"));
        std::fs::remove_file(&manifest).with_context(|| manifest.display().to_string())?;
        Ok(drained)
    }

    /// Kills the application of a replica, in the middle of whatever it does, and tells nobody.
    pub(super) async fn crash(&mut self, name: &'static str) {
        if let Some(mut app) = self.apps.remove(name) {
            app.kill().await;
        }
    }

    /// Says in its manifest that a replica is not ready, as its readiness probe would.
    ///
    /// # Errors
    /// When the manifest cannot be written.
    pub(super) fn declare_unready(&self, name: &'static str) -> anyhow::Result<()> {
        write_manifest(&self.dir, self.net, shop::pod(name), "unready")
    }

    /// Starts what is missing of a replica, and says so once it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub(super) async fn revive(&mut self, name: &'static str) -> anyhow::Result<()> {
        let pod = shop::pod(name);
        if !self.apps.contains_key(name) {
            self.start_app(pod)?;
        }
        if !self.sidecars.contains_key(name) {
            self.start_sidecar(pod)?;
        }
        let app = self.net.of(pod, APP);
        self.wait("a replica to be ready", async |mesh| {
            mesh.ready(name).await && tokio::net::TcpStream::connect(app).await.is_ok()
        })
        .await?;
        write_manifest(&self.dir, self.net, pod, "ready")
    }

    /// Kills the control plane.
    pub(super) async fn kill_control_plane(&mut self) {
        if let Some(mut control_plane) = self.control_plane.take() {
            control_plane.kill().await;
        }
    }

    /// Starts it again, from its state directory, and waits until every sidecar is connected.
    ///
    /// # Errors
    /// When one of them does not come about.
    pub(super) async fn restart_control_plane(&mut self) -> anyhow::Result<()> {
        self.control_plane = Some(start_control_plane(&self.dir, self.net, self.leaf_ttl)?);
        self.wait("the sidecars to reconnect", async |mesh| {
            mesh.control_plane_ready().await && all(mesh.sidecars.keys(), |pod| mesh.connected(pod)).await
        })
        .await
    }

    /// A step of a root rotation, by the control plane's admin port: `begin`, `activate`, `finish`.
    ///
    /// # Errors
    /// When it refuses.
    pub(super) async fn rotate_root(&self, step: &str) -> anyhow::Result<()> {
        let reply = ask::ask(self.net.control_plane(CONTROL_ADMIN), "POST", &format!("/rotate-root/{step}")).await?;
        if reply.status != 200 {
            bail!("the control plane does not {step} a root rotation: {}", reply.body.trim_end());
        }
        Ok(())
    }

    /// Waits until `reached` says so, looking again and again.
    ///
    /// # Errors
    /// When a part ends meanwhile, or after 20 s.
    pub(super) async fn wait(&mut self, what: &str, reached: impl AsyncFn(&Self) -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !reached(self).await {
            self.check_running()?;
            if begun.elapsed() > PATIENCE {
                bail!("waited {} s for {what}; logs are in {}", PATIENCE.as_secs(), self.dir.join("logs").display());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// # Errors
    /// When a part has ended that nobody ended.
    pub(super) fn check_running(&mut self) -> anyhow::Result<()> {
        self.parts().try_for_each(Part::check_running)
    }

    /// Asks every part to end, and ends those that do not within 4 s.
    pub(super) async fn end(mut self) {
        self.parts().for_each(|part| part.terminate());
        let deadline = Instant::now() + Duration::from_secs(4);
        for part in self.parts() {
            if !part.ended(deadline.saturating_duration_since(Instant::now())).await {
                part.kill().await;
            }
        }
    }

    fn parts(&mut self) -> impl Iterator<Item = &mut Part> {
        self.control_plane.iter_mut().chain(self.sidecars.values_mut()).chain(self.apps.values_mut())
    }

    async fn control_plane_ready(&self) -> bool {
        ask::get(self.net.control_plane(CONTROL_ADMIN), "/healthz/ready").await.is_ok()
    }

    async fn ready(&self, pod: &str) -> bool {
        ask::get(self.net.of(shop::pod(pod), STATUS), "/healthz/ready").await.is_ok()
    }

    async fn connected(&self, pod: &str) -> bool {
        let metrics = ask::get(self.net.of(shop::pod(pod), STATUS), "/metrics").await;
        metrics.is_ok_and(|metrics| metrics.lines().any(|line| line == "tulle_xds_connected 1"))
    }

    fn start_app(&mut self, pod: &'static Pod) -> anyhow::Result<()> {
        let Some(service) = pod.service else { return Ok(()) };
        let kind = match service {
            Service::Web => "web",
            Service::Catalog => "catalog",
            Service::Reviews => "reviews",
        };
        let mut words = Words::new("app");
        words.flag("service", kind).flag("replica", pod.name).flag("listen", self.net.of(pod, APP));
        if service == Service::Web {
            words.flag("catalog", self.net.of(pod, TO_CATALOG));
        }
        self.apps.insert(pod.name, Part::start(&self.dir.join("logs"), pod.name, words.0)?);
        Ok(())
    }

    fn start_sidecar(&mut self, pod: &'static Pod) -> anyhow::Result<()> {
        let (net, dir) = (self.net, &self.dir);
        let mut words = Words::new("proxy");
        words
            .flag("namespace", NAMESPACE)
            .flag("workload", pod.workload)
            .flag("service-account", pod.workload)
            .flag("zone", pod.zone)
            .flag("pod-ip", net.of(pod, INBOUND).ip())
            .flag("control-plane", net.control_plane(XDS))
            .flag("trust-bundle", dir.join("state/trust-bundle.pem").display())
            .flag("token", token_file(dir, pod.workload).display())
            .flag("state-dir", dir.join(format!("last-good-{}", pod.name)).display())
            .flag("admin", net.of(pod, ADMIN))
            .flag("status", net.of(pod, STATUS))
            .flag("workers", 1)
            .flag("drain-min", "1s")
            .flag("drain-deadline", "10s");
        if pod.service.is_some() {
            words.flag("inbound", format!("{}={}", net.of(pod, INBOUND), net.of(pod, APP)));
        }
        for (port, service) in pod.calls {
            words.flag("outbound", format!("{}={service}", net.of(pod, *port)));
        }
        let part = Part::start(&dir.join("logs"), &format!("{}-sidecar", pod.name), words.0)?;
        self.sidecars.insert(pod.name, part);
        Ok(())
    }
}

/// Whether `check` holds for every one of `pods`.
async fn all<'p>(pods: impl Iterator<Item = &'p &'static str>, check: impl AsyncFn(&'static str) -> bool) -> bool {
    for pod in pods {
        if !check(pod).await {
            return false;
        }
    }
    true
}

fn start_control_plane(dir: &Path, net: Net, leaf_ttl: Duration) -> anyhow::Result<Part> {
    let mut words = Words::new("control-plane");
    words
        .flag("config-dir", dir.join("manifests").display())
        .flag("state-dir", dir.join("state").display())
        .flag("xds-address", net.control_plane(XDS))
        .flag("admin-address", net.control_plane(CONTROL_ADMIN))
        .flag("leaf-ttl", format_args!("{}s", leaf_ttl.as_secs()));
    Part::start(&dir.join("logs"), "control-plane", words.0)
}

/// A token for each workload, as `tulle token create` makes them.
fn write_tokens(dir: &Path) -> anyhow::Result<()> {
    let issuer = TokenIssuer::open(&dir.join("state")).context("making the token key")?;
    for pod in &PODS {
        let id = SpiffeId::parse(&shop::identity(pod.workload)).context("the shop's identities")?;
        let token = issuer.issue(&id, TOKEN_TTL, SystemTime::now()).context("issuing a token")?;
        write(&token_file(dir, pod.workload), &token)?;
    }
    Ok(())
}

fn token_file(dir: &Path, workload: &str) -> PathBuf {
    dir.join(format!("tokens/{workload}"))
}

fn write_manifest(dir: &Path, net: Net, pod: &Pod, health: &str) -> anyhow::Result<()> {
    let text = net.manifest(pod.manifest).replace("health: ready", &format!("health: {health}"));
    write(&dir.join(format!("manifests/{}.yaml", pod.name)), &text)
}

/// Replaces a file in one step, so that a watcher never reads half of it.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| path.display().to_string())
}

/// A command line under construction.
struct Words(Vec<OsString>);

impl Words {
    fn new(part: &str) -> Self {
        Self(vec![part.into()])
    }

    fn flag(&mut self, name: &str, value: impl std::fmt::Display) -> &mut Self {
        self.0.push(format!("--{name}={value}").into());
        self
    }
}
