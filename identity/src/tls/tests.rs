//! Real handshakes in memory, and the verifier case by case (`ID-` numbers: the attack cases of the TLS design).

use std::time::SystemTime;

use proptest::prelude::*;
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CipherSuite, Error as RustlsError, HandshakeKind, NamedGroup, ProtocolVersion};

use super::verify::{Role, VerifyError, refusal};
use super::*;
use crate::sign::BuiltInCa;
use crate::spiffe::TrustDomain;
use crate::svid;
use crate::testing::{Broken, Leaf, Pair, Rogue, ca, domain, handshake, id, identity};

const SECOND: Duration = Duration::from_secs(1);
const GOOD: &str = "spiffe://cluster.local/ns/shop/sa/web";

struct Mesh {
    _dir: tempfile::TempDir,
    ca: BuiltInCa,
}

impl Mesh {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = ca(dir.path());
        Self { _dir: dir, ca }
    }

    fn tls(&self, name: &str) -> MeshTls {
        tls(&identity(&self.ca, &id(name)))
    }
}

fn tls(identity: &Identity) -> MeshTls {
    MeshTls::new(identity, &TlsOptions::default()).unwrap()
}

fn peer_id(certs: Option<&[CertificateDer<'_>]>) -> Option<SpiffeId> {
    svid::verify_leaf(certs?.first()?).ok()
}

fn kinds(pair: &Pair) -> (HandshakeKind, HandshakeKind) {
    (pair.client.handshake_kind().unwrap(), pair.server.handshake_kind().unwrap())
}

fn refused_by_client(result: Result<Pair, Broken>) -> VerifyError {
    match result {
        Err(Broken::Client(error)) => refusal(&error).expect("our own refusal").clone(),
        Err(Broken::Server(error, _)) => panic!("the server refused: {error}"),
        Ok(_) => panic!("nobody refused"),
    }
}

fn refused_by_server(result: Result<Pair, Broken>) -> VerifyError {
    match result {
        Err(Broken::Server(error, _)) => refusal(&error).expect("our own refusal").clone(),
        Err(Broken::Client(error)) => panic!("the client refused: {error}"),
        Ok(_) => panic!("nobody refused"),
    }
}

#[test]
fn workloads_know_each_other() {
    let mesh = Mesh::new();
    let (web, api) = (mesh.tls("web"), mesh.tls("api"));
    for (alpn, token) in [(Alpn::H2, "istio-h2"), (Alpn::H1, "istio-http/1.1"), (Alpn::Opaque, "istio")] {
        let pair = handshake(web.client(&id("api"), alpn), api.server()).unwrap();
        assert_eq!(peer_id(pair.client.peer_certificates()), Some(id("api")));
        assert_eq!(peer_id(pair.server.peer_certificates()), Some(id("web")));
        assert_eq!(pair.server.alpn_protocol(), Some(token.as_bytes()));
        assert_eq!(pair.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        let suite = pair.client.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
    }
}

#[test]
fn the_key_exchange_is_a_choice() {
    let mesh = Mesh::new();
    let api = mesh.tls("api");
    for (key_exchange, group) in
        [(KeyExchange::ClassicFirst, NamedGroup::X25519), (KeyExchange::HybridFirst, NamedGroup::X25519MLKEM768)]
    {
        let options = TlsOptions { key_exchange, ..TlsOptions::default() };
        let web = MeshTls::new(&identity(&mesh.ca, &id("web")), &options).unwrap();
        let pair = handshake(web.client(&id("api"), Alpn::H2), api.server()).unwrap();
        assert_eq!(pair.client.negotiated_key_exchange_group().unwrap().name(), group);
        assert_eq!(pair.client.handshake_kind(), Some(HandshakeKind::Full), "no retry was needed");
    }
}

#[test]
fn sessions_resume_between_the_same_identities_only() {
    let mesh = Mesh::new();
    let (web, api) = (mesh.tls("web"), mesh.tls("api"));
    let first = handshake(web.client(&id("api"), Alpn::H2), api.server()).unwrap();
    assert_eq!(kinds(&first), (HandshakeKind::Full, HandshakeKind::Full));
    assert_eq!(first.client.tls13_tickets_received(), 1);

    // Another protocol inside is still the same peer.
    let again = handshake(web.client(&id("api"), Alpn::H1), api.server()).unwrap();
    assert_eq!(kinds(&again), (HandshakeKind::Resumed, HandshakeKind::Resumed));
    assert_eq!(again.server.alpn_protocol(), Some(&b"istio-http/1.1"[..]));
    assert_eq!(peer_id(again.server.peer_certificates()), Some(id("web")));
    assert_eq!(peer_id(again.client.peer_certificates()), Some(id("api")));

    // Both ends still hold material for another resumption; a rotation on either side makes it worthless.
    let rotated_server = mesh.tls("api");
    let after = handshake(web.client(&id("api"), Alpn::H2), rotated_server.server()).unwrap();
    assert_eq!(kinds(&after), (HandshakeKind::Full, HandshakeKind::Full));
    let rotated_client = mesh.tls("web");
    let after = handshake(rotated_client.client(&id("api"), Alpn::H2), api.server()).unwrap();
    assert_eq!(kinds(&after), (HandshakeKind::Full, HandshakeKind::Full));
}

#[test]
fn sessions_are_not_shared_between_expected_peers() {
    let mesh = Mesh::new();
    let (web, api) = (mesh.tls("web"), mesh.tls("api"));
    handshake(web.client(&id("api"), Alpn::H2), api.server()).unwrap();
    // A ticket of `api` is at hand, but somebody else is expected now: the certificate must be seen, and refused.
    let refused = refused_by_client(handshake(web.client(&id("pay"), Alpn::H2), api.server()));
    assert_eq!(refused, VerifyError::Unexpected { presented: id("api"), expected: id("pay") });
}

#[test]
fn resumption_can_be_turned_off() {
    let mesh = Mesh::new();
    let options = TlsOptions { sessions: 0, ..TlsOptions::default() };
    let web = MeshTls::new(&identity(&mesh.ca, &id("web")), &options).unwrap();
    let api = mesh.tls("api");
    for _ in 0..2 {
        let pair = handshake(web.client(&id("api"), Alpn::H2), api.server()).unwrap();
        assert_eq!(kinds(&pair), (HandshakeKind::Full, HandshakeKind::Full));
    }
}

#[test]
fn an_expired_peer_of_a_resumed_session_has_no_identity() {
    let rogue = Rogue::new();
    let leaf = rogue.identity(&Leaf::of(&[GOOD]));
    let (certs, bundle) = ([leaf.svid.chain()[0].clone()], rogue.bundle());
    let at = |now| proof::proof_at(&certs, &bundle, now).map(|proof| proof.id);
    assert!(at(leaf.svid.not_after()).is_some());
    assert!(at(leaf.svid.not_after() + SECOND).is_none());
    assert!(at(leaf.svid.not_before() - SECOND).is_none());
}

#[test]
fn id01_a_client_without_a_certificate_is_refused() {
    let mesh = Mesh::new();
    let client = control_plane_client(&mesh.ca_bundle(), &id("api")).unwrap();
    match handshake(client, mesh.tls("api").server()) {
        Err(Broken::Server(error, told)) => {
            assert_eq!(error, RustlsError::NoCertificatesPresented);
            assert_eq!(told.as_deref(), Some(&RustlsError::AlertReceived(AlertDescription::CertificateRequired)));
        }
        Err(Broken::Client(error)) => panic!("the client refused: {error}"),
        Ok(_) => panic!("nobody refused"),
    }
}

impl Mesh {
    fn ca_bundle(&self) -> Arc<TrustBundle> {
        crate::sign::Signer::bundle(&self.ca)
    }
}

#[test]
fn id03_time_is_exact_and_roots_are_ours() {
    let rogue = Rogue::new();
    let verifier = PeerVerifier::new(&rogue.bundle(), domain());
    // Certificates count in whole seconds.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let hour = Duration::from_secs(3600);
    let at = |from, to| rogue.issue(&Leaf::of(&[GOOD]).valid(from, to));
    let judge = |cert: CertificateDer<'static>| verifier.verify(Role::Client, &[cert], now);
    assert!(judge(at(now - hour, now + hour)).is_ok());
    assert!(judge(at(now, now)).is_ok(), "both ends belong to the validity");
    assert_eq!(judge(at(now - hour, now - SECOND)), Err(VerifyError::Expired));
    assert_eq!(judge(at(now + SECOND, now + hour)), Err(VerifyError::NotYetValid));
    let strangers = Rogue::new().issue(&Leaf::of(&[GOOD]).valid(now - hour, now + hour));
    // The other authority has the same name, so it is the signature that gives it away.
    assert!(matches!(judge(strangers), Err(VerifyError::Chain(_) | VerifyError::UnknownIssuer)));
    let self_signed = Leaf::of(&[GOOD]).valid(now - hour, now + hour);
    let self_signed = self_signed.params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    assert_eq!(judge(self_signed.der().clone()), Err(VerifyError::UnknownIssuer));
    assert_eq!(verifier.verify(Role::Client, &[], now), Err(VerifyError::Count));
}

#[test]
fn id03_a_fresh_certificate_suits_a_clock_20_s_behind() {
    let mesh = Mesh::new();
    let web = identity(&mesh.ca, &id("web"));
    let verifier = PeerVerifier::new(&web.bundle, domain());
    let behind = SystemTime::now() - Duration::from_secs(20);
    assert_eq!(verifier.verify(Role::Server, web.svid.chain(), behind), Ok(id("web")));
}

#[test]
fn id04_another_trust_domain_is_refused_by_both_ends() {
    let rogue = Rogue::new();
    let foreign = rogue.identity(&Leaf::of(&["spiffe://clusterset.local/ns/shop/sa/web"]));
    let local = rogue.identity(&Leaf::of(&[GOOD]));
    let (foreign_tls, local_tls) = (tls(&foreign), tls(&local));
    let expected = VerifyError::TrustDomain { presented: foreign.svid.id().clone(), ours: domain() };
    assert_eq!(refused_by_client(handshake(local_tls.client(&id("web"), Alpn::H2), foreign_tls.server())), expected);
    // A client that would take any server, to see the server's own refusal.
    let lax = PeerVerifier::new(&local.bundle, domain());
    assert_eq!(lax.verify(Role::Client, foreign.svid.chain(), SystemTime::now()), Err(expected));
    assert_eq!(TrustDomain::parse("clusterset.local").unwrap(), foreign.svid.id().trust_domain());
}

#[test]
fn id04_strangers_are_refused_by_the_server() {
    let (ours, theirs) = (Mesh::new(), Mesh::new());
    // The client trusts our root, and shows a certificate of theirs.
    let stranger = identity(&theirs.ca, &id("web"));
    let stranger = Identity { svid: stranger.svid, bundle: ours.ca_bundle() };
    let result = handshake(tls(&stranger).client(&id("api"), Alpn::H2), ours.tls("api").server());
    assert_eq!(refused_by_server(result), VerifyError::UnknownIssuer);
}

#[test]
fn id05_a_server_that_is_somebody_else_is_refused() {
    let mesh = Mesh::new();
    let result = handshake(mesh.tls("web").client(&id("api"), Alpn::H2), mesh.tls("other").server());
    assert_eq!(refused_by_client(result), VerifyError::Unexpected { presented: id("other"), expected: id("api") });
}

#[test]
fn a_refusal_is_found_inside_an_io_error() {
    let refused = VerifyError::Expired;
    let error = std::io::Error::new(std::io::ErrorKind::InvalidData, RustlsError::from(refused.clone()));
    assert_eq!(refusal(&error), Some(&refused));
    assert_eq!(refusal(&std::io::Error::other("no")), None);
    assert_eq!(refusal(&RustlsError::DecryptError), None);
}

#[test]
fn id06_one_uri_and_that_a_workload() {
    let rogue = Rogue::new();
    let verify = |leaf: &Leaf| svid::verify_leaf(&rogue.issue(leaf));
    assert_eq!(verify(&Leaf::of(&[GOOD])), Ok(id("web")));
    let with_dns = Leaf::of(&[GOOD]).with(|p| p.subject_alt_names.push(SanType::DnsName("a.test".try_into().unwrap())));
    assert_eq!(verify(&with_dns), Ok(id("web")), "other kinds of names do not matter");
    assert_eq!(verify(&Leaf::of(&[])), Err(SvidError::UriNames(0)));
    let only_dns = Leaf::of(&[]).with(|p| p.subject_alt_names = vec![SanType::DnsName("a.test".try_into().unwrap())]);
    assert_eq!(verify(&only_dns), Err(SvidError::UriNames(0)));
    assert_eq!(verify(&Leaf::of(&[GOOD, GOOD])), Err(SvidError::UriNames(2)));
    assert_eq!(verify(&Leaf::of(&[GOOD, "https://a.test/"])), Err(SvidError::UriNames(2)));
    let long = format!("{GOOD}{}", "a".repeat(2048));
    for bad in [
        "",
        "https://cluster.local/ns/shop/sa/web",
        "spiffe://cluster.local",
        "spiffe://cluster.local/",
        "spiffe://cluster.local/ns/shop/sa/we%62",
        "spiffe://cluster.local/ns/shop/sa/web/",
        "spiffe://cluster.local//ns/shop/sa/web",
        "spiffe://cluster.local/ns/shop/../shop/sa/web",
        "spiffe://CLUSTER.LOCAL/ns/shop/sa/web",
        "spiffe://user@cluster.local/ns/shop/sa/web",
        "spiffe://cluster.local:443/ns/shop/sa/web",
        "spiffe://cluster.local/ns/shop/sa/web?a=b",
        "spiffe://cluster.local/ns/shop/sa/web#a",
        long.as_str(),
    ] {
        assert!(matches!(verify(&Leaf::of(&[bad])), Err(SvidError::Id(_))), "{bad}");
    }
}

#[test]
fn id07_only_a_leaf_is_a_leaf() {
    let rogue = Rogue::new();
    let now = SystemTime::now();
    let verifier = PeerVerifier::new(&rogue.bundle(), domain());
    let judge = |leaf: Leaf, expected: SvidError| {
        let cert = rogue.issue(&leaf);
        assert_eq!(svid::verify_leaf(&cert), Err(expected.clone()));
        for role in [Role::Client, Role::Server] {
            let refused = verifier.verify(role, std::slice::from_ref(&cert), now);
            assert_eq!(refused, Err(VerifyError::Leaf(expected.clone())), "{role:?}");
        }
    };
    let good = || Leaf::of(&[GOOD]);
    let usages = |extra: &[KeyUsagePurpose]| [&[KeyUsagePurpose::DigitalSignature], extra].concat();
    judge(good().with(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), SvidError::Authority);
    judge(good().with(|p| p.key_usages = usages(&[KeyUsagePurpose::KeyCertSign])), SvidError::KeyUsage);
    judge(good().with(|p| p.key_usages = usages(&[KeyUsagePurpose::CrlSign])), SvidError::KeyUsage);
    judge(good().with(|p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment]), SvidError::KeyUsage);
    judge(good().with(|p| p.key_usages.clear()), SvidError::KeyUsage);
    judge(good().with(|p| p.extended_key_usages.clear()), SvidError::ExtendedKeyUsage);
    assert_eq!(verifier.verify(Role::Client, &[rogue.root()], now), Err(VerifyError::Leaf(SvidError::Authority)));
    for only in [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth] {
        judge(good().with(|p| p.extended_key_usages = vec![only]), SvidError::ExtendedKeyUsage);
    }
}

#[test]
fn the_control_plane_is_dialled_without_a_certificate() {
    let mesh = Mesh::new();
    let plane = identity(&mesh.ca, &id("plane"));
    let server = control_plane_server(&plane).unwrap();
    let client = control_plane_client(&plane.bundle, &id("plane")).unwrap();
    let pair = handshake(client, Arc::clone(&server)).unwrap();
    assert_eq!(pair.client.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(pair.client.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(peer_id(pair.client.peer_certificates()), Some(id("plane")));
    assert!(pair.server.peer_certificates().is_none());
    let deceived = control_plane_client(&plane.bundle, &id("other")).unwrap();
    assert!(matches!(refused_by_client(handshake(deceived, server)), VerifyError::Unexpected { .. }));
}

#[test]
fn a_foreign_tls_1_2_client_reaches_the_control_plane_but_not_the_mesh() {
    let mesh = Mesh::new();
    let plane = identity(&mesh.ca, &id("plane"));
    let template = control_plane_client(&plane.bundle, &id("plane")).unwrap();
    let old = ClientConfig::builder_with_provider(Arc::clone(template.crypto_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(template.crypto_provider().clone())))
        .with_no_client_auth();
    let old = Arc::new(old);
    let pair = handshake(Arc::clone(&old), control_plane_server(&plane).unwrap()).unwrap();
    assert_eq!(pair.client.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert!(matches!(handshake(old, tls(&plane).server()), Err(Broken::Server(RustlsError::PeerIncompatible(_), _))));
}

#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _rest: &[CertificateDer<'_>],
        _name: &rustls::pki_types::ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, RustlsError> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[test]
fn client_configurations_are_cached() {
    let mesh = Mesh::new();
    let web = mesh.tls("web");
    let first = web.client(&id("api"), Alpn::H2);
    assert!(Arc::ptr_eq(&first, &web.client(&id("api"), Alpn::H2)));
    assert!(!Arc::ptr_eq(&first, &web.client(&id("api"), Alpn::H1)));
    assert!(!Arc::ptr_eq(&first, &web.client(&id("pay"), Alpn::H2)));
    assert!(!Arc::ptr_eq(&first, &mesh.tls("web").client(&id("api"), Alpn::H2)), "a rotation starts anew");
}

#[test]
fn client_configurations_are_bounded() {
    let mesh = Mesh::new();
    let web = mesh.tls("web");
    for n in 0..=client::MAX_PEERS {
        web.client(&id(&format!("peer-{n}")), Alpn::H2);
    }
    assert_eq!(web.clients.len(), client::MAX_PEERS);
}

#[test]
fn nothing_prints_a_key() {
    let mesh = Mesh::new();
    let identity = identity(&mesh.ca, &id("web"));
    let printed = format!("{identity:?} {:?}", tls(&identity));
    assert!(printed.len() < 500 && !printed.contains("key"), "{printed}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_certificates_never_panic(at in 0usize..600, byte: u8, cut in 0usize..1200) {
        let rogue = Rogue::new();
        let verifier = PeerVerifier::new(&rogue.bundle(), domain());
        let whole = rogue.issue(&Leaf::of(&[GOOD])).to_vec();
        let mut der = whole.clone();
        if let Some(victim) = der.get_mut(at) {
            *victim ^= byte;
        }
        der.truncate(cut);
        let damaged = [CertificateDer::from(der)];
        let _ = svid::verify_leaf(&damaged[0]);
        let _ = proof(Some(&damaged), &rogue.bundle());
        let _ = TrustBundle::from_roots(damaged.to_vec());
        let accepted = verifier.verify(Role::Client, &damaged, SystemTime::now()).is_ok();
        prop_assert_eq!(accepted, damaged[0].as_ref() == whole.as_slice());
    }
}
