//! The list of policy annotations: every key with an example, how it is parsed, and how its last good value is kept.
//! The reference documentation is made from this list.

use super::name::Port;
use super::policy::Policy;
use super::values;

/// Prefix of all annotations and labels of Tulle.
pub const PREFIX: &str = "tulle.io/";

/// One annotation.
#[derive(Clone, Copy, Debug)]
pub struct Annotation {
    /// The key, without the prefix.
    pub key: &'static str,
    /// A right value, for messages and documentation.
    pub example: &'static str,
    set: fn(&mut Policy, &str) -> Result<(), String>,
    keep: fn(&mut Policy, &Policy),
}

/// Why an annotation was not taken as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// What is wrong.
    pub reason: String,
    /// A value that would have been right, where the key is known.
    pub example: Option<&'static str>,
    /// The key itself is unknown.
    pub unknown: bool,
}

/// An entry whose value is parsed by a function and lands in the field of the same name.
macro_rules! annotation {
    ($key:literal, $example:literal, $field:ident, $parse:expr) => {
        Annotation {
            key: $key,
            example: $example,
            set: |policy, text| {
                policy.$field = Some(($parse)(text)?);
                Ok(())
            },
            keep: |policy, last| policy.$field.clone_from(&last.$field),
        }
    };
}

/// Every annotation this version acts on, in the order of the documentation. `protocol.PORT` is beside it.
pub const ANNOTATIONS: [Annotation; 17] = [
    annotation!("protocol", "http", protocol, values::protocol),
    annotation!("load-balancer", "least-request", load_balancer, values::load_balancer),
    annotation!("connect-timeout", "10s", connect_timeout, values::positive_duration),
    annotation!("timeout", "15s", timeout, values::duration),
    annotation!("per-try-timeout", "2s", per_try_timeout, values::duration),
    annotation!("idle-timeout", "5m", idle_timeout, values::duration),
    annotation!("retry-on", "connect-failure,refused-stream,503", retry_on, values::retry_on),
    annotation!("retry-limit", "2", retry_limit, |text: &str| values::count(text, 0)),
    annotation!("retry-budget", "20%,min=3/s", retry_budget, values::retry_budget),
    annotation!("retry-backoff", "25ms..250ms", retry_backoff, values::retry_backoff),
    annotation!("max-connections", "10000", max_connections, |text: &str| values::count(text, 1)),
    annotation!("max-pending", "10000", max_pending, |text: &str| values::count(text, 1)),
    annotation!("max-requests", "10000", max_requests, |text: &str| values::count(text, 1)),
    annotation!("failover", "zone,region,any", failover, values::failover),
    annotation!("failover-threshold", "70%", failover_threshold, values::percent),
    annotation!("outlier", "consecutive-5xx=5,eject=30s..5m,max-ejected=50%", outlier, values::outlier),
    annotation!("mtls", "strict", mtls, values::mtls),
];

/// Keys of the design that later versions act on.
const LATER: [&str; 12] = [
    "hash-on",
    "slow-start",
    "subset-by",
    "retry-methods",
    "hedge-after",
    "health-check",
    "rate-limit",
    "allow",
    "mirror",
    "fault",
    "upstreams",
    "opaque-ports",
];

/// Reads one annotation into `policy`. Keys that are not Tulle's are ignored. A value that is wrong leaves the value
/// that `last` has, so that a slip of the pen does not take policy away.
///
/// # Errors
/// When the key is Tulle's and unknown or not supported, or its value is wrong. The fault is the user's.
pub fn read(policy: &mut Policy, key: &str, value: &str, last: Option<&Policy>) -> Result<(), Rejected> {
    let Some(name) = key.strip_prefix(PREFIX) else {
        return Ok(());
    };
    if let Some(port) = name.strip_prefix("protocol.") {
        return read_port_protocol(policy, port, value, last);
    }
    if let Some(known) = ANNOTATIONS.iter().find(|a| a.key == name) {
        return (known.set)(policy, value.trim()).map_err(|reason| {
            if let Some(last) = last {
                (known.keep)(policy, last);
            }
            Rejected { reason, example: Some(known.example), unknown: false }
        });
    }
    let later = LATER.contains(&name);
    let reason = if later {
        "this annotation is not supported yet, and has no effect".to_owned()
    } else {
        let meant = match nearest(name, ANNOTATIONS.iter().map(|a| a.key)) {
            Some(near) => format!("did you mean {PREFIX}{near}?"),
            None => "docs/reference/policy-annotations.md has those of services".to_owned(),
        };
        format!("is not known and has no effect; {meant}")
    };
    Err(Rejected { reason, example: None, unknown: !later })
}

/// The word of `known` that a slip of the pen may have meant; `None` when none is close.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Alike from the beginning (`retries`, `retry-limit`), or by few letters (`timeot`, `timeout`).
    let likeness =
        |known: &str| strsim::jaro_winkler(word, known).max(strsim::normalized_damerau_levenshtein(word, known));
    let near = known.into_iter().map(|known| (likeness(known), known)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (near.0 >= LIKENESS).then_some(near.1)
}

/// Of 1 for the same word.
const LIKENESS: f64 = 0.8;

fn read_port_protocol(policy: &mut Policy, port: &str, value: &str, last: Option<&Policy>) -> Result<(), Rejected> {
    let Ok(port) = port.parse::<Port>() else {
        let reason = format!("\"{port}\" is not a port number, as in tulle.io/protocol.8080");
        return Err(Rejected { reason, example: Some("http"), unknown: false });
    };
    match values::protocol(value.trim()) {
        Ok(protocol) => {
            policy.port_protocols.insert(port, protocol);
            Ok(())
        }
        Err(reason) => {
            if let Some(kept) = last.and_then(|last| last.port_protocols.get(&port)) {
                policy.port_protocols.insert(port, *kept);
            }
            Err(Rejected { reason, example: Some("http"), unknown: false })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::{LoadBalancer, Mtls};
    use crate::model::protocol::Protocol;

    #[test]
    fn every_example_is_right() {
        for annotation in ANNOTATIONS {
            let mut policy = Policy::default();
            assert_eq!((annotation.set)(&mut policy, annotation.example), Ok(()), "{}", annotation.key);
            assert_ne!(policy, Policy::default(), "{}", annotation.key);
        }
    }

    #[test]
    fn wrong_value_keeps_the_last_good_one() {
        let last = Policy { mtls: Some(Mtls::Strict), ..Policy::default() };
        let mut policy = Policy::default();
        let rejected = read(&mut policy, "tulle.io/mtls", "strickt", Some(&last)).unwrap_err();
        assert_eq!(rejected.example, Some("strict"));
        assert_eq!(policy.mtls, Some(Mtls::Strict));
    }

    #[test]
    fn later_and_unknown_keys() {
        let mut policy = Policy::default();
        let rejected = read(&mut policy, "tulle.io/load-balancer", "maglev", None).unwrap_err();
        assert!(rejected.reason.contains("not supported yet"), "{}", rejected.reason);
        assert!(read(&mut policy, "tulle.io/hedge-after", "x", None).unwrap_err().reason.contains("not supported yet"));
        assert!(read(&mut policy, "tulle.io/tiemout", "1s", None).unwrap_err().reason.contains("timeout"));
        assert_eq!(read(&mut policy, "example.com/timeout", "x", None), Ok(()));
        assert_eq!(policy.load_balancer(), LoadBalancer::LeastRequest);
    }

    #[test]
    fn protocol_of_one_port() {
        let mut policy = Policy::default();
        read(&mut policy, "tulle.io/protocol", "http", None).unwrap();
        read(&mut policy, "tulle.io/protocol.9090", "grpc", None).unwrap();
        let port = |n| Port::new(n).unwrap();
        assert_eq!(policy.protocol_of(port(9090), None, &Policy::default()), Protocol::Grpc);
        assert_eq!(policy.protocol_of(port(80), Some(Protocol::Tcp), &Policy::default()), Protocol::Http);
        assert!(read(&mut policy, "tulle.io/protocol.http", "grpc", None).is_err());
    }
}
