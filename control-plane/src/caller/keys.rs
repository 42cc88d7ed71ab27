//! The keys of the cluster, kept fresh: what is not signed by one of them is nothing to ask the cluster about.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use tokio::time::Instant;
use tulle_identity::jwks::{AccountKeys, Signature};

/// Where an API server publishes its keys.
/// Source: Kubernetes, "ServiceAccount issuer discovery".
const PATH: &str = "/openid/v1/jwks";

/// The keys are asked for again after this.
const FRESH: Duration = Duration::from_secs(300);

/// They are asked for no more often than this, whoever names unknown keys.
const PAUSE: Duration = Duration::from_secs(5);

/// An API server that does not answer within this is not waited for.
const PATIENCE: Duration = Duration::from_secs(4);

/// The keys of a cluster.
pub(super) struct ClusterKeys {
    client: Client,
    current: Mutex<Option<Arc<AccountKeys>>>,
    /// When they were last asked for; held while they are.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

/// What is known of a token's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signed {
    /// The cluster signed it.
    Yes,
    /// It did not.
    No,
    /// There are no keys to tell by, or none of its type.
    Unknown,
    /// Its key is not known, and it is too early to ask again.
    Later,
}

impl ClusterKeys {
    /// Asks through `client`, when the first token comes.
    pub(super) fn new(client: Client) -> Self {
        Self { client, current: Mutex::default(), asked: tokio::sync::Mutex::default() }
    }

    /// Whether the cluster signed `token`. Asks for the keys where that is due.
    pub(super) async fn signed(&self, token: &str) -> Signed {
        // One caller asks; others go on with what there is.
        if let Ok(mut asked) = self.asked.try_lock()
            && asked.is_none_or(|asked| asked.elapsed() >= FRESH)
        {
            self.ask(&mut asked).await;
        }
        let told = self.judge(token);
        if !matches!(told, None | Some(Signature::UnknownKey)) {
            return told.map_or(Signed::Unknown, of);
        }
        // Waits for the caller that is asking, or asks when that is due.
        let due = self.ask_when_due().await;
        match self.judge(token) {
            None => Signed::Unknown,
            Some(Signature::UnknownKey) if due => Signed::No,
            Some(told) => of(told),
        }
    }

    fn judge(&self, token: &str) -> Option<Signature> {
        self.current().map(|keys| keys.verify(token))
    }

    /// Asks unless that was done lately; whether it was done now.
    async fn ask_when_due(&self) -> bool {
        let mut asked = self.asked.lock().await;
        let due = asked.is_none_or(|asked| asked.elapsed() >= PAUSE);
        if due {
            self.ask(&mut asked).await;
        }
        due
    }

    /// Replaces the keys; those of before stay when no good set comes.
    async fn ask(&self, asked: &mut Option<Instant>) {
        *asked = Some(Instant::now());
        let told = match http::Request::get(PATH).body(Vec::new()) {
            Ok(request) => tokio::time::timeout(PATIENCE, Box::pin(self.client.request_text(request))).await,
            Err(_) => return,
        };
        let parsed = match told {
            Ok(Ok(text)) => AccountKeys::parse(&text).map_err(|error| error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        match parsed {
            Ok(keys) => *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys)),
            Err(reason) => tracing::warn!(
                reason,
                kept = self.current().is_some(),
                "the keys of ServiceAccount tokens could not be read from the API server; tokens are reviewed without them"
            ),
        }
    }

    fn current(&self) -> Option<Arc<AccountKeys>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

const fn of(signature: Signature) -> Signed {
    match signature {
        Signature::Good => Signed::Yes,
        Signature::Bad => Signed::No,
        Signature::UnknownKey => Signed::Later,
        Signature::Unusable => Signed::Unknown,
    }
}
