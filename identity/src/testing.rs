//! Identities, odd certificates and in-memory handshakes for tests.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use time::OffsetDateTime;

use crate::csr::{self, PendingKey};
use crate::sign::{BuiltInCa, Signer};
use crate::spiffe::{SpiffeId, TrustDomain};
use crate::svid::{Identity, Svid, TrustBundle};

/// The trust domain of all tests.
pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

/// The id of service account `name` in namespace `shop`.
pub(crate) fn id(name: &str) -> SpiffeId {
    SpiffeId::workload(&domain(), "shop", name).unwrap()
}

/// An authority in `dir`.
pub(crate) fn ca(dir: &Path) -> BuiltInCa {
    BuiltInCa::open(&dir.join("state"), &domain()).unwrap()
}

/// The identity `ca` gives to `id`, for an hour.
pub(crate) fn identity(ca: &impl Signer, id: &SpiffeId) -> Identity {
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let key = PendingKey::generate().unwrap();
    let csr = csr::parse(&key.csr_pem(id).unwrap()).unwrap();
    let chain = ca.sign(&csr, id, &[], hour, now).unwrap();
    let (svid, bundle) = key.into_svid(&chain, now).unwrap();
    Identity { svid: Arc::new(svid), bundle: Arc::new(bundle) }
}

/// An authority without rules, for certificates no honest one would issue.
pub(crate) struct Rogue(CertifiedIssuer<'static, KeyPair>);

/// What goes into such a certificate; starts out flawless.
pub(crate) struct Leaf {
    pub(crate) params: CertificateParams,
}

impl Rogue {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "rogue");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle::from_roots(vec![self.root()]).unwrap()
    }

    pub(crate) fn issue(&self, leaf: &Leaf) -> CertificateDer<'static> {
        leaf.params.signed_by(&KeyPair::generate().unwrap(), &self.0).unwrap().der().clone()
    }

    /// The leaf as an identity that trusts this authority, when its certificate keeps the rules.
    pub(crate) fn identity(&self, leaf: &Leaf) -> Identity {
        let key = KeyPair::generate().unwrap();
        let cert = leaf.params.signed_by(&key, &self.0).unwrap().der().clone();
        let svid = Svid::new(vec![cert], key.serialize_der().into()).unwrap();
        Identity { svid: Arc::new(svid), bundle: Arc::new(self.bundle()) }
    }
}

impl Leaf {
    /// A flawless leaf, valid for an hour around now, with these URI names.
    pub(crate) fn of(uris: &[&str]) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let half = Duration::from_secs(1800);
        Self { params }.valid(SystemTime::now() - half, SystemTime::now() + half)
    }

    pub(crate) fn valid(mut self, from: SystemTime, to: SystemTime) -> Self {
        self.params.not_before = OffsetDateTime::from(from);
        self.params.not_after = OffsetDateTime::from(to);
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        change(&mut self.params);
        self
    }
}

/// Both ends of a finished handshake, tickets delivered.
pub(crate) struct Pair {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerConnection,
}

/// Which end broke a handshake, and why.
#[derive(Debug)]
pub(crate) enum Broken {
    Client(rustls::Error),
    /// The second is what the client then learns.
    Server(rustls::Error, Option<Box<rustls::Error>>),
}

/// Shakes hands in memory.
pub(crate) fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Pair, Broken> {
    let name = ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into());
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    loop {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut idle = bytes.is_empty();
        let mut input = bytes.as_slice();
        while !input.is_empty() {
            server.read_tls(&mut input).unwrap();
            if let Err(error) = server.process_new_packets() {
                let mut alert = Vec::new();
                server.write_tls(&mut alert).unwrap();
                client.read_tls(&mut alert.as_slice()).unwrap();
                return Err(Broken::Server(error, client.process_new_packets().err().map(Box::new)));
            }
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        idle &= bytes.is_empty();
        let mut input = bytes.as_slice();
        while !input.is_empty() {
            client.read_tls(&mut input).unwrap();
            client.process_new_packets().map_err(Broken::Client)?;
        }
        if idle {
            assert!(!client.is_handshaking() && !server.is_handshaking(), "stuck");
            return Ok(Pair { client, server });
        }
    }
}
