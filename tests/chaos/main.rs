//! What may go wrong in a running mesh, and what must come of it (RB-01..RB-22), each at a small scale: no request is
//! lost that could have been served. `cargo bench --bench chaos-table` runs the same scenarios at full length and writes
//! `docs/chaos.md`. Nothing here judges speed.

mod scenarios;

use scenarios::{ALL, Outcome, Scale};

async fn check(id: &str) {
    let outcome = match ALL.iter().find(|(other, ..)| *other == id) {
        Some((.., run)) => run(Scale::of(false)).await,
        None => Outcome::failed("there is no such scenario"),
    };
    let Outcome { requests, wrong, note } = outcome;
    assert!(wrong.is_empty(), "after {requests} requests ({note}): {wrong:#?}");
}

macro_rules! quick {
    ($($name:ident: $id:literal,)+) => {
        $(#[tokio::test]
        async fn $name() {
            check($id).await;
        })+

        #[test]
        fn every_scenario_is_here() {
            let here = [$($id),+];
            assert!(ALL.iter().all(|(id, ..)| here.contains(id)));
        }
    };
}

quick! {
    the_control_plane_is_away: "RB-01",
    many_proxies_come_back: "RB-02",
    a_replica_is_killed: "RB-04",
    idle_connections_close_at_random: "RB-05",
    a_reply_is_under_way: "RB-06",
    replicas_are_replaced: "RB-08",
    certificates_are_replaced: "RB-09",
    descriptors_run_out: "RB-12",
    a_reader_is_slow: "RB-14",
    everything_fails: "RB-15",
    one_endpoint_fails: "RB-17a",
    one_endpoint_is_slow: "RB-17b",
    streams_end_with_goaway: "RB-20",
    directions_end_and_connections_break: "RB-21",
}
