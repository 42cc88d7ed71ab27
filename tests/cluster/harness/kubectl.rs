//! What tests ask of the cluster, by the commands a user would type.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::cluster::{Cluster, DEADLINE};
use super::enclosure::WORK;
use super::run;

impl Cluster {
    /// Runs `kubectl` with a line of words that hold no spaces.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub(crate) fn kubectl(&self, line: &str) -> anyhow::Result<String> {
        let mut command = self.kubectl_command();
        command.args(line.split_whitespace());
        run(command)
    }

    /// Applies manifests that name their namespaces.
    ///
    /// # Errors
    /// When the API server, or a webhook, refuses one; the message has its words.
    pub(crate) fn apply(&self, manifests: &str) -> anyhow::Result<()> {
        self.apply_with(&[], manifests).map(drop)
    }

    /// Applies manifests in `namespace`; gives what the API server warns of.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub(crate) fn apply_in(&self, namespace: &str, manifests: &str) -> anyhow::Result<String> {
        self.apply_with(&["-n", namespace], manifests)
    }

    /// Has the API server look at manifests without keeping them; gives what it warns of.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub(crate) fn dry_run(&self, manifests: &str) -> anyhow::Result<String> {
        self.apply_with(&["--dry-run=server"], manifests)
    }

    /// Gives what was warned of.
    fn apply_with(&self, options: &[&str], manifests: &str) -> anyhow::Result<String> {
        let mut command = self.kubectl_command();
        command.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]).args(options);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("a pipe")?.write_all(manifests.as_bytes())?;
        let done = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(done.status.success(), "kubectl apply: {said}");
        Ok(said)
    }

    /// Objects as `kubectl get WHAT -o json` gives them.
    ///
    /// # Errors
    /// When there is no such object.
    pub(crate) fn get(&self, what: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&format!("get {what} -o json"))?)?)
    }

    /// Waits until every replica of a workload is new and ready.
    ///
    /// # Errors
    /// After the deadline; the message says what its pods are waiting for.
    pub(crate) fn rolled_out(&self, namespace: &str, workload: &str) -> anyhow::Result<()> {
        let line = format!("-n {namespace} rollout status {workload} --timeout={}s", DEADLINE.as_secs());
        self.kubectl(&line).map(drop).map_err(|error| error.context(self.explain(namespace)))
    }

    /// Waits for `condition` of `what`, both as `kubectl wait` takes them.
    ///
    /// # Errors
    /// After the deadline; the message says what pods are waiting for.
    pub(crate) fn wait(&self, namespace: &str, what: &str, condition: &str) -> anyhow::Result<()> {
        let line = format!("-n {namespace} wait {what} --for={condition} --timeout={}s", DEADLINE.as_secs());
        self.kubectl(&line).map(drop).map_err(|error| error.context(self.explain(namespace)))
    }

    /// What a user would look at: pods, and what happened to them.
    pub(crate) fn explain(&self, namespace: &str) -> String {
        let ask = |line: &str| self.kubectl(line).unwrap_or_else(|error| format!("{error:#}"));
        format!(
            "{}{}",
            ask(&format!("-n {namespace} get pods -o wide")),
            ask(&format!("-n {namespace} get events --sort-by=.lastTimestamp"))
        )
    }

    /// Installs a chart, or upgrades it, and waits until it is ready.
    ///
    /// # Errors
    /// When helm says so.
    pub(crate) fn helm(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = self.node().command(format!("{WORK}/programs/helm"));
        command.env("KUBECONFIG", format!("{WORK}/pki/admin.kubeconfig")).env("HELM_DRIVER", "secret");
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, format!("{WORK}/helm"));
        }
        command.args(args);
        run(command)
    }

    /// One request from the first node, outside of the mesh; gives the body of a 200.
    ///
    /// # Errors
    /// When there is no such answer.
    pub(crate) fn request(&self, url: &str) -> anyhow::Result<String> {
        let mut command = self.node().command(format!("{WORK}/programs/probe"));
        command.args(["get", url]);
        run(command)
    }

    /// How to look inside from another terminal.
    pub(crate) fn door(&self) -> String {
        // The process is the first of its PID namespace; outside it is the child of `unshare`.
        let kubectl = format!("{WORK}/programs/kubernetes kubectl --kubeconfig {WORK}/pki/admin.kubeconfig");
        format!(
            "sudo nsenter -t $(pgrep -P $(pgrep -f 'unshare.*{}')) -m -p nsenter --net=/run/netns/{} {kubectl} get pods -A",
            super::enclosure::INSIDE,
            self.node().name
        )
    }

    fn kubectl_command(&self) -> Command {
        let mut command = self.node().command(format!("{WORK}/programs/kubernetes"));
        command.arg("kubectl").env("KUBECONFIG", format!("{WORK}/pki/admin.kubeconfig")).env("HOME", WORK);
        command
    }
}
