//! Leader election by a Lease: who holds it renews it; one that is not renewed is anybody's.
//!
//! Time is that of this process alone: a lease has ended when it was seen unchanged for its whole duration, whatever the
//! clock of its holder says.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tulle_proto::names;

/// Name of the Lease.
const NAME: &str = "tulle-control-plane";

/// A lease that was not renewed for this long has ended.
const DURATION: Duration = Duration::from_secs(15);

/// How often it is renewed or looked at.
const RENEW: Duration = Duration::from_secs(5);

/// A holder that could not renew for this long stops to lead, before anybody else may begin.
const LOST: Duration = Duration::from_secs(10);

/// The lease, seen by one replica.
pub(super) struct Lease {
    leases: Api<LeaseObject>,
    me: String,
    /// The version last seen of somebody else's lease, and since when.
    seen: Option<(String, Instant)>,
}

impl Lease {
    pub(super) fn new(client: Client) -> Self {
        Self { leases: Api::namespaced(client, names::CONTROL_PLANE_NAMESPACE), me: name(), seen: None }
    }

    /// Holds the lease or waits for it, and says in `leads` which.
    pub(super) async fn keep(mut self, leads: watch::Sender<bool>) {
        let mut renewed = None;
        loop {
            match tokio::time::timeout(RENEW, self.turn()).await {
                Ok(Ok(true)) => renewed = Some(Instant::now()),
                Ok(Ok(false)) => renewed = None,
                Ok(Err(error)) => tracing::warn!(%error, "the lease cannot be renewed"),
                Err(_) => tracing::warn!("the lease cannot be renewed: the API does not answer"),
            }
            let holds = renewed.is_some_and(|renewed| renewed.elapsed() < LOST);
            leads.send_if_modified(|leads| {
                let changed = *leads != holds;
                if changed {
                    tracing::info!(leader = holds, "leader election");
                }
                *leads = holds;
                changed
            });
            tokio::time::sleep(RENEW).await;
        }
    }

    /// Takes or renews the lease, when that may be done; whether it is ours now.
    async fn turn(&mut self) -> Result<bool, kube::Error> {
        let written = match self.leases.get_opt(NAME).await? {
            None => {
                let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
                let lease = LeaseObject { metadata, spec: Some(self.spec(None)) };
                self.leases.create(&PostParams::default(), &lease).await
            }
            Some(lease) if self.may_take(&lease) => {
                // Its version is in it: of two that try, one succeeds.
                let lease = LeaseObject { spec: Some(self.spec(lease.spec.as_ref())), metadata: lease.metadata };
                self.leases.replace(NAME, &PostParams::default(), &lease).await
            }
            Some(_) => return Ok(false),
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the lease is ours or nobody's.
    fn may_take(&mut self, lease: &LeaseObject) -> bool {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if holder.is_empty() || holder == self.me {
            return true;
        }
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() >= DURATION,
            Some(_) | None => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = before.filter(|before| before.holder_identity.as_deref() == Some(&self.me));
        let transitions = before.and_then(|before| before.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: ours.and_then(|ours| ours.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions.saturating_add(i32::from(before.is_some() && ours.is_none()))),
            preferred_holder: None,
            strategy: None,
        }
    }
}

/// The name of this process: its host's, which is its pod's, and something no other has.
fn name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut random = [0_u8; 8];
    // Without randomness two processes of one host would be one, which nothing else would survive either.
    let _ = aws_lc_rs::rand::fill(&mut random);
    format!("{}_{:016x}", host.trim(), u64::from_be_bytes(random))
}
