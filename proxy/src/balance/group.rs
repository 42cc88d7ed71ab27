//! Endpoints of one priority and how one of them is drawn: at random, by the power of two choices, or in turn.

use rand::{Rng, RngExt};

use super::{Cursor, Loads};
use crate::config::cluster::Policy;
use crate::config::endpoint::Endpoints;

/// Random draws before every member is looked at. With half of the members unfit, one pick in 16 needs the look.
const DRAWS: usize = 4;

/// Endpoints that are picked from alike.
#[derive(Debug)]
pub(super) struct Group {
    /// Indices in the endpoint list; at least one.
    members: Box<[u32]>,
    /// For each member the end of its part of the sum of weights; none when all weights are the same.
    ends: Option<Box<[u64]>>,
    /// How far a turn moves along the sum of weights; coprime to it.
    stride: u64,
}

impl Group {
    /// A group of `members`, which are indices into `endpoints`.
    pub(super) fn new(members: Vec<u32>, endpoints: &Endpoints) -> Self {
        let weight = |index: &u32| endpoints.list.get(*index as usize).map_or(1, |e| u64::from(e.weight.max(1)));
        let divisor = members.iter().map(weight).fold(0, gcd).max(1);
        let alike = members.iter().all(|index| weight(index) == divisor);
        let mut end = 0_u64;
        let ends: Box<[u64]> = members.iter().map(|index| advance(&mut end, weight(index) / divisor)).collect();
        Self { members: members.into(), ends: (!alike).then_some(ends), stride: stride(end) }
    }

    /// A member that is `fit`, by `policy`; none when no member is.
    pub(super) fn choose(
        &self,
        policy: Policy,
        fit: &impl Fn(usize) -> bool,
        loads: &impl Loads,
        cursor: &mut Cursor,
        rng: &mut impl Rng,
    ) -> Option<usize> {
        if let [only] = *self.members {
            return Some(only as usize).filter(|index| fit(*index));
        }
        let place = match policy {
            Policy::Random => self.random(fit, rng)?,
            Policy::RoundRobin => self.turn(fit, cursor).or_else(|| self.search(fit, rng))?,
            Policy::LeastRequest => self.lesser(fit, loads, rng)?,
        };
        self.index(place)
    }

    /// The less busy of two members, relative to their weights. Both are drawn by weight and the first one wins a
    /// tie, so that idle endpoints share traffic as their weights say, and busy ones come to equal load per weight.
    fn lesser(&self, fit: &impl Fn(usize) -> bool, loads: &impl Loads, rng: &mut impl Rng) -> Option<usize> {
        let first = self.random(fit, rng)?;
        let other = self.other(first, rng);
        let Some(second) = other.filter(|place| self.index(*place).is_some_and(fit)) else {
            return Some(first);
        };
        let load = |place: usize| self.index(place).map_or(0, |index| u128::from(loads.active(index)));
        let weight = |place: usize| u128::from(self.weight(place));
        // active / weight compared without division.
        let second_is_less = load(second) * weight(first) < load(first) * weight(second);
        Some(if second_is_less { second } else { first })
    }

    /// The next member in turn that is fit. With weights a turn moves along their sum by a stride that is coprime to
    /// it: every `sum` turns each member comes exactly `weight` times, and spread out.
    fn turn(&self, fit: &impl Fn(usize) -> bool, cursor: &mut Cursor) -> Option<usize> {
        (0..self.members.len()).find_map(|_| {
            let turn = cursor.advance();
            let place = match self.ends.as_deref() {
                None => (turn % self.members.len() as u64) as usize,
                Some(ends) => {
                    let sum = u128::from(ends.last().copied().unwrap_or(1));
                    let point = (u128::from(turn) * u128::from(self.stride) % sum) as u64;
                    ends.partition_point(|end| *end <= point)
                }
            };
            self.index(place).is_some_and(fit).then_some(place)
        })
    }

    /// A member that is fit, at random by weight.
    fn random(&self, fit: &impl Fn(usize) -> bool, rng: &mut impl Rng) -> Option<usize> {
        let drawn = (0..DRAWS).map(|_| self.draw(rng)).find(|place| self.index(*place).is_some_and(fit));
        drawn.or_else(|| self.search(fit, rng))
    }

    /// Any member, at random by weight.
    fn draw(&self, rng: &mut impl Rng) -> usize {
        match self.ends.as_deref() {
            None => rng.random_range(0..self.members.len()),
            Some(ends) => {
                let point = rng.random_range(0..ends.last().copied().unwrap_or(1));
                ends.partition_point(|end| *end <= point)
            }
        }
    }

    /// A member other than `not`, at random. With weights so unequal that none was drawn there is none: then `not`
    /// is where nearly all traffic belongs.
    fn other(&self, not: usize, rng: &mut impl Rng) -> Option<usize> {
        let count = self.members.len();
        match self.ends {
            None => Some((not + rng.random_range(1..count.max(2))) % count),
            Some(_) => (0..DRAWS).map(|_| self.draw(rng)).find(|place| *place != not),
        }
    }

    /// As [`Self::random`], by a look at every member: for groups with few fit members.
    fn search(&self, fit: &impl Fn(usize) -> bool, rng: &mut impl Rng) -> Option<usize> {
        let fit_places = || (0..self.members.len()).filter(|place| self.index(*place).is_some_and(fit));
        let sum: u64 = fit_places().map(|place| self.weight(place)).sum();
        if sum == 0 {
            return None;
        }
        let point = rng.random_range(0..sum);
        let mut end = 0;
        fit_places().find(|place| advance(&mut end, self.weight(*place)) > point)
    }

    fn index(&self, place: usize) -> Option<usize> {
        self.members.get(place).map(|index| *index as usize)
    }

    fn weight(&self, place: usize) -> u64 {
        let Some(ends) = self.ends.as_deref() else { return 1 };
        let start = place.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
        ends.get(place).map_or(1, |end| end - start)
    }
}

fn advance(end: &mut u64, weight: u64) -> u64 {
    *end += weight;
    *end
}

/// A step near the golden section of `sum`, which spreads the turns of each member best, and coprime to it, so that
/// every point is visited.
fn stride(sum: u64) -> u64 {
    let near = (u128::from(sum) * 618_034 / 1_000_000) as u64;
    (near.max(1)..=sum.max(1)).find(|step| gcd(*step, sum) == 1).unwrap_or(1)
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
