//! What the injector is asked: reviews, and manifests.

use k8s_openapi::ByteString;
use serde_json::{Value, json};
use tulle_injector::fuzz::verdicts;
use tulle_injector::manifests::{self, Around, What};
use tulle_injector::settings::Injection;

/// A review, or a pod that is put into one: the answer is of the review, its patch applies, and what comes out is
/// left alone the second time.
pub fn review(bytes: &[u8]) {
    let body: Value = match serde_json::from_slice(bytes) {
        Ok(body) => body,
        Err(_) => {
            assert!(verdicts(bytes).is_none(), "no JSON, and yet a review");
            return;
        }
    };
    let review = if body.get("kind").and_then(Value::as_str) == Some("AdmissionReview") { body } else { of(body) };
    let Some((inject, validate)) = verdicts(review.to_string().as_bytes()) else { return };
    for answer in [&inject, &validate] {
        assert_eq!(answer.pointer("/response/uid"), review.pointer("/request/uid"), "the uid");
        assert!(answer.pointer("/response/allowed").is_some_and(Value::is_boolean), "a verdict");
    }
    let Some(operations) = patch(&inject) else { return };
    let mut pod = review.pointer("/request/object").cloned().unwrap_or_default();
    for operation in &operations {
        let done = apply(&mut pod, operation);
        assert!(done.is_some(), "{operation} does not apply");
    }
    let again = verdicts(of(pod).to_string().as_bytes());
    let patched_again = again.as_ref().and_then(|(inject, _)| patch(inject));
    assert_eq!(patched_again, None, "a second injection");
}

fn of(pod: Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "1", "operation": "CREATE", "namespace": "shop",
        "kind": {"group": "", "version": "v1", "kind": "Pod"}, "object": pod,
    }})
}

/// The operations of an answer.
fn patch(answer: &Value) -> Option<Vec<Value>> {
    let bytes: ByteString = serde_json::from_value(answer.pointer("/response/patch")?.clone()).ok()?;
    serde_json::from_slice(&bytes.0).ok()
}

/// One operation of RFC 6902, of those that are used.
fn apply(document: &mut Value, operation: &Value) -> Option<()> {
    let (parent, key) = operation.get("path")?.as_str()?.rsplit_once('/')?;
    let key = key.replace("~1", "/").replace("~0", "~");
    let value = operation.get("value").cloned();
    match (operation.get("op")?.as_str()?, document.pointer_mut(parent)?) {
        ("add", Value::Object(parent)) => parent.insert(key, value?).is_none().then_some(()),
        ("replace", Value::Object(parent)) => parent.insert(key, value?).map(|_| ()),
        ("remove", Value::Object(parent)) => parent.remove(&key).map(|_| ()),
        ("replace", Value::Array(parent)) => {
            *parent.get_mut(key.parse::<usize>().ok()?)? = value?;
            Some(())
        }
        _ => None,
    }
}

/// Manifests: what comes out is manifests again, and nothing in it gets a second proxy.
pub fn inject(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let around = Around { namespace: "shop", native: true };
    let settings = Injection::default();
    let Ok((out, outcomes)) = manifests::inject(text, around, &settings) else { return };
    if outcomes.iter().all(|outcome| !matches!(outcome.what, What::Injected(_))) {
        // A last line gets its end.
        assert_eq!(out.trim_end(), text.trim_end(), "what nothing happened to");
        return;
    }
    let again = manifests::inject(&out, around, &settings);
    let twice = again.map(|(_, outcomes)| outcomes.iter().any(|outcome| matches!(outcome.what, What::Injected(_))));
    assert_eq!(twice, Ok(false), "a second injection");
}
