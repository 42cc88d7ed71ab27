//! Keys in a Secret of the cluster, shared by all replicas.
//!
//! The Secret is made when it is absent: of several replicas that start at once one makes it and all use it. Every
//! write names the version it is based on, so that nobody writes over another's step. A Secret an operator gave, with
//! `tls.crt`, `tls.key` and, unless the former ends in a root, `ca.crt`, is rotated by whoever writes it; the token key is
//! added to it, and for a while the roots that were taken out (`overlap`).

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::time::SystemTime;

use futures_core::Stream;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use tokio_stream::StreamExt as _;
use tulle_identity::sign::{BuiltInCa, Limits};
use tulle_identity::spiffe::TrustDomain;
use tulle_identity::store::Files;
use tulle_identity::token::TokenIssuer;
use tulle_proto::names;
use zeroize::Zeroizing;

use super::authority::{AuthorityError, Step, limits, take};
use super::overlap::Retired;
use crate::settings::Settings;

/// Name of the Secret.
const NAME: &str = "tulle-ca";

/// Key of the Secret that holds the token key.
const TOKEN_KEY: &str = "token.key";

/// Key of the Secret that holds roots which were taken out and are still trusted.
const RETIRED: &str = "retired.json";

/// How often a write is tried again because another replica was first.
const TRIES: usize = 8;

/// The Secret of the certificate authority.
#[derive(Clone)]
pub(crate) struct SecretStore {
    secrets: Api<Secret>,
    domain: TrustDomain,
    limits: Limits,
}

impl fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretStore").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl SecretStore {
    /// Reads the Secret, making what is not there, and returns what is in it, and the issuer of tokens.
    ///
    /// # Errors
    /// When the API does not answer or refuses (both may pass), or the Secret holds what cannot be used.
    pub(crate) async fn open(
        client: Client,
        settings: &Settings,
    ) -> Result<(Self, Found, TokenIssuer), AuthorityError> {
        let secrets = Api::namespaced(client, names::CONTROL_PLANE_NAMESPACE);
        let store = Self { secrets, domain: settings.trust_domain.clone(), limits: limits(settings) };
        let (found, token_key) = store.change(|_| Ok(())).await?;
        let issuer = TokenIssuer::from_key(&token_key)?;
        Ok((store, found, issuer))
    }

    /// Takes one step of a rotation, whichever replica took the one before.
    ///
    /// # Errors
    /// As [`Self::open`], and when the step does not follow from the current one; nothing has changed then.
    pub(super) async fn rotate(&self, step: Step) -> Result<BuiltInCa, AuthorityError> {
        Ok(self.change(|ca| take(ca, step).map_err(Into::into)).await?.0.ca)
    }

    /// Adds roots that were taken out to those others have written, and removes those whose time has come.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) async fn retire(&self, roots: Option<&Retired>) -> Result<(), AuthorityError> {
        self.update(|mut contents| {
            match Retired::join(retired(&contents)?, roots.cloned(), SystemTime::now()) {
                // One that is gone is made by a start, whole.
                Some(_) if contents.is_empty() => {}
                Some(all) => drop(contents.insert(RETIRED.to_owned(), Zeroizing::new(all.json()))),
                None => drop(contents.remove(RETIRED)),
            }
            Ok((contents, ()))
        })
        .await
    }

    /// Changes the authority, and makes what the Secret lacks.
    async fn change(
        &self,
        change: impl Fn(&BuiltInCa) -> Result<(), AuthorityError>,
    ) -> Result<(Found, Zeroizing<Vec<u8>>), AuthorityError> {
        self.update(|before| {
            let found = self.read(before.clone())?;
            change(&found.ca)?;
            let mut after = found.ca.files().unwrap_or(before);
            let token_key = match after.get(TOKEN_KEY) {
                Some(key) => key.clone(),
                None => Zeroizing::new(TokenIssuer::make_key()?.as_bytes().to_vec()),
            };
            after.insert(TOKEN_KEY.to_owned(), token_key.clone());
            Ok((after, (found, token_key)))
        })
        .await
    }

    /// Writes what `step` makes of the contents, or does so again when another was first.
    async fn update<T>(&self, step: impl Fn(Files) -> Result<(Files, T), AuthorityError>) -> Result<T, AuthorityError> {
        for _ in 0..TRIES {
            let found = Box::pin(self.secrets.get_opt(NAME)).await.map_err(|error| failed(&error))?;
            let before = found.as_ref().map(contents).unwrap_or_default();
            let (after, made) = step(before.clone())?;
            if after == before {
                return Ok(made);
            }
            match Box::pin(self.write(found, after)).await {
                Ok(()) => return Ok(made),
                // Another replica was first: what it wrote counts.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        Err(wrong("others keep changing it"))
    }

    /// What is in these contents, with a new authority when they have none.
    fn read(&self, contents: Files) -> Result<Found, AuthorityError> {
        let retired = retired(&contents)?;
        let ca = match (contents.get("tls.crt"), contents.get("tls.key")) {
            (Some(certificate), Some(key)) => {
                let roots = contents.get("ca.crt").map(|pem| pem.as_slice());
                BuiltInCa::from_pem(certificate, key, roots, &self.domain)
            }
            (None, None) => BuiltInCa::from_kept(contents, &self.domain),
            (Some(_), None) | (None, Some(_)) => {
                return Err(wrong("it has one of tls.crt and tls.key: both are needed"));
            }
        };
        let ca = ca.map_err(|error| wrong(error.to_string()))?.with_limits(self.limits);
        Ok(Found { ca, retired })
    }

    async fn write(&self, found: Option<Secret>, contents: Files) -> Result<(), kube::Error> {
        let data = contents.into_iter().map(|(key, value)| (key, ByteString(value.to_vec()))).collect();
        match found {
            // Its version is in it, and must still be the newest.
            Some(found) => {
                let secret = Secret { data: Some(data), ..found };
                self.secrets.replace(NAME, &PostParams::default(), &secret).await?;
            }
            None => {
                let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
                let secret = Secret { metadata, data: Some(data), ..Secret::default() };
                self.secrets.create(&PostParams::default(), &secret).await?;
                tracing::info!("a certificate authority was made");
            }
        }
        Ok(())
    }

    /// What the Secret will hold, from now on.
    pub(super) fn changes(&self) -> Changes {
        let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let events = watcher(self.secrets.clone(), config).default_backoff();
        Changes { store: self.clone(), events: Box::pin(events), last: None }
    }
}

/// What the Secret holds of interest to signing.
#[derive(Debug)]
pub(crate) struct Found {
    pub(super) ca: BuiltInCa,
    /// Roots that were taken out and are still trusted.
    pub(super) retired: Option<Retired>,
}

/// What the Secret comes to hold.
pub(super) struct Changes {
    store: SecretStore,
    events: Pin<Box<dyn Stream<Item = watcher::Result<watcher::Event<Secret>>> + Send>>,
    last: Option<Files>,
}

impl Changes {
    /// Waits for the next one; none at the end of the watch.
    pub(super) async fn next(&mut self) -> Option<Found> {
        loop {
            let secret = match self.events.next().await? {
                Ok(watcher::Event::Apply(secret) | watcher::Event::InitApply(secret)) => secret,
                Ok(watcher::Event::Delete(_)) => {
                    tracing::error!("the Secret {NAME} was deleted: a restart will make another authority");
                    continue;
                }
                Ok(watcher::Event::Init | watcher::Event::InitDone) => continue,
                Err(error) => {
                    tracing::warn!(%error, "the Secret {NAME} cannot be watched");
                    continue;
                }
            };
            let contents = contents(&secret);
            if self.last.as_ref() == Some(&contents) || contents.is_empty() {
                continue;
            }
            self.last = Some(contents.clone());
            match self.store.read(contents) {
                Ok(found) => return Some(found),
                Err(error) => tracing::error!(%error, "the last good certificate authority stays in force"),
            }
        }
    }
}

fn contents(secret: &Secret) -> Files {
    let data: Option<&BTreeMap<String, ByteString>> = secret.data.as_ref();
    data.into_iter().flatten().map(|(key, value)| (key.clone(), Zeroizing::new(value.0.clone()))).collect()
}

fn retired(contents: &Files) -> Result<Option<Retired>, AuthorityError> {
    let read = |json: &Zeroizing<Vec<u8>>| Retired::read(json);
    contents.get(RETIRED).map(read).transpose().map_err(|error| wrong(format!("{RETIRED}: {error}")))
}

fn failed(error: &kube::Error) -> AuthorityError {
    wrong(error.to_string())
}

fn wrong(reason: impl Into<String>) -> AuthorityError {
    let name = format!("{}/{NAME}", names::CONTROL_PLANE_NAMESPACE);
    AuthorityError::Secret { name, reason: reason.into() }
}
