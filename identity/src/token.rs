//! Workload tokens: how a workload outside Kubernetes proves who it is before it has a certificate.
//!
//! A token is a JWT (RFC 7519) signed with ES256 by a key in the control plane's state directory: issuer and audience
//! `tulle`, subject the SPIFFE id. It is a bearer secret: never logged, and sent over TLS only. Time is passed in.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::unreachable
    )
)]

use std::fmt;
use std::path::Path;
use std::sync::Once;
use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::KeyPair;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::spiffe::{SpiffeError, SpiffeId};
use crate::store::{Store, StoreError};

/// Issues tokens. Holds the private key.
pub struct TokenIssuer {
    key: EncodingKey,
    verifier: TokenVerifier,
}

/// Verifies tokens. Cheap to clone.
#[derive(Clone)]
pub struct TokenVerifier {
    key: DecodingKey,
    rules: Validation,
}

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Whose token it is.
    pub id: SpiffeId,
    /// First second at which it is not valid any more.
    pub expires: SystemTime,
}

/// Why a token is refused or cannot be issued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Longer than 8 KiB, not a JWT of three parts, or claims missing or of the wrong type. The bearer's fault.
    #[error("malformed token")]
    Malformed,
    /// Signed by another key or with another algorithm than ES256 (`none` included). The bearer's fault.
    #[error("token is not signed by this mesh")]
    Signature,
    /// Past its time. The bearer's fault; a new token helps.
    #[error("token has expired")]
    Expired,
    /// Issued for later than now, beyond a clock skew of 60 s. The bearer's or a clock's fault.
    #[error("token is not valid yet")]
    NotYetValid,
    /// Of another issuer or for another audience. The bearer's fault.
    #[error("token is not for this service")]
    Audience,
    /// Its subject is no workload. The bearer's fault.
    #[error("token's subject: {0}")]
    Subject(#[from] SpiffeError),
    /// A life of zero or longer than 366 days was asked for.
    #[error("a token lives from one second to 366 days")]
    Ttl,
    /// The state directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key file holds no ES256 key, or the key cannot sign.
    #[error("token key is not usable: {0}")]
    Key(String),
}

/// The claims on the wire (RFC 7519 section 4.1); times are seconds since the epoch.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    iat: u64,
    exp: u64,
    jti: &'a str,
}

/// The claims read back; issuer and audience are checked by [`Validation`].
#[derive(Deserialize)]
struct Read {
    sub: String,
    iat: u64,
    exp: u64,
}

impl TokenIssuer {
    /// Opens the issuer in the state directory `dir`, making directory (0700) and key (`token.key`, 0600) on first use.
    ///
    /// # Errors
    /// [`TokenError::Store`], in particular for loose modes, and [`TokenError::Key`].
    pub fn open(dir: &Path) -> Result<Self, TokenError> {
        let store = Store::open(dir)?;
        let text = match store.read(KEY_FILE)? {
            Some(text) => text,
            None => {
                store.create(KEY_FILE, Self::make_key()?.as_bytes())?;
                // Of two processes that start at once one wrote; both read.
                store.read(KEY_FILE)?.ok_or_else(|| TokenError::Key("vanished".to_owned()))?
            }
        };
        Self::from_key(&text)
    }

    /// A new key, PEM, for [`Self::from_key`].
    ///
    /// # Errors
    /// [`TokenError::Key`] without randomness.
    pub fn make_key() -> Result<Zeroizing<String>, TokenError> {
        let made = KeyPair::generate().map_err(|e| TokenError::Key(e.to_string()))?;
        Ok(Zeroizing::new(made.serialize_pem()))
    }

    /// The issuer of a key that is kept elsewhere, PEM.
    ///
    /// # Errors
    /// [`TokenError::Key`] when it is no ES256 key.
    pub fn from_key(pem: &[u8]) -> Result<Self, TokenError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|e| TokenError::Key(e.to_string()))?;
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|e| TokenError::Key(e.to_string()))?;
        Ok(Self {
            key: EncodingKey::from_ec_der(der.secret_pkcs8_der()),
            verifier: TokenVerifier::new(pair.public_key_raw()),
        })
    }

    /// A token for `id`, valid from `now` for `ttl` (whole seconds, at most 366 days).
    ///
    /// # Errors
    /// [`TokenError::Ttl`], [`TokenError::Key`].
    pub fn issue(&self, id: &SpiffeId, ttl: Duration, now: SystemTime) -> Result<String, TokenError> {
        if ttl.as_secs() == 0 || ttl > MAX_TTL {
            return Err(TokenError::Ttl);
        }
        let iat = seconds(now);
        let mut random = [0u8; 16];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| TokenError::Key("no randomness".to_owned()))?;
        let jti = format!("{:032x}", u128::from_be_bytes(random));
        let exp = iat.saturating_add(ttl.as_secs());
        let claims = Wire { iss: TULLE, aud: TULLE, sub: id.as_str(), iat, exp, jti: &jti };
        install_provider();
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.key)
            .map_err(|e| TokenError::Key(e.to_string()))
    }

    /// The verifier of this issuer's tokens.
    pub fn verifier(&self) -> TokenVerifier {
        self.verifier.clone()
    }
}

impl TokenVerifier {
    /// The verifier of the tokens issued from the state directory `dir`; as [`TokenIssuer::open`].
    ///
    /// # Errors
    /// As [`TokenIssuer::open`].
    pub fn open(dir: &Path) -> Result<Self, TokenError> {
        TokenIssuer::open(dir).map(|issuer| issuer.verifier)
    }

    /// Who bears `token`, if it is one of ours and valid at `now`. No leeway after its expiry: issuer and verifier are
    /// the same control plane.
    ///
    /// # Errors
    /// [`TokenError`]; all refusals are `Unauthenticated` to the bearer.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        install_provider();
        let read = jsonwebtoken::decode::<Read>(token, &self.key, &self.rules).map_err(|e| refused(&e))?.claims;
        let now = seconds(now);
        if read.exp <= now {
            return Err(TokenError::Expired);
        }
        if read.iat > now.saturating_add(SKEW_SECONDS) {
            return Err(TokenError::NotYetValid);
        }
        let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(read.exp));
        Ok(Claims { id: SpiffeId::parse(&read.sub)?, expires: expires.ok_or(TokenError::Malformed)? })
    }

    fn new(public_key: &[u8]) -> Self {
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_issuer(&[TULLE]);
        rules.set_audience(&[TULLE]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // The library would read the machine's clock; `verify` compares with the time it is given.
        rules.validate_exp = false;
        Self { key: DecodingKey::from_ec_der(public_key), rules }
    }
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenIssuer")
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenVerifier")
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that grows; everything else is malformed input")]
fn refused(error: &jsonwebtoken::errors::Error) -> TokenError {
    use jsonwebtoken::errors::ErrorKind as Kind;
    match error.kind() {
        Kind::InvalidSignature | Kind::InvalidAlgorithm | Kind::InvalidAlgorithmName => TokenError::Signature,
        Kind::InvalidIssuer | Kind::InvalidAudience => TokenError::Audience,
        _ => TokenError::Malformed,
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// jsonwebtoken panics in a build that enables several of its backends unless one was installed, so we do it before
/// every first use. Somebody else having installed one before us is as good.
pub(crate) fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    });
}

const TULLE: &str = "tulle";
const KEY_FILE: &str = "token.key";
const MAX_TOKEN_BYTES: usize = 8 << 10;
const MAX_TTL: Duration = Duration::from_secs(366 * 24 * 3600);
const SKEW_SECONDS: u64 = 60;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::testing::id;

    const HOUR: Duration = Duration::from_secs(3600);

    fn issuer() -> (tempfile::TempDir, TokenIssuer) {
        let home = tempfile::tempdir().unwrap();
        let issuer = TokenIssuer::open(&home.path().join("state")).unwrap();
        (home, issuer)
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    /// A token of `key` with other claims or another algorithm than ours.
    fn forged(key: &EncodingKey, alg: Algorithm, claims: &serde_json::Value) -> String {
        install_provider();
        jsonwebtoken::encode(&Header::new(alg), claims, key).unwrap()
    }

    fn claims(change: impl FnOnce(&mut serde_json::Value)) -> serde_json::Value {
        let at = seconds(now());
        let mut claims = serde_json::json!({
            "iss": "tulle", "aud": "tulle", "sub": id("web").as_str(), "iat": at, "exp": at + 3600,
        });
        change(&mut claims);
        claims
    }

    #[test]
    fn a_token_says_who_and_until_when() {
        let (home, issuer) = issuer();
        let token = issuer.issue(&id("web"), HOUR, now()).unwrap();
        let expected = Claims { id: id("web"), expires: now() + HOUR };
        assert_eq!(issuer.verifier().verify(&token, now()).unwrap(), expected);
        // Another replica on the same directory.
        let other = TokenVerifier::open(&home.path().join("state")).unwrap();
        assert_eq!(other.verify(&token, now() + HOUR - Duration::from_secs(1)).unwrap(), expected);
        assert_ne!(token, issuer.issue(&id("web"), HOUR, now()).unwrap(), "every token is unique");
    }

    #[test]
    fn cp02_bad_tokens_are_refused() {
        let (_home, issuer) = issuer();
        let verifier = issuer.verifier();
        let refused = |token: &str| verifier.verify(token, now()).unwrap_err();
        for garbage in ["", ".", "..", "a.b.c", "Bearer x", "\u{e9}.\u{e9}.\u{e9}", &"a".repeat(9000)] {
            assert!(matches!(refused(garbage), TokenError::Malformed), "{garbage}");
        }
        let good = issuer.issue(&id("web"), HOUR, now()).unwrap();
        let (body, _) = good.rsplit_once('.').unwrap();
        assert!(matches!(refused(&format!("{body}.")), TokenError::Signature));
        assert!(matches!(refused(body), TokenError::Malformed));
        assert!(matches!(refused(&format!("{good}.x")), TokenError::Malformed | TokenError::Signature));

        let (_other_home, other) = self::issuer();
        let strangers = other.issue(&id("web"), HOUR, now()).unwrap();
        assert!(matches!(refused(&strangers), TokenError::Signature));

        let expired = issuer.issue(&id("web"), HOUR, now() - HOUR).unwrap();
        assert!(matches!(refused(&expired), TokenError::Expired));
        let early = issuer.issue(&id("web"), HOUR, now() + Duration::from_secs(61)).unwrap();
        assert!(matches!(refused(&early), TokenError::NotYetValid));
        let skewed = issuer.issue(&id("web"), HOUR, now() + Duration::from_secs(60)).unwrap();
        assert!(verifier.verify(&skewed, now()).is_ok());
    }

    #[test]
    fn cp02_claims_are_held_to_their_values() {
        let (_home, issuer) = issuer();
        let verifier = issuer.verifier();
        let judge = |change: &dyn Fn(&mut serde_json::Value)| {
            verifier.verify(&forged(&issuer.key, Algorithm::ES256, &claims(|c| change(c))), now())
        };
        assert!(judge(&|_| {}).is_ok());
        for claim in ["iss", "aud"] {
            for wrong in ["", "Tulle", "istio-ca", "https://kubernetes.default.svc"] {
                let result = judge(&|c| c[claim] = wrong.into());
                assert!(matches!(result, Err(TokenError::Audience)), "{claim} {wrong}: {result:?}");
            }
        }
        for claim in ["iss", "aud", "sub", "exp", "iat"] {
            let result = judge(&|c| drop(c.as_object_mut().unwrap().remove(claim)));
            assert!(matches!(result, Err(TokenError::Malformed)), "without {claim}: {result:?}");
        }
        for claim in ["sub", "exp", "iat"] {
            for wrong in [serde_json::json!(null), serde_json::json!(-1), serde_json::json!([1])] {
                let result = judge(&|c| c[claim] = wrong.clone());
                assert!(matches!(result, Err(TokenError::Malformed)), "{claim} {wrong}: {result:?}");
            }
        }
        assert!(matches!(judge(&|c| c["sub"] = "system:serviceaccount:a:b".into()), Err(TokenError::Subject(_))));
        assert!(judge(&|c| c["exp"] = u64::MAX.into()).is_err(), "no time that far");
    }

    #[test]
    fn cp02_other_algorithms_are_refused() {
        let (home, issuer) = issuer();
        let text = fs::read(home.path().join("state").join(KEY_FILE)).unwrap();
        let der = PrivatePkcs8KeyDer::from_pem_slice(&text).unwrap();
        let public = KeyPair::try_from(&der).unwrap().public_key_raw().to_vec();
        // The classic confusion: the public key as an HMAC secret.
        let confused = forged(&EncodingKey::from_secret(&public), Algorithm::HS256, &claims(|_| {}));
        assert!(matches!(issuer.verifier().verify(&confused, now()), Err(TokenError::Signature)));
        // {"alg":"none","typ":"JWT"}, no signature.
        let good = issuer.issue(&id("web"), HOUR, now()).unwrap();
        let body = good.split('.').nth(1).unwrap();
        let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.");
        assert!(issuer.verifier().verify(&none, now()).is_err());
    }

    #[test]
    fn lives_are_bounded() {
        let (_home, issuer) = issuer();
        for ttl in [Duration::ZERO, Duration::from_millis(999), MAX_TTL + Duration::from_secs(1)] {
            assert!(matches!(issuer.issue(&id("web"), ttl, now()), Err(TokenError::Ttl)), "{ttl:?}");
        }
        assert!(issuer.issue(&id("web"), MAX_TTL, now()).is_ok());
    }

    #[test]
    fn the_key_is_private_and_checked() {
        let (home, _) = issuer();
        let dir = home.path().join("state");
        let file = dir.join(KEY_FILE);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
        assert!(matches!(TokenIssuer::open(&dir), Err(TokenError::Store(StoreError::Mode { .. }))));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let foreign = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        fs::write(&file, foreign).unwrap();
        assert!(matches!(TokenIssuer::open(&dir), Err(TokenError::Key(_))));
    }
}
