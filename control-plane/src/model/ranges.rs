//! Which addresses the Workloads of a namespace may have. Whoever writes a Workload chooses its addresses, so in a
//! cluster the operator says which of them a namespace may claim (decision 009).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Workload;

/// Stands for every namespace.
const EVERY: &str = "*";

/// Ranges by namespace. The default allows none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadRanges(BTreeMap<Arc<str>, Vec<IpNet>>);

impl WorkloadRanges {
    /// Ranges written as `NAMESPACE=CIDR`; the namespace `*` stands for all.
    ///
    /// # Errors
    /// The first text that is not of this form, and why.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut ranges: BTreeMap<Arc<str>, Vec<IpNet>> = BTreeMap::new();
        for text in texts.into_iter().map(str::trim).filter(|text| !text.is_empty()) {
            let wrong = || format!("{text:?}: not of the form NAMESPACE=CIDR, such as shop=10.20.0.0/16");
            let (namespace, range) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
            let range: IpNet = range.parse().map_err(|_| wrong())?;
            ranges.entry(namespace.into()).or_default().push(range.trunc());
        }
        Ok(Self(ranges))
    }

    /// Whether a Workload may have its addresses.
    ///
    /// # Errors
    /// The first address it may not have, and what to do.
    pub fn permit(&self, workload: &Workload) -> Result<(), String> {
        let namespace = &*workload.key.namespace;
        let permitted = |address: &IpAddr| {
            let ranges = [namespace, EVERY].into_iter().filter_map(|name| self.0.get(name)).flatten();
            { ranges }.any(|range| range.contains(address))
        };
        match workload.addresses.iter().find(|address| !permitted(address)) {
            None => Ok(()),
            Some(address) => Err(format!(
                "{address} is in no range that namespace {namespace} may claim for Workloads: set the chart value \
                 mesh.workloadRanges, or --workload-range {namespace}=CIDR"
            )),
        }
    }
}
