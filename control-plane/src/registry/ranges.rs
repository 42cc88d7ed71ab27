//! The ranges in which addresses of the mesh lie, from those that were seen: proxies refuse what they get no answer about
//! inside them. Wider than the addresses themselves, since a pod or service that appears during an outage belongs to the
//! mesh, too; and few, since every proxy holds them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

/// Most ranges of one origin before they are widened.
const MOST: usize = 64;

/// Prefixes that ranges are cut to, one after the other, until they are few enough: for IPv4 and IPv6.
const LEVELS: [(u8, u8); 6] = [(32, 128), (24, 64), (20, 56), (16, 48), (12, 32), (8, 16)];

/// The range of a cluster's services is a network of its own, from this shortest prefix to this longest. Kubernetes allots
/// at most a /12 of IPv4 and a /108 of IPv6; GKE's /20 is the smallest in common use.
const SERVICES: [(u8, u8); 2] = [(12, 20), (64, 108)];

/// The part of a network that one node has for its pods, at least.
const PODS: (u8, u8) = (24, 64);

/// What has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A service.
    Service,
    /// A pod: its neighbours in the network are pods.
    Pod,
    /// A workload outside of a cluster: its neighbours may be anything.
    Host,
}

/// The addresses in use.
#[derive(Debug, Default)]
pub(super) struct Seen {
    holders: HashMap<IpAddr, Holder>,
    services: BTreeSet<IpAddr>,
    pods: BTreeMap<IpNet, u32>,
    hosts: BTreeSet<IpAddr>,
    changed: bool,
}

impl Seen {
    /// Notes who has an address now. Addresses that no endpoint may have are left out: nobody outside of the caller's pod
    /// is reached by them.
    pub(super) fn set(&mut self, address: IpAddr, holder: Option<Holder>) {
        let holder = holder.filter(|_| tulle_proto::endpoint::unfit(address, false).is_none());
        let before = match holder {
            Some(holder) => self.holders.insert(address, holder),
            None => self.holders.remove(&address),
        };
        if before == holder {
            return;
        }
        match before {
            Some(Holder::Service) => self.changed |= self.services.remove(&address),
            Some(Holder::Host) => self.changed |= self.hosts.remove(&address),
            Some(Holder::Pod) => self.leave(cut(address.into(), PODS)),
            None => {}
        }
        match holder {
            Some(Holder::Service) => self.changed |= self.services.insert(address),
            Some(Holder::Host) => self.changed |= self.hosts.insert(address),
            Some(Holder::Pod) => {
                let count = self.pods.entry(cut(address.into(), PODS)).or_default();
                *count = count.saturating_add(1);
                self.changed |= *count == 1;
            }
            None => {}
        }
    }

    fn leave(&mut self, network: IpNet) {
        let Some(count) = self.pods.get_mut(&network) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.pods.remove(&network);
            self.changed = true;
        }
    }

    /// The ranges, in order, when they may have changed since this was asked last.
    pub(super) fn take_ranges(&mut self) -> Option<Vec<IpNet>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let cluster = self.pods.keys().copied().chain(services(&self.services)).collect();
        // Apart: who may write workloads must not make the ranges of the cluster wider.
        let hosts = self.hosts.iter().map(|address| IpNet::from(*address)).collect();
        let mut all = few(cluster);
        all.extend(few(hosts));
        let mut all = IpNet::aggregate(&all);
        all.sort_unstable();
        Some(all)
    }
}

/// The networks that hold all addresses of services.
fn services(addresses: &BTreeSet<IpAddr>) -> Vec<IpNet> {
    let [v4, v6] = SERVICES;
    let mut networks: BTreeMap<IpNet, (IpAddr, IpAddr)> = BTreeMap::new();
    for address in addresses {
        let widest = cut((*address).into(), (v4.0, v6.0));
        networks.entry(widest).and_modify(|ends| ends.1 = *address).or_insert((*address, *address));
    }
    let network = |(first, last): (IpAddr, IpAddr)| {
        let alike = match (first, last) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros().min(v4.1.into()),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros().min(v6.1.into()),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
        };
        let alike = u8::try_from(alike).unwrap_or(0);
        cut(first.into(), (alike, alike))
    };
    networks.into_values().map(network).collect()
}

/// At most [`MOST`] networks that hold all of `networks`; everything, where that cannot be.
fn few(networks: Vec<IpNet>) -> Vec<IpNet> {
    for level in LEVELS {
        let wide: Vec<IpNet> = networks.iter().map(|network| cut(*network, level)).collect();
        let joined = IpNet::aggregate(&wide);
        if joined.len() <= MOST {
            return joined;
        }
    }
    let everything = |ipv4: bool| networks.iter().any(|network| network.addr().is_ipv4() == ipv4);
    let all = [(true, IpAddr::from([0; 4])), (false, IpAddr::from([0_u16; 8]))];
    let all = all.into_iter().filter(|(ipv4, _)| everything(*ipv4));
    all.filter_map(|(_, address)| IpNet::new(address, 0).ok()).collect()
}

/// A network with a prefix of at most so many bits, for IPv4 and IPv6.
fn cut(network: IpNet, (v4, v6): (u8, u8)) -> IpNet {
    let most = if network.addr().is_ipv4() { v4 } else { v6 };
    let length = network.prefix_len().min(most);
    IpNet::new(network.addr(), length).map_or(network, |wide| wide.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(all: &[(&str, Holder)]) -> Seen {
        let mut seen = Seen::default();
        for (address, holder) in all {
            seen.set(address.parse().unwrap(), Some(*holder));
        }
        seen
    }

    fn ranges(seen: &mut Seen) -> String {
        let ranges = seen.take_ranges().expect("a change");
        ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn hostile_07_ranges_hold_what_may_appear_beside_what_is_there() {
        use Holder::{Host, Pod, Service};
        let mut all = seen(&[
            ("10.244.3.17", Pod),
            ("10.244.3.18", Pod),
            ("10.244.7.1", Pod),
            ("fd00:10:244::5", Pod),
            ("10.96.0.1", Service),
            ("10.96.0.10", Service),
            ("10.105.7.9", Service),
            ("fd96::a", Service),
            ("192.168.1.5", Host),
            ("127.0.0.1", Host),
        ]);
        let expected = "10.96.0.0/12 10.244.3.0/24 10.244.7.0/24 192.168.1.5/32 fd00:10:244::/64 fd96::/108";
        assert_eq!(ranges(&mut all), expected);
        assert_eq!(all.take_ranges(), None, "nothing new");
        all.set("10.244.3.19".parse().unwrap(), Some(Pod));
        all.set("10.244.3.17".parse().unwrap(), None);
        assert_eq!(all.take_ranges(), None, "the network is the same");
        all.set("10.244.7.1".parse().unwrap(), None);
        assert_eq!(ranges(&mut all), expected.replace("10.244.7.0/24 ", ""));
        // GKE's services; its neighbours are the world.
        assert_eq!(ranges(&mut seen(&[("34.118.224.1", Service), ("34.118.239.9", Service)])), "34.118.224.0/20");
        assert_eq!(ranges(&mut seen(&[("10.43.0.1", Service)])), "10.43.0.0/20");
    }

    #[test]
    fn ranges_are_few() {
        let mut many = Seen::default();
        for node in 0..200_u8 {
            many.set(IpAddr::from([10, 244, node, 1]), Some(Holder::Pod));
            many.set(IpAddr::from([node, 1, 2, 3]), Some(Holder::Host));
        }
        let ranges = many.take_ranges().unwrap();
        assert!(ranges.len() <= 2 * MOST, "{}", ranges.len());
        for node in 0..200_u8 {
            let inside = |address: IpAddr| ranges.iter().any(|range| range.contains(&address));
            assert!(inside([10, 244, node, 1].into()) && (node == 127 || node == 0 || inside([node, 1, 2, 3].into())));
        }
    }
}
