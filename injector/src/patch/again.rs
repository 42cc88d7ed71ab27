//! A pod that has its proxy and was changed by another webhook since: the API server asks again
//! (`reinvocationPolicy: IfNeeded`), and what was added is treated as what was there. Pure.

use serde_json::Value;

use super::probes;
use crate::annotations::{self, INJECT_STATUS};
use crate::pod;

/// The pod as it would be, had the other changes been there before. The same pod when nothing is to be done, or when
/// another version has been at work.
pub fn again(pod: &Value) -> Value {
    let mut patched = pod.clone();
    let annotations = pod::strings(pod, "/metadata/annotations");
    let status = annotations.get(INJECT_STATUS).and_then(|status| serde_json::from_str::<Value>(status).ok());
    let Some(status) = status.filter(|status| pod::text(status, "/version") == Some(env!("CARGO_PKG_VERSION"))) else {
        return patched;
    };
    let native = pod::text(&status, "/mode") == Some("native");
    if annotations::read(&annotations).options.rewrite_probes != Some(false) {
        let list = if native { "initContainers" } else { "containers" };
        let is_proxy = |container: &Value| pod::name(container) == pod::PROXY;
        let found = containers(&mut patched, list).iter().find(|container| is_proxy(container)).cloned();
        if let Some(mut proxy) = found {
            probes::rewrite_more(&mut patched, native, &mut proxy);
            if let Some(ours) = containers(&mut patched, list).iter_mut().find(|container| is_proxy(container)) {
                *ours = proxy;
            }
        }
    }
    if native {
        to_front(&mut patched, "initContainers", &[pod::INIT, pod::PROXY]);
    } else {
        to_front(&mut patched, "containers", &[pod::PROXY]);
        to_back(&mut patched, pod::INIT);
    }
    patched
}

/// The order of all others stays.
fn to_front(pod: &mut Value, list: &str, names: &[&str]) {
    let place = |container: &Value| names.iter().position(|name| *name == pod::name(container)).unwrap_or(names.len());
    containers(pod, list).sort_by_key(place);
}

fn to_back(pod: &mut Value, name: &str) {
    containers(pod, "initContainers").sort_by_key(|container| pod::name(container) == name);
}

fn containers<'a>(pod: &'a mut Value, list: &str) -> &'a mut [Value] {
    let list = pod.pointer_mut("/spec").and_then(|spec| spec.get_mut(list));
    list.and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
}
