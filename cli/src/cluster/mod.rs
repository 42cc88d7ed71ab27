//! The API server of the cluster that kubectl talks to. Objects are read leniently, as JSON, so that a cluster of another
//! version can be looked at too.

/// Which path an object has.
mod path;

use std::error::Error as _;

use anyhow::Context as _;
use http::{Method, Request, header};
use kube::client::Body;
use kube::config::KubeconfigError;
use serde_json::Value;

pub(crate) use path::{collection, object};

/// Most objects in one answer; more come in further ones.
const PAGE: usize = 500;

/// Why a call failed, where the caller goes on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The object, or its kind, is not there.
    #[error("not found")]
    NotFound,
    /// The user may not do this.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// The API server, or an admission webhook, says no.
    #[error("{0}")]
    Refused(String),
    /// There is no answer, or none that can be read.
    #[error("{0}")]
    Broken(#[source] Box<kube::Error>),
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = error else { return Self::Broken(Box::new(error)) };
        match status.code {
            404 => Self::NotFound,
            403 if status.reason == "Forbidden" => Self::Forbidden(status.message),
            _ => Self::Refused(status.message),
        }
    }
}

/// Why there is no configuration, once: the error of kube says it for each place and each cause.
fn unconfigured(error: &kube::config::InferConfigError) -> String {
    let kubeconfig = error.source().and_then(|source| source.downcast_ref::<KubeconfigError>());
    match kubeconfig {
        Some(KubeconfigError::ReadConfig(reason, path)) if reason.kind() == std::io::ErrorKind::NotFound => {
            format!("no kubeconfig at {} and not in a cluster: set KUBECONFIG", path.display())
        }
        Some(error) => format!("the kubeconfig cannot be used: {error}"),
        None => format!("no cluster: {error}"),
    }
}

/// A connection to an API server.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: kube::Client,
}

impl Cluster {
    /// As kubectl connects: `KUBECONFIG`, `~/.kube/config`, else the account of the pod around this process.
    ///
    /// # Errors
    /// When there is no configuration, or it is not usable. Nothing is asked of the server yet.
    pub(crate) async fn connect() -> anyhow::Result<Self> {
        let config = kube::Config::infer().await.map_err(|error| anyhow::anyhow!("{}", unconfigured(&error)))?;
        let client = kube::Client::try_from(config).context("connecting to the cluster")?;
        Ok(Self { client })
    }

    /// The namespace of the configuration's context.
    pub(crate) fn namespace(&self) -> &str {
        self.client.default_namespace()
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, CallError> {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = request.body(body).map_err(kube::Error::HttpError)?;
        Ok(self.client.request(request).await?)
    }

    /// The object at `path`.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, CallError> {
        self.call(Method::GET, path, None).await
    }

    /// All objects of the collection at `path`, which may have a query.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>, CallError> {
        let mut items = Vec::new();
        let mut next = String::new();
        let and = if path.contains('?') { '&' } else { '?' };
        loop {
            let mut page = self.get(&format!("{path}{and}limit={PAGE}&continue={next}")).await?;
            if let Value::Array(some) = page["items"].take() {
                items.extend(some);
            }
            page["metadata"]["continue"].as_str().unwrap_or_default().clone_into(&mut next);
            if next.is_empty() {
                return Ok(items);
            }
        }
    }

    /// Makes an object, or, with `?dryRun=All`, finds out whether it could be made.
    pub(crate) async fn create(&self, path: &str, object: &Value) -> Result<Value, CallError> {
        self.call(Method::POST, path, Some(object)).await
    }

    /// Deletes an object; `false` when it was not there.
    pub(crate) async fn delete(&self, path: &str) -> Result<bool, CallError> {
        match self.call(Method::DELETE, path, None).await {
            Ok(_) => Ok(true),
            Err(CallError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The time of the server, to the second, as its replies say.
    pub(crate) async fn date(&self) -> Result<Option<String>, CallError> {
        let request = Request::get("/version").body(Body::empty()).map_err(kube::Error::HttpError)?;
        let response = self.client.send(request).await?;
        Ok(response.headers().get(header::DATE).and_then(|date| date.to_str().ok()).map(str::to_owned))
    }
}
