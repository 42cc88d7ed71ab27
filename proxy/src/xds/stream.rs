//! The gRPC stream of a session, and how long to wait before the next one. Knows nothing of what is said on it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
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

/// The first wait after a loss, at most: it spreads a thousand proxies that lost the same control plane over a quarter
/// of a second, and is not felt when another replica is there.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// Bounds of the waits that follow; between them the outage so far, so that recovery takes no longer than what was lost
/// already. A wait is half of it on average: with 2 s a tenth of those who wait for a control plane comes in any 100 ms,
/// which is the most that one should bear (RB-02). The most bounds how long recovery takes (RB-01: 20 s).
const LEAST_BOUND: Duration = Duration::from_secs(2);
const GREATEST_BOUND: Duration = Duration::from_secs(10);

/// A stream that lasted this long was healthy: its end begins a new outage.
pub(super) const HEALTHY: Duration = Duration::from_secs(5);

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

/// The time without a control plane, and how long to wait in it.
#[derive(Debug, Default)]
pub(super) struct Outage {
    since: Option<Instant>,
}

impl Outage {
    /// A stream was healthy.
    pub(super) fn end(&mut self) {
        self.since = None;
    }

    /// The wait before the next attempt, with full jitter: `jitter`, within 0..1, of a bound.
    pub(super) fn wait(&mut self, now: Instant, jitter: f64) -> Duration {
        let bound = match self.since {
            Some(since) => now.saturating_duration_since(since).clamp(LEAST_BOUND, GREATEST_BOUND),
            None => FIRST_WAIT,
        };
        self.since.get_or_insert(now);
        bound.mul_f64(jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_the_outage_between_their_bounds_and_use_the_whole_range() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut outage = Outage::default();
        assert_eq!(outage.wait(start, 1.0), FIRST_WAIT);
        assert_eq!(outage.wait(start, 1.0), LEAST_BOUND);
        assert_eq!(outage.wait(after(4), 1.0), Duration::from_secs(4));
        assert_eq!(outage.wait(after(4), 0.25), Duration::from_secs(1));
        assert_eq!(outage.wait(after(4), 0.0), Duration::ZERO);
        assert_eq!(outage.wait(after(120), 1.0), GREATEST_BOUND);
        assert_eq!(outage.wait(after(1_000_000), 1.0), GREATEST_BOUND);
        outage.end();
        assert_eq!(outage.wait(after(1_000_001), 1.0), FIRST_WAIT);
    }

    /// Whatever the dice say, an attempt falls into the time after an outage's end that it lasted, or the first two
    /// seconds: a restart of 4 s is over after 4 s more.
    #[test]
    fn recovery_takes_as_long_as_the_outage_at_most() {
        for (lost_ms, jitter) in [(4_000, 1.0), (4_000, 0.9), (10_000, 0.77), (500, 1.0)] {
            let start = Instant::now();
            let (mut outage, mut now) = (Outage::default(), start);
            while now <= start + Duration::from_millis(lost_ms) {
                now += outage.wait(now, jitter);
            }
            let late = now - start - Duration::from_millis(lost_ms);
            assert!(late <= Duration::from_millis(lost_ms).max(LEAST_BOUND), "{late:?} after {lost_ms} ms");
        }
    }
}
