//! What the demo is made of: the pods of the shop, and the addresses they live on.
//!
//! A pod is an address of 127.0.0.0/8, which Linux has without root: its sidecar listens there on the usual ports,
//! and its application beside it. The manifests are those of `examples/shop`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use anyhow::bail;

use crate::args::Service;

/// The namespace of everything.
pub(super) const NAMESPACE: &str = "shop";

/// One pod: an application, or the client, and its sidecar.
#[derive(Debug)]
pub(super) struct Pod {
    /// Name of the replica, and of its manifest.
    pub(super) name: &'static str,
    /// Name of its workload, which is also its service account and, but for the client, its service.
    pub(super) workload: &'static str,
    pub(super) zone: &'static str,
    /// Its application; none: the client, which runs in the demo itself.
    pub(super) service: Option<Service>,
    /// Services it calls, each by the port its sidecar listens on for it.
    pub(super) calls: &'static [(u16, &'static str)],
    /// Its manifest.
    pub(super) manifest: &'static str,
    /// Last number of its address.
    host: u8,
}

/// Ports of every pod.
pub(super) const INBOUND: u16 = 8080;
pub(super) const APP: u16 = 3000;
pub(super) const ADMIN: u16 = 15000;
pub(super) const STATUS: u16 = 15020;

/// Ports on which the sidecar of a caller listens for it.
pub(super) const TO_WEB: u16 = 9001;
pub(super) const TO_REVIEWS: u16 = 9002;
pub(super) const TO_CATALOG: u16 = 9003;

/// Ports of the control plane.
pub(super) const XDS: u16 = 15012;
pub(super) const CONTROL_ADMIN: u16 = 15014;

/// Last number of the control plane's address.
const CONTROL_PLANE: u8 = 2;

macro_rules! manifest {
    ($name:literal) => {
        include_str!(concat!("../../../examples/shop/", $name, ".yaml"))
    };
}

/// Namespace and services.
pub(super) const SERVICES: &str = manifest!("shop");

const fn catalog(name: &'static str, zone: &'static str, host: u8, manifest: &'static str) -> Pod {
    Pod { name, workload: "catalog", zone, service: Some(Service::Catalog), calls: &[], manifest, host }
}

/// Every pod.
pub(super) const PODS: [Pod; 6] = [
    Pod {
        name: "client",
        workload: "client",
        zone: "zone-a",
        service: None,
        calls: &[(TO_WEB, "web:80"), (TO_REVIEWS, "reviews:9000")],
        manifest: manifest!("client"),
        host: 10,
    },
    Pod {
        name: "web-1",
        workload: "web",
        zone: "zone-a",
        service: Some(Service::Web),
        calls: &[(TO_CATALOG, "catalog:80")],
        manifest: manifest!("web-1"),
        host: 11,
    },
    catalog("catalog-1", "zone-a", 21, manifest!("catalog-1")),
    catalog("catalog-2", "zone-a", 22, manifest!("catalog-2")),
    catalog("catalog-3", "zone-b", 23, manifest!("catalog-3")),
    Pod {
        name: "reviews-1",
        workload: "reviews",
        zone: "zone-b",
        service: Some(Service::Reviews),
        calls: &[],
        manifest: manifest!("reviews-1"),
        host: 31,
    },
];

/// The pod of a name in [`PODS`].
pub(super) fn pod(name: &str) -> &'static Pod {
    PODS.iter().find(|pod| pod.name == name).expect("the script names pods of the table above")
}

/// The identity of a workload of the shop.
pub(super) fn identity(workload: &str) -> String {
    format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/{workload}")
}

/// Who calls the replica of this name: the only identity it should ever see.
pub(super) fn caller_of(replica: &str) -> String {
    identity(if replica.starts_with("catalog-") { "web" } else { "client" })
}

/// The addresses of one demo. Several can run at a time, and beside whatever else uses the usual ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Net {
    second: u8,
    shift: u16,
}

impl Net {
    /// Addresses and ports that nobody uses.
    ///
    /// # Errors
    /// When there are none; a system other than Linux has only 127.0.0.1.
    pub(super) fn choose() -> anyhow::Result<Self> {
        let shifts = [0, 10_000, 20_000, 30_000];
        let candidates = shifts.into_iter().flat_map(|shift| (1..=9).map(move |second| Self { second, shift }));
        for net in candidates {
            // A listener that is dropped at once leaves the port free: nobody connected to it.
            if net.listeners().into_iter().all(|address| TcpListener::bind(address).is_ok()) {
                return Ok(net);
            }
        }
        bail!("no free addresses: the demo needs Linux, where all of 127.0.0.0/8 is this machine")
    }

    /// A port of a pod.
    pub(super) fn of(self, pod: &Pod, port: u16) -> SocketAddr {
        self.address(pod.host, port)
    }

    /// A port of the control plane.
    pub(super) fn control_plane(self, port: u16) -> SocketAddr {
        self.address(CONTROL_PLANE, port)
    }

    /// A manifest of `examples/shop` with the addresses and ports of this demo.
    pub(super) fn manifest(self, text: &str) -> String {
        let own = |text: &str| text.replace("127.1.0.", &format!("127.{}.0.", self.second));
        own(text).replace("port: 8080", &format!("port: {}", INBOUND + self.shift))
    }

    fn address(self, host: u8, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, self.second, 0, host)), port + self.shift)
    }

    fn listeners(self) -> Vec<SocketAddr> {
        let mut found = vec![self.control_plane(XDS), self.control_plane(CONTROL_ADMIN)];
        for pod in &PODS {
            let calls = pod.calls.iter().map(|(port, _)| *port);
            found.extend([INBOUND, APP, ADMIN, STATUS].into_iter().chain(calls).map(|port| self.of(pod, port)));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_and_table_agree() {
        let net = Net { second: 7, shift: 10_000 };
        for pod in &PODS {
            let text = net.manifest(pod.manifest);
            assert!(text.contains(&format!("name: {}\n", pod.name)), "{text}");
            assert!(text.contains(&format!("workload: {}\n", pod.workload)), "{text}");
            assert!(text.contains(&format!("zone: {}\n", pod.zone)), "{text}");
            assert!(text.contains(&format!("[{}]", net.of(pod, APP).ip())), "{text}");
            assert_eq!(pod.service.is_some(), text.contains("port: 18080}"), "{text}");
            assert!(text.contains("health: ready"), "{text}");
        }
    }
}
