//! The programs and images of the cluster. What others wrote is built from pinned versions and kept in the user's cache
//! under that version; what is ours is built each time, which is quick when nothing changed.

use std::env::var_os;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use tulle_testing::progress;

use super::run;
use crate::note;

/// The last Kubernetes whose kubelet runs on cgroup v1 and with Debian's containerd. `kubernetes/go.mod` says the same.
const KUBERNETES: &str = "1.34.4";
/// Kept beside the other tools of `.ci/run`, which lints the chart with it.
const HELM: &str = "3.22.0";
/// As `gateway-api/go.mod` says.
const GATEWAY_API: &str = "1.6.3";
/// As `coredns/go.mod` says.
const COREDNS: &str = "1.12.4";

/// Where everything was put.
#[derive(Debug)]
pub(crate) struct Programs {
    /// `kubernetes`, `helm`, `probe`, and the definitions of the Gateway API.
    pub(crate) programs: PathBuf,
    /// Image tars: the cluster's own and Tulle's.
    pub(crate) images: PathBuf,
}

/// Builds what is missing: minutes at the first time, with a line for each step, seconds later.
///
/// # Errors
/// When a compiler fails or a module cannot be fetched; the message has what it said.
pub(crate) fn build() -> anyhow::Result<Programs> {
    let programs = of_others()?;
    let images = cache()?.join("cluster/images");
    fs::create_dir_all(&images)?;
    once(&programs, "gateway-api.yaml", GATEWAY_API, |output| definitions(&source("gateway-api"), output))?;
    run(go_build(&source("probe"), &programs.join("probe"), ""))?;
    let mut pause = Command::new("cc");
    pause.args(["-static", "-O2", "-o"]).arg(programs.join("pause")).arg(source("pause.c"));
    run(pause)?;
    let image = |name: &str, entrypoint: &str| {
        let mut command = Command::new("python3");
        command.arg(source("../../deploy/images/oci.py")).arg(images.join(format!("{name}.tar")));
        // Not the user of the proxy, whose connections are not captured.
        command.args([&format!("docker.io/tulle-test/{name}:1"), "--user=65532:65532"]);
        command.args(["--entrypoint", entrypoint, "--file"]);
        command.arg(format!("{}={entrypoint}", programs.join(name).display()));
        run(command)
    };
    image("pause", "/pause")?;
    image("probe", "/probe")?;
    once(&images, "coredns.tar", COREDNS, |_| image("coredns", "/coredns").map(drop))?;
    tulle(&source("../.."), &images)?;
    Ok(Programs { programs, images })
}

/// Builds what others wrote, and gives the folder it is in: `kubernetes`, `helm` and `coredns`. Tests of a real API server
/// look for it there.
///
/// # Errors
/// As [`build`].
pub(crate) fn of_others() -> anyhow::Result<PathBuf> {
    let (tools, programs) = (cache()?.join("tools/bin"), cache()?.join("cluster/programs"));
    fs::create_dir_all(&programs)?;
    fs::create_dir_all(&tools)?;
    once(&programs, "kubernetes", KUBERNETES, |output| kubernetes(&source("kubernetes"), output))?;
    once(&tools, "helm", HELM, |output| go_install("helm.sh/helm/v3/cmd/helm", HELM, output))?;
    fs::copy(tools.join("helm"), programs.join("helm"))?;
    once(&programs, "coredns", COREDNS, |output| run(go_build(&source("coredns"), output, "")).map(drop))?;
    Ok(programs)
}

/// A file beside this test.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster").join(name)
}

/// Tulle's images, of this source. Profile `release`: what `dist` adds to it is minutes of optimisation.
fn tulle(root: &Path, images: &Path) -> anyhow::Result<()> {
    let mut build = Command::new(root.join("deploy/images/build"));
    build.args(["--profile", "release", "--output"]).arg(images);
    told("build Tulle's images", || run(build)).map(drop).context("build Tulle's images")
}

/// Makes `dir/name` unless its mark says that this `version` is there.
fn once(dir: &Path, name: &str, version: &str, make: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (output, mark) = (dir.join(name), dir.join(format!("{name}.version")));
    if output.exists() && fs::read_to_string(&mark).is_ok_and(|made| made == version) {
        return Ok(());
    }
    told(&format!("build {name} {version}"), || make(&output)).with_context(|| format!("build {name} {version}"))?;
    Ok(fs::write(mark, version)?)
}

/// Minutes at the first time: whoever watches sees that it goes on.
fn told<T>(what: &str, work: impl FnOnce() -> T) -> T {
    progress::told(what, Duration::from_secs(30), &note, work)
}

fn kubernetes(source: &Path, output: &Path) -> anyhow::Result<()> {
    let version = "k8s.io/component-base/version";
    let minor = KUBERNETES.split('.').nth(1).unwrap_or_default();
    let flags = format!(
        "-X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor={minor} \
         -X {version}.gitTreeState=clean"
    );
    run(go_build(source, output, &flags)).map(drop)
}

/// The definitions of routes and grants in one file.
fn definitions(source: &Path, output: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("go");
    command.current_dir(source).args(["mod", "download", "-json", "sigs.k8s.io/gateway-api"]);
    let told: serde_json::Value = serde_json::from_str(&run(command)?)?;
    let folder = Path::new(told["Dir"].as_str().context("where the module is")?).join("config/crd/standard");
    let mut all = String::new();
    for kind in ["httproutes", "grpcroutes", "referencegrants"] {
        all.push_str("---\n");
        all.push_str(&fs::read_to_string(folder.join(format!("gateway.networking.k8s.io_{kind}.yaml")))?);
    }
    Ok(fs::write(output, all)?)
}

fn go_build(source: &Path, output: &Path, linker_flags: &str) -> Command {
    let mut command = Command::new("go");
    command.current_dir(source).env("CGO_ENABLED", "0");
    command.args(["build", "-trimpath", "-ldflags", &format!("-s -w {linker_flags}"), "-o"]).arg(output).arg(".");
    command
}

/// `go install` of a program of another module, which names its file itself.
fn go_install(package: &str, version: &str, output: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("go");
    command.env("CGO_ENABLED", "0").env("GOBIN", output.with_file_name(""));
    command.args(["install", "-trimpath", "-ldflags", "-s -w", &format!("{package}@v{version}")]);
    run(command).map(drop)
}

/// The folder `.ci/run` uses, outside of the checkout.
#[expect(clippy::disallowed_methods, reason = "where the user keeps caches")]
fn cache() -> anyhow::Result<PathBuf> {
    let cache = var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    Ok(cache.or_else(home).context("neither XDG_CACHE_HOME nor HOME says where to keep programs")?.join("tulle"))
}
