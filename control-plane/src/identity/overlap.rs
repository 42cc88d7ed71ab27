//! Who signs and what is trusted while an authority that an operator gives takes the place of another, at once.
//!
//! A new root is published before it signs, so that everybody trusts its certificates when they come; a root that was taken
//! out stays trusted until the last certificate it signed has ended. A replica that starts meanwhile has the new key alone,
//! and signs with it at once. Decides only: `Authority` publishes, and keeps time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tulle_identity::sign::{BuiltInCa, Signer as _};
use tulle_identity::svid::{SvidError, TrustBundle};

/// Longest wait before a new root signs. Streams tell of it in a moment; the ConfigMap that a pod starts with may be as old
/// as this before its kubelet looks again.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Roots that were taken out and are still trusted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Retired {
    /// PEM.
    roots: String,
    /// Seconds since 1970.
    until: u64,
}

/// An authority that is published and waits for its turn.
#[derive(Debug)]
struct Next {
    ca: BuiltInCa,
    signs_at: SystemTime,
}

/// What is trusted beside the roots of the authority that signs.
#[derive(Debug)]
pub(super) struct Overlap {
    /// The longest life of a certificate.
    life: Duration,
    next: Option<Next>,
    retired: Option<Retired>,
}

impl Retired {
    /// Reads what [`Self::json`] has written.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(json: &[u8]) -> Result<Self, String> {
        let retired: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        TrustBundle::from_pem(retired.roots.as_bytes()).map_err(|error| error.to_string())?;
        Ok(retired)
    }

    pub(super) fn json(&self) -> Vec<u8> {
        serde_json::json!({"roots": self.roots, "until": self.until}).to_string().into_bytes()
    }

    /// Both together, if their time has not come.
    pub(super) fn join(one: Option<Self>, other: Option<Self>, now: SystemTime) -> Option<Self> {
        let current = |retired: &Self| retired.until() > now;
        match (one.filter(current), other.filter(current)) {
            (Some(one), Some(other)) => {
                let until = one.until.max(other.until);
                let roots = if one.roots == other.roots { one.roots } else { one.roots + &other.roots };
                // Sorted, and each once, so that replicas agree.
                let roots = TrustBundle::from_pem(roots.as_bytes()).map_or(roots, |bundle| bundle.pem());
                Some(Self { roots, until })
            }
            (one, other) => one.or(other),
        }
    }

    fn until(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.until)
    }
}

impl Overlap {
    pub(super) const fn new(life: Duration, retired: Option<Retired>) -> Self {
        Self { life, next: None, retired }
    }

    /// The roots to publish beside those of `signing`.
    ///
    /// # Errors
    /// When there are too many.
    pub(super) fn trusted(&self, signing: &BuiltInCa) -> Result<TrustBundle, SvidError> {
        union(&[signing], self.next.as_ref().map(|next| &next.ca), self.retired.as_ref())
    }

    pub(super) const fn retired(&self) -> Option<&Retired> {
        self.retired.as_ref()
    }

    /// Takes in the authority `ca` that was found, with the roots that others have retired. Gives it back when it signs
    /// from now on: one that was made here is led by its own steps, and one whose roots are published needs no pause.
    ///
    /// # Errors
    /// As [`Self::trusted`]; nothing has changed then.
    pub(super) fn found(
        &mut self,
        ca: BuiltInCa,
        stored: Option<Retired>,
        (signing, published): (&BuiltInCa, &TrustBundle),
        now: SystemTime,
    ) -> Result<Option<BuiltInCa>, SvidError> {
        let mut retired = Retired::join(self.retired.clone(), stored, now);
        if ca.files().is_some() {
            (self.next, self.retired) = (None, retired);
            return Ok(Some(ca));
        }
        let pause = LONGEST_PAUSE.min(self.life / 10);
        let kept = union(&[&ca], None, retired.as_ref())?;
        if let Some(missing) = without(published, &kept)? {
            let until = (now + pause + self.life).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            // A second that has begun counts.
            let new = Retired { roots: missing.pem(), until: until.as_secs().saturating_add(1) };
            retired = Retired::join(retired, Some(new), now);
        }
        union(&[signing, &ca], None, retired.as_ref())?;
        self.retired = retired;
        if without(&ca.bundle(), &signing.bundle())?.is_none() {
            self.next = None;
            return Ok(Some(ca));
        }
        let waiting = self.next.take().filter(|next| next.ca.bundle().hash() == ca.bundle().hash());
        let signs_at = waiting.map_or(now + pause, |next| next.signs_at);
        self.next = Some(Next { ca, signs_at });
        Ok(None)
    }

    /// When [`Self::pass`] has something to do. A pause that is longer than any, because the clock was set back, is made
    /// as long as one.
    pub(super) fn due(&mut self, now: SystemTime) -> Option<SystemTime> {
        if let Some(next) = &mut self.next {
            next.signs_at = next.signs_at.min(now + LONGEST_PAUSE);
        }
        let next = self.next.as_ref().map(|next| next.signs_at);
        next.into_iter().chain(self.retired.as_ref().map(Retired::until)).min()
    }

    /// Forgets the retired roots whose time has come, and gives the authority whose turn it is.
    pub(super) fn pass(&mut self, now: SystemTime) -> Option<BuiltInCa> {
        self.retired = Retired::join(self.retired.take(), None, now);
        self.next.take_if(|next| next.signs_at <= now).map(|next| next.ca)
    }
}

fn union(
    authorities: &[&BuiltInCa],
    next: Option<&BuiltInCa>,
    retired: Option<&Retired>,
) -> Result<TrustBundle, SvidError> {
    let of = |ca: &BuiltInCa| ca.bundle().roots().to_vec();
    let mut roots: Vec<_> = authorities.iter().copied().chain(next).flat_map(of).collect();
    if let Some(retired) = retired {
        roots.extend_from_slice(TrustBundle::from_pem(retired.roots.as_bytes())?.roots());
    }
    TrustBundle::from_roots(roots)
}

/// The roots of `all` that `some` lacks.
fn without(all: &TrustBundle, some: &TrustBundle) -> Result<Option<Arc<TrustBundle>>, SvidError> {
    let lacking: Vec<_> = all.roots().iter().filter(|root| !some.roots().contains(root)).cloned().collect();
    if lacking.is_empty() { Ok(None) } else { TrustBundle::from_roots(lacking).map(|bundle| Some(Arc::new(bundle))) }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
    use tulle_identity::spiffe::TrustDomain;

    use super::*;

    const LIFE: Duration = Duration::from_secs(100);

    /// A root as an operator would make one: certificate and key, PEM.
    struct Root(String, String);

    impl Root {
        fn new() -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            Self(params.self_signed(&key).unwrap().pem(), key.serialize_pem())
        }

        /// The authority that signs with this root and trusts `others` too.
        fn trusting(&self, others: &[&Self]) -> BuiltInCa {
            let roots: String = others.iter().map(|root| root.0.as_str()).collect();
            let roots = (!others.is_empty()).then_some(roots.as_bytes());
            let domain = TrustDomain::parse("cluster.local").unwrap();
            BuiltInCa::from_pem(self.0.as_bytes(), self.1.as_bytes(), roots, &domain).unwrap()
        }
    }

    fn bundle(roots: &[&Root]) -> TrustBundle {
        let pem: String = roots.iter().map(|root| root.0.as_str()).collect();
        TrustBundle::from_pem(pem.as_bytes()).unwrap()
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    #[test]
    fn a_root_that_replaces_another_at_once_waits_and_the_other_stays() {
        let (old, new) = (Root::new(), Root::new());
        let (signing, mut overlap) = (old.trusting(&[]), Overlap::new(LIFE, None));
        let found = overlap.found(new.trusting(&[]), None, (&signing, &bundle(&[&old])), at(0)).unwrap();
        assert!(found.is_none(), "it is published first");
        let both = bundle(&[&old, &new]).hash();
        assert_eq!(overlap.trusted(&signing).unwrap().hash(), both);
        // What was written because of that comes back, and is no news.
        let stored = overlap.retired().cloned();
        let again = overlap.found(new.trusting(&[]), stored, (&signing, &bundle(&[&old, &new])), at(5)).unwrap();
        assert!(again.is_none() && overlap.due(at(5)) == Some(at(10)));
        let signing = overlap.pass(at(10)).expect("its turn");
        assert_eq!(signing.bundle().hash(), bundle(&[&new]).hash());
        // The last certificate of the old one was made a moment ago.
        assert!(overlap.pass(at(109)).is_none());
        assert_eq!(overlap.trusted(&signing).unwrap().hash(), both);
        assert!(overlap.due(at(11)) > Some(at(110)));
        assert!(overlap.pass(at(112)).is_none() && overlap.retired().is_none() && overlap.due(at(112)).is_none());
        assert_eq!(overlap.trusted(&signing).unwrap().hash(), bundle(&[&new]).hash());
    }

    #[test]
    fn an_operator_who_takes_every_step_waits_for_nothing() {
        let (old, new) = (Root::new(), Root::new());
        let mut overlap = Overlap::new(LIFE, None);
        let (both, now) = (bundle(&[&old, &new]), at(0));
        let first = old.trusting(&[]);
        let second = old.trusting(&[&old, &new]);
        // A root that does not sign needs no pause either, but it takes nothing to give it one.
        assert!(overlap.found(second, None, (&first, &bundle(&[&old])), now).unwrap().is_none());
        let second = overlap.pass(at(10)).expect("its turn");
        let third = overlap.found(new.trusting(&[&old, &new]), None, (&second, &both), at(20)).unwrap();
        let third = third.expect("what is published may sign");
        let last = overlap.found(new.trusting(&[]), None, (&third, &both), at(200)).unwrap().expect("it signs");
        assert_eq!(overlap.trusted(&last).unwrap().hash(), both.hash(), "in case the step before was a moment ago");
        assert!(overlap.pass(at(400)).is_none());
        assert_eq!(overlap.trusted(&last).unwrap().hash(), bundle(&[&new]).hash());
    }

    #[test]
    fn replicas_agree_and_a_restart_remembers() {
        let (old, new) = (Root::new(), Root::new());
        let retired = |root: &Root, until: u64| Retired { roots: bundle(&[root]).pem(), until: 1_800_000_000 + until };
        let join = |one, other| Retired::join(Some(one), Some(other), at(0));
        let (one, other) = (retired(&old, 5), retired(&new, 9));
        let joined = join(one.clone(), other.clone());
        assert_eq!(joined, join(other, one.clone()));
        assert_eq!(joined, Some(Retired { roots: bundle(&[&old, &new]).pem(), until: 1_800_000_009 }));
        assert_eq!(join(one.clone(), one.clone()), Some(one.clone()));
        assert_eq!(Retired::join(Some(one.clone()), None, at(5)), None);
        assert_eq!(Retired::read(&one.json()), Ok(one.clone()));
        assert!(Retired::read(br#"{"roots": "", "until": 1}"#).is_err());
        let overlap = Overlap::new(LIFE, Some(one));
        assert_eq!(overlap.trusted(&new.trusting(&[])).unwrap().hash(), bundle(&[&old, &new]).hash());
    }

    #[test]
    fn a_root_that_was_made_here_is_led_by_its_own_steps() {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let made = || BuiltInCa::from_kept(Default::default(), &domain).unwrap();
        let (signing, mut overlap) = (made(), Overlap::new(LIFE, None));
        let published = signing.bundle();
        let found = overlap.found(made(), None, (&signing, &published), at(0)).unwrap().expect("it signs");
        assert_eq!(overlap.trusted(&found).unwrap().hash(), found.bundle().hash());
    }
}
