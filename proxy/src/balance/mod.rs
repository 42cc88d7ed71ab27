//! Which endpoint a request goes to: `Table::pick`, a pure function of the table, the loads and the random source.
//!
//! A table is built once per endpoint set; a pick looks at a handful of endpoints, whatever their number. What
//! differs between workers, the loads and the place in the turn, comes in from outside.

/// Endpoints of one priority and how one of them is drawn.
mod group;

/// How traffic spreads over priorities.
mod priority;

/// Endpoints that keep failing.
pub mod outlier;

use std::iter;

use rand::Rng;

use crate::base::failure::Reason;
use crate::config::cluster::Policy;
use crate::config::endpoint::{Endpoints, Health};
use group::Group;

/// What one worker knows of the endpoints of a cluster, by their index in [`Endpoints::list`].
pub trait Loads {
    /// Requests or connections under way.
    fn active(&self, index: usize) -> u32;
    /// Whether it may be picked: not ejected.
    fn available(&self, index: usize) -> bool;
}

/// The place of one worker in the turn over a cluster's endpoints. It outlives the tables it is used with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor(u64);

impl Cursor {
    /// A place in the turn. Proxies and workers should begin at different ones, lest they move in step.
    pub const fn new(start: u64) -> Self {
        Self(start)
    }

    /// The present place; moves on by one.
    const fn advance(&mut self) -> u64 {
        let place = self.0;
        self.0 = place.wrapping_add(1);
        place
    }
}

/// The endpoints of one cluster that may be picked, by priority.
///
/// Healthy endpoints are used while there is one in any priority, then draining ones; unhealthy ones never are.
/// Traffic spills to the next priority as Envoy has it: a priority takes `healthy share / threshold` of what is left
/// for it, all of it when the share reaches the threshold. Ejections by [`Loads::available`] are seen at each pick
/// and do not change the shares.
#[derive(Debug)]
pub struct Table {
    policy: Policy,
    /// Ascending by priority; none is without members.
    groups: Box<[Group]>,
    /// For each group the end of its part of `0..priority::WHOLE`.
    ends: Box<[u32]>,
    /// Why there is nothing to pick when there is no group.
    empty: Reason,
}

impl Table {
    /// A table of `endpoints`. `threshold_percent` is [`failover_threshold_percent`] of the cluster.
    ///
    /// [`failover_threshold_percent`]: crate::config::cluster::Cluster::failover_threshold_percent
    pub fn new(policy: Policy, endpoints: &Endpoints, threshold_percent: u32) -> Self {
        let empty = if endpoints.list.is_empty() { Reason::NoEndpoints } else { Reason::NoHealthyEndpoints };
        let any_healthy = endpoints.list.iter().any(|endpoint| endpoint.health == Health::Healthy);
        let serving = if any_healthy { Health::Healthy } else { Health::Draining };
        let tiers = priority::tiers(endpoints, serving);
        let ends = priority::shares(&tiers, threshold_percent);
        let groups = tiers.into_iter().map(|tier| Group::new(tier.members, endpoints)).collect();
        Self { policy, groups, ends, empty }
    }

    /// The index in [`Endpoints::list`] of the endpoint to use. `tried` holds those that failed this request before.
    ///
    /// In order of preference: one that is available and was not tried, first in the priority the draw fell on, then
    /// in the others; one that is available though tried; when all are ejected, ejection is ignored, as no endpoint
    /// at all helps nobody.
    ///
    /// # Errors
    /// `NoEndpoints` when the cluster has none, `NoHealthyEndpoints` when none of them is fit to serve.
    pub fn pick(
        &self,
        loads: &impl Loads,
        cursor: &mut Cursor,
        rng: &mut impl Rng,
        tried: &[usize],
    ) -> Result<usize, Reason> {
        let first = priority::draw(&self.ends, rng);
        let mut draw = |fit: &dyn Fn(usize) -> bool| {
            let order = iter::once(first).chain((0..self.groups.len()).filter(|at| *at != first));
            let mut groups = order.filter_map(|at| self.groups.get(at));
            groups.find_map(|group| group.choose(self.policy, &fit, loads, cursor, rng))
        };
        draw(&|index| loads.available(index) && !tried.contains(&index))
            .or_else(|| draw(&|index| loads.available(index)))
            .or_else(|| draw(&|index| !tried.contains(&index)))
            .or_else(|| draw(&|_| true))
            .ok_or(self.empty)
    }
}

#[cfg(test)]
mod tests;
