//! What attempts say of their endpoints: those that keep failing are left alone, see `balance/outlier.rs`.

use super::attempt::{Attempt, Attempted, Stop};
use crate::balance::outlier::Verdict;
use crate::view::EndpointState;

/// Takes in an attempt at `endpoint` that is over.
pub(super) fn attempt(attempt: &Attempt<'_>, endpoint: &EndpointState, done: &Result<Attempted, Stop>) {
    let progress = attempt.progress;
    let verdict = match done {
        Ok(_) | Err(Stop::Again) => verdict(progress.status.get(), progress.grpc_status.get()),
        Err(Stop::Failed(failure)) if failure.blames_endpoint() => Verdict::GatewayError,
        Err(Stop::Failed(_) | Stop::Downstream(_)) => return,
    };
    if attempt.cluster.judge(endpoint, verdict) {
        let (cluster, address) = (&attempt.cluster.config.name, endpoint.config.address);
        tracing::info!(%cluster, endpoint = %address, "an endpoint keeps failing and is left alone for a while");
        attempt.cx.worker.telemetry.events().ejections.increment();
    }
}

/// What a reply says. gRPC statuses count as the HTTP statuses they stand for (Envoy's table).
fn verdict(status: u16, grpc: Option<u8>) -> Verdict {
    match (status, grpc) {
        // DEADLINE_EXCEEDED, UNAVAILABLE.
        (502..=504, _) | (_, Some(4 | 14)) => Verdict::GatewayError,
        // UNKNOWN, UNIMPLEMENTED, INTERNAL, DATA_LOSS.
        (500.., _) | (_, Some(2 | 12 | 13 | 15)) => Verdict::ServerError,
        _ => Verdict::Served,
    }
}
