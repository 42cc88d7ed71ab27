//! Tokens of ServiceAccounts: the cluster is asked whether one is good (TokenReview), and its pod must be there.
//!
//! The audience is strict: a token that others may use as well is not taken, and an answer that does not speak of
//! audiences is no answer (CP-02). A caller is its own pod and no other (CP-04). What the cluster did not sign is not
//! asked about, and callers take turns by their address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::watch;
use tonic::Status;
use tulle_identity::account::Claimed;

use super::keys::{ClusterKeys, Signed};
use super::recent::{BAD, GOOD, Hash, Recent, hash};
use super::turns::Turns;
use crate::model::Key;
use crate::registry::Mesh;

/// The audience of tokens for the control plane.
const AUDIENCE: &str = "tulle";

/// Prefix of the names of ServiceAccounts.
const ACCOUNT: &str = "system:serviceaccount:";

/// Keys of what a review says beside the name.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// A caller waits no longer than this for the cluster's answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// Asks the cluster about tokens.
pub(crate) struct Reviewer {
    client: Client,
    mesh: watch::Receiver<Arc<Mesh>>,
    keys: ClusterKeys,
    good: Mutex<Recent<PodAccount>>,
    bad: Mutex<Recent<String>>,
    turns: Turns,
}

type Answer = Result<PodAccount, String>;

/// The pod a token is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodAccount {
    pub(super) key: Key,
    pub(super) service_account: Arc<str>,
    uid: Arc<str>,
}

impl Reviewer {
    /// Asks through `client`; pods are looked up in the mesh first.
    pub(crate) fn new(client: Client, mesh: watch::Receiver<Arc<Mesh>>) -> Self {
        let keys = ClusterKeys::new(client.clone());
        Self { client, mesh, keys, good: Mutex::default(), bad: Mutex::default(), turns: Turns::default() }
    }

    /// The pod `token` is of.
    ///
    /// # Errors
    /// `Unauthenticated` when the token is not good or its pod is gone; `Unavailable` when the cluster does not say;
    /// `ResourceExhausted` when too many callers of `source` wait.
    pub(super) async fn review(&self, token: &str, claimed: &Claimed, source: IpAddr) -> Result<PodAccount, Status> {
        // Nothing that could not be good anyway is worth a question.
        let now = SystemTime::now();
        let remaining = claimed.expires.duration_since(now).unwrap_or_default();
        plausible(claimed, remaining).map_err(refused)?;
        let key = hash(token);
        if let Some(answer) = self.recent(&key) {
            return answer.map_err(refused);
        }
        let signed = match self.keys.signed(token).await {
            Signed::Yes => true,
            Signed::Unknown => false,
            Signed::No => return self.note(key, Err("the cluster did not sign it".to_owned()), remaining),
            Signed::Later => return Err(unavailable("it is signed with a key that is not known yet; try again")),
        };
        let asked = tokio::time::timeout(PATIENCE, Box::pin(self.ask(token, &key, (source, signed)))).await;
        let answer = asked.map_err(|_| unavailable("it did not answer in time"))??;
        self.note(key, answer, remaining)
    }

    /// What is known already; none also for a pod that is not there any more, or not yet.
    fn recent(&self, key: &Hash) -> Option<Answer> {
        let now = Instant::now();
        if let Some(reason) = self.bad.lock().unwrap_or_else(PoisonError::into_inner).get(key, now) {
            return Some(Err(reason));
        }
        let pod = self.good.lock().unwrap_or_else(PoisonError::into_inner).get(key, now)?;
        self.known(&pod).is_some_and(|known| known.is_ok()).then_some(Ok(pod))
    }

    fn note(&self, key: Hash, answer: Answer, remaining: Duration) -> Result<PodAccount, Status> {
        let now = Instant::now();
        match &answer {
            Ok(pod) => {
                let time = GOOD.min(remaining);
                self.good.lock().unwrap_or_else(PoisonError::into_inner).put(key, pod.clone(), time, now);
            }
            Err(reason) => {
                self.bad.lock().unwrap_or_else(PoisonError::into_inner).put(key, reason.clone(), BAD, now);
            }
        }
        answer.map_err(refused)
    }

    /// What the cluster says of a token and of its pod. `from`: the caller's address, and whether the token is signed.
    async fn ask(&self, token: &str, key: &Hash, from: (IpAddr, bool)) -> Result<Answer, Status> {
        let crowded = |_| Status::resource_exhausted("too many callers of this address have their tokens reviewed");
        let _turn = self.turns.turn(from.0, from.1).await.map_err(crowded)?;
        // Another caller with the same token may have been told meanwhile.
        if let Some(answer) = self.recent(key) {
            return Ok(answer);
        }
        let review = TokenReview {
            spec: TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: Some(token.to_owned()) },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let reviewed = reviews.create(&PostParams::default(), &review).await.map_err(|error| {
            tracing::error!(%error, "tokens cannot be reviewed");
            unavailable(&error.to_string())
        })?;
        let pod = match judge(&reviewed.status.unwrap_or_default()) {
            Ok(pod) => pod,
            Err(reason) => return Ok(Err(reason)),
        };
        match self.known(&pod) {
            Some(Ok(())) => Ok(Ok(pod)),
            Some(Err(_)) | None => self.look_up(pod).await,
        }
    }

    /// Whether the mesh has the pod; none when it has no pod of that name.
    fn known(&self, pod: &PodAccount) -> Option<Result<(), String>> {
        let mesh = self.mesh.borrow();
        let known = &mesh.workload(&pod.key)?.workload;
        let uid = known.pod.as_deref()?;
        Some(same(pod, uid, &known.service_account))
    }

    /// Asks the API for a pod the mesh does not have: it may be too new, or not of a mesh.
    async fn look_up(&self, pod: PodAccount) -> Result<Answer, Status> {
        let resource = ApiResource::erase::<Pod>(&());
        let pods: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &pod.key.namespace, &resource);
        let found = pods.get_opt(&pod.key.name).await.map_err(|error| {
            tracing::error!(%error, pod = %pod.key, "a pod cannot be looked up");
            unavailable(&error.to_string())
        })?;
        let Some(found) = found else {
            return Ok(Err(format!("pod {} does not exist any more", pod.key)));
        };
        let account = found.data.pointer("/spec/serviceAccountName").and_then(Value::as_str).unwrap_or_default();
        Ok(same(&pod, found.metadata.uid.as_deref().unwrap_or_default(), account).map(|()| pod))
    }
}

/// Whether the pod a token is of is the one that is there.
fn same(pod: &PodAccount, uid: &str, account: &str) -> Result<(), String> {
    if uid != &*pod.uid {
        return Err(format!("the token is of an earlier pod {}", pod.key));
    }
    if account != &*pod.service_account {
        return Err(format!("pod {} does not run as service account {}", pod.key, pod.service_account));
    }
    Ok(())
}

/// Whether a token could be good, by what it says itself.
fn plausible(claimed: &Claimed, remaining: Duration) -> Result<(), String> {
    if claimed.audiences != [AUDIENCE] {
        return Err(format!("its audience is {:?}, and not {AUDIENCE:?} alone", claimed.audiences));
    }
    if remaining.is_zero() {
        return Err("it has expired".to_owned());
    }
    account_of(&claimed.subject).map(|_| ())
}

/// The pod a review speaks of.
fn judge(status: &TokenReviewStatus) -> Result<PodAccount, String> {
    if status.authenticated != Some(true) {
        let reason = status.error.as_deref().filter(|reason| !reason.is_empty());
        return Err(format!("the cluster does not know it: {}", reason.unwrap_or("not authenticated")));
    }
    // An API that knows nothing of audiences would answer for any token of its own.
    if status.audiences.as_deref() != Some(&[AUDIENCE.to_owned()]) {
        return Err(format!("the cluster did not say that its audience is {AUDIENCE:?}"));
    }
    let user = status.user.clone().unwrap_or_default();
    let (namespace, account) = account_of(user.username.as_deref().unwrap_or_default())?;
    let extra = user.extra.unwrap_or_default();
    let (Some(name), Some(uid)) = (only(&extra, POD_NAME), only(&extra, POD_UID)) else {
        return Err("it is not bound to a pod: use a projected ServiceAccount token".to_owned());
    };
    Ok(PodAccount { key: Key::new(namespace, name), service_account: account.into(), uid: uid.into() })
}

fn only<'a>(extra: &'a BTreeMap<String, Vec<String>>, key: &str) -> Option<&'a str> {
    match extra.get(key)?.as_slice() {
        [one] if !one.is_empty() => Some(one),
        _ => None,
    }
}

/// Namespace and name of `system:serviceaccount:NS:SA`.
fn account_of(username: &str) -> Result<(&str, &str), String> {
    let label = |text: &str, dots: bool| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || (dots && b == b'.');
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = text.as_bytes();
        bytes.len() <= 253 && edge(bytes.first()) && edge(bytes.last()) && text.bytes().all(inner)
    };
    let names = username.strip_prefix(ACCOUNT).and_then(|names| names.split_once(':'));
    match names {
        Some((namespace, account)) if label(namespace, false) && label(account, true) => Ok((namespace, account)),
        Some(_) | None => Err(format!("{username:?} is not {ACCOUNT}NAMESPACE:NAME")),
    }
}

fn refused(reason: impl std::fmt::Display) -> Status {
    Status::unauthenticated(format!("the ServiceAccount token is not valid: {reason}"))
}

fn unavailable(reason: &str) -> Status {
    Status::unavailable(format!("the cluster cannot be asked about the token: {reason}"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    /// A review of a good token, to be spoilt.
    fn good() -> TokenReviewStatus {
        let extra = [(POD_NAME, "web-1"), (POD_UID, "u-1")];
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec!["tulle".to_owned()]),
            error: None,
            user: Some(UserInfo {
                username: Some("system:serviceaccount:shop:web".to_owned()),
                extra: Some(extra.map(|(key, value)| (key.to_owned(), vec![value.to_owned()])).into()),
                ..UserInfo::default()
            }),
        }
    }

    fn user(change: impl FnOnce(&mut UserInfo)) -> TokenReviewStatus {
        let mut status = good();
        change(status.user.as_mut().unwrap());
        status
    }

    #[test]
    fn a_good_review_names_the_pod() {
        let pod = judge(&good()).unwrap();
        assert_eq!((pod.key.to_string().as_str(), &*pod.service_account, &*pod.uid), ("shop/web-1", "web", "u-1"));
        assert_eq!(same(&pod, "u-1", "web"), Ok(()));
        assert!(same(&pod, "u-2", "web").unwrap_err().contains("earlier"));
        assert!(same(&pod, "u-1", "other").unwrap_err().contains("does not run as"));
    }

    #[test]
    fn what_is_missing_or_odd_is_refused() {
        let audiences = |audiences: Option<&[&str]>| TokenReviewStatus {
            audiences: audiences.map(|all| all.iter().map(|one| (*one).to_owned()).collect()),
            ..good()
        };
        let name = |name: &str| user(|user| user.username = Some(name.to_owned()));
        let cases = [
            (TokenReviewStatus { authenticated: Some(false), error: Some("expired".to_owned()), ..good() }, "expired"),
            (TokenReviewStatus { authenticated: None, ..good() }, "not authenticated"),
            (TokenReviewStatus::default(), "not authenticated"),
            (audiences(None), "audience"),
            (audiences(Some(&[])), "audience"),
            (audiences(Some(&["https://kubernetes.default.svc"])), "audience"),
            (audiences(Some(&["tulle", "vault"])), "audience"),
            (TokenReviewStatus { user: None, ..good() }, "is not system:serviceaccount:"),
            (name("system:node:n1"), "is not system:serviceaccount:"),
            (name("system:serviceaccount:shop"), "is not"),
            (name("system:serviceaccount:Shop:web"), "is not"),
            (name("system:serviceaccount:sh.op:web"), "is not"),
            (name("system:serviceaccount:shop:web:x"), "is not"),
            (name("system:serviceaccount:shop:../web"), "is not"),
            (user(|user| user.extra = None), "not bound to a pod"),
            (user(|user| user.extra.as_mut().unwrap().get_mut(POD_UID).unwrap().push("u-2".to_owned())), "not bound"),
        ];
        for (status, part) in cases {
            let reason = judge(&status).unwrap_err();
            assert!(reason.contains(part), "{part}: {reason}");
        }
    }

    #[test]
    fn nothing_hopeless_is_asked_about() {
        let claimed = |audiences: &[&str], subject: &str| Claimed {
            audiences: audiences.iter().map(|one| (*one).to_owned()).collect(),
            subject: subject.to_owned(),
            expires: SystemTime::UNIX_EPOCH,
        };
        let (web, second) = ("system:serviceaccount:shop:web", Duration::from_secs(1));
        assert_eq!(plausible(&claimed(&["tulle"], web), second), Ok(()));
        assert!(plausible(&claimed(&["tulle"], web), Duration::ZERO).is_err());
        assert!(plausible(&claimed(&["tulle", "api"], web), second).is_err());
        assert!(plausible(&claimed(&["api"], web), second).is_err());
        assert!(plausible(&claimed(&["tulle"], "alice"), second).is_err());
    }
}
