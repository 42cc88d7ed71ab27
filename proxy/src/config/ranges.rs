//! Which addresses belong to the mesh, whether or not anything is known of one: there silence of the control plane is no
//! licence to connect in plain (decision 011).

use std::net::IpAddr;

use ipnet::IpNet;

/// The address ranges of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// In the order of the resource.
    pub list: Box<[IpNet]>,
}

impl Ranges {
    /// Whether `address` belongs to the mesh. Asked only where a destination is not known.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.list.iter().any(|range| range.contains(&address))
    }
}
