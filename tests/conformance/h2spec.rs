//! HTTP/2 as h2spec sees it, on the plain and on the mutual TLS listener. h2spec has no client certificate: a forwarder
//! in this test originates the TLS of a mesh peer and passes bytes and their end on.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tulle_testing::foreign;

use crate::ledger;
use crate::target::{Target, Way};

/// Cases of the version that `.ci/run` installs: a run that judged nothing is no success.
const CASES: usize = 145;

#[tokio::test]
async fn http2_listeners_conform() {
    let Some(program) = foreign::h2spec() else { return };
    let target = Target::start(|builder| builder).await;
    for way in Way::ALL {
        let address = match way {
            Way::Plain => target.address(way),
            Way::Mtls => forwarder(target.address(way), target.tls()).await,
        };
        let report = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut command = Command::new(&program);
        command.args(["--host", &address.ip().to_string(), "--port", &address.port().to_string(), "--timeout", "5"]);
        // Five such fields are more than the largest frame that the proxy offers to take.
        command.args(["--max-header-length", "16000"]);
        command.arg("--junit-report").arg(report.path());
        let printed = run(command).await;
        let verdicts = read(&std::fs::read_to_string(report.path()).expect("a report"));
        judge(way, &verdicts, &printed);
        let passed = verdicts.iter().filter(|(_, passed)| *passed).count();
        println!("{}: {passed} of {} passed", way.name(), verdicts.len());
    }
}

/// Compares with the ledger: what fails must be in it, what is in it must fail.
fn judge(way: Way, verdicts: &[(String, bool)], printed: &str) {
    let failed: BTreeSet<&str> = verdicts.iter().filter(|(_, passed)| !passed).map(|(case, _)| case.as_str()).collect();
    let gaps = ledger::gaps("h2spec", way.name());
    let known: BTreeSet<&str> = gaps.iter().map(|gap| gap.case.as_str()).collect();
    let name = way.name();
    assert!(verdicts.len() >= CASES, "{name}: only {} cases\n{printed}", verdicts.len());
    let new: Vec<_> = failed.difference(&known).collect();
    assert!(new.is_empty(), "{name}: {new:#?} failed and are not in known-gaps.toml\n{printed}");
    let better: Vec<_> = known.difference(&failed).collect();
    assert!(better.is_empty(), "{name}: {better:#?} passed: take them off known-gaps.toml");
    assert!(failed.len() <= 1, "{name}: {} failed", failed.len());
}

/// Runs it to its end beside the test's own tasks, and gives what it printed.
#[expect(clippy::disallowed_methods, reason = "it runs for a while: not on the test's own thread")]
async fn run(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it to end");
    let output = output.expect("h2spec runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The cases of a JUnit report, `section: name`, and whether each passed or was skipped.
fn read(report: &str) -> Vec<(String, bool)> {
    let cases = report.split("<testcase ").skip(1);
    cases
        .map(|case| {
            let (tag, rest) = case.split_once('>').expect("the end of a tag");
            let body = if tag.ends_with('/') { "" } else { rest.split("</testcase>").next().unwrap_or_default() };
            let name = format!("{}: {}", attribute(tag, "package"), attribute(tag, "classname"));
            (name, !body.contains("<failure") && !body.contains("<error"))
        })
        .collect()
}

fn attribute(tag: &str, name: &str) -> String {
    let value = tag.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
    let text = value.unwrap_or_else(|| panic!("no {name} in {tag}"));
    let plain = [("&#34;", "'"), ("&quot;", "'"), ("&#39;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")];
    plain.into_iter().fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

/// Takes plain connections to a TLS server that wants a certificate.
#[expect(clippy::disallowed_methods, reason = "a test's peers run beside the test")]
async fn forwarder(to: SocketAddr, tls: Arc<rustls::ClientConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls));
            tokio::spawn(async move {
                let far = TcpStream::connect(to).await?;
                let name = rustls::pki_types::ServerName::try_from("localhost").map_err(std::io::Error::other)?;
                let far = connector.connect(name, far).await?;
                let ((mut asked, mut answers), (mut read, mut write)) = (near.into_split(), tokio::io::split(far));
                let there = async {
                    let _ = tokio::io::copy(&mut asked, &mut write).await;
                    let _ = write.shutdown().await;
                    // A socket that is closed with unread bytes resets, and the peer loses what it was told before.
                    let _ = tokio::io::copy(&mut asked, &mut tokio::io::sink()).await;
                };
                let back = async {
                    let _ = tokio::io::copy(&mut read, &mut answers).await;
                    answers.shutdown().await
                };
                tokio::join!(there, back).1
            });
        }
    });
    address
}
