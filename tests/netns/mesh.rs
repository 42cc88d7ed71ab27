//! A mesh over captured traffic: applications that know nothing of it, a control plane in a pod of its own, real redirect
//! rules, and a look at the wire.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tulle_testing::bin_path::binary;
use tulle_testing::netns::{self, Network, Nginx, PROXY_UID, Pod, Running, Server};

const TOOLS: [&str; 4] = ["nft", "iptables-restore", "curl", "nginx"];
const DEADLINE: Duration = Duration::from_secs(60);
const NAME: &str = "web.shop.svc.cluster.local";
pub(crate) const PAGE: &str = "marker-of-the-page";
pub(crate) const SERVICE_V4: &str = "10.96.0.12";
pub(crate) const SERVICE_V6: &str = "fd96::12";

/// Pods `client` and `server` with sidecars and redirect rules, `stranger` with neither, and the control plane's.
/// Fields are dropped in order: processes before the pods they run in.
pub(crate) struct Mesh {
    _applications: (Nginx, Server),
    _sidecars: Vec<Running>,
    control_plane: Option<Running>,
    _control: Pod,
    pub(crate) client: Pod,
    server: Pod,
    stranger: Pod,
    net: Network,
    work: tempfile::TempDir,
}

impl Mesh {
    fn start(mode: &str, mtls: &str) -> anyhow::Result<Self> {
        Self::start_with(mode, mtls, None)
    }

    /// With `resolv_conf`, the client knows no name by itself, and asks for all by that file with its DNS captured.
    pub(crate) fn start_with(mode: &str, mtls: &str, resolv_conf: Option<&str>) -> anyhow::Result<Self> {
        let net = Network::new()?;
        let (control, client) = (net.pod("control")?, net.pod("client")?);
        let (server, stranger) = (net.pod("server")?, net.pod("stranger")?);
        let work = tempfile::tempdir()?;
        std::fs::create_dir(work.path().join("config"))?;
        write_manifests(&work.path().join("config"), &client, &server, mtls)?;
        let xds = SocketAddr::new(control.ip(false), 15012);
        let mut command = control.command(binary("tulle-control-plane", "tulle-control-plane")?);
        command.args(["--config-dir", &path(&work, "config"), "--state-dir", &path(&work, "state")]);
        command.args(["--xds-address", &xds.to_string(), "--admin-address", "127.0.0.1:15014"]);
        let control_plane = Running::start("control-plane", command)?;
        control_plane.line("serves", DEADLINE)?;
        let applications = (Nginx::start(&server, 8080, PAGE)?, Server::greeter(&server, 2525, "220 mail")?);
        let mut sidecars = Vec::new();
        for (pod, account) in [(&client, "client"), (&server, "web")] {
            let asking = resolv_conf.filter(|_| account == "client");
            let (mut flags, mut rules) = (Vec::new(), vec!["--mode", mode]);
            if let Some(text) = asking {
                pod.resolv_conf(text)?;
                flags.push("--dns-capture");
                rules.extend(["--dns-port", "15053"]);
            } else {
                pod.hosts(&[(SERVICE_V4.parse()?, NAME)])?;
            }
            sidecars.push(sidecar(pod, account, &work, xds, &flags)?);
            ready(pod)?;
            pod.redirect(&rules)?;
        }
        Ok(Self {
            _applications: applications,
            _sidecars: sidecars,
            control_plane: Some(control_plane),
            _control: control,
            client,
            server,
            stranger,
            net,
            work,
        })
    }
}

#[test]
fn hostile_07_silence_is_no_licence_for_plaintext() -> anyhow::Result<()> {
    const TOKEN: &str = "bearer-token-of-the-client";
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let mut mesh = Mesh::start("nft", "permissive")?;
    let _beyond = Nginx::start(&mesh.stranger, 8081, PAGE)?;
    // The proxies have their configuration; of the service nothing was ever asked.
    mesh.control_plane = None;
    let wire = mesh.net.capture()?;
    let ask = |address: IpAddr, port: u16| {
        let header = format!("authorization: Bearer {TOKEN}");
        curl(&mesh.client, &["--header", &header, &url(address, port)])
    };
    // A service, one that nobody has heard of yet beside it, and a workload by its own address; again at once, since
    // what was waited for once is not waited for again.
    let unheard = ["10.96.0.77".parse()?, "fd96::77".parse()?];
    for address in [SERVICE_V4.parse()?, SERVICE_V6.parse()?].into_iter().chain(unheard) {
        for _ in 0..2 {
            let refused = ask(address, 80).err().context("a service was reached without an answer")?;
            ensure!(!format!("{refused:#}").contains("timed out"), "{address}: {refused:#}");
        }
    }
    for family in [false, true] {
        ensure!(ask(mesh.server.ip(family), 8080).is_err(), "a workload was reached without an answer");
    }
    let seen = wire.stop()?;
    ensure!(!seen.contain(TOKEN.as_bytes()), "the token crossed the wire in plain");
    // The world beyond the mesh goes on.
    for family in [false, true] {
        let page = ask(mesh.stranger.ip(family), 8081).context("beyond the mesh")?;
        ensure!(page.contains(PAGE), "{page}");
    }
    Ok(())
}

fn path(work: &tempfile::TempDir, name: &str) -> String {
    work.path().join(name).to_string_lossy().into_owned()
}

fn sidecar(
    pod: &Pod,
    account: &str,
    work: &tempfile::TempDir,
    xds: SocketAddr,
    flags: &[&str],
) -> anyhow::Result<Running> {
    let token = PathBuf::from(path(work, &format!("{account}.token")));
    let created = std::process::Command::new(binary("tulle", "tulle")?)
        .args(["token", "create", "--namespace", "shop", "--service-account", account, "--state-dir"])
        .arg(path(work, "state"))
        .output()?;
    ensure!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    std::fs::write(&token, created.stdout)?;
    let mut command = pod.command_as(PROXY_UID, binary("tulle-proxy", "tulle-proxy")?);
    command.args(["--capture", "--namespace", "shop", "--workload", account, "--service-account", account]);
    command.args(["--control-plane", &xds.to_string(), "--trust-bundle", &path(work, "state/trust-bundle.pem")]);
    command.args(["--token", &token.to_string_lossy(), "--access-log", "text"]);
    command.args(["--pod-ip", &pod.ip(false).to_string(), "--pod-ip", &pod.ip(true).to_string()]);
    command.args(flags);
    Running::start(account, command)
}

fn ready(pod: &Pod) -> anyhow::Result<()> {
    curl(pod, &["--retry", "60", "--retry-delay", "1", "--retry-all-errors", "http://127.0.0.1:15020/healthz/ready"])
        .context("the sidecar did not become ready")?;
    Ok(())
}

/// What `curl` prints; an error when it fails, or the status is one.
pub(crate) fn curl(pod: &Pod, args: &[&str]) -> anyhow::Result<String> {
    let done = pod.output("curl", &[&["--silent", "--show-error", "--fail", "--max-time", "20"], args].concat())?;
    ensure!(done.success, "curl {args:?}: {}", done.stderr);
    Ok(done.stdout)
}

fn write_manifests(dir: &std::path::Path, client: &Pod, server: &Pod, mtls: &str) -> anyhow::Result<()> {
    let workload = |name: &str, pod: &Pod| {
        format!(
            "---\napiVersion: tulle.io/v1alpha1\nkind: Workload\nmetadata: {{name: {name}-1, namespace: shop, labels: {{app: {name}}}}}\n\
             spec: {{addresses: [\"{}\", \"{}\"], serviceAccount: {name}, workload: {name}}}\n",
            pod.ip(false),
            pod.ip(true)
        )
    };
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop, annotations: {{tulle.io/mtls: {mtls}}}}}\n\
         spec:\n  clusterIP: {SERVICE_V4}\n  clusterIPs: [{SERVICE_V4}, \"{SERVICE_V6}\"]\n  selector: {{app: web}}\n  ports:\n  \
         - {{name: http, port: 80, targetPort: 8080}}\n  - {{name: tcp-mail, port: 25, targetPort: 2525}}\n{}{}",
        workload("web", server),
        workload("client", client)
    );
    let new = dir.join(".mesh.yaml.new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, dir.join("mesh.yaml"))?;
    Ok(())
}

fn url(host: IpAddr, port: u16) -> String {
    format!("http://{}/", SocketAddr::new(host, port))
}

fn over_mutual_tls(mode: &str) -> anyhow::Result<()> {
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let mesh = Mesh::start(mode, "strict")?;
    // One capture for both: the second request may go over the connection, and so the handshake, of the first.
    let wire = mesh.net.capture()?;
    for (family, service) in [(false, SERVICE_V4), (true, SERVICE_V6)] {
        let page = curl(&mesh.client, &[&url(service.parse()?, 80)])?;
        ensure!(page.contains(PAGE), "{mode}: {page}");
        // Strict: who has no identity gets nothing, by whatever way.
        let refused = curl(&mesh.stranger, &[&url(mesh.server.ip(family), 8080)]);
        ensure!(refused.is_err(), "{mode}: a stranger read {refused:?}");
    }
    let seen = wire.stop()?;
    let shaken = |family| seen.between(mesh.client.ip(family), mesh.server.ip(family)).show_tls_handshake();
    ensure!(shaken(false) || shaken(true), "{mode}: no TLS on the wire");
    ensure!(!seen.contain(PAGE.as_bytes()), "{mode}: the page crossed the wire in plain");
    ensure!(curl(&mesh.client, &[&format!("http://{NAME}/")])?.contains(PAGE), "{mode}: by name");
    ensure!(curl(&mesh.client, &[&url(mesh.server.ip(false), 8080)])?.contains(PAGE), "{mode}: by pod address");
    // A service that is ourselves, and ports of the proxy that nobody is to dial.
    ensure!(curl(&mesh.server, &[&url(SERVICE_V4.parse()?, 80)])?.contains(PAGE), "{mode}: the server calls itself");
    for port in [15001, 15006] {
        ensure!(curl(&mesh.stranger, &[&url(mesh.client.ip(false), port)]).is_err(), "{mode}: {port} answers");
    }
    // The server speaks first.
    let mail = format!("exec 3<>/dev/tcp/{SERVICE_V4}/25 && head -c 8 <&3");
    let greeting = mesh.client.output("timeout", &["20", "bash", "-c", &mail])?;
    ensure!(greeting.stdout == "220 mail", "{mode}: {greeting:?}");
    Ok(())
}

#[test]
fn captured_by_nftables_traffic_crosses_the_wire_in_mutual_tls() -> anyhow::Result<()> {
    over_mutual_tls("nft")
}

#[test]
fn captured_by_iptables_traffic_crosses_the_wire_in_mutual_tls() -> anyhow::Result<()> {
    over_mutual_tls("iptables")
}

#[test]
fn a_permissive_port_serves_strangers_and_probes_and_the_change_needs_no_restart() -> anyhow::Result<()> {
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let mesh = Mesh::start("nft", "strict")?;
    let probe = url(mesh.server.ip(false), 8080);
    ensure!(curl(&mesh.stranger, &[&probe]).is_err(), "strict comes first");
    write_manifests(&mesh.work.path().join("config"), &mesh.client, &mesh.server, "permissive")?;
    let page = curl(&mesh.stranger, &["--retry", "30", "--retry-delay", "1", "--retry-all-errors", &probe])?;
    ensure!(page.contains(PAGE), "{page}");
    ensure!(curl(&mesh.client, &[&url(SERVICE_V4.parse()?, 80)])?.contains(PAGE), "the mesh goes on");
    Ok(())
}
