//! Envoy as a client: listener, routes, clusters and endpoints come from the control plane, by the state of the world
//! and by differences, and are followed.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tulle_testing::client::{Raw, raw};
use tulle_testing::netns::Running;
use tulle_testing::upstream::http1::Options;
use tulle_testing::upstream::{Reply, Upstream};
use tulle_testing::{foreign, ports, wait};

use crate::mesh::{self, Mesh, SETTLED};

/// What a person would write to have Envoy follow Tulle's control plane.
fn bootstrap(api_type: &str, control_plane: SocketAddr, outbound: SocketAddr) -> String {
    format!(
        "
node:
  id: client.demo
  cluster: demo
  metadata: {{OUTBOUND_ADDRESS: '{outbound}', NAMESPACE: demo}}
dynamic_resources:
  lds_config: {{ads: {{}}, resource_api_version: V3}}
  cds_config: {{ads: {{}}, resource_api_version: V3}}
  ads_config:
    api_type: {api_type}
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: control-plane}}}}]
static_resources:
  clusters:
  - name: control-plane
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: control-plane
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {ip}, port_value: {port}}}}}}}
",
        ip = control_plane.ip(),
        port = control_plane.port(),
    )
}

async fn origin(name: &'static str) -> (Upstream, SocketAddr) {
    let address = mesh::instance();
    let options = Options { at: Some(address), ..Options::default() };
    let origin = Upstream::http1_with(options, move |_| Reply::ok(name)).await;
    (origin, address)
}

/// One request; the body of a 200, and nothing where Envoy has no listener, route or endpoint yet.
async fn ask(envoy: &Running, outbound: SocketAddr) -> Option<String> {
    ask_for(envoy, outbound, "greeter.demo").await
}

/// As [`ask`], for this host.
async fn ask_for(envoy: &Running, outbound: SocketAddr, host: &str) -> Option<String> {
    assert!(!envoy.ended(), "Envoy ended");
    let mut client = Raw::over(TcpStream::connect(outbound).await.ok()?);
    client.try_send(raw::request("GET", "/hello", host, &[("connection", "close")], &[])).await.ok()?;
    let response = client.try_response("GET").await?;
    (response.status == 200).then(|| response.text())
}

/// Waits until `name` gave [`SETTLED`] answers in a row.
async fn settled(envoy: &Running, outbound: SocketAddr, name: &str) {
    wait::until_ready(&format!("{name} to answer alone"), || async {
        for _ in 0..SETTLED {
            ask(envoy, outbound).await.filter(|answer| answer == name)?;
        }
        Some(())
    })
    .await;
}

async fn follows(api_type: &str) {
    let Some(program) = foreign::envoy() else { return };
    let ((first, one), (second, two)) = (origin("one").await, origin("two").await);
    let mesh = Mesh::start("http", &[one]).await;
    let dir = TempDir::new().expect("a temporary folder");
    let file = dir.path().join("envoy.yaml");
    let outbound = SocketAddr::new(ports::loopback(), 15001);
    std::fs::write(&file, bootstrap(api_type, mesh.address(), outbound)).expect("a bootstrap file");
    let mut command = Command::new(program);
    command.arg("--config-path").arg(&file).args(["--disable-hot-restart", "--concurrency", "1", "-l", "warning"]);
    let envoy = mesh::program("envoy", command, &[]);

    settled(&envoy, outbound, "one").await;
    let request = first.request(0).await;
    assert_eq!((request.path(), request.header("host")), ("/hello", Some("greeter.demo")));

    for host in ["greeter.demo.", "Greeter.Demo.svc.", "greeter.demo.svc.cluster.local.", "greeter"] {
        assert_eq!(ask_for(&envoy, outbound, host).await.as_deref(), Some("one"), "{host}");
    }

    mesh.set(&[one, two]);
    wait::until_ready("the new one to answer", || async {
        ask(&envoy, outbound).await.filter(|answer| answer == "two")
    })
    .await;
    assert_eq!(second.request(0).await.path(), "/hello");

    mesh.set(&[two]);
    settled(&envoy, outbound, "two").await;
}

#[tokio::test]
async fn envoy_follows_the_state_of_the_world() {
    follows("GRPC").await;
}

#[tokio::test]
async fn envoy_follows_differences() {
    follows("DELTA_GRPC").await;
}
