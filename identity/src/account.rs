//! ServiceAccount tokens of a cluster, as far as they can be read without its keys.
//!
//! Nothing here is verified: it tells what is worth asking the cluster about, and after the cluster has vouched for a
//! token, what it said in full. Bytes from a peer; bounded by the length of a token.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

/// What a token claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// For whom it was made.
    pub audiences: Vec<String>,
    /// Whose it is, `system:serviceaccount:NS:SA`.
    pub subject: String,
    /// First second at which it is not valid any more.
    pub expires: SystemTime,
}

/// The claims on the wire (RFC 7519 section 4.1).
#[derive(Deserialize)]
struct Wire {
    aud: Audiences,
    sub: String,
    exp: u64,
}

/// RFC 7519 section 4.1.3: one, or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

/// What `token` claims; none when it is longer than 8 KiB, or no JWT with an audience, a subject and an end.
pub fn claimed(token: &str) -> Option<Claimed> {
    if token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let Wire { aud, sub, exp } = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
    Some(Claimed {
        audiences: match aud {
            Audiences::One(one) => vec![one],
            Audiences::Many(many) => many,
        },
        subject: sub,
        expires: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(exp))?,
    })
}

const MAX_TOKEN_BYTES: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// {"alg":"RS256"} . claims . x
    fn token(claims: &str) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let base64 = |text: &str| {
            let bits: String = text.bytes().map(|byte| format!("{byte:08b}")).collect();
            let sextets = bits.as_bytes().chunks(6).map(|bits| {
                let bits = format!("{:0<6}", std::str::from_utf8(bits).unwrap());
                char::from(ALPHABET[usize::from_str_radix(&bits, 2).unwrap()])
            });
            sextets.collect::<String>()
        };
        format!("{}.{}.AAAA", base64(r#"{"alg":"RS256"}"#), base64(claims))
    }

    #[test]
    fn one_audience_or_several() {
        for (aud, expected) in [(r#""tulle""#, vec!["tulle"]), (r#"["tulle","vault"]"#, vec!["tulle", "vault"])] {
            let text = format!(r#"{{"aud":{aud},"sub":"system:serviceaccount:shop:web","exp":10,"iss":"x"}}"#);
            let claimed = claimed(&token(&text)).unwrap();
            assert_eq!(claimed.audiences, expected);
            assert_eq!(claimed.subject, "system:serviceaccount:shop:web");
            assert_eq!(claimed.expires, SystemTime::UNIX_EPOCH + Duration::from_secs(10));
        }
    }

    #[test]
    fn what_is_no_token() {
        let whole = token(r#"{"aud":"tulle","sub":"s","exp":10}"#);
        assert!(claimed(&whole).is_some());
        let long = format!("{whole}{}", "A".repeat(MAX_TOKEN_BYTES));
        let ends = [token(r#"{"aud":"tulle","sub":"s"}"#), token(r#"{"aud":"tulle","sub":"s","exp":-1}"#)];
        for wrong in ["", "a.b", "a.b.c", "\u{e9}.\u{e9}.\u{e9}", &long, &ends[0], &ends[1]] {
            assert_eq!(claimed(wrong), None, "{wrong}");
        }
    }
}
