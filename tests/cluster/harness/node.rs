//! A node: a network namespace with containerd, a kubelet and kube-proxy in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::enclosure::{WORK, make_cgroup};
use super::pki::Pki;
use super::service::Service;
use super::{run, words};

/// Where the API server is, from every node.
pub(crate) const API_SERVER: &str = "https://10.55.0.1:6443";

/// The address of the cluster's name server.
const DNS: &str = "10.96.0.10";

/// Where every node has its own CNI plugins (`bin`) and network configurations (`conf`).
pub(crate) const CNI: &str = "/run/tulle/cni";

/// Where Debian puts CNI's own plugins, and those that are used.
const PLUGINS: (&str, [&str; 4]) = ("/usr/lib/cni", ["bridge", "host-local", "loopback", "portmap"]);

/// A node of the cluster. Node N has the address 10.55.0.N, the pods 10.244.N.0/24 and the zone `zone-N`.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    number: u8,
    dir: PathBuf,
    services: Vec<Service>,
}

impl Node {
    /// Makes the namespace of node `number`.
    ///
    /// # Errors
    /// When `ip` fails.
    pub(crate) fn create(number: u8) -> anyhow::Result<Self> {
        let name = format!("node-{number}");
        let dir = Path::new(WORK).join(&name);
        fs::create_dir_all(&dir)?;
        run(words(&format!("ip netns add {name}")))?;
        run(words(&format!("ip -n {name} link set lo up")))?;
        Ok(Self { name, number, dir, services: Vec::new() })
    }

    /// Joins two nodes by a wire, with routes to each other's pods.
    ///
    /// # Errors
    /// When `ip` or `sysctl` fails.
    pub(crate) fn connect(nodes: [&Self; 2]) -> anyhow::Result<()> {
        let [one, two] = nodes;
        let wire = format!("ip -n {} link add wire type veth peer name wire netns {}", one.name, two.name);
        run(words(&wire))?;
        for (here, there) in [(one, two), (two, one)] {
            let ip = |line: &str| run(words(&format!("ip -n {} {line}", here.name)));
            ip(&format!("addr add 10.55.0.{}/24 dev wire", here.number))?;
            ip("link set wire up")?;
            ip(&format!("route add 10.244.{}.0/24 via 10.55.0.{}", there.number, there.number))?;
            // Kubernetes wants one; nothing that is sent there arrives.
            ip(&format!("route add default via 10.55.0.{}", there.number))?;
            for setting in ["net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables"] {
                run(here.words(&format!("sysctl -q -w {setting}=1")))?;
            }
        }
        Ok(())
    }

    /// A command that runs in the node's network.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg("--").arg(program.as_ref());
        command
    }

    /// As [`Self::command`], of a line whose words hold no spaces.
    pub(crate) fn words(&self, line: &str) -> Command {
        let mut command = words(&format!("nsenter --net=/run/netns/{} --", self.name));
        command.args(line.split_whitespace());
        command
    }

    /// Starts the container runtime, which comes up while the API server does.
    ///
    /// # Errors
    /// When a file cannot be written or it cannot be started.
    pub(crate) fn start_runtime(&mut self) -> anyhow::Result<()> {
        let dir = self.dir.display();
        for dir in ["conf", "bin"] {
            fs::create_dir_all(self.dir.join(dir))?;
            fs::create_dir_all(Path::new(CNI).join(dir))?;
        }
        fs::write(self.dir.join("conf/10-bridge.conflist"), self.network().to_string())?;
        for plugin in PLUGINS.1 {
            fs::copy(Path::new(PLUGINS.0).join(plugin), self.dir.join("bin").join(plugin))?;
        }
        let config = format!(
            r#"version = 2
root = "{dir}/containerd"
state = "/run/containerd-{number}"
[grpc]
address = "{dir}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/tulle-test/pause:1"
# Without CAP_SYS_RESOURCE a process cannot shield itself better than it is shielded.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI}/bin"
conf_dir = "{CNI}/conf"
"#,
            number = self.number
        );
        fs::write(self.dir.join("containerd.toml"), config)?;
        let script = format!(
            "mount --bind {dir}/conf {CNI}/conf && mount --bind {dir}/bin {CNI}/bin &&
             exec containerd --log-level warn --config {dir}/containerd.toml"
        );
        let mut command = self.words("unshare --mount --propagation slave -- sh -c");
        command.arg(script);
        self.start("containerd", command)
    }

    /// The files of the node's network configuration, by name.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn networks(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let read = |entry: std::io::Result<fs::DirEntry>| {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok((name, fs::read_to_string(path)?))
        };
        fs::read_dir(self.dir.join("conf"))?.map(read).collect()
    }

    /// Loads an image from a tar.
    ///
    /// # Errors
    /// When the runtime refuses it.
    pub(crate) fn import(&self, image: &Path) -> anyhow::Result<()> {
        let socket = self.socket();
        run(self.words(&format!("ctr -a {socket} -n k8s.io images import {}", image.display()))).map(drop)
    }

    /// Path of the runtime's socket.
    pub(crate) fn socket(&self) -> String {
        self.dir.join("containerd.sock").display().to_string()
    }

    /// Starts the kubelet and kube-proxy; `cgroup` is the parent of the node's own.
    ///
    /// # Errors
    /// When a file cannot be written or one cannot be started.
    pub(crate) fn join(&mut self, pki: &Pki, cgroup: &str) -> anyhow::Result<()> {
        let (dir, name) = (self.dir.display().to_string(), self.name.clone());
        let cgroup = format!("{cgroup}/{name}");
        make_cgroup(&cgroup)?;
        let kubeconfig =
            pki.client(&format!("kubelet-{name}"), &format!("system:node:{name}"), Some("system:nodes"), API_SERVER)?;
        fs::write(self.dir.join("kubelet.json"), self.kubelet(pki, &cgroup).to_string())?;
        let kubelet = self.words(&format!(
            "{WORK}/programs/kubernetes kubelet --config={dir}/kubelet.json --kubeconfig={kubeconfig}
             --root-dir={dir}/kubelet --node-ip=10.55.0.{number} --hostname-override={name}
             --node-labels=topology.kubernetes.io/zone=zone-{number},topology.kubernetes.io/region=region-1",
            number = self.number
        ));
        self.start("kubelet", kubelet)?;
        let kubeconfig = pki.client(&format!("proxy-{name}"), "system:kube-proxy", None, API_SERVER)?;
        let proxy = self.words(&format!(
            "{WORK}/programs/kubernetes kube-proxy --kubeconfig={kubeconfig} --hostname-override={name}
             --proxy-mode=iptables --conntrack-max-per-core=0 --cluster-cidr=10.244.0.0/16"
        ));
        self.start("kube-proxy", proxy)
    }

    /// Fails when a program of the node has ended.
    ///
    /// # Errors
    /// With the end of its log.
    pub(crate) fn alive(&mut self) -> anyhow::Result<()> {
        self.services.iter_mut().try_for_each(Service::alive)
    }

    fn start(&mut self, program: &str, command: Command) -> anyhow::Result<()> {
        self.services.push(Service::start(&format!("{}-{program}", self.name), command)?);
        Ok(())
    }

    /// The pods' network: a bridge, and addresses from a file.
    fn network(&self) -> serde_json::Value {
        let subnet = format!("10.244.{}.0/24", self.number);
        json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "pods",
                    "isGateway": true,
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": self.dir.join("addresses"),
                        "ranges": [[{"subnet": subnet}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        })
    }

    fn kubelet(&self, pki: &Pki, cgroup: &str) -> serde_json::Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": false}, "x509": {"clientCAFile": pki.path("ca.crt")}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": format!("unix://{}", self.socket()),
            "clusterDNS": [DNS],
            "clusterDomain": "cluster.local",
            "resolvConf": "",
            "podLogsDir": format!("{WORK}/logs/{}-pods", self.name),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{cgroup}"),
            "enforceNodeAllocatable": [],
            "failSwapOn": false,
            "failCgroupV1": false,
            "localStorageCapacityIsolation": false,
            // Restarted and drained pods do not wait for the next minute.
            "syncFrequency": "10s",
            "evictionHard": {"memory.available": "0%"},
        })
    }
}
