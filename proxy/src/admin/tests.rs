//! Both listeners over real sockets.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tulle_identity::sign::{BuiltInCa, Signer};
use tulle_identity::spiffe::{SpiffeId, TrustDomain};
use tulle_identity::svid::Identity;
use tulle_identity::tls::TlsOptions;
use tulle_identity::{csr, csr::PendingKey};

use super::*;
use crate::base::protocol::Protocol;
use crate::config::bootstrap::{Check, Probe, Reference};
use crate::config::cluster::{Cluster, HttpVersion, Limits, Policy, RetryBudget};
use crate::config::endpoint::{Endpoint, Endpoints, Health};
use crate::config::listener::{Inbound, InboundPort, MtlsMode, Outbound};
use crate::config::route::{
    Action, Domain, HeaderMatch, Matcher, PathMatch, RetryPolicy, Route, RouteTable, ValueMatch, VirtualHost,
};
use crate::config::{ClusterId, Known};
use crate::telemetry::MAX_SERIES;

const NAME: &str = "reviews.shop.svc.cluster.local:80";

#[derive(Debug, Default)]
struct Recorded {
    draining: AtomicBool,
    quitting: AtomicBool,
    filter: Mutex<String>,
}

#[derive(Debug)]
struct Recorder(Arc<Recorded>);

impl Control for Recorder {
    fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    fn quit(&self) {
        self.0.quitting.store(true, Ordering::Relaxed);
    }

    fn hold(&self) -> Held {
        crate::drain::Drain::new(1).hold()
    }

    fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    fn log_filter(&self) -> String {
        self.0.filter.lock().unwrap().clone()
    }

    fn set_log_filter(&self, filter: &str) -> Result<(), String> {
        if filter.contains('!') {
            return Err("not a filter".to_owned());
        }
        filter.clone_into(&mut self.0.filter.lock().unwrap());
        Ok(())
    }
}

struct Fixture {
    local: SocketAddr,
    status: SocketAddr,
    facts: Status,
    keys: watch::Sender<Option<Arc<MeshTls>>>,
    recorded: Arc<Recorded>,
    _snapshot: watch::Sender<Arc<Snapshot>>,
    _running: JoinSet<()>,
}

impl Fixture {
    async fn start() -> Self {
        Self::with(Application::default()).await
    }

    async fn with(application: Application) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let admin = Admin::bind(any, any).await.unwrap();
        let (local, status) = admin.addresses().unwrap();
        let (snapshot, snapshots) = watch::channel(Arc::new(snapshot()));
        let (keys, key) = watch::channel(None);
        let (facts, recorded) = (Status::default(), Arc::<Recorded>::default());
        let handles = AdminHandles {
            snapshot: snapshots,
            keys: key,
            status: facts.clone(),
            telemetry: Telemetry::new(MAX_SERIES, None),
            application,
            dns: None,
            control: Box::new(Recorder(recorded.clone())),
        };
        let mut running = JoinSet::new();
        running.spawn(admin.run(Arc::new(handles)));
        Self { local, status, facts, keys, recorded, _snapshot: snapshot, _running: running }
    }

    async fn local(&self, method: &str, path: &str) -> (u16, String) {
        let fields = "host: localhost\r\ntulle-admin: 1\r\nconnection: close\r\n";
        ask(self.local, &format!("{method} {path} HTTP/1.1\r\n{fields}\r\n")).await
    }

    async fn network(&self, method: &str, path: &str) -> (u16, String) {
        ask(self.status, &format!("{method} {path} HTTP/1.1\r\nhost: 10.1.2.3\r\nconnection: close\r\n\r\n")).await
    }

    async fn json(&self, path: &str) -> serde_json::Value {
        let (status, reply) = self.local("GET", path).await;
        assert_eq!(status, 200, "{reply}");
        assert!(reply.contains("content-type: application/json\r\n"), "{reply}");
        serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap()
    }
}

/// Status and the whole reply, until the connection is closed.
async fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    // A reset after the reply is what becomes of a request whose end was not read.
    let _ = socket.read_to_end(&mut reply).await;
    let reply = String::from_utf8(reply).unwrap();
    let status = reply.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    (status.unwrap_or_default(), reply)
}

fn identity() -> Identity {
    let dir = tempfile::tempdir().unwrap();
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let ca = BuiltInCa::open(&dir.path().join("state"), &domain).unwrap();
    let id = SpiffeId::workload(&domain, "shop", "web").unwrap();
    let (key, now) = (PendingKey::generate().unwrap(), SystemTime::now());
    let csr = csr::parse(&key.csr_pem(&id).unwrap()).unwrap();
    let chain = ca.sign(&csr, &id, &[], Duration::from_secs(3600), now).unwrap();
    let (svid, bundle) = key.into_svid(&chain, now).unwrap();
    Identity { svid: Arc::new(svid), bundle: Arc::new(bundle) }
}

fn endpoint(last: u8, health: Health, identity: Option<SpiffeId>) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        address: SocketAddr::from(([10, 0, 0, last], 8080)),
        health,
        weight: 1,
        priority: 0,
        identity,
        workload: "reviews-v1".into(),
        namespace: "shop".into(),
        zone: "".into(),
    })
}

fn snapshot() -> Snapshot {
    let reviews = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/reviews").unwrap();
    let cluster = Cluster {
        name: NAME.into(),
        service: "reviews".into(),
        namespace: "shop".into(),
        protocol: Protocol::Http,
        http: HttpVersion::AsDownstream,
        balancer: Policy::LeastRequest,
        connect_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(300),
        limits: Limits::default(),
        budget: RetryBudget::default(),
        failover_threshold_percent: 70,
        outlier: None,
        endpoints: Arc::new(Endpoints {
            list: vec![endpoint(1, Health::Healthy, Some(reviews)), endpoint(2, Health::Unhealthy, None)],
        }),
    };
    let route = Route {
        name: "canary".into(),
        matcher: Matcher {
            path: PathMatch::Segments("/reviews".into()),
            headers: vec![HeaderMatch {
                name: "x-canary".into(),
                value: ValueMatch::Exact("yes".into()),
                invert: false,
            }],
            query: Vec::new(),
        },
        action: Action::Weighted { clusters: vec![(Some(ClusterId(0)), 3)], total: 3 },
        changes: None,
        timeout: Some(Duration::from_millis(1500)),
        retry: RetryPolicy::default(),
    };
    let host = VirtualHost { name: NAME.into(), domains: vec![Domain::Suffix(".shop".into())], routes: vec![route] };
    let outbound = Arc::new(Outbound {
        name: NAME.into(),
        protocol: Protocol::Http,
        routes: Some(Arc::new(RouteTable::new(NAME.into(), vec![host]))),
        opaque: Some(ClusterId(0)),
    });
    let port = |mtls| {
        Arc::new(InboundPort { protocol: Protocol::Http, mtls, service: "web".into(), namespace: "shop".into() })
    };
    Snapshot {
        generation: 7,
        by_name: [(NAME.into(), Known::Service(outbound.clone())), ("gone.shop:1".into(), Known::Absent)].into(),
        by_addr: [(SocketAddr::from(([10, 96, 0, 12], 80)), Known::Service(outbound))].into(),
        clusters: vec![Arc::new(cluster)],
        ranges: None,
        inbound: Some(Arc::new(Inbound {
            ports: [(8080, port(MtlsMode::Strict))].into(),
            default: port(MtlsMode::Permissive),
        })),
    }
}

#[tokio::test]
async fn the_local_listener_binds_loopback_only() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    for address in ["0.0.0.0:0", "[::]:0", "10.0.0.1:0", "[::ffff:10.0.0.1]:0"] {
        let refused = Admin::bind(address.parse().unwrap(), any).await.unwrap_err();
        assert!(matches!(refused, AdminError::NotLoopback(_)), "{refused}");
    }
    let taken = Admin::bind(any, any).await.unwrap();
    let refused = Admin::bind(any, taken.addresses().unwrap().1).await.unwrap_err();
    assert!(refused.to_string().contains("for status"), "{refused}");
}

#[tokio::test]
async fn the_configuration_is_shown_whole() {
    let fixture = Fixture::start().await;
    let dump = fixture.json("/config_dump").await;
    let at = |pointer: &str| dump.pointer(pointer).unwrap_or_else(|| panic!("{pointer} in {dump:#}"));
    let listener = format!("/by_name/{NAME}");
    assert_eq!(at("/generation"), 7);
    assert_eq!(at(&format!("{listener}/opaque_cluster")), NAME);
    assert_eq!(at(&format!("{listener}/routes/hosts/0/domains/0")), "*.shop");
    assert_eq!(at(&format!("{listener}/routes/hosts/0/routes/0/path/segments")), "/reviews");
    assert_eq!(at(&format!("{listener}/routes/hosts/0/routes/0/headers/0/exact")), "yes");
    assert_eq!(at(&format!("{listener}/routes/hosts/0/routes/0/action/weighted/0/cluster")), NAME);
    assert_eq!(at(&format!("{listener}/routes/hosts/0/routes/0/timeout_seconds")), 1.5);
    assert_eq!(at(&format!("{listener}/routes/hosts/0/routes/0/retry/on/0")), "connect-failure");
    assert_eq!(at("/by_name/gone.shop:1"), "absent");
    assert_eq!(at("/by_address/10.96.0.12:80"), NAME);
    assert_eq!(at(&format!("/clusters/{NAME}/endpoints/0/identity")), "spiffe://cluster.local/ns/shop/sa/reviews");
    assert_eq!(at(&format!("/clusters/{NAME}/endpoints/1/health")), "unhealthy");
    assert_eq!(at("/inbound/ports/8080/mtls"), "strict");
    assert_eq!(at("/inbound/default/mtls"), "permissive");

    let (_, clusters) = fixture.local("GET", "/clusters").await;
    let line = format!(
        "{NAME} 10.0.0.1:8080 healthy weight=1 priority=0 identity=spiffe://cluster.local/ns/shop/sa/reviews \
         workload=shop/reviews-v1 zone=-\n"
    );
    assert!(clusters.contains(&line), "{clusters}");
}

#[tokio::test]
async fn the_certificate_is_shown_and_its_key_is_not() {
    let fixture = Fixture::start().await;
    assert!(fixture.json("/certs").await.pointer("/identity").unwrap().is_null());
    let identity = identity();
    fixture.keys.send_replace(Some(Arc::new(MeshTls::new(&identity, &TlsOptions::default()).unwrap())));
    let certs = fixture.json("/certs").await;
    assert_eq!(certs.pointer("/identity/spiffe_id").unwrap(), "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(certs.pointer("/identity/roots").unwrap(), 1);
    assert_eq!(certs.pointer("/identity/serial").unwrap(), &identity.svid.serial());
    assert!(identity.svid.serial().contains(':'));
    assert!(certs.pointer("/identity/not_after").unwrap().as_str().unwrap().ends_with('Z'));

    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // The tail of PKCS#8 holds the key itself, its head is the same in every key.
    let key = hex(identity.svid.key_der().get(40..60).unwrap());
    for path in ["/config_dump", "/clusters", "/certs", "/stats", "/ready", "/logging", "/"] {
        let (status, reply) = fixture.local("GET", path).await;
        assert!([200, 503].contains(&status), "{path}: {reply}");
        let lower = reply.to_lowercase().replace(':', "");
        assert!(!lower.contains("private") && !lower.contains(&key) && !lower.contains("-----begin"), "{path}");
    }
}

#[tokio::test]
async fn metrics_are_shown_on_both_listeners() {
    let fixture = Fixture::start().await;
    fixture.keys.send_replace(Some(Arc::new(MeshTls::new(&identity(), &TlsOptions::default()).unwrap())));
    fixture.facts.update(|facts| facts.nacks = 2);
    for (_, reply) in [fixture.local("GET", "/stats").await, fixture.network("GET", "/metrics").await] {
        assert!(reply.contains("content-type: text/plain; version=0.0.4"), "{reply}");
        for line in [
            "\ntulle_xds_rejected_total 2\n",
            "\ntulle_endpoints{state=\"unhealthy\"} 1\n",
            "\n# TYPE tulle_cert_expiry_timestamp_seconds gauge\ntulle_cert_expiry_timestamp_seconds 1",
            "\ntulle_build_info{version=\"",
            "\nprocess_open_fds ",
        ] {
            assert!(reply.contains(line), "{line} in {reply}");
        }
        let families: Vec<_> = reply.lines().filter(|line| line.starts_with("# TYPE ")).collect();
        let mut unique = families.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), families.len(), "each family is one group");
    }
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.network("GET", "/healthz/ready").await.0, 200);
    fixture.facts.update(|facts| {
        facts.control_plane_configured = true;
        facts.identity_error = Some("token of 10.9.9.9 refused".into());
    });
    let (status, reply) = fixture.network("GET", "/healthz/ready").await;
    assert_eq!(status, 503);
    assert!(
        reply.ends_with("waiting for a certificate\nwaiting for the rules of the workload's own ports\n"),
        "{reply}"
    );
    let (_, reply) = fixture.local("GET", "/ready").await;
    assert!(reply.contains("waiting for a certificate: token of 10.9.9.9 refused\n"), "{reply}");

    fixture.facts.update(|facts| {
        facts.inbound_config = true;
        facts.certificate_expires = Some(SystemTime::now() + Duration::from_secs(60));
    });
    assert_eq!(fixture.network("GET", "/healthz/ready").await.0, 200);
    assert_eq!(fixture.local("POST", "/drain").await.0, 200);
    let (status, reply) = fixture.network("HEAD", "/healthz/ready").await;
    assert_eq!(status, 503, "{reply}");
    assert!(reply.ends_with("\r\n\r\n"), "HEAD has no body: {reply}");
    assert!(fixture.network("GET", "/healthz/ready").await.1.ends_with("draining\n"));
}

#[tokio::test]
async fn the_network_sees_nothing_else_and_commands_nothing() {
    let fixture = Fixture::start().await;
    for path in [
        "/config_dump",
        "/clusters",
        "/certs",
        "/dns_dump",
        "/stats",
        "/logging",
        "/drain",
        "/quitquitquit",
        "/",
        "/debug/pprof",
    ] {
        assert_eq!(fixture.network("GET", path).await.0, 404, "{path}");
        assert_eq!(fixture.network("POST", path).await.0, 404, "{path}");
    }
    assert_eq!(fixture.network("POST", "/metrics").await.0, 405);
    assert!(!fixture.recorded.draining.load(Ordering::Relaxed) && !fixture.recorded.quitting.load(Ordering::Relaxed));
}

#[tokio::test]
async fn commands_are_posts() {
    let fixture = Fixture::start().await;
    for path in ["/drain", "/quitquitquit"] {
        let (status, reply) = fixture.local("GET", path).await;
        assert_eq!(status, 405);
        assert!(reply.contains("allow: POST\r\n"), "{reply}");
    }
    assert_eq!(fixture.local("DELETE", "/logging").await.0, 405);
    assert_eq!(fixture.local("POST", "/config_dump").await.0, 405);
    assert!(!fixture.recorded.draining.load(Ordering::Relaxed));
    assert_eq!(fixture.local("POST", "/quitquitquit").await.0, 200);
    assert!(fixture.recorded.quitting.load(Ordering::Relaxed));

    assert_eq!(fixture.local("POST", "/logging").await.0, 400);
    assert_eq!(fixture.local("POST", "/logging?level=!").await.0, 400);
    let (status, reply) = fixture.local("POST", "/logging?level=info,tulle_proxy=debug").await;
    assert_eq!(status, 200);
    assert!(reply.ends_with("\r\n\r\ninfo,tulle_proxy=debug\n"), "{reply}");
    assert!(fixture.local("GET", "/logging").await.1.ends_with("info,tulle_proxy=debug\n"));
}

#[tokio::test]
async fn web_pages_are_refused() {
    let fixture = Fixture::start().await;
    let refused = [
        "POST /drain HTTP/1.1\r\nhost: evil.example\r\ntulle-admin: 1\r\n\r\n",
        "GET /config_dump HTTP/1.1\r\nhost: evil.example:15000\r\n\r\n",
        "GET http://evil.example/config_dump HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /config_dump HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n",
        "POST /drain HTTP/1.1\r\nhost: localhost\r\ntulle-admin: 1\r\norigin: http://evil.example\r\n\r\n",
        "POST /drain HTTP/1.1\r\nhost: localhost\r\ntulle-admin: 1\r\nsec-fetch-site: cross-site\r\n\r\n",
        "POST /drain HTTP/1.1\r\n\r\n",
    ];
    for request in refused {
        let request = request.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        assert_eq!(ask(fixture.local, &request).await.0, 403, "{request}");
    }
    assert!(!fixture.recorded.draining.load(Ordering::Relaxed));
}

/// What a proxy passes on with a rewritten host looks local, but has no field that a proxy drops.
#[tokio::test]
async fn hostile_06_commands_need_a_field_that_does_not_pass_a_proxy() {
    let fixture = Fixture::start().await;
    for path in ["/drain", "/quitquitquit", "/logging?level=trace", "/config_dump"] {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            let (status, reply) = ask(fixture.local, &request).await;
            assert_eq!(status, 403, "{request}");
            assert!(reply.contains("tulle-admin"), "it says what to do: {reply}");
        }
    }
    let preflight = "OPTIONS /drain HTTP/1.1\r\nhost: localhost\r\norigin: http://evil.example\r\n                     access-control-request-method: POST\r\nconnection: close\r\n\r\n";
    let (status, reply) = ask(fixture.local, preflight).await;
    assert!(status >= 400 && !reply.contains("access-control-allow"), "{reply}");
    assert!(!fixture.recorded.draining.load(Ordering::Relaxed) && !fixture.recorded.quitting.load(Ordering::Relaxed));
    assert_ne!(*fixture.recorded.filter.lock().unwrap(), "trace");
    assert_eq!(crate::codec::fields::role(b"tulle-admin"), crate::codec::fields::Role::Identity);
    assert_eq!(fixture.local("POST", "/drain").await.0, 200);
}

#[tokio::test]
async fn large_requests_are_refused() {
    let fixture = Fixture::start().await;
    let fields = "host: localhost\r\ntulle-admin: 1\r\nconnection: close\r\n";
    let head = |more: &str| format!("POST /drain HTTP/1.1\r\n{fields}{more}\r\n");
    assert_eq!(ask(fixture.local, &head("content-length: 1\r\n")).await.0, 413);
    assert_eq!(ask(fixture.local, &head("transfer-encoding: chunked\r\n")).await.0, 413);
    assert_eq!(ask(fixture.local, &head(&format!("x: {}\r\n", "x".repeat(64 * 1024)))).await.0, 431);
    assert_eq!(ask(fixture.local, &head(&"x: y\r\n".repeat(100))).await.0, 431);
    assert!(!fixture.recorded.draining.load(Ordering::Relaxed));
    assert_eq!(ask(fixture.local, &head("content-length: 0\r\n")).await.0, 200);
}

#[tokio::test]
async fn mend_23_a_hook_that_nobody_answers_closes_the_connection() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let check = Check::Http { tls: false, page: Reference::of_probe("/"), headers: Vec::new() };
    let hook = Ok(Probe { check, port: nobody, timeout: None });
    let probes = [("/app-health/web/prestop".to_owned(), hook)].into();
    let application = Application { probes, ..Application::default() };
    let fixture = Fixture::with(application).await;
    let mut socket = TcpStream::connect(fixture.status).await.unwrap();
    socket.write_all(b"GET /app-health/web/prestop HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut reply = Vec::new();
    let _ = socket.read_to_end(&mut reply).await;
    assert_eq!(String::from_utf8_lossy(&reply), "", "a response of any kind would be a success");
    assert_eq!(fixture.network("GET", "/app-health/web/livez").await.0, 404);
}
