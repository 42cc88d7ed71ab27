//! Facts about the control thread's work that readiness and `/stats` report. Written by `xds` and `identity`, read by
//! `admin`; the path asks whether the stream is up when it has to wait for an answer, and nothing else.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

/// What the control thread knows about itself.
#[expect(clippy::struct_excessive_bools, reason = "facts that are independent of one another")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// A control plane is configured; without one the proxy is ready as it is.
    pub control_plane_configured: bool,
    /// The discovery stream is up.
    pub connected: bool,
    /// Discovery streams that came up since the start.
    pub streams: u64,
    /// Rules for the workload's own ports have arrived, from the control plane or the last-good file.
    pub inbound_config: bool,
    /// The snapshot in force came, at least in part, from the last-good file.
    pub from_last_good: bool,
    /// Times the last-good file was written.
    pub saves: u64,
    /// Generation of the snapshot in force.
    pub generation: u64,
    /// Responses accepted, and refused.
    pub acks: u64,
    /// Responses that were refused, in whole or in part.
    pub nacks: u64,
    /// Destinations that could not be asked for because the limit of subscriptions was reached.
    pub demands_refused: u64,
    /// Destinations and DNS names that were unsubscribed because nobody used them.
    pub forgotten: u64,
    /// Why the control plane could not be reached, or what it said last; none while all is well.
    pub last_error: Option<Arc<str>>,
    /// End of the certificate in use; none until there is one. Past: there is no valid certificate.
    pub certificate_expires: Option<SystemTime>,
    /// Why no certificate could be had at the last attempt; none after a success.
    pub identity_error: Option<Arc<str>>,
}

impl Facts {
    /// Whether the proxy holds a certificate that is valid at `now`.
    pub fn has_identity(&self, now: SystemTime) -> bool {
        self.certificate_expires.is_some_and(|end| now < end)
    }

    /// Whether the workload may receive and send traffic: rules and identity have arrived, or none are configured.
    /// The stream being down is no reason to stop a proxy that has its configuration (RB-01).
    pub fn is_ready(&self, now: SystemTime) -> bool {
        !self.control_plane_configured || (self.inbound_config && self.has_identity(now))
    }
}

/// Handle on the facts; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Status {
    facts: Arc<watch::Sender<Facts>>,
}

impl Status {
    /// The facts now.
    pub fn facts(&self) -> Facts {
        self.facts.borrow().clone()
    }

    /// Whether the discovery stream is up.
    pub fn is_connected(&self) -> bool {
        self.facts.borrow().connected
    }

    /// Waits until the proxy is ready for the first time.
    pub async fn ready(&self) {
        let mut facts = self.facts.subscribe();
        // An error would be the end of all senders, and this handle is one.
        let _ = facts.wait_for(|facts| facts.is_ready(SystemTime::now())).await;
    }

    /// Follows the facts.
    pub fn subscribe(&self) -> watch::Receiver<Facts> {
        self.facts.subscribe()
    }

    /// Changes the facts; readers are told only when something did change.
    pub fn update(&self, change: impl FnOnce(&mut Facts)) {
        self.facts.send_if_modified(|facts| {
            let before = facts.clone();
            change(facts);
            *facts != before
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ready_needs_rules_and_a_valid_certificate() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let mut facts = Facts::default();
        assert!(facts.is_ready(now), "nothing configured, nothing to wait for");
        facts.control_plane_configured = true;
        facts.inbound_config = true;
        assert!(!facts.is_ready(now));
        facts.certificate_expires = Some(now + Duration::from_secs(1));
        assert!(facts.is_ready(now));
        assert!(!facts.is_ready(now + Duration::from_secs(1)), "an expired certificate is none");
    }
}
