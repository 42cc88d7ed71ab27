//! AdmissionReview v1 (admission.k8s.io), in and out. Pure: bytes of a request to a reply.

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::pod;

/// The only version spoken.
const API_VERSION: &str = "admission.k8s.io/v1";

/// Longest warning that the API server passes on.
const LONGEST_WARNING: usize = 256;

/// A request for admission.
#[derive(Debug)]
pub(crate) struct Review {
    uid: String,
    request: Value,
}

/// Why bytes are no request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReviewError {
    /// They are no JSON, or more than one document.
    #[error("the body is no JSON: {0}")]
    Json(String),
    /// The document is another kind.
    #[error("the body is no AdmissionReview of {API_VERSION}")]
    Kind,
    /// `request` or its `uid` is missing.
    #[error("the AdmissionReview has no request with a uid")]
    Request,
}

impl Review {
    /// Reads a request.
    ///
    /// # Errors
    /// [`ReviewError`], the caller's fault.
    pub(crate) fn read(body: &[u8]) -> Result<Self, ReviewError> {
        let mut review: Value = serde_json::from_slice(body).map_err(|error| ReviewError::Json(error.to_string()))?;
        let is = |pointer: &str, expected: &str| pod::text(&review, pointer) == Some(expected);
        if !is("/apiVersion", API_VERSION) || !is("/kind", "AdmissionReview") {
            return Err(ReviewError::Kind);
        }
        let request = review.pointer_mut("/request").map(Value::take).ok_or(ReviewError::Request)?;
        let uid = pod::text(&request, "/uid").filter(|uid| !uid.is_empty()).ok_or(ReviewError::Request)?.to_owned();
        Ok(Self { uid, request })
    }

    /// The object, `None` where there is none, as in a deletion.
    pub(crate) fn object(&self) -> Option<&Value> {
        self.request.get("object").filter(|object| object.is_object())
    }

    /// What the object was before, in an update.
    pub(crate) fn old_object(&self) -> Option<&Value> {
        self.request.get("oldObject").filter(|object| object.is_object())
    }

    /// Its kind.
    pub(crate) fn kind(&self) -> &str {
        pod::text(&self.request, "/kind/kind").unwrap_or_default()
    }

    /// The namespace of the request; empty for objects without one.
    pub(crate) fn namespace(&self) -> &str {
        pod::text(&self.request, "/namespace").unwrap_or_default()
    }

    /// Whether nothing may be changed outside of the reply.
    pub(crate) fn is_dry_run(&self) -> bool {
        pod::is_true(&self.request, "/dryRun")
    }

    /// Whether the request makes a new object.
    pub(crate) fn is_creation(&self) -> bool {
        pod::text(&self.request, "/operation") == Some("CREATE")
    }

    /// Allowed, with a patch unless it is empty.
    pub(crate) fn allow(&self, patch: &[Value], warnings: &[String]) -> Value {
        let mut response = json!({"uid": self.uid, "allowed": true});
        if !patch.is_empty() {
            let bytes = ByteString(Value::from(patch).to_string().into_bytes());
            response["patchType"] = json!("JSONPatch");
            // Standard base64, as for every field of bytes.
            response["patch"] = json!(bytes);
        }
        Self::reply(response, warnings)
    }

    /// Refused: `reason` is what `kubectl` shows.
    pub(crate) fn deny(&self, reason: &str, warnings: &[String]) -> Value {
        let status = json!({"code": 422, "reason": "Invalid", "message": reason});
        Self::reply(json!({"uid": self.uid, "allowed": false, "status": status}), warnings)
    }

    fn reply(mut response: Value, warnings: &[String]) -> Value {
        if !warnings.is_empty() {
            response["warnings"] = warnings.iter().map(|text| shorten(text)).collect();
        }
        json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response})
    }
}

/// What fits into a header, at the end of a character.
fn shorten(text: &str) -> String {
    let mut end = text.len().min(LONGEST_WARNING);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default().chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_request_is_refused() {
        let wrong: [(&[u8], ReviewError); 7] = [
            (
                br#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"1"}}"#,
                ReviewError::Kind,
            ),
            (br#"{"apiVersion":"admission.k8s.io/v1","kind":"Pod","request":{"uid":"1"}}"#, ReviewError::Kind),
            (br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, ReviewError::Request),
            (br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}"#, ReviewError::Request),
            (
                br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":""}}"#,
                ReviewError::Request,
            ),
            (br#"[]"#, ReviewError::Kind),
            (br#"null"#, ReviewError::Kind),
        ];
        for (body, error) in wrong {
            assert_eq!(Review::read(body).unwrap_err(), error, "{}", String::from_utf8_lossy(body));
        }
        let review = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1"}}"#;
        let twice = format!("{review}{review}");
        let marked = format!("\u{feff}{review}");
        let utf16: Vec<u8> = review.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let deep = "[".repeat(100_000);
        for body in [b"".as_slice(), twice.as_bytes(), marked.as_bytes(), &utf16, deep.as_bytes(), b"{", b"\xff"] {
            assert!(matches!(Review::read(body), Err(ReviewError::Json(_))));
        }
        assert!(Review::read(review.as_bytes()).unwrap().object().is_none());
    }

    #[test]
    fn warnings_fit_into_headers() {
        assert_eq!(shorten("a\nb"), "ab");
        let long = shorten(&"é".repeat(200));
        assert_eq!(long.len(), 256);
    }
}
