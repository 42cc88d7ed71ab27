//! The authority's files: which roots there are, which one signs, and the steps between.
//!
//! `ca.json` names the generations and is written last, by one rename: until then a step has not happened, after it the
//! step is complete. `ca-N.pem` holds certificate and key of generation N. `bundle.pem` is a copy for people to hand to
//! proxies; nothing reads it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use zeroize::Zeroizing;

use super::{Rotation, SignError, serial};
use crate::spiffe::TrustDomain;
use crate::store::{Files, Store, read_file};
use crate::svid::{self, TrustBundle, certificate_pem};

/// What signs now and what is trusted now.
pub(super) struct CaState {
    pub(super) issuer: Authority,
    pub(super) bundle: Arc<TrustBundle>,
    pub(super) phase: Rotation,
    record: Option<Record>,
}

/// Something that was given: its PEM text, and its name for people.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) name: &'a str,
    pub(super) pem: &'a [u8],
}

/// A certificate that may sign, with its key.
pub(super) struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// To send along with leaves: the issuing certificate and those above it, without the root. Empty for a root.
    pub(super) intermediates: Vec<CertificateDer<'static>>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

/// `ca.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    trust_domain: String,
    rotation: Rotation,
    /// The generation that signs.
    active: u32,
    /// The other generation that is trusted while the root rotates.
    other: Option<u32>,
}

/// The state directory.
#[derive(Debug)]
pub(super) struct StateDir {
    store: Store,
}

impl StateDir {
    pub(super) fn open(store: Store, domain: &TrustDomain, now: SystemTime) -> Result<(Self, CaState), SignError> {
        let this = Self { store };
        let record = match this.record()? {
            Some(record) => record,
            None => this.first_start(domain, now)?,
        };
        let ours = TrustDomain::parse(&record.trust_domain).map_err(|e| corrupt(RECORD, &e))?;
        if ours != *domain {
            return Err(SignError::TrustDomain { ours, asked: domain.clone() });
        }
        let state = this.load(record)?;
        this.publish(&state)?;
        Ok((this, state))
    }

    /// The files, when they are in memory.
    pub(super) fn files(&self) -> Option<Files> {
        self.store.files()
    }

    pub(super) fn begin(&self, domain: &TrustDomain, state: &CaState, now: SystemTime) -> Result<CaState, SignError> {
        let old = expect(state, "begin a rotation", Rotation::Steady)?;
        let new = old.active.checked_add(1).ok_or_else(|| corrupt(RECORD, &"too many generations"))?;
        // Over a file of a step that was interrupted before its record was written.
        self.store.replace(&file_of(new), make_root(domain, now)?.as_bytes())?;
        self.commit(Record { rotation: Rotation::Published, other: Some(new), ..old })
    }

    pub(super) fn activate(&self, state: &CaState) -> Result<CaState, SignError> {
        let old = expect(state, "activate the new root", Rotation::Published)?;
        let new = old.other.ok_or_else(|| corrupt(RECORD, &"no new generation"))?;
        self.commit(Record { rotation: Rotation::Activated, active: new, other: Some(old.active), ..old })
    }

    pub(super) fn finish(&self, state: &CaState) -> Result<CaState, SignError> {
        let old = expect(state, "finish the rotation", Rotation::Activated)?;
        let forgotten = old.other;
        let state = self.commit(Record { rotation: Rotation::Steady, other: None, ..old })?;
        if let Some(generation) = forgotten {
            self.store.remove(&file_of(generation))?;
        }
        Ok(state)
    }

    fn record(&self) -> Result<Option<Record>, SignError> {
        let Some(bytes) = self.store.read(RECORD)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| corrupt(RECORD, &e))
    }

    fn first_start(&self, domain: &TrustDomain, now: SystemTime) -> Result<Record, SignError> {
        // Neither write replaces: a process that starts at the same time uses our root or we use its.
        self.store.create(&file_of(FIRST), make_root(domain, now)?.as_bytes())?;
        let record =
            Record { trust_domain: domain.to_string(), rotation: Rotation::Steady, active: FIRST, other: None };
        self.store.create(RECORD, &encode(&record)?)?;
        self.record()?.ok_or_else(|| corrupt(RECORD, &"vanished"))
    }

    /// Makes `record` the state, if it can be loaded.
    fn commit(&self, record: Record) -> Result<CaState, SignError> {
        let bytes = encode(&record)?;
        let state = self.load(record)?;
        self.store.replace(RECORD, &bytes)?;
        self.publish(&state)?;
        Ok(state)
    }

    fn publish(&self, state: &CaState) -> Result<(), SignError> {
        Ok(self.store.replace(BUNDLE, state.bundle.pem().as_bytes())?)
    }

    fn load(&self, record: Record) -> Result<CaState, SignError> {
        let (issuer, root) = self.generation(record.active)?;
        let mut roots = vec![root];
        if let Some(other) = record.other {
            roots.push(self.generation(other)?.1);
        }
        let bundle = Arc::new(TrustBundle::from_roots(roots)?);
        Ok(CaState { issuer, bundle, phase: record.rotation, record: Some(record) })
    }

    fn generation(&self, generation: u32) -> Result<(Authority, CertificateDer<'static>), SignError> {
        let name = file_of(generation);
        let text = self.store.read(&name)?.ok_or_else(|| corrupt(&name, &"missing"))?;
        let root = CertificateDer::from_pem_slice(&text).map_err(|e| corrupt(&name, &e))?;
        Ok((Authority::new(&root, &text, Vec::new()).map_err(|e| corrupt(&name, &e))?, root))
    }
}

impl CaState {
    pub(super) fn from_files(certificate: &Path, key: &Path, roots: Option<&Path>) -> Result<Self, SignError> {
        let name = |path: &Path| path.display().to_string();
        let roots = match roots {
            Some(path) => Some((name(path), read_file(path)?)),
            None => None,
        };
        let roots = roots.as_ref().map(|(name, pem)| Given { name, pem });
        let (certificate_pem, key_pem) = (read_file(certificate)?, read_file(key)?);
        Self::given(
            Given { name: &name(certificate), pem: &certificate_pem },
            Given { name: &name(key), pem: &key_pem },
            roots,
        )
    }

    /// An authority made elsewhere.
    pub(super) fn given(certificate: Given<'_>, key: Given<'_>, roots: Option<Given<'_>>) -> Result<Self, SignError> {
        let Given { name, pem } = certificate;
        let mut chain = svid::certificates(pem).map_err(|e| corrupt(name, &e))?;
        let issuing = chain.first().cloned().ok_or_else(|| corrupt(name, &"no certificate"))?;
        let mut trusted = match roots {
            Some(Given { name, pem }) => svid::certificates(pem).map_err(|e| corrupt(name, &e))?,
            None => Vec::new(),
        };
        if let Some(last) = chain.last()
            && is_self_issued(&svid::parse(last)?)
        {
            trusted.extend(chain.pop());
        }
        let bundle = TrustBundle::from_roots(trusted)
            .map_err(|e| corrupt(name, &format!("{e}; the chain does not end in a root and no roots were given")))?;
        chain.retain(|cert| !bundle.roots().contains(cert));
        let issuer =
            Authority::new(&issuing, key.pem, chain).map_err(|e| corrupt(&format!("{name} with {}", key.name), &e))?;
        Ok(Self { issuer, bundle: Arc::new(bundle), phase: Rotation::Steady, record: None })
    }
}

impl Authority {
    /// `text` holds the key, PKCS#8 PEM.
    fn new(
        cert: &CertificateDer<'static>,
        text: &[u8],
        intermediates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, String> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|e| format!("no PKCS#8 private key: {e}"))?;
        let key = KeyPair::try_from(&key).map_err(|e| e.to_string())?;
        let parsed = svid::parse(cert).map_err(|e| e.to_string())?;
        let public = &parsed.public_key().subject_public_key.data;
        if public.as_ref() != key.public_key_raw() {
            return Err("the key is of another certificate".to_owned());
        }
        TrustBundle::from_roots(vec![cert.clone()]).map_err(|_| "not a certificate authority's".to_owned())?;
        let validity = parsed.validity();
        let second = |time: i64| svid::system_time(time).map_err(|e| e.to_string());
        Ok(Self {
            not_before: second(validity.not_before.timestamp())?,
            not_after: second(validity.not_after.timestamp())?,
            issuer: Issuer::from_ca_cert_der(cert, key).map_err(|e| e.to_string())?,
            intermediates,
        })
    }
}

/// A new root: certificate and key, PEM.
fn make_root(domain: &TrustDomain, now: SystemTime) -> Result<Zeroizing<String>, SignError> {
    let key = KeyPair::generate()?;
    let serial = serial()?;
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, domain.as_str());
    // The serial keeps the names of two generations apart, for people and for path building.
    name.push(DnType::CommonName, format!("Tulle root {}", serial.to_string().replace(':', "").split_at(8).0));
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.serial_number = Some(serial);
    params.not_before = OffsetDateTime::from(now - ROOT_BACK_DATED);
    params.not_after = OffsetDateTime::from(now + ROOT_LIFE);
    // X509-SVID section 3: a signing certificate names its trust domain, without a path.
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").as_str().try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = params.self_signed(&key)?;
    let key = Zeroizing::new(key.serialize_pem());
    Ok(Zeroizing::new(format!("{}{}", certificate_pem(root.der()), *key)))
}

fn is_self_issued(cert: &X509Certificate<'_>) -> bool {
    cert.issuer().as_raw() == cert.subject().as_raw()
}

fn expect(state: &CaState, step: &'static str, phase: Rotation) -> Result<Record, SignError> {
    match &state.record {
        Some(record) if state.phase == phase => Ok(record.clone()),
        Some(_) | None => Err(SignError::Step { step, phase: state.phase }),
    }
}

fn encode(record: &Record) -> Result<Vec<u8>, SignError> {
    serde_json::to_vec_pretty(record).map_err(|e| corrupt(RECORD, &e))
}

fn file_of(generation: u32) -> String {
    format!("ca-{generation}.pem")
}

fn corrupt(what: &str, why: &dyn std::fmt::Display) -> SignError {
    SignError::Corrupt { what: what.to_owned(), why: why.to_string() }
}

const RECORD: &str = "ca.json";
const BUNDLE: &str = "bundle.pem";
const FIRST: u32 = 1;
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A proxy may verify the first leaf with a clock behind ours.
const ROOT_BACK_DATED: Duration = Duration::from_secs(3600);
