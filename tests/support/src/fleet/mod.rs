//! Many simulated proxies in one process: each speaks delta ADS over a TLS connection of its own, as `tulle-proxy` does
//! (by name and on demand, versions brought along after a reconnect, every response acknowledged), and serves nothing.
//!
//! For what only shows in numbers: propagation, memory, reconnect storms. See `benches/xds` and `tests/fleet`.

/// The mesh they ask about, as manifests.
mod manifests;

/// What happened, counted over all of them.
mod tally;

/// The stream of one of them.
mod link;

/// The life of one of them.
mod member;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::task::JoinSet;
use tulle_identity::spiffe::{SpiffeId, TrustDomain};
use tulle_identity::svid::TrustBundle;
use tulle_identity::tls::control_plane_client;
use tulle_identity::token::TokenIssuer;

use link::Target;
use member::Member;

pub use manifests::Services;
pub use tally::{Arrivals, Tally, Totals};

/// Trust domain of everything here.
const DOMAIN: &str = "cluster.local";

/// Tokens outlive every run.
const TOKEN_LIFE: Duration = Duration::from_hours(24);

/// Running proxies. Dropping it closes their connections.
#[derive(Debug)]
pub struct Fleet {
    tally: Arc<Tally>,
    members: JoinSet<()>,
}

impl Fleet {
    /// Starts `count` proxies of the control plane at `address` that keeps its state in `state`. Proxy `i` stands beside
    /// an instance of service `i` (modulo their number), and dials the services that [`Services::dialled`] names.
    ///
    /// # Errors
    /// When the state directory lacks the control plane's keys.
    pub fn start(count: usize, services: &Services, address: SocketAddr, state: &Path) -> anyhow::Result<Self> {
        let issuer = TokenIssuer::open(state).context("the token key")?;
        let pem = std::fs::read(state.join("trust-bundle.pem")).context("the trust bundle")?;
        let bundle = TrustBundle::from_pem(&pem)?;
        let domain = TrustDomain::parse(DOMAIN)?;
        let server = SpiffeId::workload(&domain, "tulle-system", "tulle-control-plane")?;
        let mut tls = rustls::ClientConfig::clone(&*control_plane_client(&bundle, &server)?);
        // Each proxy is a process of its own: none has the ticket of another, or one of before.
        tls.resumption = rustls::client::Resumption::disabled();
        let target = Arc::new(Target { address, tls: Arc::new(tls) });
        let tally = Arc::new(Tally::default());
        let mut members = JoinSet::new();
        let mut tokens = std::collections::HashMap::new();
        for i in 0..count {
            let (namespace, account) = services.workload(i);
            let token = match tokens.get(&account) {
                Some(token) => Arc::clone(token),
                None => {
                    let id = SpiffeId::workload(&domain, &namespace, &account)?;
                    let token: Arc<str> = issuer.issue(&id, TOKEN_LIFE, SystemTime::now())?.into();
                    tokens.insert(account.clone(), Arc::clone(&token));
                    token
                }
            };
            let member = Member::new(&namespace, &account, services.dialled(i), token);
            members.spawn(member.run(Arc::clone(&target), Arc::clone(&tally)));
        }
        Ok(Self { tally, members })
    }

    /// What happened so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Number of proxies.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}
