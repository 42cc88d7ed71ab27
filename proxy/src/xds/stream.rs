//! The gRPC stream of a session, and how long to wait before the next one. Knows nothing of what is said on it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tulle_proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use tulle_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use crate::control_plane::Connection;

/// Largest response that is read; a larger one ends the stream.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// Requests that wait for the transport. At least one per resource type, for the first ones are written before the
/// server has answered anything.
const QUEUED_REQUESTS: usize = 16;

/// First and longest wait between attempts. The first spreads a thousand proxies that lost the same control plane over
/// a quarter of a second; the longest bounds how long recovery takes (RB-01: 20 s).
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A stream that lasted this long was healthy: the next attempt begins with the first wait again.
pub(super) const HEALTHY: Duration = Duration::from_secs(10);

/// An open stream. Dropping it resets it.
#[derive(Debug)]
pub(super) struct Stream {
    /// Requests to the control plane.
    pub(super) requests: mpsc::Sender<DeltaDiscoveryRequest>,
    /// Responses from it.
    pub(super) responses: Streaming<DeltaDiscoveryResponse>,
}

/// Opens a stream on `connection`, with `first` as its first requests: some servers answer nothing, not even headers,
/// before they have seen one.
///
/// # Errors
/// The server's status.
pub(super) async fn open(connection: Connection, first: Vec<DeltaDiscoveryRequest>) -> Result<Stream, tonic::Status> {
    let (requests, queue) = mpsc::channel(QUEUED_REQUESTS.max(first.len()));
    for request in first {
        if requests.try_send(request).is_err() {
            return Err(tonic::Status::internal("the queue of first requests is too short"));
        }
    }
    let mut client =
        AggregatedDiscoveryServiceClient::new(connection.channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES);
    let call = connection.authorized(ReceiverStream::new(queue));
    let responses = client.delta_aggregated_resources(call).await?.into_inner();
    Ok(Stream { requests, responses })
}

/// The wait before attempt `attempt` (0: the first one after a healthy stream), with full jitter: `jitter`, within
/// 0..1, of a bound that doubles.
pub(super) fn wait(attempt: u32, jitter: f64) -> Duration {
    let bound = FIRST_WAIT.saturating_mul(1u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(LONGEST_WAIT);
    bound.mul_f64(jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_use_the_whole_range() {
        assert_eq!(wait(0, 1.0), FIRST_WAIT);
        assert_eq!(wait(2, 1.0), Duration::from_secs(1));
        assert_eq!(wait(2, 0.25), Duration::from_millis(250));
        assert_eq!(wait(7, 0.0), Duration::ZERO);
        for attempt in [10, 31, 32, 4000] {
            assert_eq!(wait(attempt, 1.0), LONGEST_WAIT);
        }
    }
}
