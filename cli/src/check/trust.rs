//! Webhooks and certificates: does the API server trust the injector and reach it, when do the certificates end, has every
//! namespace the bundle.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::SPARED;
use super::finding::{Finding, State};
use super::pem;
use crate::cluster::{CallError, Cluster};

const SECRETS: &str = "/api/v1/namespaces/tulle-system/secrets";

pub(super) async fn look(cluster: &Cluster) -> Vec<Finding> {
    let now = SystemTime::now();
    vec![
        webhook(cluster, "injection webhook", "mutatingwebhookconfigurations", now).await,
        webhook(cluster, "validation webhook", "validatingwebhookconfigurations", now).await,
        injection(cluster).await,
        secret(cluster, "webhook certificate", "tulle-injector-tls", now).await,
        secret(cluster, "authority", "tulle-ca", now).await,
        bundles(cluster, now).await,
    ]
}

/// Is a certificate set in each webhook of the configuration `tulle-injector`, and valid?
async fn webhook(cluster: &Cluster, about: &'static str, resource: &str, now: SystemTime) -> Finding {
    let path = format!("/apis/admissionregistration.k8s.io/v1/{resource}/tulle-injector");
    let configuration = match cluster.get(&path).await {
        Ok(configuration) => configuration,
        Err(CallError::NotFound) if resource.starts_with("validating") => {
            return Finding::ok(about, "switched off");
        }
        Err(CallError::NotFound) => return Finding::failed(about, "there is no configuration tulle-injector"),
        Err(error) => return Finding::of_call(about, &error),
    };
    let mut certificates = Vec::new();
    for webhook in configuration["webhooks"].as_array().into_iter().flatten() {
        let bundle = pem::decoded(&webhook["clientConfig"]["caBundle"]).unwrap_or_default();
        let found = pem::certificates(&bundle);
        if found.is_empty() {
            let name = webhook["name"].as_str().unwrap_or_default();
            let why = "the injector sets it: kubectl -n tulle-system logs deployment/tulle-injector";
            return Finding::failed(about, format!("{name} has no caBundle; {why}"));
        }
        certificates.extend(found);
    }
    let mut finding = pem::expiry(about, &certificates, now);
    finding.detail = format!("caBundle {}", finding.detail);
    finding
}

/// Does a pod get a sidecar, in each namespace that says so? A dry run: the API server asks the injector, and keeps nothing.
async fn injection(cluster: &Cluster) -> Finding {
    const ABOUT: &str = "injection";
    let labelled = match cluster.list("/api/v1/namespaces").await {
        Ok(namespaces) => enabled(&namespaces),
        Err(error) => return Finding::of_call(ABOUT, &error),
    };
    if labelled.is_empty() {
        // No namespace has the label: what a pod says itself is tried.
        return match tried(cluster, "default", true).await {
            Ok(()) => Finding::ok(ABOUT, "a pod that asks for a sidecar gets one (dry run in default)"),
            Err(error) => refused(ABOUT, error),
        };
    }
    let mut failing = Vec::new();
    for namespace in &labelled {
        let Err(error) = tried(cluster, namespace, false).await else { continue };
        let finding = refused(ABOUT, error);
        if finding.state != State::Failed {
            return finding;
        }
        // One reason may be that of many namespaces.
        match failing.iter_mut().find(|(detail, _)| *detail == finding.detail) {
            Some((_, names)) => *names = format!("{names}, {namespace}"),
            None => failing.push((finding.detail, namespace.clone())),
        }
    }
    if failing.is_empty() {
        let names = shortened(&labelled);
        return Finding::ok(
            ABOUT,
            format!("a pod in each labelled namespace would get a sidecar (dry run in {names})"),
        );
    }
    let details: Vec<_> = failing.into_iter().map(|(detail, names)| format!("in {names}: {detail}")).collect();
    Finding::failed(ABOUT, details.join("; "))
}

/// Names, of many the first.
fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

/// Why a pod got no sidecar.
enum Untreated {
    /// It was admitted without one.
    Plain(String),
    /// It was not admitted, or nobody answered.
    Call(CallError),
}

async fn tried(cluster: &Cluster, namespace: &str, asks: bool) -> Result<(), Untreated> {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "tulle-check-"},
        "spec": {"serviceAccountName": "default", "containers": [{"name": "application", "image": "none", "securityContext": {
            "allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }}]},
    });
    if asks {
        pod["metadata"]["labels"] = json!({"tulle.io/inject": "enabled"});
    }
    match cluster.create(&format!("/api/v1/namespaces/{namespace}/pods?dryRun=All"), &pod).await {
        Ok(made) if has_proxy(&made) => Ok(()),
        Ok(_) => Err(Untreated::Plain(
            "a pod would get no sidecar: is the webhook reachable from the API server, and the namespace not exempt?"
                .to_owned(),
        )),
        Err(error) => Err(Untreated::Call(error)),
    }
}

fn refused(about: &'static str, why: Untreated) -> Finding {
    match why {
        Untreated::Plain(reason) => Finding::failed(about, reason),
        // What the user may not do is not looked at; what admission refuses to anybody is wrong.
        Untreated::Call(CallError::Forbidden(reason)) if !reason.contains("cannot create resource") => {
            Finding::failed(about, reason)
        }
        Untreated::Call(CallError::Refused(reason)) => {
            let mend = mend(&reason).map(|mend| format!("; {mend}")).unwrap_or_default();
            Finding::failed(about, reason + &mend)
        }
        Untreated::Call(error) => Finding::of_call(about, &error),
    }
}

/// What to do when the API server could not ask the injector; `None` when it refuses for another reason.
fn mend(reason: &str) -> Option<&'static str> {
    if !(reason.contains("failed calling webhook") && reason.contains("inject.tulle.io")) {
        return None;
    }
    Some(if reason.contains("x509:") {
        "the webhook's caBundle and the injector's certificate do not belong together, or it is over. The injector keeps \
         both, unless you brought the Secret tulle-injector-tls: kubectl -n tulle-system logs deployment/tulle-injector"
    } else {
        "is the injector ready, and may the API server reach its port 15017? \
         kubectl -n tulle-system get service,pods -l app.kubernetes.io/name=tulle-injector"
    })
}

/// Namespaces whose pods get sidecars.
pub(super) fn enabled(namespaces: &[Value]) -> Vec<String> {
    namespaces
        .iter()
        .filter(|namespace| namespace["metadata"]["labels"]["tulle.io/inject"] == "enabled")
        .filter_map(|namespace| namespace["metadata"]["name"].as_str())
        .filter(|name| !SPARED.contains(name))
        .map(str::to_owned)
        .collect()
}

/// Whether a pod carries the proxy, as a container or as a native sidecar.
pub(crate) fn has_proxy(pod: &Value) -> bool {
    let among =
        |key: &str| pod["spec"][key].as_array().is_some_and(|list| list.iter().any(|c| c["name"] == "tulle-proxy"));
    among("containers") || among("initContainers")
}

async fn secret(cluster: &Cluster, about: &'static str, name: &str, now: SystemTime) -> Finding {
    match cluster.get(&format!("{SECRETS}/{name}")).await {
        Ok(secret) => {
            // An operator's issuing certificate, or the roots the control plane made.
            let certificate = ["tls.crt", "bundle.pem"].iter().find_map(|key| pem::decoded(&secret["data"][key]));
            let certificate = certificate.unwrap_or_default();
            pem::expiry(about, &pem::certificates(&certificate), now)
        }
        Err(CallError::NotFound) => Finding::failed(about, format!("there is no Secret {name} in tulle-system yet")),
        Err(error) => Finding::of_call(about, &error),
    }
}

/// Has every namespace with injected pods the bundle of tulle-system?
async fn bundles(cluster: &Cluster, now: SystemTime) -> Finding {
    const ABOUT: &str = "trust bundle";
    let bundle = |namespace: String| async move {
        cluster.get(&format!("/api/v1/namespaces/{namespace}/configmaps/tulle-trust-bundle")).await
    };
    let text = |map: &Value| map["data"]["bundle.pem"].as_str().unwrap_or_default().to_owned();
    let ours = match bundle("tulle-system".to_owned()).await {
        Ok(map) => text(&map),
        Err(CallError::NotFound) => return Finding::failed(ABOUT, "the control plane has not written it yet"),
        Err(error) => return Finding::of_call(ABOUT, &error),
    };
    let namespaces = match cluster.list("/api/v1/namespaces").await {
        Ok(namespaces) => enabled(&namespaces),
        Err(error) => return Finding::of_call(ABOUT, &error),
    };
    let mut other = Vec::new();
    for namespace in namespaces {
        match bundle(namespace.clone()).await {
            Ok(map) if text(&map) == ours => {}
            Ok(_) | Err(CallError::NotFound) => other.push(namespace),
            Err(error) => return Finding::of_call(ABOUT, &error),
        }
    }
    if !other.is_empty() {
        return Finding::failed(ABOUT, format!("missing or old in {}", other.join(", ")));
    }
    let mut finding = pem::expiry(ABOUT, &pem::certificates(ours.as_bytes()), now);
    finding.detail = format!("the same in every namespace, {}", finding.detail);
    finding
}
