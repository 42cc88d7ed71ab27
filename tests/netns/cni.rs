//! The CNI plugin `tulle-cni` against the kernel, called as a container runtime calls it, with a scripted API server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tulle_testing::bin_path::binary;
use tulle_testing::netns::{self, Finished, Network, PROXY_UID, Pod, Server};

use super::image::{self, Image};
use super::redirect::{APP_UID, dial};

const TOOLS: [&str; 4] = ["nft", "iptables-restore", "ip6tables-restore", "bash"];

/// What the injector leaves on a pod whose rules the node writes.
const STATUS: &str = r#"{"version":"0.1.0","redirect":"cni"}"#;

/// An API server that has one answer to everything, and tells what it was asked.
struct ApiServer {
    address: SocketAddr,
    asked: mpsc::Receiver<String>,
}

impl ApiServer {
    fn with(annotations: &Value) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "uid": "u", "annotations": annotations}});
        let (tell, asked) = mpsc::channel();
        // Ends with the test's process, as its clients do.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut lines = BufReader::new(&client).lines().map_while(Result::ok);
                let _ = tell.send(lines.next().unwrap_or_default());
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let token = head.iter().any(|line| line == "authorization: Bearer t");
                let (status, body) =
                    if token { ("200 OK", pod.to_string()) } else { ("401 Unauthorized", "{}".to_owned()) };
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}",
                    body.len()
                );
                let _ = write!(&client, "{head}\r\n\r\n{body}");
            }
        });
        Ok(Self { address, asked })
    }
}

/// A runtime's folders: the plugin, and a kubeconfig for an API server.
struct Runtime {
    plugin: PathBuf,
    folder: TempDir,
}

impl Runtime {
    fn new(api_server: SocketAddr) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = json!({
            "clusters": [{"name": "a", "cluster": {"server": format!("http://{api_server}")}}],
            "users": [{"name": "a", "user": {"token": "t"}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "current-context": "a",
        });
        std::fs::write(folder.path().join("kubeconfig"), config.to_string())?;
        Ok(Self { plugin: binary("tulle-injector", "tulle-cni")?, folder })
    }

    /// Calls the plugin for the pod `namespace/web-1`, which lives in `netns`. `annotations` are those a runtime passes.
    fn call(
        &self,
        verb: &str,
        netns: &Pod,
        namespace: &str,
        annotations: Option<&Value>,
    ) -> anyhow::Result<(bool, String)> {
        let mut config = json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "tulle-cni", "excludeNamespaces": ["monitoring"],
            "kubeconfig": self.folder.path().join("kubeconfig"),
            "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/16"}]},
        });
        if let Some(annotations) = annotations {
            config["runtimeConfig"] = json!({"io.kubernetes.cri.pod-annotations": annotations});
        }
        let mut command = Command::new(&self.plugin);
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=web-1;K8S_POD_UID=u");
        command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", "c").env("CNI_IFNAME", "eth0").env("CNI_ARGS", args);
        command.env("CNI_NETNS", Path::new("/run/netns").join(netns.name()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        child.stdin.take().context("a pipe")?.write_all(config.to_string().as_bytes())?;
        let done = child.wait_with_output()?;
        Ok((done.status.success(), String::from_utf8(done.stdout)?))
    }

    fn add(&self, netns: &Pod, annotations: Option<&Value>) -> anyhow::Result<()> {
        let (success, text) = self.call("ADD", netns, "shop", annotations)?;
        ensure!(success, "{text}");
        let result: Value = serde_json::from_str(&text)?;
        ensure!(result["ips"][0]["address"] == "10.1.0.5/16", "the result before is passed on: {text}");
        Ok(())
    }
}

/// A pod that a stranger can reach, with stand-ins for its proxy and its application; nobody has written rules in it.
pub(super) struct Scene {
    pub(super) pod: Pod,
    stranger: Pod,
    _stand_ins: Vec<Server>,
    _net: Network,
}

impl Scene {
    pub(super) fn new() -> anyhow::Result<Self> {
        let net = Network::new()?;
        let (pod, stranger) = (net.pod("web")?, net.pod("stranger")?);
        let mut stand_ins = vec![Server::stand_in(&stranger, 8080)?];
        for port in [15001, 15006, 8080] {
            stand_ins.push(Server::stand_in(&pod, port)?);
        }
        Ok(Self { pod, stranger, _stand_ins: stand_ins, _net: net })
    }

    /// Asserts where connections of both directions and families arrive.
    pub(super) fn assert_captured(&self, captured: bool) -> anyhow::Result<()> {
        for ipv6 in [false, true] {
            let out = SocketAddr::new(self.stranger.ip(ipv6), 8080);
            let at = if captured { 15001 } else { 8080 };
            assert_eq!(dial(&self.pod, APP_UID, out)?, format!("{out} via {at}"));
            assert_eq!(dial(&self.pod, PROXY_UID, out)?, format!("{out} via 8080"));
            let inward = SocketAddr::new(self.pod.ip(ipv6), 8080);
            let at = if captured { 15006 } else { 8080 };
            assert_eq!(dial(&self.stranger, APP_UID, inward)?, format!("{inward} via {at}"));
        }
        Ok(())
    }
}

#[test]
fn a_pod_that_the_api_server_knows_is_captured() -> anyhow::Result<()> {
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let scene = Scene::new()?;
    let api_server = ApiServer::with(&json!({"tulle.io/inject-status": STATUS}))?;
    let runtime = Runtime::new(api_server.address)?;
    scene.assert_captured(false)?;
    for _ in 0..2 {
        runtime.add(&scene.pod, None)?;
        assert_eq!(api_server.asked.recv()?, "GET /api/v1/namespaces/shop/pods/web-1 HTTP/1.1");
        scene.assert_captured(true)?;
    }
    let (success, text) = runtime.call("CHECK", &scene.pod, "shop", None)?;
    assert!(success && text.is_empty(), "{text}");
    let (success, text) = runtime.call("DEL", &scene.pod, "shop", None)?;
    assert!(success && text.is_empty(), "{text}");
    scene.pod.output("nft", &["delete", "table", "ip", "tulle"])?;
    let (success, text) = runtime.call("CHECK", &scene.pod, "shop", None)?;
    assert!(!success && text.contains("differ"), "{text}");
    Ok(())
}

#[test]
fn a_runtime_that_passes_annotations_needs_no_api_server() -> anyhow::Result<()> {
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let scene = Scene::new()?;
    // Nobody listens there.
    let runtime = Runtime::new(SocketAddr::from(([127, 0, 0, 1], 9)))?;
    runtime.add(&scene.pod, Some(&json!({"tulle.io/inject": "disabled"})))?;
    scene.assert_captured(false)?;
    runtime
        .add(&scene.pod, Some(&json!({"tulle.io/inject-status": STATUS, "tulle.io/skip-outbound-ports": "9090"})))?;
    scene.assert_captured(true)?;
    let left_alone = SocketAddr::new(scene.stranger.ip(false), 9090);
    let _nine = Server::stand_in(&scene.stranger, 9090)?;
    assert_eq!(dial(&scene.pod, APP_UID, left_alone)?, format!("{left_alone} via 9090"));
    Ok(())
}

#[test]
fn while_the_api_server_is_away_only_what_may_be_ours_waits() -> anyhow::Result<()> {
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let scene = Scene::new()?;
    let runtime = Runtime::new(SocketAddr::from(([127, 0, 0, 1], 9)))?;
    let (success, text) = runtime.call("ADD", &scene.pod, "shop", None)?;
    let answer: Value = serde_json::from_str(&text)?;
    assert!(!success && answer["code"] == 11, "{text}");
    for spared in ["kube-system", "monitoring"] {
        let (success, text) = runtime.call("ADD", &scene.pod, spared, None)?;
        assert!(success, "{text}");
    }
    let (success, text) = runtime.call("DEL", &scene.pod, "shop", None)?;
    assert!(success, "{text}");
    scene.assert_captured(false)
}

#[test]
fn the_node_needs_no_programs_of_its_own() -> anyhow::Result<()> {
    if !netns::available(&[&TOOLS[..], &image::TOOLS].concat())? {
        return Ok(());
    }
    let scene = Scene::new()?;
    let mut runtime = Runtime::new(SocketAddr::from(([127, 0, 0, 1], 9)))?;
    let plugin = runtime.folder.path().join("tulle-cni");
    std::fs::copy(&runtime.plugin, &plugin)?;
    runtime.plugin = plugin;
    let brought = runtime.folder.path().join("tulle-cni.d");
    std::fs::create_dir(&brought)?;
    for tool in std::fs::read_dir(Image::unpacked("cni", "tulle-cni")?.root().join("tools"))?.flatten() {
        std::fs::copy(tool.path(), brought.join(tool.file_name()))?;
    }
    let annotations = |capture: &str| json!({"tulle.io/inject-status": STATUS, "tulle.io/capture": capture});
    for capture in ["iptables", "nft"] {
        runtime.add(&scene.pod, Some(&annotations(capture)))?;
        scene.assert_captured(true)?;
        let older = scene.pod.output("iptables-legacy-save", &["-t", "nat"])?.stdout;
        assert_eq!(older.contains("-j TULLE_"), capture == "iptables", "{capture}: {older}");
    }
    // It is these that are used, not the machine's: when one is broken, the pod does not start.
    for (library, capture) in [("libnftables.so", "nft"), ("libxt_owner.so", "iptables")] {
        for file in std::fs::read_dir(&brought)?.flatten() {
            if file.file_name().to_string_lossy().starts_with(library) {
                std::fs::write(file.path(), "no library")?;
            }
        }
        let (success, text) = runtime.call("ADD", &scene.pod, "shop", Some(&annotations(capture)))?;
        assert!(!success && text.contains(library.trim_end_matches(".so")), "{text}");
    }
    Ok(())
}

#[test]
fn a_pod_sees_without_privileges_whether_it_is_captured() -> anyhow::Result<()> {
    if !netns::available(&TOOLS)? {
        return Ok(());
    }
    let net = Network::new()?;
    let pod = net.pod("web")?;
    let probe = |args: &[&str]| {
        let mut command = pod.command_as(PROXY_UID + 1, binary("tulle-injector", "tulle-init")?);
        command.arg("--probe").args(args);
        Finished::of(command)
    };
    let done = probe(&[])?;
    assert!(!done.success && done.stderr.contains("no redirect rules are in force"), "{done:?}");
    for mode in ["nft", "iptables"] {
        pod.redirect(&["--mode", mode])?;
        let done = probe(&[])?;
        assert!(done.success && done.stdout.contains("2 address families"), "{mode} {done:?}");
    }
    pod.redirect(&["--include-outbound-cidrs", "10.96.0.0/12"])?;
    let done = probe(&["--include-outbound-cidrs", "10.96.0.0/12"])?;
    assert!(done.success && done.stdout.contains("1 address families"), "{done:?}");
    let done = probe(&["--skip-outbound-cidrs", "0.0.0.0/0,::/0"])?;
    assert!(done.success && done.stdout.contains("nothing to probe"), "{done:?}");
    Ok(())
}
