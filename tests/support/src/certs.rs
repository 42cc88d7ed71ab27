//! Identities for tests: a throwaway authority, certificates and tokens of it, TLS configurations of both sides, and
//! the application's own TLS that has nothing to do with the mesh.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tulle_identity::csr::{self, PendingKey};
use tulle_identity::sign::{BuiltInCa, Limits, Signer};
use tulle_identity::spiffe::{SpiffeId, TrustDomain};
use tulle_identity::svid::Identity;
use tulle_identity::tls::{Alpn, MeshTls, TlsOptions};
use tulle_identity::token::{TokenIssuer, TokenVerifier};

/// How long certificates and tokens of tests live, unless told otherwise.
const LIFETIME: Duration = Duration::from_secs(3600);

/// An authority with a state directory of its own, gone when dropped.
#[derive(Debug)]
pub struct Ca {
    domain: TrustDomain,
    ca: BuiltInCa,
    tokens: TokenIssuer,
    dir: TempDir,
}

impl Ca {
    /// An authority of the trust domain `cluster.local`.
    pub fn new() -> Self {
        Self::of_domain("cluster.local")
    }

    /// An authority of `domain`: for peers that are well-formed strangers.
    pub fn of_domain(domain: &str) -> Self {
        let domain = TrustDomain::parse(domain).expect("a trust domain");
        let dir = TempDir::new().expect("a temporary folder");
        let state = dir.path().join("state");
        // Tests of renewal cannot wait for a minute.
        let limits = Limits { min_ttl: Duration::from_secs(1), ..Limits::default() };
        let ca = BuiltInCa::open(&state, &domain).expect("an authority").with_limits(limits);
        let tokens = TokenIssuer::open(&state).expect("a token key");
        let this = Self { domain, ca, tokens, dir };
        std::fs::write(this.bundle_file(), this.ca.bundle().pem()).expect("the bundle file");
        this
    }

    /// The id of `service_account` in `namespace`.
    pub fn id(&self, namespace: &str, service_account: &str) -> SpiffeId {
        SpiffeId::workload(&self.domain, namespace, service_account).expect("a workload id")
    }

    /// A certificate for [`Ca::id`], good for an hour.
    pub fn identity(&self, namespace: &str, service_account: &str) -> Identity {
        self.identity_for(&self.id(namespace, service_account), LIFETIME)
    }

    /// A certificate for any id, good for `ttl` from now.
    pub fn identity_for(&self, id: &SpiffeId, ttl: Duration) -> Identity {
        let now = SystemTime::now();
        let key = PendingKey::generate().expect("a key");
        let request = csr::parse(&key.csr_pem(id).expect("a request")).expect("a request of our own");
        let chain = self.ca.sign(&request, id, &["localhost".to_owned()], ttl, now).expect("a certificate");
        let (svid, bundle) = key.into_svid(&chain, now).expect("the certificate of our key");
        Identity { svid: Arc::new(svid), bundle: Arc::new(bundle) }
    }

    /// Mesh TLS of `service_account` in `namespace`, as its proxy would use it.
    pub fn mesh(&self, namespace: &str, service_account: &str) -> MeshTls {
        mesh(&self.identity(namespace, service_account))
    }

    /// Server side of mesh TLS: a client certificate of this authority is required.
    pub fn server(&self, namespace: &str, service_account: &str) -> Arc<rustls::ServerConfig> {
        self.mesh(namespace, service_account).server()
    }

    /// Client side of mesh TLS as `from`, expecting the server to be `to`; each a namespace and a service account.
    pub fn client(&self, from: (&str, &str), to: (&str, &str), alpn: Alpn) -> Arc<rustls::ClientConfig> {
        self.mesh(from.0, from.1).client(&self.id(to.0, to.1), alpn)
    }

    /// A workload token, good for an hour: what a proxy shows the control plane.
    pub fn token(&self, namespace: &str, service_account: &str) -> String {
        let id = self.id(namespace, service_account);
        self.tokens.issue(&id, LIFETIME, SystemTime::now()).expect("a token")
    }

    /// [`Ca::token`] in a file, as proxies want it.
    pub fn token_file(&self, namespace: &str, service_account: &str) -> PathBuf {
        let path = self.dir.path().join(format!("{namespace}.{service_account}.token"));
        std::fs::write(&path, self.token(namespace, service_account)).expect("a token file");
        path
    }

    /// The roots as a PEM file: the trust bundle a proxy is started with.
    pub fn bundle_file(&self) -> PathBuf {
        self.dir.path().join("bundle.pem")
    }

    /// The authority's state directory, for a control plane that is to be this authority.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The roots as PEM.
    pub fn bundle_pem(&self) -> String {
        self.ca.bundle().pem()
    }

    /// Signs and rotates.
    pub fn signer(&self) -> &BuiltInCa {
        &self.ca
    }

    /// Checks tokens of this authority.
    pub fn token_verifier(&self) -> TokenVerifier {
        self.tokens.verifier()
    }
}

impl Default for Ca {
    fn default() -> Self {
        Self::new()
    }
}

/// Mesh TLS of `identity`.
pub fn mesh(identity: &Identity) -> MeshTls {
    MeshTls::new(identity, &TlsOptions::default()).expect("an identity that was just issued")
}

/// The application's own TLS: a self-signed web server for `name`, and a client that trusts it. `alpn` is offered by
/// both, `h2` for example.
pub fn application_tls(name: &str, alpn: &[&[u8]]) -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key that was just made");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions of the provider")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a certificate with its key");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).expect("a self-signed certificate");
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of the provider")
        .with_root_certificates(roots)
        .with_no_client_auth();
    server.alpn_protocols = alpn.iter().map(|token| token.to_vec()).collect();
    client.alpn_protocols.clone_from(&server.alpn_protocols);
    (Arc::new(server), Arc::new(client))
}
