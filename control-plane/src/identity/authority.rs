//! The signer, its published roots and their rotation.
//!
//! Roots are published in two places: to the discovery streams, and where a proxy gets its first one: as
//! `trust-bundle.pem` in the state directory, or in the cluster (`status`). Rotation of a root that was made here is three
//! steps, each for an operator to take once the step before has reached every proxy (ID-16); for one that was given, `overlap`
//! takes them.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::{Mutex, watch};
use tulle_identity::csr::CheckedCsr;
use tulle_identity::sign::{BuiltInCa, Limits, SignError, Signer};
use tulle_identity::spiffe::{SpiffeError, SpiffeId};
use tulle_identity::svid::TrustBundle;
use tulle_identity::token::TokenError;

use super::overlap::Overlap;
use super::secret::{Found, SecretStore};
use crate::clock::LOOK_AGAIN;
use crate::settings::Settings;

/// File name of the published roots in the state directory.
pub(crate) const BUNDLE_FILE: &str = "trust-bundle.pem";

/// The certificate authority of this control plane.
#[derive(Debug)]
pub(crate) struct Authority {
    /// Replaced whole when somebody else has changed what is kept.
    ca: RwLock<Arc<BuiltInCa>>,
    bundle: watch::Sender<Arc<TrustBundle>>,
    kept: Kept,
    /// Held over each step of a rotation.
    overlap: Mutex<Overlap>,
}

/// Where keys are.
#[derive(Debug)]
enum Kept {
    /// In the state directory, with the published roots in this file.
    Directory(PathBuf),
    /// In the cluster.
    Secret(SecretStore),
}

/// A step of a root rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Step {
    /// A new root is made and published beside the old one; the old one signs.
    Begin,
    /// The new root signs; both are published.
    Activate,
    /// The old root is withdrawn.
    Finish,
}

/// Why the authority cannot be opened, or a rotation step not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// The signer refused.
    #[error(transparent)]
    Signer(#[from] SignError),
    /// No token can be issued with the key that is kept.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The control plane's own identity is none.
    #[error(transparent)]
    Id(#[from] SpiffeError),
    /// The Secret could not be read or written.
    #[error("the Secret {name}: {reason}")]
    Secret {
        /// Its namespace and name.
        name: String,
        /// What the API says, or what is wrong with its content.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
}

impl Authority {
    /// Opens the authority of the state directory, making it on the first start, or the one of the given files; then
    /// publishes its roots.
    ///
    /// # Errors
    /// When keys cannot be read, have looser modes than 0600, or the bundle cannot be written.
    pub(crate) fn open(settings: &Settings) -> Result<Self, AuthorityError> {
        let ca = match &settings.ca {
            None => BuiltInCa::open(&settings.state_dir, &settings.trust_domain)?,
            Some(files) => BuiltInCa::from_files(&files.cert, &files.key, None, &settings.trust_domain)?,
        };
        let kept = Kept::Directory(settings.state_dir.join(BUNDLE_FILE));
        let authority = Self::new(ca.with_limits(limits(settings)), kept, Overlap::new(settings.leaf_ttl, None));
        authority.publish()?;
        Ok(authority)
    }

    /// The authority that was found in a Secret of the cluster.
    pub(crate) fn in_cluster(store: SecretStore, found: Found, settings: &Settings) -> Self {
        Self::new(found.ca, Kept::Secret(store), Overlap::new(settings.leaf_ttl, found.retired))
    }

    fn new(ca: BuiltInCa, kept: Kept, overlap: Overlap) -> Self {
        let bundle = watch::Sender::new(trusted(&ca, &overlap));
        Self { ca: RwLock::new(Arc::new(ca)), bundle, kept, overlap: Mutex::new(overlap) }
    }

    fn ca(&self) -> Arc<BuiltInCa> {
        // A poisoned lock is harmless: the value is replaced whole.
        self.ca.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The published roots and their changes.
    pub(crate) fn bundle(&self) -> watch::Receiver<Arc<TrustBundle>> {
        self.bundle.subscribe()
    }

    /// Signs; see [`Signer::sign`].
    ///
    /// # Errors
    /// As the signer's.
    pub(crate) fn sign(
        &self,
        csr: &CheckedCsr,
        id: &SpiffeId,
        dns_names: &[String],
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Vec<String>, SignError> {
        let mut answer = self.ca().sign(csr, id, dns_names, ttl, now)?;
        if let Some(roots) = answer.last_mut() {
            *roots = self.bundle.borrow().pem();
        }
        Ok(answer)
    }

    /// Takes one step of a rotation and publishes its roots. Certificates of the old root stay valid until `Finish`.
    ///
    /// # Errors
    /// When the step does not follow from the current one; nothing has changed then.
    pub(crate) async fn rotate(&self, step: Step) -> Result<(), AuthorityError> {
        let overlap = self.overlap.lock().await;
        let written = match &self.kept {
            Kept::Directory(_) => {
                take(&self.ca(), step)?;
                // The file first: a proxy that starts now must trust what the streams are about to say.
                self.publish()
            }
            Kept::Secret(store) => {
                self.replace(store.rotate(step).await?);
                Ok(())
            }
        };
        // Always wakes the watchers: after `Activate` the roots are the same, but the serving certificate is not.
        self.bundle.send_replace(trusted(&self.ca(), &overlap));
        written
    }

    /// Follows what other replicas and the operator make of the Secret. Ends at once for a state directory.
    pub(crate) async fn follow(&self) {
        let Kept::Secret(store) = &self.kept else {
            return;
        };
        let mut changes = store.changes();
        loop {
            let now = SystemTime::now();
            let due = self.overlap.lock().await.due(now);
            // The wall clock may be set meanwhile.
            let wait = due.map(|due| due.duration_since(now).unwrap_or_default().min(LOOK_AGAIN));
            tokio::select! {
                biased; // what was found may end the wait
                found = changes.next() => match found {
                    Some(found) => self.found(store, found).await,
                    None => return,
                },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {
                    if due.is_some_and(|due| SystemTime::now() < due) {
                        continue;
                    }
                    let mut overlap = self.overlap.lock().await;
                    let next = overlap.pass(SystemTime::now());
                    self.settle(next, &overlap);
                    retire(store, &overlap).await;
                }
            }
        }
    }

    async fn found(&self, store: &SecretStore, found: Found) {
        let mut overlap = self.overlap.lock().await;
        let (signing, published) = (self.ca(), self.bundle.borrow().clone());
        match overlap.found(found.ca, found.retired.clone(), (&signing, &published), SystemTime::now()) {
            Ok(next) => self.settle(next, &overlap),
            Err(error) => tracing::error!(%error, "the last good certificate authority stays in force"),
        }
        if overlap.retired().is_some_and(|retired| found.retired.as_ref() != Some(retired)) {
            retire(store, &overlap).await;
        }
    }

    /// Has `next` sign, if it is another, and publishes what is trusted then.
    fn settle(&self, next: Option<BuiltInCa>, overlap: &Overlap) {
        let before = self.ca();
        let same = next
            .as_ref()
            .is_none_or(|next| next.rotation() == before.rotation() && next.bundle().hash() == before.bundle().hash());
        if let Some(next) = next {
            self.replace(next);
        }
        let trusted = trusted(&self.ca(), overlap);
        if same && trusted.hash() == self.bundle.borrow().hash() {
            return;
        }
        tracing::info!(roots = trusted.roots().len(), "the certificate authority was changed");
        self.bundle.send_replace(trusted);
    }

    fn replace(&self, ca: BuiltInCa) {
        *self.ca.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ca);
    }

    fn publish(&self) -> Result<(), AuthorityError> {
        let Kept::Directory(file) = &self.kept else {
            return Ok(());
        };
        let fail = |source| AuthorityError::File { path: file.clone(), source };
        write_public(file, self.ca().bundle().pem().as_bytes()).map_err(fail)
    }
}

/// The roots everybody should trust.
fn trusted(signing: &BuiltInCa, overlap: &Overlap) -> Arc<TrustBundle> {
    overlap.trusted(signing).map_or_else(|_| signing.bundle(), Arc::new)
}

/// Has all replicas, and those that start later, know of the roots that were taken out.
async fn retire(store: &SecretStore, overlap: &Overlap) {
    if let Err(error) = store.retire(overlap.retired()).await {
        tracing::error!(%error, "roots that were taken out are trusted by this replica alone");
    }
}

/// What a caller may ask for is bounded by the setting alone; tests and demonstrations want less than a minute.
pub(super) fn limits(settings: &Settings) -> Limits {
    Limits {
        min_ttl: settings.leaf_ttl.min(Limits::default().min_ttl),
        max_ttl: settings.leaf_ttl,
        default_ttl: settings.leaf_ttl,
    }
}

/// Takes one step of a rotation.
pub(super) fn take(ca: &BuiltInCa, step: Step) -> Result<(), SignError> {
    match step {
        Step::Begin => ca.begin_rotation(SystemTime::now()),
        Step::Activate => ca.activate(),
        Step::Finish => ca.finish(),
    }
    .map(|_| ())
}

/// Replaces a file that others may read, so that a reader sees the old or the new content whole.
fn write_public(path: &std::path::Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

    let temporary = path.with_extension("pem.new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&temporary)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}
