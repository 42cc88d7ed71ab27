//! What the injector keeps in the cluster: the Secret of its certificate, shared by its replicas, and the CA bundle of
//! its webhook configurations. Looked at every few seconds, so that what somebody deletes or overwrites is put right.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};
use rustls::ServerConfig;
use serde_json::json;
use tokio::sync::watch;

use crate::cert::{CertError, Material};
use crate::metrics::Metrics;
use crate::settings::Settings;

/// Pause between two looks. A rotation is in force everywhere within twice this.
const LOOK: Duration = Duration::from_secs(5);

/// Longest time for one call.
const CALL: Duration = Duration::from_secs(10);

/// A new CA bundle reaches every API server within this.
const SPREAD: Duration = Duration::from_secs(2);

/// Label of a Secret that the injector made; another's is served, never replaced.
const MANAGED: (&str, &str) = ("app.kubernetes.io/managed-by", "tulle-injector");

/// First minor version of Kubernetes 1 where native sidecars are on by default.
const NATIVE_SINCE: u32 = 29;

/// Why the cluster's objects are not as they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// The API server refused or cannot be reached.
    #[error("{doing}: {error}")]
    Api { doing: &'static str, error: Box<kube::Error> },
    /// It did not answer in time.
    #[error("{0}: no answer within 10 s")]
    Late(&'static str),
    /// A Secret that the injector did not make cannot be served.
    #[error("the Secret {name}: {error}")]
    Secret { name: String, error: CertError },
    /// No certificate could be made.
    #[error(transparent)]
    Cert(#[from] CertError),
}

async fn call<T>(doing: &'static str, work: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
    match tokio::time::timeout(CALL, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(ClusterError::Api { doing, error: Box::new(error) }),
        Err(_) => Err(ClusterError::Late(doing)),
    }
}

/// Whether the API server has native sidecars.
pub(crate) async fn has_native_sidecars(client: &kube::Client) -> Result<bool, ClusterError> {
    let version = call("asking the API server's version", client.apiserver_version()).await?;
    // Some providers write `29+`.
    let minor = version.minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().unwrap_or_default();
    let native = version.major != "1" || minor >= NATIVE_SINCE;
    tracing::info!(version = version.git_version, native, "the API server answers");
    Ok(native)
}

/// Keeps the Secret and the CA bundles right.
pub(crate) struct Keeper {
    client: kube::Client,
    settings: Settings,
    names: Vec<String>,
    metrics: Metrics,
    current: Option<Material>,
    serving: watch::Sender<Option<Arc<ServerConfig>>>,
    /// What was wrong at the last look, so that it is logged once.
    problem: watch::Sender<Option<String>>,
}

impl Keeper {
    /// A keeper that has not looked yet.
    pub(crate) fn new(client: kube::Client, settings: &Settings, metrics: Metrics) -> Self {
        let (service, namespace) = (&settings.service, &settings.namespace);
        let short = format!("{service}.{namespace}.svc");
        let names = vec![format!("{short}.{}", settings.injection.cluster_domain), short];
        Self {
            client,
            settings: settings.clone(),
            names,
            metrics,
            current: None,
            serving: watch::Sender::new(None),
            problem: watch::Sender::new(None),
        }
    }

    /// The newest TLS configuration; `None` before the first look that went well.
    pub(crate) fn serving(&self) -> watch::Receiver<Option<Arc<ServerConfig>>> {
        self.serving.subscribe()
    }

    /// What is wrong at present.
    pub(crate) fn problem(&self) -> watch::Receiver<Option<String>> {
        self.problem.subscribe()
    }

    /// Looks for as long as it is polled.
    pub(crate) async fn run(mut self) {
        loop {
            let problem = Box::pin(self.look()).await.err().map(|error| error.to_string());
            if let Some(problem) = problem.as_ref().filter(|new| self.problem.borrow().as_ref() != Some(new)) {
                tracing::error!(problem, "the injector's objects in the cluster");
            }
            self.problem.send_replace(problem);
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&mut self) -> Result<(), ClusterError> {
        let material = Box::pin(self.material()).await?;
        let is_new = self.current.as_ref() != Some(&material);
        // The bundle first: a certificate is served when callers trust it. Served it is in any case, because somebody
        // else may keep the bundle.
        let trusted = self.trust(&material.authorities).await;
        if is_new {
            if self.current.is_some() {
                tokio::time::sleep(SPREAD).await;
            }
            let serving = material.serving()?;
            let expiry = material.expiry()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.metrics.serving_expiry.set(i64::try_from(expiry.as_secs()).unwrap_or(i64::MAX));
            self.serving.send_replace(Some(serving));
            tracing::info!(secret = self.settings.secret, "serving with a new certificate");
            self.current = Some(material);
        }
        trusted
    }

    /// The Secret's certificate; made when there is none, replaced when it is ours and due.
    async fn material(&self) -> Result<Material, ClusterError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.settings.namespace);
        let name = &self.settings.secret;
        let found = call("reading the certificate's Secret", api.get_opt(name)).await?;
        let now = SystemTime::now();
        let Some(found) = found else {
            let material = Material::make(&self.names, self.current.as_ref(), now)?;
            let secret = self.secret(&material, None);
            call("making the certificate's Secret", api.create(&PostParams::default(), &secret)).await?;
            tracing::info!(secret = name, "certificate made");
            return Ok(material);
        };
        let material = read(&found);
        let managed = found.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED.0));
        if managed.map(String::as_str) != Some(MANAGED.1) {
            let usable = material.serving().map(|_| material);
            return usable.map_err(|error| ClusterError::Secret { name: name.clone(), error });
        }
        if material.serving().is_ok() && !material.is_due(&self.names, now) {
            return Ok(material);
        }
        let renewed = Material::make(&self.names, self.current.as_ref().or(Some(&material)), now)?;
        // Another replica may have been faster: the version makes that a conflict, and the next look reads theirs.
        let secret = self.secret(&renewed, found.metadata.resource_version);
        call("replacing the certificate's Secret", api.replace(name, &PostParams::default(), &secret)).await?;
        tracing::info!(secret = name, "certificate renewed");
        Ok(renewed)
    }

    fn secret(&self, material: &Material, version: Option<String>) -> Secret {
        let data = [("ca.crt", &material.authorities), ("tls.crt", &material.chain), ("tls.key", &material.key)];
        let data = data.map(|(key, pem)| (key.to_owned(), ByteString(pem.clone().into_bytes())));
        let labels = [(MANAGED.0, MANAGED.1), ("app.kubernetes.io/part-of", "tulle")];
        Secret {
            metadata: ObjectMeta {
                name: Some(self.settings.secret.clone()),
                labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
                resource_version: version,
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data.into()),
            ..Secret::default()
        }
    }

    /// Puts `authorities` into every webhook of ours that has others.
    async fn trust(&self, authorities: &str) -> Result<(), ClusterError> {
        let bundle = ByteString(authorities.as_bytes().to_vec());
        let name = &self.settings.webhook_configuration;
        let is_ours = |service: Option<&str>| service == Some(self.settings.service.as_str());

        let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let found = call("reading the MutatingWebhookConfiguration", api.get_opt(name)).await?;
        let webhooks = found.and_then(|found| found.webhooks).unwrap_or_default().into_iter();
        let stale = webhooks.filter(|webhook| {
            let config = &webhook.client_config;
            is_ours(config.service.as_ref().map(|service| service.name.as_str()))
                && config.ca_bundle != Some(bundle.clone())
        });
        let stale: Vec<_> = stale.map(|webhook| webhook.name).collect();
        if !stale.is_empty() {
            let patch = patch(&stale, &bundle);
            call("patching the MutatingWebhookConfiguration", api.patch(name, &PatchParams::default(), &patch)).await?;
            tracing::info!(?stale, "CA bundle of the mutating webhook written");
        }

        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let found = call("reading the ValidatingWebhookConfiguration", api.get_opt(name)).await?;
        let webhooks = found.and_then(|found| found.webhooks).unwrap_or_default().into_iter();
        let stale = webhooks.filter(|webhook| {
            let config = &webhook.client_config;
            is_ours(config.service.as_ref().map(|service| service.name.as_str()))
                && config.ca_bundle != Some(bundle.clone())
        });
        let stale: Vec<_> = stale.map(|webhook| webhook.name).collect();
        if !stale.is_empty() {
            let patch = patch(&stale, &bundle);
            call("patching the ValidatingWebhookConfiguration", api.patch(name, &PatchParams::default(), &patch))
                .await?;
            tracing::info!(?stale, "CA bundle of the validating webhook written");
        }
        Ok(())
    }
}

/// Webhooks are merged by their names.
fn patch(names: &[String], bundle: &ByteString) -> Patch<serde_json::Value> {
    let webhooks: Vec<_> =
        names.iter().map(|name| json!({"name": name, "clientConfig": {"caBundle": bundle}})).collect();
    Patch::Strategic(json!({"webhooks": webhooks}))
}

fn read(secret: &Secret) -> Material {
    let text = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
        String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
    };
    Material { authorities: text("ca.crt"), chain: text("tls.crt"), key: text("tls.key") }
}
