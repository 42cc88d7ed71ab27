//! gRPC's Python library as a client without a proxy: it finds the instances of a service by the control plane itself
//! and follows them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tulle_testing::netns::Running;
use tulle_testing::{foreign, wait};

use crate::mesh::{self, Mesh, SETTLED};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/grpc.py");

fn script(python: &Path, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
    let mut command = Command::new(python);
    command.arg(SCRIPT).args(arguments);
    mesh::program(name, command, environment)
}

async fn serve(python: &Path, name: &str, address: SocketAddr) -> Running {
    let server = script(python, name, &["serve", &address.to_string(), name], &[]);
    wait::until(&format!("{name} to serve"), || {
        assert!(!server.ended(), "{name} ended");
        server.lines().iter().any(|line| line == "serving")
    })
    .await;
    server
}

/// Waits until the answers so far, none of them a failure, are as `enough` wants.
async fn answers(client: &Running, what: &str, enough: impl Fn(&[String]) -> bool) {
    wait::until(what, || {
        let lines = client.lines();
        assert!(!client.ended(), "the client ended: {lines:?}");
        let failed = lines.iter().find(|line| line.starts_with("failed"));
        assert!(failed.is_none(), "{failed:?}");
        let answers: Vec<_> = lines.into_iter().filter(|line| line.starts_with("answer of")).collect();
        enough(&answers)
    })
    .await;
}

#[tokio::test]
async fn a_client_without_a_proxy_follows_the_instances() {
    let Some(python) = foreign::python() else { return };
    let (one, two) = (mesh::instance(), mesh::instance());
    let _one = serve(&python, "one", one).await;
    let _two = serve(&python, "two", two).await;
    let mesh = Mesh::start("grpc", &[one, two]).await;
    let bootstrap = format!(
        r#"{{"xds_servers": [{{"server_uri": "{}", "channel_creds": [{{"type": "insecure"}}],
            "server_features": ["xds_v3"]}}], "node": {{"id": "client.demo"}}}}"#,
        mesh.address()
    );
    let target = "xds:///greeter.demo.svc.cluster.local:80";
    let client = script(&python, "client", &["call", target], &[("GRPC_XDS_BOOTSTRAP_CONFIG", &bootstrap)]);
    let all = |answers: &[String], name: &str| answers.iter().all(|answer| answer == &format!("answer of {name}"));
    let any = |answers: &[String], name: &str| answers.iter().any(|answer| answer == &format!("answer of {name}"));
    answers(&client, "both to answer", |answers| any(answers, "one") && any(answers, "two")).await;

    mesh.set(&[two]);
    let settled = |answers: &[String], name| answers.len() > SETTLED && all(&answers[answers.len() - SETTLED..], name);
    answers(&client, "the one that is left to answer alone", |answers| settled(answers, "two")).await;

    mesh.set(&[one]);
    answers(&client, "the other, back again, to answer alone", |answers| settled(answers, "one")).await;
}
