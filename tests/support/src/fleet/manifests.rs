//! A mesh of many services as a folder of manifests: one file each, with the service and its instances.

use std::fmt::Write as _;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Namespaces the services are spread over.
const NAMESPACES: usize = 10;

/// The mesh.
#[derive(Debug)]
pub struct Services {
    dir: PathBuf,
    services: usize,
    endpoints: usize,
    dialled: usize,
}

impl Services {
    /// Writes `services` services of `endpoints` instances to the folder `dir`; each proxy dials `dialled` of them.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(dir: &Path, services: usize, endpoints: usize, dialled: usize) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mesh = Self { dir: dir.to_owned(), services, endpoints, dialled: dialled.min(services) };
        for service in 0..services {
            mesh.set(service, 1)?;
        }
        Ok(mesh)
    }

    /// Number of services.
    pub fn len(&self) -> usize {
        self.services
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.services == 0
    }

    /// Replaces the file of `service`: one endpoint of it has the weight `generation` now.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn set(&self, service: usize, generation: u32) -> io::Result<()> {
        let name = format!("svc-{service}.yaml");
        // Written beside the folder and renamed into it, as a careful editor does.
        let new = self.dir.with_extension("new");
        std::fs::write(&new, self.manifest(service, generation))?;
        std::fs::rename(new, self.dir.join(name))
    }

    /// The name of the resources of `service`.
    pub fn name(&self, service: usize) -> Arc<str> {
        format!("svc-{service}.{}.svc.cluster.local:80", namespace(service)).into()
    }

    /// Namespace and service account of proxy `i`.
    pub fn workload(&self, i: usize) -> (String, String) {
        let service = i % self.services;
        (namespace(service), format!("svc-{service}"))
    }

    /// Names proxy `i` dials: service 0, which everybody does, and others spread evenly over all.
    pub fn dialled(&self, i: usize) -> Vec<Arc<str>> {
        let step = (self.services / self.dialled.max(1)).max(1);
        let others = (1..self.dialled).map(|n| 1 + (i + n * step) % (self.services - 1).max(1));
        std::iter::once(0).chain(others).map(|service| self.name(service)).collect()
    }

    fn manifest(&self, service: usize, generation: u32) -> String {
        let namespace = namespace(service);
        let [_, _, high, low] = u32::try_from(service).unwrap_or_default().to_be_bytes();
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: svc-{service}, namespace: {namespace}}}\nspec:\n  \
             clusterIP: 10.96.{high}.{low}\n  selector: {{app: svc-{service}}}\n  \
             ports: [{{name: http, port: 80, targetPort: 8080}}]\n"
        );
        for endpoint in 0..self.endpoints {
            let count = u32::try_from(service * self.endpoints + endpoint).unwrap_or_default();
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + count);
            let weight = if endpoint == 0 { generation } else { 1 };
            let _ = write!(
                text,
                "---\napiVersion: tulle.io/v1alpha1\nkind: Workload\n\
                 metadata: {{name: svc-{service}-{endpoint}, namespace: {namespace}, labels: {{app: svc-{service}}}}}\n\
                 spec: {{addresses: [{address}], serviceAccount: svc-{service}, workload: svc-{service}, weight: {weight}}}\n"
            );
        }
        text
    }
}

fn namespace(service: usize) -> String {
    format!("ns-{}", service % NAMESPACES)
}
