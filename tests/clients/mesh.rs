//! A control plane in this process that serves one service, `greeter.demo`, whose instances come and go.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use tempfile::TempDir;
use tulle_control_plane::app::{self, Handle};
use tulle_control_plane::settings::Settings;
use tulle_identity::spiffe::TrustDomain;
use tulle_testing::netns::Running;
use tulle_testing::ports;

/// Port of every instance.
const TARGET_PORT: u16 = 8080;

/// As many answers in a row from one of two instances that take turns, or are drawn, say that the other is out.
pub const SETTLED: usize = 40;

/// The control plane; dropped, it ends.
#[derive(Debug)]
pub struct Mesh {
    dir: TempDir,
    protocol: &'static str,
    control_plane: Handle,
}

impl Mesh {
    /// Starts with `greeter.demo` at port 80, which speaks `protocol`, and these instances of it.
    pub async fn start(protocol: &'static str, instances: &[SocketAddr]) -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let config = dir.path().join("config");
        std::fs::create_dir(&config).expect("a folder of manifests");
        std::fs::write(config.join("mesh.yaml"), manifests(protocol, instances)).expect("manifests");
        let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
        let mut settings = Settings::new(config, dir.path().join("state"), domain);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        (settings.xds_address, settings.admin_address, settings.xds_plaintext_address) = (any, any, Some(any));
        let control_plane = app::start(settings).await.expect("the control plane starts");
        Self { dir, protocol, control_plane }
    }

    /// Replaces the instances.
    pub fn set(&self, instances: &[SocketAddr]) {
        let new = self.dir.path().join("mesh.yaml");
        std::fs::write(&new, manifests(self.protocol, instances)).expect("manifests");
        std::fs::rename(new, self.dir.path().join("config/mesh.yaml")).expect("manifests are replaced");
    }

    /// Where clients of this machine connect.
    pub fn address(&self) -> SocketAddr {
        self.control_plane.plaintext_addr.expect("it was asked for")
    }
}

/// Where an instance may listen: an address of its own, at the port of the service.
pub fn instance() -> SocketAddr {
    SocketAddr::new(ports::loopback(), TARGET_PORT)
}

/// Starts a program with no environment but `environment`: a proxy of the machine is none of the test's business.
pub fn program(name: &str, mut command: Command, environment: &[(&str, &str)]) -> Running {
    command.env_clear().envs(environment.iter().copied());
    Running::start(name, command).unwrap_or_else(|error| panic!("cannot start {name}: {error:#}"))
}

fn manifests(protocol: &str, instances: &[SocketAddr]) -> String {
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: greeter, namespace: demo}}\nspec:\n  \
         selector: {{app: greeter}}\n  \
         ports: [{{name: main, port: 80, targetPort: {TARGET_PORT}, appProtocol: {protocol}}}]\n"
    );
    let workload = |ip: IpAddr| {
        format!(
            "---\napiVersion: tulle.io/v1alpha1\nkind: Workload\n\
             metadata: {{name: greeter-{ip}, namespace: demo, labels: {{app: greeter}}}}\n\
             spec: {{addresses: [{ip}], serviceAccount: greeter, workload: greeter, meshed: false}}\n"
        )
    };
    let workloads = instances.iter().map(|instance| workload(instance.ip()));
    std::iter::once(service).chain(workloads).collect()
}
