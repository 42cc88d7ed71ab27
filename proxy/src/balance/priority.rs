//! How traffic spreads over priorities, by the healthy share of each (Envoy, "Priority levels").

use rand::{Rng, RngExt};

use crate::config::endpoint::{Endpoints, Health};

/// All traffic, in the unit of shares.
pub(super) const WHOLE: u32 = 1 << 16;

/// The endpoints of one priority.
#[derive(Debug)]
pub(super) struct Tier {
    priority: u32,
    /// Endpoints of the priority, fit or not.
    total: u32,
    /// Indices of those that serve.
    pub(super) members: Vec<u32>,
}

/// The priorities that have an endpoint of health `serving`, in ascending order.
pub(super) fn tiers(endpoints: &Endpoints, serving: Health) -> Vec<Tier> {
    let mut tiers: Vec<Tier> = Vec::new();
    for (index, endpoint) in (0_u32..).zip(&endpoints.list) {
        let at = match tiers.binary_search_by_key(&endpoint.priority, |tier| tier.priority) {
            Ok(at) => at,
            Err(at) => {
                tiers.insert(at, Tier { priority: endpoint.priority, total: 0, members: Vec::new() });
                at
            }
        };
        if let Some(tier) = tiers.get_mut(at) {
            tier.total += 1;
            if endpoint.health == serving {
                tier.members.push(index);
            }
        }
    }
    tiers.retain(|tier| !tier.members.is_empty());
    tiers
}

/// The end of each tier's part of `0..WHOLE`. A tier takes its health (serving share over the threshold, at most 1)
/// of the whole, as far as the tiers before it left it; when all of them together fall short, they are scaled up.
pub(super) fn shares(tiers: &[Tier], threshold_percent: u32) -> Box<[u32]> {
    let whole = u64::from(WHOLE);
    let mut ends = Vec::with_capacity(tiers.len());
    let mut end = 0_u64;
    for tier in tiers {
        let needed = u64::from(tier.total) * u64::from(threshold_percent.min(100));
        let health = (tier.members.len() as u64 * 100 * whole).checked_div(needed).unwrap_or(whole);
        end = (end + health.clamp(1, whole)).min(whole);
        ends.push(end);
    }
    // `end` is at most `whole`, so what is scaled still fits 32 bits; it is not 0, as each tier adds at least 1.
    ends.into_iter().map(|part| (part * whole / end.max(1)) as u32).collect()
}

/// The tier a request falls on.
pub(super) fn draw(ends: &[u32], rng: &mut impl Rng) -> usize {
    if ends.len() < 2 {
        return 0;
    }
    let point = rng.random_range(0..WHOLE);
    ends.partition_point(|end| *end <= point)
}
