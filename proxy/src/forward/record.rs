//! What a request amounted to: its series and its line in the access log.

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Context, Progress, Refusal};
use crate::base::protocol::Protocol;
use crate::codec::head::RequestHead;
use crate::telemetry::access_log::AccessRecord;
use crate::telemetry::counters::{Outcome, RequestSeries};
use crate::telemetry::labels::{Destination, Direction, RequestLabels};
use crate::view::ClusterState;

/// Records a request that is over. `decided`: the cluster and route it took, if it came so far.
pub(super) fn finish(
    cx: &Context<'_>,
    decided: Option<(&ClusterState, &Arc<str>)>,
    head: &RequestHead,
    progress: &Progress,
) {
    let outcome = Outcome {
        status: progress.status.get(),
        grpc_status: progress.grpc_status.get(),
        reason: progress.reason.get(),
        duration: progress.started.elapsed(),
        request_bytes: progress.sent.bytes.get(),
        response_bytes: progress.received.bytes.get(),
    };
    series(cx, decided, head, progress).record(&outcome);
    if cx.worker.telemetry.access_enabled() {
        log(cx, decided, head, progress, &outcome);
    }
}

/// Records a request whose head was refused. `grpc`: the status its caller was given, if it speaks gRPC.
pub(super) fn refused(cx: &Context<'_>, refusal: &Refusal, grpc: Option<u8>) {
    let Refusal { outline, status, reason, detail, duration } = refusal;
    let shown = if grpc.is_some() { Some(200) } else { *status };
    let outcome = Outcome {
        status: shown.unwrap_or(0),
        grpc_status: grpc,
        reason: Some(*reason),
        duration: *duration,
        request_bytes: 0,
        response_bytes: 0,
    };
    let inbound = cx.direction == Direction::Inbound;
    let labels = RequestLabels {
        direction: cx.direction,
        source: cx.source.clone(),
        destination: Destination {
            service: "".into(),
            namespace: "".into(),
            workload: if inbound { Arc::clone(&cx.worker.own.workload) } else { "".into() },
        },
        route: "".into(),
        protocol: if outline.version == "HTTP/2" { Protocol::Http2 } else { Protocol::Http },
        tls: inbound && cx.tls,
    };
    cx.worker.telemetry.requests(&labels).record(&outcome);
    if !cx.worker.telemetry.access_enabled() {
        return;
    }
    cx.worker.telemetry.access(&AccessRecord {
        time: SystemTime::now(),
        direction: cx.direction,
        downstream: cx.downstream.0,
        peer: (inbound && cx.tls).then_some(&*cx.source.identity),
        method: &outline.method,
        authority: &outline.authority,
        path: &outline.path,
        protocol: outline.version,
        status: shown,
        grpc_status: grpc,
        reason: Some(*reason),
        detail,
        duration: *duration,
        request_bytes: 0,
        response_bytes: 0,
        upstream: None,
        cluster: "",
        route: "",
        attempts: 0,
    });
}

/// The series of the request. On the way out it is kept with the endpoint, on the way in with the connection.
fn series(
    cx: &Context<'_>,
    decided: Option<(&ClusterState, &Arc<str>)>,
    head: &RequestHead,
    progress: &Progress,
) -> Rc<RequestSeries> {
    let endpoint = progress.endpoint.borrow();
    match (cx.direction, &*endpoint, decided) {
        (Direction::Outbound, Some(endpoint), Some((_, route))) => {
            endpoint.series(route, || cx.worker.telemetry.requests(&labels(cx, decided, head, progress)))
        }
        (Direction::Inbound, _, Some(_)) => Rc::clone(
            &*cx.series
                .borrow_mut()
                .get_or_insert_with(|| cx.worker.telemetry.requests(&labels(cx, decided, head, progress))),
        ),
        _ => cx.worker.telemetry.requests(&labels(cx, decided, head, progress)),
    }
}

fn labels(
    cx: &Context<'_>,
    decided: Option<(&ClusterState, &Arc<str>)>,
    head: &RequestHead,
    progress: &Progress,
) -> RequestLabels {
    let endpoint = progress.endpoint.borrow();
    let cluster = decided.map(|(cluster, _)| &cluster.config);
    let workload = match (cx.direction, &*endpoint) {
        (Direction::Inbound, _) => Arc::clone(&cx.worker.own.workload),
        (Direction::Outbound, Some(endpoint)) => Arc::clone(&endpoint.config.workload),
        (Direction::Outbound, None) => "".into(),
    };
    let declared = cluster.map_or(Protocol::Auto, |cluster| cluster.protocol);
    let protocol = match (declared, head) {
        (Protocol::Auto, RequestHead::H1(_)) => Protocol::Http,
        (Protocol::Auto, RequestHead::H2(_)) => Protocol::Http2,
        (declared, _) => declared,
    };
    RequestLabels {
        direction: cx.direction,
        source: cx.source.clone(),
        destination: Destination {
            service: cluster.map_or_else(|| "".into(), |cluster| Arc::clone(&cluster.service)),
            namespace: cluster.map_or_else(|| "".into(), |cluster| Arc::clone(&cluster.namespace)),
            workload,
        },
        route: decided.map_or_else(|| "".into(), |(_, route)| Arc::clone(route)),
        protocol,
        tls: match cx.direction {
            Direction::Inbound => cx.tls,
            Direction::Outbound => endpoint.as_ref().is_some_and(|endpoint| endpoint.config.identity.is_some()),
        },
    }
}

fn log(
    cx: &Context<'_>,
    decided: Option<(&ClusterState, &Arc<str>)>,
    head: &RequestHead,
    progress: &Progress,
    outcome: &Outcome,
) {
    let endpoint = progress.endpoint.borrow();
    let peer = match cx.direction {
        Direction::Inbound => cx.tls.then_some(&*cx.source.identity),
        Direction::Outbound => endpoint.as_ref().and_then(|e| e.config.identity.as_ref()).map(|id| id.as_str()),
    };
    cx.worker.telemetry.access(&AccessRecord {
        time: SystemTime::now(),
        direction: cx.direction,
        downstream: cx.downstream.0,
        peer,
        method: head.method(),
        authority: head.authority(),
        path: head.path(),
        protocol: head.version(),
        status: (outcome.status != 0).then_some(outcome.status),
        grpc_status: outcome.grpc_status,
        reason: outcome.reason,
        detail: progress.detail.get().map_or("", |detail| detail),
        duration: outcome.duration,
        request_bytes: outcome.request_bytes,
        response_bytes: outcome.response_bytes,
        upstream: endpoint.as_ref().map(|endpoint| endpoint.config.address),
        cluster: decided.map_or("", |(cluster, _)| &cluster.config.name),
        route: decided.map_or("", |(_, route)| route),
        attempts: progress.attempts.get(),
    });
}
