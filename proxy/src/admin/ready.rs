//! Whether the workload may receive traffic, for the kubelet and for people.

use std::time::SystemTime;

use http::StatusCode;

use super::routes::Reply;
use super::{AdminHandles, Audience};

/// 200 when ready; else 503 and what is waited for. Details of errors are for the local listener only.
pub(super) fn reply(handles: &AdminHandles, audience: Audience, now: SystemTime) -> Reply {
    let facts = handles.status.facts();
    let draining = handles.control.is_draining();
    if facts.is_ready(now) && !draining {
        return Reply::text(StatusCode::OK, "ready\n");
    }
    let mut waits = String::from("not ready\n");
    let mut wait = |what: &str, error: Option<&str>| {
        waits.push_str(what);
        if let (Audience::Local, Some(error)) = (audience, error) {
            waits.push_str(": ");
            waits.push_str(error);
        }
        waits.push('\n');
    };
    if draining {
        wait("draining", None);
    }
    if facts.control_plane_configured && !facts.has_identity(now) {
        wait("waiting for a certificate", facts.identity_error.as_deref());
    }
    if facts.control_plane_configured && !facts.inbound_config {
        wait("waiting for the rules of the workload's own ports", facts.last_error.as_deref());
    }
    Reply::text(StatusCode::SERVICE_UNAVAILABLE, waits)
}
