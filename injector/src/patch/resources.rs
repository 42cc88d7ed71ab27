//! Requests and limits of the two containers: a pod's annotations over the injector's defaults, and no request above its limit.

use serde_json::{Map, Value, json};

use crate::annotations::Options;
use crate::settings::Resources;
use crate::values;

/// `resources` of a container in `pod`. Of two values that do not go together the default gives way; two annotations that do
/// not were refused before.
pub(super) fn of(pod: &Value, options: &Options, defaults: &Resources) -> Value {
    let rows = [
        ("cpu", &options.cpu_request, &options.cpu_limit, &defaults.cpu_request, &defaults.cpu_limit),
        ("memory", &options.memory_request, &options.memory_limit, &defaults.memory_request, &defaults.memory_limit),
        (
            "ephemeral-storage",
            &options.storage_request,
            &options.storage_limit,
            &defaults.storage_request,
            &defaults.storage_limit,
        ),
    ];
    let (mut requests, mut limits) = (Map::new(), Map::new());
    for (name, own_request, own_limit, request, limit) in rows {
        // What a pod has for all of its containers together would be exceeded by a default of one more.
        let shared = ["requests", "limits"]
            .iter()
            .any(|list| pod.pointer("/spec/resources").and_then(|all| all.get(list)?.get(name)).is_some());
        let usual = |value: &Option<String>| value.clone().filter(|_| !shared);
        let mut request = own_request.clone().or_else(|| usual(request));
        let mut limit = own_limit.clone().or_else(|| usual(limit));
        if let (Some(least), Some(most)) = (&request, &limit)
            && values::exceeds(least, most)
        {
            if own_limit.is_some() {
                request.clone_from(&limit);
            } else {
                limit.clone_from(&request);
            }
        }
        requests.extend(request.map(|quantity| (name.to_owned(), Value::String(quantity))));
        limits.extend(limit.map(|quantity| (name.to_owned(), Value::String(quantity))));
    }
    json!({"requests": requests, "limits": limits})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotations::read;

    fn resources(pod: &Value, annotations: &[(&str, &str)], defaults: &Resources) -> Value {
        let annotations = annotations.iter().map(|(key, value)| (format!("tulle.io/proxy-{key}"), (*value).to_owned()));
        let read = read(&annotations.collect());
        assert_eq!(read.errors, Vec::<String>::new());
        of(pod, &read.options, defaults)
    }

    #[test]
    fn mend_24_a_request_is_never_above_its_limit() {
        let defaults = crate::settings::Injection::default().resources;
        let of = |annotations: &[(&str, &str)]| resources(&json!({}), annotations, &defaults);
        let usual = json!({"requests": {"cpu": "10m", "memory": "24Mi"}, "limits": {"memory": "256Mi"}});
        assert_eq!(of(&[]), usual);
        assert_eq!(of(&[("memory-request", "512Mi")])["limits"]["memory"], "512Mi");
        assert_eq!(of(&[("memory-limit", "16Mi")])["requests"]["memory"], "16Mi");
        assert_eq!(of(&[("memory-request", "268435456")])["limits"]["memory"], "256Mi", "the same is not above");
        let guaranteed =
            [("cpu-request", "1"), ("cpu-limit", "1000m"), ("memory-request", "1Gi"), ("memory-limit", "1Gi")];
        let wanted = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1Gi"}});
        assert_eq!(of(&guaranteed), wanted);
        let storage = of(&[("ephemeral-storage-request", "1Gi"), ("ephemeral-storage-limit", "2Gi")]);
        assert_eq!(
            (&storage["requests"]["ephemeral-storage"], &storage["limits"]["ephemeral-storage"]),
            (&json!("1Gi"), &json!("2Gi"))
        );
        let small = Resources { cpu_limit: Some("100m".to_owned()), ..defaults.clone() };
        assert_eq!(resources(&json!({}), &[("cpu-request", "0.5")], &small)["limits"]["cpu"], "0.5");
    }

    #[test]
    fn mend_24_resources_of_a_whole_pod_are_shared() {
        let defaults = crate::settings::Injection::default().resources;
        let pod = json!({"spec": {"resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}}}});
        assert_eq!(resources(&pod, &[], &defaults), json!({"requests": {}, "limits": {}}));
        assert_eq!(resources(&pod, &[("cpu-request", "5m")], &defaults)["requests"], json!({"cpu": "5m"}));
    }
}
