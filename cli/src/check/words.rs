//! Labels and annotations of Tulle that have no effect, or not the one that was meant: of namespaces and pods.

use serde_json::Value;
use tulle_injector::validate;

use super::finding::Finding;
use crate::cluster::Cluster;

const ABOUT: &str = "labels and annotations";

/// Most objects in one line.
const SHOWN: usize = 5;

pub(super) async fn look(cluster: &Cluster) -> Finding {
    let mut objects = Vec::new();
    for (kind, path) in [("Namespace", "/api/v1/namespaces"), ("Pod", "/api/v1/pods")] {
        match cluster.list(path).await {
            Ok(found) => objects.extend(found.into_iter().map(|mut object| {
                // Items of a list do not say what they are.
                object["apiVersion"] = "v1".into();
                object["kind"] = kind.into();
                object
            })),
            Err(error) => return Finding::of_call(ABOUT, &error),
        }
    }
    judge(&objects)
}

fn judge(objects: &[Value]) -> Finding {
    let mut told: Vec<String> = Vec::new();
    for object in objects {
        let found = validate::object(object, None);
        let word = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
        let name = match object["kind"].as_str() {
            Some("Namespace") => format!("namespace {}", word("name")),
            _ => format!("pod {}/{}", word("namespace"), word("name")),
        };
        told.extend(found.errors.iter().chain(&found.warnings).map(|wrong| format!("{name}: {wrong}")));
    }
    if told.is_empty() {
        return Finding::ok(ABOUT, "all are known");
    }
    let more = told.len().saturating_sub(SHOWN);
    told.truncate(SHOWN);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    Finding::warning(ABOUT, told.join("; ") + &more)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::State;
    use super::*;

    #[test]
    fn mend_30_words_without_effect_are_named_with_their_objects() {
        let object = |kind: &str, labels: Value, annotations: Value| {
            json!({"apiVersion": "v1", "kind": kind,
                "metadata": {"name": "a", "namespace": "shop", "labels": labels, "annotations": annotations}})
        };
        let right = object("Namespace", json!({"tulle.io/inject": "enabled"}), json!({"tulle.io/timeout": "5s"}));
        assert_eq!(judge(&[right]).state, State::Ok);
        for (object, part) in [
            (
                object("Namespace", json!({"tulle.io/inject": "true"}), json!({})),
                "namespace a: label tulle.io/inject: \"true\" is not a value; did you mean enabled?",
            ),
            (object("Namespace", json!({}), json!({"tulle.io/timeot": "5s"})), "did you mean tulle.io/timeout?"),
            (object("Pod", json!({"tulle.io/inject": "yes"}), json!({})), "pod shop/a: label tulle.io/inject"),
            (object("Pod", json!({}), json!({"tulle.io/capture": "magic"})), "pod shop/a: tulle.io/capture"),
        ] {
            let finding = judge(&[object]);
            assert!(finding.state == State::Warning && finding.detail.contains(part), "{part}: {}", finding.detail);
        }
    }
}
