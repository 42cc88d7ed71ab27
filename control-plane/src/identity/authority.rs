//! The signer, its published roots and their rotation.
//!
//! Roots are published in two places: to the discovery streams, and as `trust-bundle.pem` in the state directory, from
//! where a proxy gets its first one. Rotation is three steps, each for an operator to take once the step before has
//! reached every proxy (ID-16).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::watch;
use tulle_identity::csr::CheckedCsr;
use tulle_identity::sign::{BuiltInCa, Limits, SignError, Signer};
use tulle_identity::spiffe::SpiffeId;
use tulle_identity::svid::TrustBundle;

use crate::settings::Settings;

/// File name of the published roots in the state directory.
pub(crate) const BUNDLE_FILE: &str = "trust-bundle.pem";

/// The certificate authority of this control plane.
#[derive(Debug)]
pub(crate) struct Authority {
    ca: BuiltInCa,
    bundle: watch::Sender<Arc<TrustBundle>>,
    file: PathBuf,
    /// One step of a rotation at a time.
    rotating: Mutex<()>,
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
        // What a caller may ask for is bounded by the setting alone; tests and demonstrations want less than a minute.
        let limits = Limits {
            min_ttl: settings.leaf_ttl.min(Limits::default().min_ttl),
            max_ttl: settings.leaf_ttl,
            default_ttl: settings.leaf_ttl,
        };
        let ca = match &settings.ca {
            None => BuiltInCa::open(&settings.state_dir, &settings.trust_domain)?,
            Some(files) => BuiltInCa::from_files(&files.cert, &files.key, None, &settings.trust_domain)?,
        };
        let ca = ca.with_limits(limits);
        let bundle = ca.bundle();
        let authority = Self {
            ca,
            bundle: watch::Sender::new(bundle),
            file: settings.state_dir.join(BUNDLE_FILE),
            rotating: Mutex::new(()),
        };
        authority.write()?;
        Ok(authority)
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
        self.ca.sign(csr, id, dns_names, ttl, now)
    }

    /// Takes one step of a rotation and publishes its roots. Certificates of the old root stay valid until `Finish`.
    ///
    /// # Errors
    /// When the step does not follow from the current one; nothing has changed then.
    pub(crate) fn rotate(&self, step: Step) -> Result<(), AuthorityError> {
        let _one = self.rotating.lock().unwrap_or_else(PoisonError::into_inner);
        match step {
            Step::Begin => self.ca.begin_rotation(SystemTime::now())?,
            Step::Activate => self.ca.activate()?,
            Step::Finish => self.ca.finish()?,
        };
        // The file first: a proxy that starts now must trust what the streams are about to say.
        let written = self.write();
        // Always wakes the watchers: after `Activate` the roots are the same, but the serving certificate is not.
        self.bundle.send_replace(self.ca.bundle());
        written
    }

    fn write(&self) -> Result<(), AuthorityError> {
        let fail = |source| AuthorityError::File { path: self.file.clone(), source };
        write_public(&self.file, self.ca.bundle().pem().as_bytes()).map_err(fail)
    }
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
