//! Parsers of annotation values. Each is total: text in, value or the reason why not out.

use std::time::Duration;

use super::policy::{Backoff, FailoverLevel, LoadBalancer, Mtls, Outlier, RetryBudget, RetryOn};
use super::protocol::Protocol;

/// Longest duration accepted: a day. Longer ones are taken for a mistake in the unit.
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

/// gRPC status names, as in Envoy's `x-envoy-retry-grpc-on`.
const GRPC: [&str; 5] = ["cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"];

/// Load balancers of the design that later versions bring.
const LATER: [&str; 3] = ["peak-ewma", "ring-hash", "maglev"];

/// Durations as Gateway API (GEP-2257) and Go write them: `1h30m`, `10s`, `250ms`; also `0`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a duration: use a number and a unit, h, m, s or ms");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let millis_per_unit: u64 = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return Err(wrong()),
        };
        let part = Duration::from_millis(number.saturating_mul(millis_per_unit));
        total = total.saturating_add(part);
        rest = tail;
    }
    match total {
        _ if text.is_empty() => Err(wrong()),
        total if total > MAX_DURATION => Err(format!("{text} is longer than a day")),
        total => Ok(total),
    }
}

/// As [`duration`], and more than zero.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be more than zero".to_owned()),
        duration => Ok(duration),
    }
}

/// A count of at least `min`.
pub(super) fn count(text: &str, min: u32) -> Result<u32, String> {
    let number: u32 = text.parse().map_err(|_| format!("\"{text}\" is not a whole number"))?;
    if number < min { Err(format!("{number} is less than {min}")) } else { Ok(number) }
}

/// A percentage from 1 to 100, with or without its sign.
pub(super) fn percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse() {
        Ok(number @ 1..=100) => Ok(number),
        Ok(_) | Err(_) => Err(format!("\"{text}\" is not a percentage from 1% to 100%")),
    }
}

pub(super) fn protocol(text: &str) -> Result<Protocol, String> {
    Protocol::from_name(text)
        .ok_or_else(|| format!("\"{text}\" is not a protocol Tulle knows: use one of {}", Protocol::NAMES))
}

pub(super) fn load_balancer(text: &str) -> Result<LoadBalancer, String> {
    match text {
        "least-request" => Ok(LoadBalancer::LeastRequest),
        "round-robin" => Ok(LoadBalancer::RoundRobin),
        "random" => Ok(LoadBalancer::Random),
        other if LATER.contains(&other) => {
            Err(format!("{other} is not supported yet: use one of least-request, round-robin, random"))
        }
        other => Err(format!("\"{other}\" is not a load balancer: use one of least-request, round-robin, random")),
    }
}

pub(super) fn mtls(text: &str) -> Result<Mtls, String> {
    [Mtls::Strict, Mtls::Permissive, Mtls::Disable]
        .into_iter()
        .find(|m| m.name() == text)
        .ok_or_else(|| format!("\"{text}\" is not an mTLS mode: use one of strict, permissive, disable"))
}

/// `zone,region,any`: any of them, each at most once, in that order.
pub(super) fn failover(text: &str) -> Result<Vec<FailoverLevel>, String> {
    let mut levels = Vec::new();
    for word in words(text) {
        let level = match word {
            "zone" => FailoverLevel::Zone,
            "region" => FailoverLevel::Region,
            "any" => FailoverLevel::Any,
            _ if word.starts_with("service:") => {
                return Err("failover to another service is not supported yet: use zone, region, any".to_owned());
            }
            _ => return Err(format!("\"{word}\" is not a failover level: use zone, region, any")),
        };
        if levels.last().is_some_and(|last| rank(*last) >= rank(level)) {
            return Err("levels go from near to far, each once".to_owned());
        }
        levels.push(level);
    }
    if levels.is_empty() { Err("it names no level: use zone, region, any".to_owned()) } else { Ok(levels) }
}

const fn rank(level: FailoverLevel) -> u8 {
    match level {
        FailoverLevel::Zone => 0,
        FailoverLevel::Region => 1,
        FailoverLevel::Any => 2,
    }
}

pub(super) fn retry_on(text: &str) -> Result<Vec<RetryOn>, String> {
    words(text).map(retry_condition).collect()
}

fn retry_condition(word: &str) -> Result<RetryOn, String> {
    Ok(match word {
        "connect-failure" => RetryOn::ConnectFailure,
        "refused-stream" => RetryOn::RefusedStream,
        "reset-before-request" => RetryOn::ResetBeforeRequest,
        "reset" => RetryOn::Reset,
        "5xx" => RetryOn::ServerError,
        "gateway-error" => RetryOn::GatewayError,
        "retriable-4xx" => RetryOn::Retriable4xx,
        _ => return other_condition(word),
    })
}

fn other_condition(word: &str) -> Result<RetryOn, String> {
    if let Some(name) = GRPC.into_iter().find(|name| *name == word) {
        return Ok(RetryOn::Grpc(name));
    }
    if let Some(name) = word.strip_prefix("retriable-headers:") {
        let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let header = || RetryOn::Header(name.to_ascii_lowercase());
        return valid.then(header).ok_or_else(|| format!("\"{name}\" is not a header name"));
    }
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if (100..=599).contains(&first) && first <= last && last <= 599 => {
            Ok(RetryOn::Status(first, last))
        }
        _ => Err(format!("\"{word}\" is not something to retry on")),
    }
}

/// `20%`, or `20%,min=3/s`.
pub(super) fn retry_budget(text: &str) -> Result<RetryBudget, String> {
    let mut budget = RetryBudget { percent: 0, min: 3 };
    for word in words(text) {
        if let Some(min) = word.strip_prefix("min=") {
            budget.min = count(min.strip_suffix("/s").unwrap_or(min), 0)?;
        } else {
            budget.percent = percent(word)?;
        }
    }
    if budget.percent == 0 { Err("it has no percentage".to_owned()) } else { Ok(budget) }
}

/// `consecutive-5xx=5,consecutive-gateway=3,interval=10s,eject=30s..5m,max-ejected=50%`, in any order; or `off`.
pub(super) fn outlier(text: &str) -> Result<Outlier, String> {
    let mut outlier = Outlier {
        consecutive_5xx: 0,
        consecutive_gateway: 0,
        interval: Duration::from_secs(10),
        base: Duration::from_secs(30),
        longest: Duration::from_secs(300),
        max_ejected: 50,
    };
    if text.trim() == "off" {
        return Ok(outlier);
    }
    for word in words(text) {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("\"{word}\" is not of the form key=value"))?;
        match key.trim() {
            "consecutive-5xx" => outlier.consecutive_5xx = count(value, 1)?,
            "consecutive-gateway" => outlier.consecutive_gateway = count(value, 1)?,
            "interval" => outlier.interval = positive_duration(value)?,
            "eject" => Backoff { base: outlier.base, max: outlier.longest } = retry_backoff(value)?,
            "max-ejected" => outlier.max_ejected = percent(value)?,
            "success-rate" => return Err("success-rate is not supported yet".to_owned()),
            other => {
                return Err(format!(
                    "\"{other}\" is not a setting of it: use consecutive-5xx, consecutive-gateway, interval, eject, max-ejected"
                ));
            }
        }
    }
    if outlier.consecutive_5xx == 0 && outlier.consecutive_gateway == 0 {
        return Err("it says no number of failures: name consecutive-5xx or consecutive-gateway".to_owned());
    }
    Ok(outlier)
}

/// `25ms..250ms`.
pub(super) fn retry_backoff(text: &str) -> Result<Backoff, String> {
    let (base, max) = text.split_once("..").ok_or_else(|| format!("\"{text}\" is not a range"))?;
    let backoff = Backoff { base: positive_duration(base.trim())?, max: positive_duration(max.trim())? };
    if backoff.base > backoff.max { Err("the second duration is the shorter one".to_owned()) } else { Ok(backoff) }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers() {
        let read = outlier("consecutive-5xx=7, eject=5s..20s,max-ejected=30%").unwrap();
        assert_eq!((read.consecutive_5xx, read.consecutive_gateway, read.max_ejected), (7, 0, 30));
        assert_eq!((read.base, read.longest), (Duration::from_secs(5), Duration::from_secs(20)));
        assert_eq!(outlier("consecutive-gateway=2").unwrap().longest, Duration::from_secs(300));
        assert_eq!(outlier("off").unwrap().consecutive_5xx, 0);
        for wrong in ["", "5", "consecutive-5xx=0", "eject=1s..2s", "consecutive-5xx=5,success-rate=0.8", "tries=3"] {
            assert!(outlier(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "5", "s", "5 minutes", "-1s", "1.5s", "25h", "99999999999999999999s", "5é"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(positive_duration("0s").is_err());
    }

    #[test]
    fn retries() {
        assert_eq!(
            retry_on("connect-failure, 503,500-504,retriable-headers:X-Retry,unavailable"),
            Ok(vec![
                RetryOn::ConnectFailure,
                RetryOn::Status(503, 503),
                RetryOn::Status(500, 504),
                RetryOn::Header("x-retry".to_owned()),
                RetryOn::Grpc("unavailable"),
            ])
        );
        assert!(retry_on("504-500").is_err());
        assert!(retry_on("sometimes").is_err());
        assert_eq!(retry_budget("10%,min=5/s"), Ok(RetryBudget { percent: 10, min: 5 }));
        assert!(retry_budget("min=5/s").is_err());
        assert!(retry_backoff("250ms..25ms").is_err());
    }

    #[test]
    fn levels() {
        use FailoverLevel::{Any, Region, Zone};
        assert_eq!(failover("zone,region,any"), Ok(vec![Zone, Region, Any]));
        assert_eq!(failover("region"), Ok(vec![Region]));
        assert!(failover("any,zone").is_err());
        assert!(failover("service:a.b").unwrap_err().contains("not supported yet"));
        assert!(failover("").is_err());
    }
}
