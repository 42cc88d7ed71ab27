//! Certificates inside objects: what they are and when they end.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::finding::Finding;

/// A certificate with less than this part of its life left should have been renewed by now.
const LATE: u32 = 10;

/// A certificate, and when it is valid.
pub(super) struct Certificate {
    start: SystemTime,
    end: SystemTime,
}

/// What base64 stands for, as a Secret's data and a caBundle have it; none for nothing.
pub(super) fn decoded(value: &Value) -> Option<Vec<u8>> {
    let bytes = serde_json::from_value::<k8s_openapi::ByteString>(value.clone()).ok()?.0;
    (!bytes.is_empty()).then_some(bytes)
}

/// The certificates of a PEM text.
pub(super) fn certificates(text: &[u8]) -> Vec<Certificate> {
    let time = |seconds: i64| {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
    };
    let blocks = x509_parser::pem::Pem::iter_from_buffer(text).filter_map(Result::ok);
    blocks
        .filter_map(|block| {
            let certificate = block.parse_x509().ok()?;
            let validity = certificate.validity();
            Some(Certificate {
                start: time(validity.not_before.timestamp())?,
                end: time(validity.not_after.timestamp())?,
            })
        })
        .collect()
}

/// Judges when the first of `certificates` ends.
pub(super) fn expiry(about: &'static str, certificates: &[Certificate], now: SystemTime) -> Finding {
    let Some(first) = certificates.iter().min_by_key(|certificate| certificate.end) else {
        return Finding::failed(about, "there is no certificate that can be read");
    };
    let life = first.end.duration_since(first.start).unwrap_or_default();
    match first.end.duration_since(now) {
        Err(past) => Finding::failed(about, format!("ended {} ago", days(past.duration()))),
        Ok(left) if left < life / LATE => Finding::warning(about, format!("ends in {}", days(left))),
        Ok(left) => Finding::ok(about, format!("ends in {}", days(left))),
    }
}

fn days(span: Duration) -> String {
    let hours = span.as_secs() / 3_600;
    if hours < 48 { format!("{hours} hours") } else { format!("{} days", hours / 24) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::State;
    use super::*;

    #[test]
    fn ends() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100 * 86_400);
        let day = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(n * 86_400);
        let judge = |ends: &[u64]| {
            let list: Vec<_> = ends.iter().map(|end| Certificate { start: day(0), end: day(*end) }).collect();
            expiry("x", &list, now)
        };
        assert_eq!(judge(&[200, 300]).detail, "ends in 100 days");
        assert_eq!(judge(&[200, 101]).state, State::Warning);
        assert_eq!((judge(&[99]).state, judge(&[99]).detail.as_str()), (State::Failed, "ended 24 hours ago"));
        assert_eq!(judge(&[]).state, State::Failed);
    }

    #[test]
    fn base64() {
        assert_eq!(decoded(&json!("aGk=")).as_deref(), Some(b"hi".as_slice()));
        assert_eq!(decoded(&json!(3)), None);
        assert_eq!(decoded(&json!(null)), None);
    }
}
