//! The cluster: two nodes in two zones, Kubernetes' own programs on the first, CoreDNS in a pod.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::enclosure::WORK;
use super::node::{API_SERVER, Node};
use super::pki::Pki;
use super::service::Service;

/// How long anything may take before a test fails. Generous: machines are slow and shared, and a test that passes never
/// waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// How long a node may be silent before its pods count as gone. Longer than the story is without an API server: with as
/// little as is usual, its return finds all nodes silent, and Kubernetes itself takes every endpoint away.
const NODE_SILENCE: &str = "300s";

/// A running cluster. It ends with the process.
#[derive(Debug)]
pub(crate) struct Cluster {
    nodes: [Node; 2],
    pki: Pki,
    api_server: Option<Service>,
    others: Vec<Service>,
}

impl Cluster {
    /// Brings it up, with every image loaded; kubelets live in cgroups below `cgroup`.
    ///
    /// # Errors
    /// When a program does not start or is not ready in time.
    pub(crate) fn up(cgroup: &str) -> anyhow::Result<Self> {
        let pki = Pki::create(&Path::new(WORK).join("pki"))?;
        pki.api_server(&["10.55.0.1", "127.0.0.1", "10.96.0.1", "kubernetes.default.svc"])?;
        pki.client("admin", "admin", Some("system:masters"), API_SERVER)?;
        let mut nodes = [Node::create(1)?, Node::create(2)?];
        Node::connect([&nodes[0], &nodes[1]])?;
        for node in &mut nodes {
            node.start_runtime()?;
        }
        let etcd = Service::start(
            "etcd",
            nodes[0].words(&format!(
                "etcd --data-dir {WORK}/etcd --unsafe-no-fsync --logger zap --log-level warn
                 --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
                 --listen-peer-urls http://127.0.0.1:2380"
            )),
        )?;
        let mut cluster = Self { nodes, pki, api_server: None, others: vec![etcd] };
        cluster.start_api_server()?;
        cluster.start_controllers()?;
        cluster.load_images()?;
        for node in &mut cluster.nodes {
            node.join(&cluster.pki, cgroup)?;
        }
        cluster.apply(include_str!("../manifests/coredns.yaml"))?;
        // `wait` does not wait for an object to appear.
        cluster.until("two nodes", |cluster| {
            let nodes = cluster.kubectl("get nodes -o name").ok()?;
            (nodes.lines().count() == 2).then_some(())
        })?;
        cluster.kubectl("wait nodes --all --for=condition=Ready --timeout=120s")?;
        cluster.rolled_out("kube-system", "deployment/coredns")?;
        Ok(cluster)
    }

    /// The first node, whose network the API server shares.
    pub(crate) fn node(&self) -> &Node {
        &self.nodes[0]
    }

    /// The network configuration of each node, by file.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn networks(&self) -> anyhow::Result<Vec<BTreeMap<String, String>>> {
        self.nodes.iter().map(Node::networks).collect()
    }

    /// Starts the API server and waits until it is ready.
    ///
    /// # Errors
    /// When it is not, in time.
    pub(crate) fn start_api_server(&mut self) -> anyhow::Result<()> {
        let pki = |file: &str| self.pki.path(file);
        let command = self.node().words(&format!(
            "{WORK}/programs/kubernetes apiserver --etcd-servers=http://127.0.0.1:2379
             --service-cluster-ip-range=10.96.0.0/16 --advertise-address=10.55.0.1 --endpoint-reconciler-type=lease
             --authorization-mode=Node,RBAC --allow-privileged=true --enable-admission-plugins=NodeRestriction
             --client-ca-file={ca} --tls-cert-file={cert} --tls-private-key-file={key} --cert-dir={WORK}/pki
             --kubelet-client-certificate={admin_cert} --kubelet-client-key={admin_key}
             --kubelet-preferred-address-types=InternalIP --service-account-issuer=https://kubernetes.default.svc
             --service-account-key-file={token_check} --service-account-signing-key-file={token_sign}",
            ca = pki("ca.crt"),
            cert = pki("apiserver.crt"),
            key = pki("apiserver.key"),
            admin_cert = pki("admin.crt"),
            admin_key = pki("admin.key"),
            token_check = pki("tokens.pub"),
            token_sign = pki("tokens.key"),
        ));
        self.api_server = Some(Service::start("api-server", command)?);
        self.until("the API server", |cluster| cluster.kubectl("get --raw /readyz").ok()).map(drop)
    }

    /// Kills the API server, as a crash would.
    pub(crate) fn stop_api_server(&mut self) {
        self.api_server = None;
    }

    /// Calls `probe` until it gives a value.
    ///
    /// # Errors
    /// After [`DEADLINE`], or when a program of the cluster has ended.
    pub(crate) fn until<T>(&mut self, what: &str, mut probe: impl FnMut(&Self) -> Option<T>) -> anyhow::Result<T> {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Some(value) = probe(self) {
                return Ok(value);
            }
            self.alive().with_context(|| format!("while waiting for {what}"))?;
            ensure!(Instant::now() < end, "waited {DEADLINE:?} for {what}");
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    fn alive(&mut self) -> anyhow::Result<()> {
        self.api_server.iter_mut().chain(&mut self.others).try_for_each(Service::alive)?;
        self.nodes.iter_mut().try_for_each(Node::alive)
    }

    fn start_controllers(&mut self) -> anyhow::Result<()> {
        let config = |user: &str| self.pki.client(user, &format!("system:{user}"), None, API_SERVER);
        let manager = self.node().words(&format!(
            "{WORK}/programs/kubernetes controller-manager --kubeconfig={config} --leader-elect=false
             --use-service-account-credentials --root-ca-file={ca} --service-account-private-key-file={tokens}
             --node-monitor-grace-period={NODE_SILENCE}",
            config = config("kube-controller-manager")?,
            ca = self.pki.path("ca.crt"),
            tokens = self.pki.path("tokens.key"),
        ));
        let scheduler = self.node().words(&format!(
            "{WORK}/programs/kubernetes scheduler --kubeconfig={} --leader-elect=false",
            config("kube-scheduler")?
        ));
        self.others.push(Service::start("controller-manager", manager)?);
        self.others.push(Service::start("scheduler", scheduler)?);
        Ok(())
    }

    /// Loads every image on every node.
    fn load_images(&mut self) -> anyhow::Result<()> {
        let sockets = self.nodes.each_ref().map(Node::socket);
        self.until("containerd", |_| sockets.iter().all(|socket| Path::new(socket).exists()).then_some(()))?;
        for entry in fs::read_dir(Path::new(WORK).join("images"))? {
            let image = entry?.path();
            if image.extension().is_some_and(|extension| extension == "tar") {
                self.nodes.iter().try_for_each(|node| node.import(&image))?;
            }
        }
        Ok(())
    }
}
