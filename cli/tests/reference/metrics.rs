//! Metrics: the proxy's as a running one gives them, the others' from where they are registered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tulle_testing::certs::Ca;
use tulle_testing::client::raw;
use tulle_testing::control::Control;
use tulle_testing::{ports, wait};

use crate::table::Table;

/// Type and help by name.
type Families = BTreeMap<String, (String, String)>;

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a proxy gives that has its certificate.
async fn of_proxy() -> Families {
    let control = Control::start(Arc::new(Ca::new())).await;
    let ca = control.ca().expect("a control plane with an authority");
    let ip = ports::loopback();
    let (admin, status) = (SocketAddr::new(ip, 15000), SocketAddr::new(ip, 15020));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tulle"));
    command.args(["proxy", "--namespace=shop", "--workload=web", "--service-account=web"]);
    command.arg(format!("--admin={admin}")).arg(format!("--status={status}"));
    command.arg(format!("--control-plane={}", control.addr()));
    command.arg("--trust-bundle").arg(ca.bundle_file());
    command.arg("--token").arg(ca.token_file("shop", "web"));
    let _proxy = Ends(command.stderr(Stdio::null()).spawn().expect("the command starts"));
    wait::until_ready("the metrics of a proxy with a certificate", || async {
        tokio::net::TcpStream::connect(status).await.ok()?;
        let families = scraped(&raw::get(status, "/metrics", "localhost").await.text());
        families.contains_key("tulle_cert_expiry_timestamp_seconds").then_some(families)
    })
    .await
}

#[tokio::test]
async fn metrics() {
    let proxy = of_proxy().await;
    assert!(proxy.len() > 30, "{proxy:?}");
    let mut body = String::new();
    for (title, families) in [
        ("Proxy, port 15020", proxy),
        ("Control plane, port 15014", registered("control-plane/src/metrics.rs")),
        ("Injector, port 15014", registered("injector/src/metrics.rs")),
    ] {
        let mut table = Table::new(&["metric", "type", "meaning"]);
        for (name, (kind, help)) in families {
            table.row(&[&format!("`{name}`"), &kind, &help]);
        }
        body = format!("{body}## {title}\n\n{}\n", table.text());
    }
    let intro = "Times are in seconds, sizes in bytes. Prometheus finds the ports by the annotations `prometheus.io/scrape` and `/port` of the\n\
                 pods. A family without a sample may be absent from a scrape.";
    super::page("metrics.md", "Metrics", intro, &body);
}

/// Families of a scrape.
fn scraped(text: &str) -> Families {
    let mut families = Families::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_default().1 = help.replace("\\\\", "\\");
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_default().0 = kind.to_owned();
        }
    }
    families
}

/// Families that a file registers: `r.register("name", "help", self.field.clone())`, where the field's type is the kind.
fn registered(path: &str) -> Families {
    let source = std::fs::read_to_string(super::root().join(path)).expect("a file of the repository");
    let mut families = Families::new();
    for call in source.split("r.register(").skip(1) {
        let texts: Vec<&str> = call.split('"').collect();
        let [_, name, _, help, rest, ..] = texts.as_slice() else { panic!("{path}: not a registration: {call}") };
        let field = rest.split("self.").nth(1).and_then(|rest| rest.split('.').next()).unwrap_or_default();
        let line = source.lines().find(|line| line.contains(&format!(" {field}: "))).unwrap_or_default();
        let (name, kind) = match field {
            "" => (format!("tulle_{name}_info"), "info"),
            _ if line.contains("Counter") => (format!("tulle_{name}_total"), "counter"),
            _ if line.contains("Histogram") => (format!("tulle_{name}"), "histogram"),
            _ => (format!("tulle_{name}"), "gauge"),
        };
        families.insert(name, (kind.to_owned(), format!("{help}.")));
    }
    assert!(families.len() >= 4, "{path}: {families:?}");
    families
}
