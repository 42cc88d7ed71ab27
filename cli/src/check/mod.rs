//! `tulle check`: is a cluster fit for Tulle, and is the Tulle in it well.
//!
//! Each check reads a few objects and gives one or more lines. It changes nothing: the one object it asks for is a dry run.

/// A line.
mod finding;

/// Certificates in objects.
mod pem;

/// Before there is a Tulle.
mod before;

/// The control plane and the injector.
mod installed;

/// Webhooks, certificates and bundles.
mod trust;

/// Namespaces and pods.
mod pods;

/// Labels and annotations without effect.
mod words;

/// Pods that could not be made.
mod failed;

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::Value;

pub(crate) use trust::has_proxy;

use self::finding::{Finding, State};
use crate::args::{CheckArgs, Output};
use crate::cluster::{CallError, Cluster};
use crate::render::{self, Table};

/// Namespaces no pod is injected in, whatever their labels.
pub(crate) const SPARED: [&str; 3] = ["kube-system", "kube-node-lease", "tulle-system"];

/// Runs the subcommand. The exit code is 0 unless something failed.
///
/// # Errors
/// When there is no cluster to look at.
pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    let findings = runtime.block_on(async { look(&Cluster::connect().await?, args.before).await })?;
    match args.output {
        Output::Json => {
            let list = findings.iter().map(Finding::json).collect();
            render::lines([render::json(&Value::Array(list))])?;
        }
        Output::Table => {
            let mut table = Table::new(&["check", "state", "detail"]);
            for finding in &findings {
                table.row([finding.about.to_owned(), finding.state.as_str().to_owned(), finding.detail.clone()]);
            }
            render::lines(table.lines())?;
        }
    }
    let failed = findings.iter().any(|finding| finding.state == State::Failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Every check that fits what is there.
async fn look(cluster: &Cluster, before: bool) -> anyhow::Result<Vec<Finding>> {
    let mut findings =
        before::server(cluster).await.map_err(|error| anyhow::anyhow!("{}: {error}", unanswered(&error)))?;
    let absent = if before { None } else { absent(cluster).await };
    if before || absent.is_some() {
        findings.extend(before::cluster(cluster).await);
        findings.extend(absent);
        return Ok(findings);
    }
    findings.extend(installed::look(cluster).await);
    findings.extend(trust::look(cluster).await);
    findings.extend(pods::look(cluster).await);
    findings.push(failed::look(cluster).await);
    findings.push(words::look(cluster).await);
    Ok(findings)
}

/// Why there is no Tulle to look at; none when there is one.
async fn absent(cluster: &Cluster) -> Option<Finding> {
    let path = "/apis/apps/v1/namespaces/tulle-system/deployments/tulle-control-plane";
    let why = match cluster.get(path).await {
        Ok(_) => return None,
        Err(CallError::NotFound) => "Tulle is not installed: tulle install | kubectl apply -f -".to_owned(),
        Err(error @ CallError::Forbidden(_)) => {
            format!("{error}; to look at Tulle takes the ClusterRole view at least")
        }
        Err(error) => error.to_string(),
    };
    Some(Finding::failed("installed", why))
}

/// Why nothing can be said of a cluster, and where to look.
const fn unanswered(error: &CallError) -> &'static str {
    match error {
        CallError::Broken(_) => "the API server does not answer",
        CallError::Forbidden(_) | CallError::Refused(_) | CallError::NotFound => {
            "the API server refuses you, see kubectl auth whoami"
        }
    }
}
