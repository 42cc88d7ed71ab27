//! The chart in `deploy/helm/tulle`, which is part of this binary, rendered to objects. Helm renders the same files; that
//! both come to the same objects is tested (`cli/tests/install.rs`).

use anyhow::Context as _;
use serde_json::{Value, json};
use tulle_injector::values::exceeds;

use super::schema;
use super::template::Templates;
use super::values::{self, Overrides};

/// Files of the chart, but its notes.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../deploy/helm/tulle/templates/", $name)))),*]
    };
}

/// In no particular order: objects are sorted.
const TEMPLATES: [(&str, &str); 9] = files![
    "_helpers.tpl",
    "cni.yaml",
    "control-plane-rbac.yaml",
    "control-plane.yaml",
    "crds.yaml",
    "injector-rbac.yaml",
    "injector.yaml",
    "namespace.yaml",
    "webhooks.yaml",
];

const CHART: &str = include_str!("../../../deploy/helm/tulle/Chart.yaml");
const VALUES: &str = include_str!("../../../deploy/helm/tulle/values.yaml");
const SCHEMA: &str = include_str!("../../../deploy/helm/tulle/values.schema.json");

/// Where Tulle lives.
pub(crate) const NAMESPACE: &str = "tulle-system";

/// The order in which objects can be made: each after what it needs. Webhooks come last, when somebody answers them.
const ORDER: [&str; 13] = [
    "Namespace",
    "CustomResourceDefinition",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Service",
    "Deployment",
    "DaemonSet",
    "PodDisruptionBudget",
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
];

/// One object of the chart.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// As the template has it, comments and all.
    pub(crate) text: String,
    /// The same, parsed.
    pub(crate) value: Value,
}

impl Object {
    /// Its kind.
    pub(crate) fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }
}

/// The chart's version, which is that of its images.
pub(crate) fn version() -> anyhow::Result<String> {
    let chart: Value = parse(CHART).context("reading Chart.yaml")?;
    Ok(chart["appVersion"].as_str().unwrap_or_default().to_owned())
}

/// The objects to install, in the order they can be made.
///
/// # Errors
/// When a value does not fit the schema.
pub(crate) fn objects(overrides: &Overrides) -> anyhow::Result<Vec<Object>> {
    let mut settings: Value = parse(VALUES).context("reading values.yaml")?;
    settings["createNamespace"] = true.into();
    values::apply(&mut settings, overrides)?;
    let schema: Value = serde_json::from_str(SCHEMA).context("reading values.schema.json")?;
    let mut mistakes = schema::check(&schema, &settings);
    mistakes.extend(above_limits(&settings));
    anyhow::ensure!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    let version = version()?;
    let data = json!({
        "Values": settings,
        "Chart": {"Name": "tulle", "Version": version, "AppVersion": version},
        "Release": {"Name": "tulle", "Namespace": NAMESPACE, "Service": "tulle"},
    });
    let mut templates = Templates::default();
    for (name, text) in TEMPLATES {
        templates.add(name, text)?;
    }
    let mut objects = Vec::new();
    for (name, _) in TEMPLATES.iter().filter(|(name, _)| !name.starts_with('_')) {
        for text in templates.render(name, &data)?.split("\n---\n") {
            let value: Value = parse(text).with_context(|| format!("{name} is not YAML once rendered"))?;
            if value.is_object() {
                objects.push(Object { text: text.trim_matches('\n').to_owned(), value });
            }
        }
    }
    objects.sort_by_key(|object| ORDER.iter().position(|kind| *kind == object.kind()));
    Ok(objects)
}

/// Requests of Tulle's own containers that are above their limits, which no API server takes. The injector raises those of
/// sidecars.
fn above_limits(settings: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut mistakes = Vec::new();
    for part in ["controlPlane", "injector", "cni"] {
        let resources = &settings[part]["resources"];
        for (name, request) in resources["requests"].as_object().into_iter().flatten() {
            let Some(limit) = resources["limits"].get(name).map(text) else { continue };
            let request = text(request);
            if exceeds(&request, &limit) {
                mistakes.push(format!(
                    "value {part}.resources.requests.{name} {request} is above {part}.resources.limits.{name} {limit}"
                ));
            }
        }
    }
    mistakes
}

/// YAML to a value; nothing is `null`.
pub(super) fn parse(text: &str) -> anyhow::Result<Value> {
    let empty = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    if empty { Ok(Value::Null) } else { Ok(serde_saphyr::from_str(text)?) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_part_of_the_binary() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/helm/tulle/templates");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "NOTES.txt")
            .collect();
        files.sort();
        assert_eq!(files, TEMPLATES.map(|(name, _)| name));
    }

    #[test]
    fn every_kind_has_its_place() {
        for object in objects(&Overrides::default()).unwrap() {
            assert!(ORDER.contains(&object.kind()), "{}", object.kind());
        }
    }

    #[test]
    fn the_chart_has_the_version_of_the_workspace() {
        assert_eq!(version().unwrap(), env!("CARGO_PKG_VERSION"));
    }
}
