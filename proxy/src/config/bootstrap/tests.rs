//! Settings from command lines.

use super::*;

fn parse(args: &[&str]) -> Result<Bootstrap, BootstrapError> {
    Bootstrap::parse(std::iter::once("tulle-proxy").chain(args.iter().copied()))
}

fn flags_at_fault(error: &BootstrapError) -> Vec<&'static str> {
    match error {
        BootstrapError::Problems(problems) => problems.iter().map(|problem| problem.flag).collect(),
        BootstrapError::Usage(error) => panic!("usage: {error}"),
    }
}

#[test]
fn nothing_given_passes_everything_through() {
    let settings = parse(&[]).unwrap();
    assert!(settings.control_plane.is_none() && settings.capture.is_none());
    assert_eq!(settings.node.id(), "unknown.default");
    assert_eq!(settings.opaque_ports, [25, 587, 3306, 4444, 5432, 6379, 9300, 11211]);
    assert_eq!(settings.demand_wait, Duration::from_secs(2));
    assert!(settings.workers.get() <= 2);
    assert_eq!(settings.admin, "127.0.0.1:15000".parse().unwrap());
}

#[test]
fn a_whole_sidecar() {
    let settings = parse(&[
        "--namespace=shop",
        "--workload=reviews",
        "--service-account=reviews-sa",
        "--control-plane=tulle-control-plane.tulle-system:15012",
        "--trust-bundle=/etc/tulle/roots.pem",
        "--token=/var/run/tulle/token",
        "--capture",
        "--inbound=0.0.0.0:8080=127.0.0.1:8081",
        "--outbound=127.0.0.1:9080=ratings:80,127.0.0.1:9081=db.data:5432",
        "--prefetch=a.b.svc:1,c.d.svc.cluster.local:2,10.0.0.1:3,[fd00::1]:4,api.example.com:443",
        "--workers=7",
        "--idle-timeout=5m",
    ])
    .unwrap();
    let control_plane = settings.control_plane.clone().unwrap();
    assert_eq!(control_plane.server_id.as_str(), "spiffe://cluster.local/ns/tulle-system/sa/tulle-control-plane");
    assert_eq!(settings.identity().unwrap().as_str(), "spiffe://cluster.local/ns/shop/sa/reviews-sa");
    let capture = settings.capture.clone().unwrap();
    assert_eq!(capture.outbound, ["0.0.0.0:15001".parse().unwrap(), "[::]:15001".parse().unwrap()]);
    assert_eq!(settings.explicit_inbound[0].app, "127.0.0.1:8081".parse().unwrap());
    let names: Vec<&str> = settings.permanent_names().map(|name| &**name).collect();
    assert_eq!(
        names,
        [
            "ratings.shop.svc.cluster.local:80",
            "db.data.svc.cluster.local:5432",
            "a.b.svc.cluster.local:1",
            "c.d.svc.cluster.local:2",
            "10.0.0.1:3",
            "[fd00::1]:4",
            "api.example.com:443"
        ]
    );
    assert_eq!(settings.workers.get(), 7);
    assert_eq!(settings.limits.downstream_idle, Duration::from_secs(300));
}

#[test]
fn every_problem_is_reported_at_once_with_its_fix() {
    let error = parse(&[
        "--control-plane=nowhere",
        "--admin=0.0.0.0:15000",
        "--workers=0",
        "--demand-wait=2",
        "--drain-min=40s",
        "--outbound=127.0.0.1:9080",
        "--outbound=127.0.0.1:9080=reviews",
        "--unknown=maybe",
        "--capture=perhaps",
        "--opaque-ports=70000",
        "--pod-ip=me",
        "--namespace=Not/Valid",
    ])
    .unwrap_err();
    let mut flags = flags_at_fault(&error);
    flags.sort_unstable();
    let expected = [
        "admin",
        "capture",
        "control-plane",
        "demand-wait",
        "drain-deadline",
        "opaque-ports",
        "outbound",
        "outbound",
        "pod-ip",
        "service-account",
        "token",
        "trust-bundle",
        "unknown",
        "workers",
        "workload",
    ];
    assert_eq!(flags, expected);
    assert!(error.to_string().contains("--demand-wait: `2` is no duration above zero\n      give a number and a unit"));
}

#[test]
fn an_unknown_flag_is_a_usage_error() {
    assert!(matches!(parse(&["--no-such-flag"]), Err(BootstrapError::Usage(_))));
    assert!(matches!(parse(&["--help"]), Err(BootstrapError::Usage(_))));
}
