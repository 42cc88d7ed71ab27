//! Envoy as a peer: mutual TLS on the wire between a real Envoy and a Tulle sidecar, each way round. Envoy takes its trust
//! bundle from the control plane as a secret, and its certificate, which the mesh's authority signed, from files.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tulle_control_plane::app::{self, Handle};
use tulle_control_plane::settings::Settings;
use tulle_identity::csr;
use tulle_identity::sign::{BuiltInCa, Signer as _};
use tulle_identity::spiffe::{SpiffeId, TrustDomain};
use tulle_identity::token::TokenIssuer;
use tulle_testing::client::{Raw, raw};
use tulle_testing::sidecar::{Builder, Sidecar};
use tulle_testing::upstream::{Reply, Upstream};
use tulle_testing::{foreign, forge, ports, wait};

use crate::mesh;

/// Port at which every workload receives.
const PORT: u16 = 8080;

const HOUR: Duration = Duration::from_secs(3600);

/// A control plane, its authority, and a folder for what others need of it.
struct Plane {
    dir: TempDir,
    handle: Handle,
}

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").expect("a trust domain")
}

fn id(name: &str) -> SpiffeId {
    SpiffeId::workload(&domain(), "demo", name).expect("an id")
}

impl Plane {
    async fn start() -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        std::fs::create_dir(dir.path().join("config")).expect("a folder of manifests");
        let mut settings = Settings::new(dir.path().join("config"), dir.path().join("state"), domain());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        (settings.xds_address, settings.admin_address, settings.xds_plaintext_address) = (any, any, Some(any));
        Self { handle: app::start(settings).await.expect("the control plane starts"), dir }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Workloads by name and address, each with a service of its name whose callers must be of the mesh.
    fn tell(&self, workloads: &[(&str, IpAddr)]) {
        let of = |(name, ip): &(&str, IpAddr)| {
            format!(
                "---\napiVersion: v1\nkind: Service\n\
                 metadata: {{name: {name}, namespace: demo, annotations: {{tulle.io/mtls: strict}}}}\n\
                 spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: {PORT}}}]}}\n\
                 ---\napiVersion: tulle.io/v1alpha1\nkind: Workload\n\
                 metadata: {{name: {name}-1, namespace: demo, labels: {{app: {name}}}}}\n\
                 spec: {{addresses: [{ip}], serviceAccount: {name}, workload: {name}}}\n"
            )
        };
        let new = self.file("mesh.yaml", &workloads.iter().map(of).collect::<String>());
        std::fs::rename(new, self.dir.path().join("config/mesh.yaml")).expect("manifests are replaced");
    }

    fn sidecar(&self, name: &str) -> Builder {
        let issuer = TokenIssuer::open(&self.state()).expect("the control plane has made its keys");
        let token = issuer.issue(&id(name), HOUR, SystemTime::now()).expect("a token");
        let file = self.file(&format!("{name}.token"), &token);
        Sidecar::of("demo", name)
            .arg("--control-plane", &self.handle.xds_addr.to_string())
            .arg("--trust-bundle", &self.state().join("trust-bundle.pem").to_string_lossy())
            .arg("--token", &file.to_string_lossy())
            .without_waiting()
    }

    /// Certificate and key of a workload that makes its own request, as PEM files.
    fn certificate(&self, name: &str) -> (PathBuf, PathBuf) {
        let (key, mut params) = (KeyPair::generate().expect("a key"), CertificateParams::default());
        params.subject_alt_names = vec![forge::uri(id(name).as_str())];
        let request = params.serialize_request(&key).and_then(|request| request.pem()).expect("a request");
        let request = csr::parse(&request).expect("a request that the authority takes");
        let authority = BuiltInCa::open(&self.state(), &domain()).expect("the authority");
        let chain = authority.sign(&request, &id(name), &[], HOUR, SystemTime::now()).expect("a certificate");
        (self.file("envoy.pem", &chain.concat()), self.file("envoy.key", &key.serialize_pem()))
    }

    /// What a person would write to have Envoy be a member: it follows the control plane, and receives from `caller`.
    fn bootstrap(&self, outbound: SocketAddr, inbound: SocketAddr, caller: &SpiffeId) -> PathBuf {
        let (certificate, key) = self.certificate("envoy");
        let control_plane = self.handle.plaintext_addr.expect("it was asked for");
        let quoted = |path: &Path| format!("'{}'", path.display());
        let text = format!(
            "
node: {{id: envoy.demo, cluster: demo, metadata: {{OUTBOUND_ADDRESS: '{outbound}'}}}}
dynamic_resources:
  lds_config: {{ads: {{}}, resource_api_version: V3}}
  cds_config: {{ads: {{}}, resource_api_version: V3}}
  ads_config:
    api_type: GRPC
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: control-plane}}}}]
static_resources:
  secrets:
  - name: default
    tls_certificate: {{certificate_chain: {{filename: {certificate}}}, private_key: {{filename: {key}}}}}
  clusters:
  - name: control-plane
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: control-plane
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {control_plane}}}}}]}}]
  listeners:
  - name: inbound
    address: {inbound}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}
            alpn_protocols: [istio-http/1.1, istio]
            tls_certificate_sds_secret_configs: [{{name: default}}]
            combined_validation_context:
              default_validation_context:
                match_typed_subject_alt_names: [{{san_type: URI, matcher: {{exact: '{caller}'}}}}]
              validation_context_sds_secret_config:
                {{name: ROOTCA, sds_config: {{ads: {{}}, resource_api_version: V3}}}}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: inbound
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            response_headers_to_add: [{{header: {{key: x-peer, value: '%DOWNSTREAM_PEER_URI_SAN%'}}}}]
            virtual_hosts:
            - {{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: envoy}}}}}}]}}
",
            certificate = quoted(&certificate),
            key = quoted(&key),
            control_plane = socket(control_plane),
            inbound = socket(inbound),
        );
        self.file("envoy.yaml", &text)
    }
}

fn socket(address: SocketAddr) -> String {
    format!("{{socket_address: {{address: {}, port_value: {}}}}}", address.ip(), address.port())
}

#[tokio::test]
async fn envoy_and_a_sidecar_know_each_other() {
    const ENVOY: &str = "envoy.demo.svc.cluster.local:80";
    let Some(program) = foreign::envoy() else { return };
    let (plane, app) = (Plane::start().await, Upstream::http1(|_| Reply::ok("sidecar")).await);
    let server = plane.sidecar("greeter").receive(PORT, app.addr()).start().await;
    let client = plane.sidecar("client").send(ENVOY).start().await;
    let (outbound, inbound) = (SocketAddr::new(ports::loopback(), 15001), mesh::instance());
    plane.tell(&[("greeter", server.status().ip()), ("client", client.status().ip()), ("envoy", inbound.ip())]);
    for sidecar in [&server, &client] {
        sidecar.process().ready(sidecar.status(), "/healthz/ready").await;
    }
    let mut command = Command::new(program);
    command.arg("--config-path").arg(plane.bootstrap(outbound, inbound, &id("client")));
    command.args(["--disable-hot-restart", "--concurrency", "1", "-l", "warning"]);
    let envoy = mesh::program("envoy", command, &[]);

    // From Envoy to the sidecar, whose port takes members of the mesh only.
    let answer = wait::until_ready("Envoy to reach the sidecar", || async {
        assert!(!envoy.ended(), "Envoy ended");
        let mut socket = Raw::over(tokio::net::TcpStream::connect(outbound).await.ok()?);
        let request = raw::request("GET", "/hello", "greeter.demo", &[("connection", "close")], &[]);
        socket.try_send(request).await.ok()?;
        socket.try_response("GET").await.filter(|response| response.status == 200)
    })
    .await;
    assert_eq!(answer.text(), "sidecar");
    let seen = app.request(0).await;
    let peer = seen.header("x-forwarded-client-cert").unwrap_or_default();
    assert!(peer.contains(&format!("URI={}", id("envoy"))), "the application is told of {peer:?}");

    // From a sidecar to Envoy, which takes this one caller only.
    let answer = wait::until_ready("the sidecar to reach Envoy", || async {
        let response = raw::get(client.outbound(ENVOY), "/hello", "envoy.demo").await;
        (response.status == 200).then_some(response)
    })
    .await;
    assert_eq!((answer.header("x-peer"), answer.text()), (Some(id("client").as_str()), "envoy".to_owned()));
}
