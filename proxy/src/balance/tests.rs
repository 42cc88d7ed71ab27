//! Distribution, priorities, spill, weights and exclusion, with a seeded random source.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::config::endpoint::Endpoint;

struct Fixed {
    active: Vec<u32>,
    ejected: Vec<usize>,
}

impl Loads for Fixed {
    fn active(&self, index: usize) -> u32 {
        self.active.get(index).copied().unwrap_or(0)
    }
    fn available(&self, index: usize) -> bool {
        !self.ejected.contains(&index)
    }
}

fn idle() -> Fixed {
    Fixed { active: Vec::new(), ejected: Vec::new() }
}

fn endpoints(specs: &[(u32, Health, u32)]) -> Endpoints {
    let list = specs.iter().map(|(priority, health, weight)| {
        Arc::new(Endpoint {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 80)),
            health: *health,
            weight: *weight,
            priority: *priority,
            identity: None,
            workload: "".into(),
            namespace: "".into(),
            zone: "".into(),
        })
    });
    Endpoints { list: list.collect() }
}

fn healthy(weights: &[u32]) -> Endpoints {
    endpoints(&weights.iter().map(|weight| (0, Health::Healthy, *weight)).collect::<Vec<_>>())
}

fn counts(policy: Policy, endpoints: &Endpoints, loads: &Fixed, tried: &[usize]) -> Vec<usize> {
    let table = Table::new(policy, endpoints, 70);
    let mut rng = StdRng::seed_from_u64(7);
    let mut cursor = Cursor::new(3);
    let mut counts = vec![0; endpoints.list.len()];
    for _ in 0..10_000 {
        counts[table.pick(loads, &mut cursor, &mut rng, tried).unwrap()] += 1;
    }
    counts
}

fn assert_near(counts: &[usize], percents: &[usize]) {
    assert_eq!(counts.len(), percents.len());
    for (count, percent) in counts.iter().zip(percents) {
        assert!(count.abs_diff(percent * 100) <= 200, "{counts:?} is not near {percents:?} %");
    }
}

const POLICIES: [Policy; 3] = [Policy::LeastRequest, Policy::RoundRobin, Policy::Random];

#[test]
fn equal_endpoints_share_alike() {
    for policy in POLICIES {
        assert_near(&counts(policy, &healthy(&[5; 4]), &idle(), &[]), &[25; 4]);
    }
}

#[test]
fn weights_are_honoured() {
    for policy in POLICIES {
        assert_near(&counts(policy, &healthy(&[10, 20, 70]), &idle(), &[]), &[10, 20, 70]);
    }
}

#[test]
fn round_robin_is_exact_and_spread_out() {
    let turns = |weights: &[u32], n: usize| {
        let endpoints = healthy(weights);
        let table = Table::new(Policy::RoundRobin, &endpoints, 70);
        let mut rng = StdRng::seed_from_u64(7);
        let mut cursor = Cursor::default();
        (0..n).map(|_| table.pick(&idle(), &mut cursor, &mut rng, &[]).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(turns(&[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
    let weighted = turns(&[5, 1, 1], 7);
    assert_eq!(weighted.iter().filter(|i| **i == 0).count(), 5, "{weighted:?}");
    assert!(weighted.windows(4).all(|w| w.iter().any(|i| *i != 0)), "{weighted:?}");
    let large = turns(&[u32::MAX, u32::MAX - 1], 1000);
    assert!(large.iter().filter(|i| **i == 0).count().abs_diff(500) <= 2);
}

#[test]
fn least_request_prefers_the_less_busy() {
    let busy = Fixed { active: vec![100, 0, 0, 0], ejected: Vec::new() };
    let counts = counts(Policy::LeastRequest, &healthy(&[1; 4]), &busy, &[]);
    assert_eq!(counts[0], 0, "two different ones are compared, so the busiest never wins");
    assert_near(&counts[1..], &[33; 3]);
}

#[test]
fn least_request_compares_load_per_weight() {
    // Equal load per weight: the draw by weight decides. More load per weight: the other one is preferred.
    let even = Fixed { active: vec![10, 40], ejected: Vec::new() };
    assert_near(&counts(Policy::LeastRequest, &healthy(&[1, 4]), &even, &[]), &[20, 80]);
    let uneven = Fixed { active: vec![10, 41], ejected: Vec::new() };
    assert!(counts(Policy::LeastRequest, &healthy(&[1, 4]), &uneven, &[])[0] > 6_000);
}

#[test]
fn least_request_with_service_times_starves_the_slow() {
    // One of 5 endpoints answers a hundred times slower; it must get less than 5 % (security.md RB-17).
    let endpoints = healthy(&[1; 5]);
    let table = Table::new(Policy::LeastRequest, &endpoints, 70);
    let mut rng = StdRng::seed_from_u64(11);
    let mut cursor = Cursor::default();
    let mut loads = Fixed { active: vec![0; 5], ejected: Vec::new() };
    let mut ends: std::collections::VecDeque<Vec<usize>> = iter::repeat_n(Vec::new(), 1001).collect();
    let mut counts = [0; 5];
    for _ in 0..20_000 {
        ends.push_back(Vec::new());
        for index in ends.pop_front().unwrap() {
            loads.active[index] -= 1;
        }
        let index = table.pick(&loads, &mut cursor, &mut rng, &[]).unwrap();
        counts[index] += 1;
        loads.active[index] += 1;
        ends[if index == 0 { 1000 } else { 10 }].push(index);
    }
    assert!(counts[0] < 1_000, "{counts:?}");
}

#[test]
fn unhealthy_is_never_picked_and_draining_only_without_healthy() {
    use Health::{Draining, Healthy, Unhealthy};
    for policy in POLICIES {
        let mixed = endpoints(&[(0, Healthy, 1), (0, Draining, 1), (0, Unhealthy, 1)]);
        assert_eq!(counts(policy, &mixed, &idle(), &[]), [10_000, 0, 0]);
        let next = endpoints(&[(0, Draining, 1), (1, Healthy, 1), (0, Unhealthy, 1)]);
        assert_eq!(counts(policy, &next, &idle(), &[]), [0, 10_000, 0]);
        let draining = endpoints(&[(0, Draining, 1), (0, Unhealthy, 1), (1, Draining, 1)]);
        assert_near(&counts(policy, &draining, &idle(), &[]), &[71, 0, 29]);
    }
}

#[test]
fn priorities_spill_by_their_healthy_share() {
    use Health::{Healthy, Unhealthy};
    let spread = |first_healthy: usize, second_healthy: usize| {
        let health = |fit: bool| if fit { Healthy } else { Unhealthy };
        let specs: Vec<_> = (0..10)
            .map(|i| (0, health(i < first_healthy), 1))
            .chain((0..10).map(|i| (1, health(i < second_healthy), 1)))
            .collect();
        let counts = counts(Policy::Random, &endpoints(&specs), &idle(), &[]);
        [counts[..10].iter().sum::<usize>(), counts[10..].iter().sum()]
    };
    assert_eq!(spread(10, 10), [10_000, 0]);
    assert_eq!(spread(7, 10), [10_000, 0], "the threshold itself suffices");
    assert_near(&spread(5, 10), &[71, 29]);
    assert_near(&spread(1, 10), &[14, 86]);
    assert_eq!(spread(0, 10), [0, 10_000]);
    assert_near(&spread(2, 1), &[67, 33]);
    assert_eq!(spread(1, 0), [10_000, 0]);
}

#[test]
fn a_threshold_of_zero_keeps_the_first_priority() {
    let set = endpoints(&[(0, Health::Healthy, 1), (0, Health::Unhealthy, 1), (1, Health::Healthy, 1)]);
    let table = Table::new(Policy::Random, &set, 0);
    let mut rng = StdRng::seed_from_u64(1);
    assert!((0..1_000).all(|_| table.pick(&idle(), &mut Cursor::default(), &mut rng, &[]) == Ok(0)));
}

#[test]
fn tried_is_avoided_while_another_exists() {
    for policy in POLICIES {
        assert_near(&counts(policy, &healthy(&[1; 3]), &idle(), &[1]), &[50, 0, 50]);
        assert_eq!(counts(policy, &healthy(&[1, 1]), &idle(), &[0]), [0, 10_000]);
        assert_eq!(counts(policy, &healthy(&[1]), &idle(), &[0]), [10_000]);
        assert_near(&counts(policy, &healthy(&[1, 1]), &idle(), &[0, 1]), &[50, 50]);
        let spare = endpoints(&[(0, Health::Healthy, 1), (5, Health::Healthy, 1)]);
        assert_eq!(counts(policy, &spare, &idle(), &[0]), [0, 10_000], "the next priority is another one");
    }
}

#[test]
fn ejected_is_avoided_until_all_are() {
    let ejected = |list: &[usize]| Fixed { active: Vec::new(), ejected: list.to_vec() };
    for policy in POLICIES {
        assert_near(&counts(policy, &healthy(&[1; 4]), &ejected(&[0, 3]), &[]), &[0, 50, 50, 0]);
        assert_eq!(counts(policy, &healthy(&[1, 1]), &ejected(&[0]), &[1]), [0, 10_000], "tried beats ejected");
        assert_eq!(counts(policy, &healthy(&[1, 1]), &ejected(&[0, 1]), &[1]), [10_000, 0]);
        let few = counts(policy, &healthy(&[1; 50]), &ejected(&(1..50).collect::<Vec<_>>()), &[]);
        assert_eq!(few[0], 10_000);
    }
}

#[test]
fn says_why_there_is_none() {
    let pick = |endpoints: &Endpoints| {
        let mut rng = StdRng::seed_from_u64(1);
        Table::new(Policy::Random, endpoints, 70).pick(&idle(), &mut Cursor::default(), &mut rng, &[])
    };
    assert_eq!(pick(&endpoints(&[])), Err(Reason::NoEndpoints));
    assert_eq!(pick(&endpoints(&[(0, Health::Unhealthy, 1)])), Err(Reason::NoHealthyEndpoints));
}
