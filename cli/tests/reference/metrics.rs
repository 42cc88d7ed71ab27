//! Metrics of the programs, as the programs themselves write them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tulle_identity::csr::{self, PendingKey};
use tulle_identity::sign::{BuiltInCa, Signer as _};
use tulle_identity::spiffe::{SpiffeId, TrustDomain};
use tulle_identity::svid::Identity;
use tulle_identity::tls::{MeshTls, TlsOptions};
use tulle_proxy::admin::{Admin, AdminHandles, Application, Control};
use tulle_proxy::base::failure::Reason;
use tulle_proxy::base::protocol::Protocol;
use tulle_proxy::config::Snapshot;
use tulle_proxy::config::bootstrap::{Bootstrap, Dns, Reference, Scrape};
use tulle_proxy::config::demand::Demand;
use tulle_proxy::config::status::Status;
use tulle_proxy::dns::{self, DnsView};
use tulle_proxy::drain::{Drain, Held};
use tulle_proxy::telemetry::counters::Outcome;
use tulle_proxy::telemetry::labels::{Destination, Direction, Party, RequestLabels, TcpLabels};
use tulle_proxy::telemetry::{MAX_SERIES, Telemetry};

use crate::table::Table;

#[test]
fn metrics() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut body = String::new();
    for (name, about, text) in [
        ("tulle-proxy", "`/metrics` on port 15020 of each pod.", runtime.block_on(proxy())),
        (
            "tulle-control-plane",
            "`/metrics` on port 15014.",
            tulle_control_plane::metrics::example().expect("metrics of the control plane"),
        ),
        (
            "tulle-injector",
            "`/metrics` on port 15014.",
            tulle_injector::metrics::example().expect("metrics of the injector"),
        ),
    ] {
        let _ = write!(body, "## {name}\n\n{about}\n\n{}\n", section(&text));
    }
    let intro = "In Prometheus' text format; times in seconds, sizes in bytes. Every set of labels has a bound: above 10,000 series a\n\
                 proxy counts what is new under the label values `overflow`, and series that nothing happened to for 15 minutes go.\n\
                 Labels come from configuration and verified certificates, never from paths or hosts of requests. The values of `reason`\n\
                 are those of [reasons.md](reasons.md).";
    super::page("metrics.md", "Metrics", intro, &body);
}

/// One family of a text.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    labels: Vec<String>,
}

fn section(text: &str) -> String {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            name.clone_into(&mut family);
            families.entry(family.clone()).or_default().help = help.trim_end_matches('.').to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((_, labels)) = line.split_once('{') {
            let names =
                labels.split("\",").filter_map(|pair| pair.split_once('=')).map(|(name, _)| format!("`{name}`"));
            families.entry(family.clone()).or_default().labels = names.filter(|name| name != "`le`").collect();
        }
    }
    let mut table = Table::new(&["metric", "kind", "labels", "meaning"]);
    for (name, family) in families {
        // OpenMetrics leaves the suffix off the family's name.
        let suffix = match family.kind.as_str() {
            "counter" if !name.ends_with("_total") => "_total",
            "info" => "_info",
            _ => "",
        };
        assert!(!family.help.is_empty(), "{name} has a help text");
        table.row(&[&format!("`{name}{suffix}`"), &family.kind, &family.labels.join(", "), &family.help]);
    }
    table.text()
}

/// DNS that was asked nothing.
async fn dns() -> DnsView {
    let bootstrap = Arc::new(Bootstrap::parse(["tulle-proxy"]).expect("defaults"));
    let (_names, names) = watch::channel(Arc::default());
    let deps = dns::Deps { bootstrap, names, demand: Demand::channel().0, status: Status::default() };
    let settings = Dns { listen: Vec::new(), nameservers: Vec::new(), search: Vec::new(), ndots: 1 };
    dns::Dns::bind(&settings, deps).await.expect("nothing to bind").view()
}

/// The page of a proxy to which one of everything has happened.
async fn proxy() -> String {
    let telemetry = Telemetry::new(MAX_SERIES, None);
    happenings(&telemetry);
    let (_snapshot, snapshot) = watch::channel(Arc::new(Snapshot::default()));
    let (_keys, keys) = watch::channel(Some(Arc::new(MeshTls::new(&identity(), &TlsOptions::default()).expect("TLS"))));
    let closed = SocketAddr::from(([127, 0, 0, 1], 0));
    let handles = AdminHandles {
        snapshot,
        keys,
        status: Status::default(),
        telemetry,
        application: Application {
            scrape: Some(Scrape { port: 1, page: Reference::of_probe("/metrics") }),
            ..Application::default()
        },
        dns: Some(dns().await),
        control: Box::new(Idle),
    };
    let admin = Admin::bind(closed, closed).await.expect("listeners");
    let (_, status) = admin.addresses().expect("addresses");
    let ask = async {
        let mut socket = tokio::net::TcpStream::connect(status).await.expect("the status listener");
        socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("a request");
        let mut reply = String::new();
        socket.read_to_string(&mut reply).await.expect("a reply");
        reply.split_once("\r\n\r\n").expect("a body").1.to_owned()
    };
    tokio::select! {
        text = ask => text,
        () = admin.run(Arc::new(handles)) => panic!("the admin listeners ended"),
    }
}

fn happenings(telemetry: &Arc<Telemetry>) {
    let worker = telemetry.worker();
    let labels = RequestLabels {
        direction: Direction::Inbound,
        source: Party::default(),
        destination: Destination::default(),
        route: "".into(),
        protocol: Protocol::Http,
        tls: true,
    };
    let RequestLabels { direction, source, destination, tls, .. } = labels.clone();
    worker.requests(&labels).record(&Outcome {
        status: 200,
        grpc_status: None,
        reason: Some(Reason::Draining),
        duration: Duration::ZERO,
        request_bytes: 0,
        response_bytes: 0,
    });
    let tcp = worker.tcp(&TcpLabels { direction, source, destination, tls });
    tcp.opened();
    tcp.closed(Some(Reason::Draining), Duration::ZERO);
    worker.events().tls_handshake(direction, None);
    worker.events().connection_failed(direction, Reason::Draining);
}

fn identity() -> Identity {
    let state = tempfile::tempdir().expect("a directory");
    let domain = TrustDomain::parse("cluster.local").expect("a domain");
    let authority = BuiltInCa::open(&state.path().join("state"), &domain).expect("an authority");
    let id = SpiffeId::workload(&domain, "shop", "web").expect("an id");
    let (key, now) = (PendingKey::generate().expect("a key"), SystemTime::now());
    let request = csr::parse(&key.csr_pem(&id).expect("a request")).expect("a request");
    let chain = authority.sign(&request, &id, &[], Duration::from_secs(3600), now).expect("a certificate");
    let (svid, bundle) = key.into_svid(&chain, now).expect("an identity");
    Identity { svid: Arc::new(svid), bundle: Arc::new(bundle) }
}

/// Takes no commands.
#[derive(Debug)]
struct Idle;

impl Control for Idle {
    fn drain(&self) {}

    fn quit(&self) {}

    fn hold(&self) -> Held {
        Drain::new(0).hold()
    }

    fn is_draining(&self) -> bool {
        false
    }

    fn log_filter(&self) -> String {
        String::new()
    }

    fn set_log_filter(&self, _: &str) -> Result<(), String> {
        Ok(())
    }
}
