//! The keys a cluster signs ServiceAccount tokens with, as its API server publishes them (RFC 7517): enough to tell a
//! token that the cluster signed from one that anybody wrote.
//!
//! A good signature is necessary, not sufficient: whether the token's pod is still there, the cluster says. Bytes
//! from a peer; both the set and a token have a largest size.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::token::install_provider;

/// Keys of a cluster.
#[derive(Debug)]
pub struct AccountKeys {
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    id: String,
    /// None for a type of key that cannot be used here.
    usable: Option<(DecodingKey, &'static [Algorithm])>,
}

/// What the keys say of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// The cluster signed it.
    Good,
    /// It did not. The bearer's fault.
    Bad,
    /// The token names a key that is not in the set; a newer set may have it.
    UnknownKey,
    /// The token names a key that cannot be used here: only the cluster can tell.
    Unusable,
}

/// Why a set cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// It is larger than 256 KiB.
    #[error("the key set is larger than {MAX_SET_BYTES} bytes")]
    TooLarge,
    /// It is no JSON object with a list `keys`.
    #[error("the key set is not a JSON Web Key Set")]
    Malformed,
    /// It has no key with an id.
    #[error("the key set has no key")]
    Empty,
}

/// The members of a set; each key is read by itself.
#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl AccountKeys {
    /// Reads a set. A key that cannot be used is kept by its id alone, and spoils no other.
    ///
    /// # Errors
    /// [`KeySetError`]; the API server's fault.
    pub fn parse(text: &str) -> Result<Self, KeySetError> {
        if text.len() > MAX_SET_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let set: Set = serde_json::from_str(text).map_err(|_| KeySetError::Malformed)?;
        let keys: Vec<_> = set.keys.into_iter().take(MAX_KEYS).filter_map(Key::read).collect();
        if keys.is_empty() { Err(KeySetError::Empty) } else { Ok(Self { keys }) }
    }

    /// Whether the cluster signed `token`. Times and claims are not looked at.
    pub fn verify(&self, token: &str) -> Signature {
        if token.len() > MAX_TOKEN_BYTES {
            return Signature::Bad;
        }
        install_provider();
        let Ok(header) = jsonwebtoken::decode_header(token) else { return Signature::Bad };
        // An API server names the key in every token it signs.
        let Some(id) = header.kid else { return Signature::Bad };
        let Some(key) = self.keys.iter().find(|key| key.id == id) else { return Signature::UnknownKey };
        let Some((decoding, algorithms)) = &key.usable else { return Signature::Unusable };
        // The type of the key decides, not the token: an HMAC under a public key is no signature.
        if !algorithms.contains(&header.alg) {
            return Signature::Bad;
        }
        let mut rules = Validation::new(header.alg);
        rules.required_spec_claims.clear();
        (rules.validate_exp, rules.validate_aud) = (false, false);
        match jsonwebtoken::decode::<IgnoredAny>(token, decoding, &rules) {
            Ok(_) => Signature::Good,
            Err(_) => Signature::Bad,
        }
    }
}

impl Key {
    fn read(value: Value) -> Option<Self> {
        let id = value.get("kid")?.as_str()?.to_owned();
        Some(Self { id, usable: usable(value) })
    }
}

fn usable(value: Value) -> Option<(DecodingKey, &'static [Algorithm])> {
    let key: Jwk = serde_json::from_value(value).ok()?;
    let of_curve = |curve: &EllipticCurve| -> Option<&'static [Algorithm]> {
        let known: [(EllipticCurve, &[Algorithm]); 2] =
            [(EllipticCurve::P256, &[Algorithm::ES256]), (EllipticCurve::P384, &[Algorithm::ES384])];
        known.into_iter().find(|(known, _)| known == curve).map(|(_, algorithms)| algorithms)
    };
    let algorithms = if let AlgorithmParameters::EllipticCurve(parameters) = &key.algorithm {
        of_curve(&parameters.curve)?
    } else if let AlgorithmParameters::RSA(_) = &key.algorithm {
        &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512]
    } else {
        return None;
    };
    Some((DecodingKey::from_jwk(&key).ok()?, algorithms))
}

const MAX_SET_BYTES: usize = 256 << 10;
const MAX_TOKEN_BYTES: usize = 8 << 10;
/// A cluster has one or two; more while it changes them.
const MAX_KEYS: usize = 64;

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use rcgen::KeyPair;
    use serde_json::json;

    use super::*;

    struct Signer {
        key: EncodingKey,
        jwk: Value,
    }

    fn signer(id: &str) -> Signer {
        install_provider();
        let pair = KeyPair::generate().unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap()).unwrap();
        jwk["kid"] = json!(id);
        Signer { key, jwk }
    }

    fn token(signer: &Signer, id: Option<&str>) -> String {
        let header = Header { kid: id.map(str::to_owned), ..Header::new(Algorithm::ES256) };
        let claims = json!({"aud": ["tulle"], "sub": "system:serviceaccount:shop:web", "exp": 1, "iat": 1});
        jsonwebtoken::encode(&header, &claims, &signer.key).unwrap()
    }

    fn set(keys: &[&Value]) -> String {
        json!({"keys": keys}).to_string()
    }

    #[test]
    fn hostile_08_only_what_the_cluster_signed_is_good() {
        let (ours, other) = (signer("a"), signer("a"));
        let odd = json!({"kid": "odd", "kty": "future", "x": 1});
        let keys = AccountKeys::parse(&set(&[&ours.jwk, &odd, &json!(7), &json!({"kty": "RSA"})])).unwrap();
        let good = token(&ours, Some("a"));
        assert_eq!(keys.verify(&good), Signature::Good);
        assert_eq!(keys.verify(&token(&other, Some("a"))), Signature::Bad, "another key under the same id");
        assert_eq!(keys.verify(&token(&ours, Some("b"))), Signature::UnknownKey);
        assert_eq!(keys.verify(&token(&ours, Some("odd"))), Signature::Unusable);
        assert_eq!(keys.verify(&token(&ours, None)), Signature::Bad, "no key is named");
        let (signed, signature) = good.rsplit_once('.').unwrap();
        for forged in [format!("{signed}."), format!("{signed}.AAAA"), signed.to_owned(), format!("{signature}.x.y")] {
            assert_eq!(keys.verify(&forged), Signature::Bad, "{forged}");
        }
        // The public key as a secret, and a token far too long.
        let header = Header { kid: Some("a".to_owned()), ..Header::new(Algorithm::HS256) };
        let secret = EncodingKey::from_secret(ours.jwk["x"].as_str().unwrap().as_bytes());
        let confused = jsonwebtoken::encode(&header, &json!({"sub": "x"}), &secret).unwrap();
        assert_eq!(keys.verify(&confused), Signature::Bad);
        assert_eq!(keys.verify(&format!("{good}{}", "A".repeat(MAX_TOKEN_BYTES))), Signature::Bad);
    }

    #[test]
    fn hostile_08_sets_that_are_none() {
        assert!(matches!(AccountKeys::parse("{}"), Err(KeySetError::Malformed)));
        assert!(matches!(AccountKeys::parse("{\"keys\":[]}"), Err(KeySetError::Empty)));
        assert!(matches!(AccountKeys::parse("{\"keys\":[1,{}]}"), Err(KeySetError::Empty)));
        assert!(matches!(AccountKeys::parse(&" ".repeat(MAX_SET_BYTES + 1)), Err(KeySetError::TooLarge)));
    }
}
