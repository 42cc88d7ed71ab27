//! Real handshakes in memory, and the verifier by cases of `security.md` 1.10.

use rustls::HandshakeKind;
use rustls::{AlertDescription, Error as RustlsError};

use super::verify::{Role, VerifyError, refusal};
use super::*;
use crate::sign::BuiltInCa;
use crate::spiffe::TrustDomain;
use crate::testing::{Broken, Leaf, Pair, Rogue, ca, handshake, id, identity};

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
        MeshTls::new(&identity(&self.ca, &id(name)), &TlsOptions::default()).unwrap()
    }
}

fn kinds(pair: &Pair) -> (HandshakeKind, HandshakeKind) {
    (pair.client.handshake_kind().unwrap(), pair.server.handshake_kind().unwrap())
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
        assert_eq!(pair.client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        let suite = pair.client.negotiated_cipher_suite().unwrap().suite();
        assert_eq!(suite, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
        let group = pair.client.negotiated_key_exchange_group().map(|group| group.name());
        if kinds(&pair).0 == HandshakeKind::Full {
            assert_eq!(group, Some(rustls::NamedGroup::X25519));
        }
    }
}
