//! What a container runtime says to a plugin and hears from it: CNI 0.3.0 to 1.1.0, as values. Pure.
//!
//! <https://github.com/containernetworking/cni/blob/main/SPEC.md>

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

/// Versions that are spoken; chained plugins have passed on `prevResult` since the first of them.
pub(crate) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The runtime's key for a pod's annotations, when the configuration asks for that capability. containerd and CRI-O know it.
pub(crate) const POD_ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// What a plugin is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// A pod starts.
    Add,
    /// A pod ended.
    Del,
    /// Is what ADD did still there?
    Check,
    /// Which versions are spoken?
    Version,
    /// Could an ADD succeed?
    Status,
    /// Only these pods are left.
    Gc,
}

/// A failed call. `code` is CNI's where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    pub(crate) code: u32,
    pub(crate) message: String,
}

impl Failure {
    /// The configuration's version is not spoken.
    const VERSION: u32 = 1;
    /// A variable of the environment is missing or wrong.
    const ENVIRONMENT: u32 = 4;
    /// The configuration is not JSON.
    const DECODING: u32 = 6;
    /// The configuration is wrong.
    pub(crate) const CONFIGURATION: u32 = 7;
    /// It may work later: the runtime should try again.
    pub(crate) const LATER: u32 = 11;
    /// Ours: what the pod says about itself cannot be understood.
    pub(crate) const POD: u32 = 100;
    /// Ours: the redirect rules could not be put in force, or are not.
    pub(crate) const RULES: u32 = 101;

    pub(crate) fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// As the runtime reads it.
    pub(crate) fn text(&self, version: &str) -> String {
        json!({"cniVersion": version, "code": self.code, "msg": format!("tulle-cni: {}", self.message)}).to_string()
    }
}

/// A pod as the runtime names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodName {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Of the pod that starts; another with the same name may have taken its place at the API server.
    pub(crate) uid: Option<String>,
}

/// The verb of a call.
///
/// # Errors
/// When there is none.
pub(crate) fn verb(env: &BTreeMap<String, String>) -> Result<Verb, Failure> {
    match env.get("CNI_COMMAND").map(String::as_str) {
        Some("ADD") => Ok(Verb::Add),
        Some("DEL") => Ok(Verb::Del),
        Some("CHECK") => Ok(Verb::Check),
        Some("VERSION") => Ok(Verb::Version),
        Some("STATUS") => Ok(Verb::Status),
        Some("GC") => Ok(Verb::Gc),
        other => Err(Failure::new(Failure::ENVIRONMENT, format!("CNI_COMMAND is {other:?}"))),
    }
}

/// The plugin's configuration, as the runtime completes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config(Value);

impl Config {
    /// Reads what the runtime writes to stdin.
    ///
    /// # Errors
    /// When it is no object, or of a version that is not spoken.
    pub(crate) fn read(text: &str) -> Result<Self, Failure> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| Failure::new(Failure::DECODING, format!("the network configuration: {error}")))?;
        let config = Self(value);
        let version = config.version();
        if !VERSIONS.contains(&version) {
            let spoken = VERSIONS.join(", ");
            return Err(Failure::new(Failure::VERSION, format!("cniVersion {version:?} is none of {spoken}")));
        }
        Ok(config)
    }

    /// `cniVersion`.
    pub(crate) fn version(&self) -> &str {
        self.text("cniVersion").unwrap_or_default()
    }

    /// File that says where the API server is.
    pub(crate) fn kubeconfig(&self) -> Option<PathBuf> {
        self.text("kubeconfig").map(PathBuf::from)
    }

    /// Whether the pods of a namespace are none of ours, whatever they say.
    pub(crate) fn excludes(&self, namespace: &str) -> bool {
        let excluded = self.0.get("excludeNamespaces").and_then(Value::as_array).into_iter().flatten();
        excluded.filter_map(Value::as_str).any(|excluded| excluded == namespace)
    }

    /// The pod's annotations, from a runtime that passes them.
    pub(crate) fn annotations(&self) -> Option<BTreeMap<String, String>> {
        let annotations = self.0.get("runtimeConfig")?.get(POD_ANNOTATIONS)?.as_object()?;
        Some(annotations.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect())
    }

    /// The result to pass on: what the plugins before came to.
    ///
    /// # Errors
    /// When there was none before.
    pub(crate) fn previous(&self) -> Result<String, Failure> {
        let previous = self.0.get("prevResult").filter(|result| result.is_object());
        let previous = previous.ok_or_else(|| {
            Failure::new(
                Failure::CONFIGURATION,
                "there is no prevResult: tulle-cni comes after a network's own plugin in its list",
            )
        })?;
        let mut result = previous.clone();
        result["cniVersion"] = json!(self.version());
        Ok(result.to_string())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }
}

/// The namespace to work in.
///
/// # Errors
/// When the runtime names none.
pub(crate) fn netns(env: &BTreeMap<String, String>) -> Result<PathBuf, Failure> {
    let path = env.get("CNI_NETNS").filter(|path| !path.is_empty()).map(PathBuf::from);
    path.ok_or_else(|| Failure::new(Failure::ENVIRONMENT, "CNI_NETNS is missing"))
}

/// The pod a call is about; `None` for a container that is no pod of Kubernetes.
pub(crate) fn pod(env: &BTreeMap<String, String>) -> Option<PodName> {
    let args: BTreeMap<&str, &str> =
        env.get("CNI_ARGS")?.split(';').filter_map(|arg| arg.trim().split_once('=')).collect();
    let arg = |name: &str| args.get(name).filter(|value| !value.is_empty()).map(|value| (*value).to_owned());
    Some(PodName { namespace: arg("K8S_POD_NAMESPACE")?, name: arg("K8S_POD_NAME")?, uid: arg("K8S_POD_UID") })
}

/// The answer to VERSION.
pub(crate) fn versions() -> String {
    json!({"cniVersion": VERSIONS[VERSIONS.len() - 1], "supportedVersions": VERSIONS}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_named_by_the_arguments() {
        let named = |args: &str| pod(&BTreeMap::from([("CNI_ARGS".to_owned(), args.to_owned())]));
        let all =
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=u-1";
        let web = PodName { namespace: "shop".to_owned(), name: "web-1".to_owned(), uid: Some("u-1".to_owned()) };
        assert_eq!(named(all), Some(web));
        for other in ["", "K8S_POD_NAME=web-1", "K8S_POD_NAMESPACE=;K8S_POD_NAME=web", "nonsense;;="] {
            assert_eq!(named(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_its_code() {
        for (text, code) in [
            ("", 6),
            ("{", 6),
            ("[]", 1),
            ("{}", 1),
            (r#"{"cniVersion": "0.2.0"}"#, 1),
            (r#"{"cniVersion": "2.0.0"}"#, 1),
            (r#"{"cniVersion": 1}"#, 1),
        ] {
            assert_eq!(Config::read(text).unwrap_err().code, code, "{text}");
        }
        let last = Config::read(r#"{"cniVersion": "1.0.0", "prevResult": []}"#).unwrap();
        assert_eq!(last.previous().unwrap_err().code, 7);
    }

    #[test]
    fn the_previous_result_is_passed_on() {
        let text = r#"{"cniVersion": "0.4.0", "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/16"}], "x": 1}}"#;
        let passed: Value = serde_json::from_str(&Config::read(text).unwrap().previous().unwrap()).unwrap();
        assert_eq!(passed, json!({"cniVersion": "0.4.0", "ips": [{"address": "10.1.0.5/16"}], "x": 1}));
    }
}
