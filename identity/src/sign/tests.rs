//! What certificates say, what the directory holds, and a rotation from end to end.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use super::*;
use crate::csr::{self, PendingKey};
use crate::svid::{Identity, Svid};
use crate::testing::{domain, handshake, id, identity};
use crate::tls::verify::{PeerVerifier, Role, VerifyError};
use crate::tls::{Alpn, MeshTls, TlsOptions};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Home {
    root: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("state")
    }

    fn open(&self) -> BuiltInCa {
        BuiltInCa::open(&self.dir(), &domain()).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(self.dir()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn issue(ca: &BuiltInCa, ttl: Duration, now: SystemTime) -> Result<Svid, SignError> {
    let key = PendingKey::generate().unwrap();
    let csr = csr::parse(&key.csr_pem(&id("web")).unwrap()).unwrap();
    let chain = ca.sign(&csr, &id("web"), &[], ttl, now)?;
    Ok(key.into_svid(&chain, now).unwrap().0)
}

fn accepts(trusting: &TrustBundle, shown: &Identity) -> Result<SpiffeId, VerifyError> {
    PeerVerifier::new(trusting, domain()).verify(Role::Client, shown.svid.chain(), SystemTime::now())
}

#[test]
fn a_restart_keeps_the_root() {
    let home = Home::new();
    let first = home.open().bundle();
    assert_eq!(home.open().bundle(), first);
    assert_eq!(home.files(), ["bundle.pem", "ca-1.pem", "ca.json"]);
    assert_eq!(fs::metadata(home.dir()).unwrap().mode() & 0o777, 0o700);
    for name in home.files() {
        assert_eq!(fs::metadata(home.dir().join(&name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(TrustBundle::from_pem(&fs::read(home.dir().join("bundle.pem")).unwrap()).unwrap(), *first);
}

#[test]
fn processes_that_start_at_once_share_one_root() {
    let home = Home::new();
    let bundles: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| home.open().bundle())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(bundles.windows(2).all(|two| two[0] == two[1]));
}

#[test]
fn loose_modes_and_damage_are_refused() {
    let home = Home::new();
    home.open();
    let key = home.dir().join("ca-1.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = BuiltInCa::open(&home.dir(), &domain()).unwrap_err();
    assert!(matches!(error, SignError::Store(StoreError::Mode { .. })), "{error}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    let other = TrustDomain::parse("other.local").unwrap();
    assert!(matches!(BuiltInCa::open(&home.dir(), &other), Err(SignError::TrustDomain { .. })));

    fs::write(&key, "nonsense").unwrap();
    let error = BuiltInCa::open(&home.dir(), &domain()).unwrap_err();
    assert!(error.to_string().starts_with("ca-1.pem is not usable"), "{error}");
    fs::write(home.dir().join("ca.json"), "{").unwrap();
    assert!(matches!(BuiltInCa::open(&home.dir(), &domain()), Err(SignError::Corrupt { .. })));
}

#[test]
fn lives_are_brought_within_limits() {
    let ca = Home::new().open();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds(SystemTime::now()));
    let life = |ttl| issue(&ca, ttl, now).unwrap().not_after().duration_since(now).unwrap();
    assert_eq!(life(Duration::ZERO), DAY, "no wish");
    assert_eq!(life(Duration::from_secs(1)), Duration::from_secs(60));
    assert_eq!(life(HOUR), HOUR);
    assert_eq!(life(3650 * DAY), 90 * DAY);
    assert_eq!(issue(&ca, HOUR, now).unwrap().not_before(), now - Duration::from_secs(60));

    let short = Limits { min_ttl: Duration::from_secs(1), ..Limits::default() };
    let quick = Home::new().open().with_limits(short);
    let svid = issue(&quick, Duration::from_secs(2), now).unwrap();
    assert_eq!(svid.not_after(), now + Duration::from_secs(2));
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn no_leaf_outlives_the_root() {
    let home = Home::new();
    let ca = home.open();
    let end = ca.state().issuer.not_after;
    let svid = issue(&ca, 30 * DAY, end - HOUR).unwrap();
    assert_eq!(svid.not_after(), end);
    assert!(matches!(issue(&ca, HOUR, end), Err(SignError::IssuerNotValid)));
    assert!(matches!(issue(&ca, HOUR, end + DAY), Err(SignError::IssuerNotValid)));
    assert!(matches!(issue(&ca, HOUR, SystemTime::now() - 30 * DAY), Err(SignError::IssuerNotValid)));
}

#[test]
fn names_are_the_callers_alone() {
    let ca = Home::new().open();
    let key = PendingKey::generate().unwrap();
    // CP-01: the request asks to be somebody else.
    let csr = csr::parse(&key.csr_pem(&id("admin")).unwrap()).unwrap();
    let sign = |id: &SpiffeId, dns: &[String]| ca.sign(&csr, id, dns, HOUR, SystemTime::now());
    let foreign = SpiffeId::parse("spiffe://other.local/ns/shop/sa/web").unwrap();
    assert!(matches!(sign(&foreign, &[]), Err(SignError::TrustDomain { .. })));
    for bad in ["", "a b", "a/b", "*", "a\0"] {
        assert!(matches!(sign(&id("web"), &[bad.to_owned()]), Err(SignError::Names)), "{bad:?}");
    }
    assert!(matches!(sign(&id("web"), &vec!["a.test".to_owned(); 17]), Err(SignError::Names)));
    let names = ["plane.tulle-system.svc".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let chain = sign(&id("web"), &names).unwrap();
    let (svid, _) = key.into_svid(&chain, SystemTime::now()).unwrap();
    assert_eq!(*svid.id(), id("web"));
    let leaf = crate::svid::parse(&svid.chain()[0]).unwrap();
    let san = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(san.critical, "the subject is empty");
    assert_eq!(san.value.general_names.len(), 4);
    assert_eq!(leaf.raw_serial().len(), 16);
    assert_eq!(leaf.subject().iter().count(), 0);
}

#[test]
fn an_answer_for_another_key_is_refused() {
    let ca = Home::new().open();
    let (ours, theirs) = (PendingKey::generate().unwrap(), PendingKey::generate().unwrap());
    let csr = csr::parse(&theirs.csr_pem(&id("web")).unwrap()).unwrap();
    let chain = ca.sign(&csr, &id("web"), &[], HOUR, SystemTime::now()).unwrap();
    assert!(ours.into_svid(&chain, SystemTime::now()).is_err());
    assert!(PendingKey::generate().unwrap().into_svid(&[], SystemTime::now()).is_err());
    let late = theirs.into_svid(&chain, SystemTime::now() + 2 * HOUR);
    assert!(matches!(late, Err(csr::CsrError::Chain(VerifyError::Expired))));
}

#[test]
fn a_root_rotates_without_a_refusal() {
    let home = Home::new();
    let now = SystemTime::now();
    let ca = home.open();
    let old = identity(&ca, &id("web"));
    assert!(matches!(ca.activate(), Err(SignError::Step { phase: Rotation::Steady, .. })));
    assert!(matches!(ca.finish(), Err(SignError::Step { .. })));

    // Published: both trusted, the old one signs.
    let both = ca.begin_rotation(now).unwrap();
    assert_eq!((ca.rotation(), both.roots().len()), (Rotation::Published, 2));
    assert_ne!(both.hash(), old.bundle.hash());
    assert!(matches!(ca.begin_rotation(now), Err(SignError::Step { .. })));
    let during = identity(&ca, &id("web"));
    assert_eq!(accepts(&old.bundle, &during), Ok(id("web")), "a peer without the news still accepts");
    assert_eq!(during.bundle, both, "the answer carries both roots");

    // A restart resumes here.
    let ca = home.open();
    assert_eq!((ca.rotation(), ca.bundle()), (Rotation::Published, Arc::clone(&both)));
    ca.activate().unwrap();
    let new = identity(&ca, &id("api"));
    assert_eq!(accepts(&both, &old), Ok(id("web")));
    assert_eq!(accepts(&both, &new), Ok(id("api")));
    assert_eq!(accepts(&old.bundle, &new), Err(VerifyError::UnknownIssuer), "signed by the new root");
    let tls = |identity: &Identity| MeshTls::new(identity, &TlsOptions::default()).unwrap();
    let old_with_news = Identity { svid: Arc::clone(&old.svid), bundle: Arc::clone(&both) };
    handshake(tls(&old_with_news).client(&id("api"), Alpn::H2), tls(&new).server()).unwrap();
    handshake(tls(&new).client(&id("web"), Alpn::H2), tls(&old_with_news).server()).unwrap();

    // Finished: the old root is gone, also from the directory, also after a restart.
    let ca = home.open();
    assert_eq!(ca.rotation(), Rotation::Activated);
    let last = ca.finish().unwrap();
    assert_eq!((ca.rotation(), last.roots().len()), (Rotation::Steady, 1));
    assert_eq!(accepts(&last, &new), Ok(id("api")));
    assert_eq!(accepts(&last, &old), Err(VerifyError::UnknownIssuer));
    assert_eq!(home.files(), ["bundle.pem", "ca-2.pem", "ca.json"]);
    assert_eq!(home.open().bundle(), last);
    home.open().begin_rotation(now).unwrap();
    assert_eq!(home.files(), ["bundle.pem", "ca-2.pem", "ca-3.pem", "ca.json"]);
}

#[test]
fn a_given_root_signs() {
    let made = Home::new();
    made.open();
    let both = made.dir().join("ca-1.pem");
    let ca = BuiltInCa::from_files(&both, &both, None, &domain()).unwrap();
    assert_eq!(ca.bundle(), made.open().bundle());
    let web = identity(&ca, &id("web"));
    assert_eq!(web.svid.chain().len(), 1);
    assert!(matches!(ca.begin_rotation(SystemTime::now()), Err(SignError::GivenFiles)));
    let missing = BuiltInCa::from_files(&made.dir().join("no"), &both, None, &domain());
    assert!(matches!(missing, Err(SignError::Store(StoreError::Io { .. }))));
}

#[test]
fn a_given_intermediate_signs_and_is_sent_along() {
    use rcgen::{BasicConstraints, CertifiedIssuer, KeyPair};
    let home = tempfile::tempdir().unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    };
    let root = CertifiedIssuer::self_signed(authority("root"), KeyPair::generate().unwrap()).unwrap();
    let middle = CertifiedIssuer::signed_by(authority("middle"), KeyPair::generate().unwrap(), &root).unwrap();
    let write = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (cert, key) = (write("ca.pem", &middle.pem()), write("ca.key", &middle.key().serialize_pem()));
    let roots = write("root.pem", &root.pem());
    let error = BuiltInCa::from_files(&cert, &key, None, &domain()).unwrap_err();
    assert!(error.to_string().contains("no roots were given"), "{error}");
    let wrong_key = write("wrong.key", &root.key().serialize_pem());
    assert!(matches!(
        BuiltInCa::from_files(&cert, &wrong_key, Some(&roots), &domain()),
        Err(SignError::Corrupt { .. })
    ));
    let ca = BuiltInCa::from_files(&cert, &key, Some(&roots), &domain()).unwrap();
    let web = identity(&ca, &id("web"));
    assert_eq!(web.svid.chain().len(), 2);
    assert_eq!(accepts(&ca.bundle(), &web), Ok(id("web")));
    // The same with the root at the end of the certificate's file.
    let whole = write("chain.pem", &format!("{}{}", middle.pem(), root.pem()));
    let ca = BuiltInCa::from_files(&whole, &key, None, &domain()).unwrap();
    assert_eq!(accepts(&ca.bundle(), &identity(&ca, &id("api"))), Ok(id("api")));
}
