//! The namespaces themselves: what the other tests here take for granted.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use tulle_testing::netns::{self, Network, Nginx, Server};

#[test]
fn the_wire_shows_what_passes_between_pods_and_nothing_else() -> anyhow::Result<()> {
    if !netns::available(&["bash"])? {
        return Ok(());
    }
    let net = Network::new()?;
    let (client, server) = (net.pod("client")?, net.pod("server")?);
    let _stand_in = Server::stand_in(&server, 80)?;
    for ipv6 in [false, true] {
        let wire = net.capture()?;
        let to = SocketAddr::new(server.ip(ipv6), 80);
        let script = format!("exec 3<>/dev/tcp/{}/80 && printf marker-out >&3 && cat <&3", to.ip());
        client.output("bash", &["-c", &script])?;
        // Within the pod, over loopback: not on the wire.
        server.output("bash", &["-c", &script.replace("marker-out", "marker-in")])?;
        let seen = wire.stop()?;
        assert!(seen.contain(b"marker-out") && !seen.contain(b"marker-in"), "IPv6 {ipv6}");
        assert!(!seen.show_tls_handshake());
        let between = seen.between(client.ip(ipv6), server.ip(ipv6));
        assert!(between.contain(format!("{to} via 80").as_bytes()));
    }
    Ok(())
}

#[test]
fn names_resolve_per_pod_and_strangers_are_unreachable_at_once() -> anyhow::Result<()> {
    if !netns::available(&["bash", "getent"])? {
        return Ok(());
    }
    let net = Network::new()?;
    let (one, two) = (net.pod("one")?, net.pod("two")?);
    one.hosts(&[([10, 96, 0, 7].into(), "web.shop.svc.cluster.local")])?;
    let name = ["hosts", "web.shop.svc.cluster.local"];
    assert!(one.output("getent", &name)?.stdout.contains("10.96.0.7"));
    assert!(!two.output("getent", &name)?.success);
    for address in ["10.96.0.7", "fd96::7"] {
        let dial = one.output("timeout", &["10", "bash", "-c", &format!("exec 3<>/dev/tcp/{address}/80")])?;
        assert_eq!(dial.code, Some(1), "{dial:?}");
    }
    Ok(())
}

#[test]
fn a_panic_leaves_neither_namespace_nor_process() -> anyhow::Result<()> {
    if !netns::available(&["bash"])? {
        return Ok(());
    }
    let (mut names, mut pid) = (Vec::new(), 0);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let net = Network::new().unwrap();
        let pod = net.pod("doomed").unwrap();
        let running = pod.start("bash", &["-c", "echo up; exec sleep 600"]).unwrap();
        running.line("up", Duration::from_secs(10)).unwrap();
        names.push(pod.name().to_owned());
        pid = running.pid();
        panic!("on purpose");
    }));
    assert!(result.is_err() && pid != 0);
    assert!(!Path::new("/proc").join(pid.to_string()).exists());
    for name in names {
        assert!(!Path::new("/run/netns").join(&name).exists() && !Path::new("/etc/netns").join(&name).exists());
    }
    Ok(())
}

#[test]
fn applications_serve_both_families() -> anyhow::Result<()> {
    if !netns::available(&["bash", "curl", "nginx"])? {
        return Ok(());
    }
    let net = Network::new()?;
    let (client, server) = (net.pod("client")?, net.pod("server")?);
    let _nginx = Nginx::start(&server, 80, "made by nginx")?;
    let _mail = Server::greeter(&server, 25, "220 mail")?;
    for ipv6 in [false, true] {
        let url = format!("http://{}/", SocketAddr::new(server.ip(ipv6), 80));
        let page = client.output("curl", &["-sS", "--max-time", "10", "-i", &url])?;
        assert!(page.stdout.contains("made by nginx") && page.stdout.contains("server-port: 80"), "{page:?}");
        let script =
            format!("exec 3<>/dev/tcp/{}/25; read -u3 a; echo hi >&3; read -u3 b; echo $a,$b", server.ip(ipv6));
        assert_eq!(client.output("bash", &["-c", &script])?.stdout, "220 mail,ok hi\n");
    }
    Ok(())
}

#[test]
fn a_process_ends_when_asked_and_its_lines_are_events() -> anyhow::Result<()> {
    if !netns::available(&["bash"])? {
        return Ok(());
    }
    let net = Network::new()?;
    let pod = net.pod("one")?;
    let script = "trap 'echo bye; exit 7' TERM; echo up; while :; do read -t 1 <> <(:); done";
    let running = pod.start("bash", &["-c", script])?;
    running.line("up", Duration::from_secs(10))?;
    assert_eq!(running.terminate(Duration::from_secs(10))?.code(), Some(7));

    let short = pod.start("bash", &["-c", "echo only"])?;
    let missing = short.line("never", Duration::from_secs(10)).unwrap_err();
    assert!(missing.to_string().contains("ended") && missing.to_string().contains("only"), "{missing}");
    Ok(())
}
