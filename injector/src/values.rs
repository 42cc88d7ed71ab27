//! Values of annotations: each parser gives what the rest of the injector needs, or what a value must be.

use std::net::IpAddr;

use ipnet::IpNet;
use tulle_control_plane::model::annotations::nearest;

use crate::redirect::settings::Span;

/// How traffic comes to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// nftables rules.
    Nft,
    /// iptables rules.
    Iptables,
    /// No rules.
    None,
}

/// Whether the proxy is a native sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Native {
    /// Where the API server has it.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

type Parsed<T> = Result<T, String>;

fn one_of<T: Copy>(text: &str, choices: &[(&str, T)]) -> Parsed<T> {
    let found = choices.iter().find(|(name, _)| *name == text);
    let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    found.map(|(_, value)| *value).ok_or_else(|| format!("is none of {}", names()))
}

/// `enabled` or `disabled`, as of a label: the words of other meshes and of YAML are not values.
pub(crate) fn enabled(text: &str) -> Parsed<bool> {
    one_of(text, &[("enabled", true), ("disabled", false)]).map_err(|_| {
        let word = text.to_ascii_lowercase();
        let meant = match word.as_str() {
            "true" | "yes" | "on" | "1" | "y" => Some("enabled"),
            "false" | "no" | "off" | "0" | "n" | "none" => Some("disabled"),
            word => nearest(word, ["enabled", "disabled"]),
        };
        let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
        format!("is not a value{meant}")
    })
}

pub(crate) fn boolean(text: &str) -> Parsed<bool> {
    one_of(text, &[("true", true), ("false", false)])
}

pub(crate) fn native(text: &str) -> Parsed<Native> {
    one_of(text, &[("auto", Native::Auto), ("true", Native::Always), ("false", Native::Never)])
}

pub(crate) fn capture(text: &str) -> Parsed<Capture> {
    if text == "tproxy" {
        return Err("would need NET_ADMIN in the proxy for as long as the pod lives, and is not offered; nft and iptables lead \
                    the same connections, and x-forwarded-client-cert tells the application who calls"
            .to_owned());
    }
    one_of(text, &[("nft", Capture::Nft), ("iptables", Capture::Iptables), ("none", Capture::None)])
}

pub(crate) fn access_log(text: &str) -> Parsed<String> {
    one_of(text, &[("off", "off"), ("json", "json"), ("text", "text")]).map(str::to_owned)
}

pub(crate) fn unknown(text: &str) -> Parsed<String> {
    one_of(text, &[("pass-through", "pass-through"), ("refuse", "refuse")]).map(str::to_owned)
}

/// Printable, without spaces, 255 bytes at most.
pub(crate) fn text(text: &str) -> Parsed<String> {
    let fine = !text.is_empty() && text.len() <= 255 && text.chars().all(|c| c.is_ascii_graphic());
    fine.then(|| text.to_owned()).ok_or_else(|| "is empty, too long or has spaces".to_owned())
}

pub(crate) fn image(image: &str) -> Parsed<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    let fine = text(image).is_ok() && image.chars().all(allowed) && image.starts_with(|c: char| c.is_alphanumeric());
    fine.then(|| image.to_owned()).ok_or_else(|| "is no image".to_owned())
}

/// A quantity as Kubernetes writes it, positive.
pub(crate) fn quantity(text: &str) -> Parsed<String> {
    const SUFFIXES: [&str; 15] = ["m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "u", "n"];
    let wrong = || "is no quantity".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number_is_fine = number.len() <= 18 && number.parse::<f64>().is_ok_and(|number| number > 0.0);
    let suffix_is_fine = suffix.is_empty() || SUFFIXES.contains(&suffix);
    if number_is_fine && suffix_is_fine { Ok(text.to_owned()) } else { Err(wrong()) }
}

/// Whether the quantity `one` is more than `other`; no for what is no quantity.
pub fn exceeds(one: &str, other: &str) -> bool {
    let (Some(one), Some(other)) = (amount(one), amount(other)) else { return false };
    // 1.1 and 1100m are the same.
    one > other * (1.0 + 1e-12)
}

fn amount(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let unit = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024_f64.powi(2),
        "Gi" => 1024_f64.powi(3),
        "Ti" => 1024_f64.powi(4),
        "Pi" => 1024_f64.powi(5),
        "Ei" => 1024_f64.powi(6),
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| number * unit)
}

fn number(text: &str, least: u64, most: u64) -> Parsed<u64> {
    let parsed = text.parse().ok().filter(|number| (least..=most).contains(number));
    parsed.ok_or_else(|| format!("is no number from {least} to {most}"))
}

pub(crate) fn workers(text: &str) -> Parsed<String> {
    number(text, 1, 64).map(|number| number.to_string())
}

pub(crate) fn drain_seconds(text: &str) -> Parsed<u64> {
    number(text, 1, 3600)
}

pub(crate) fn max_connection_seconds(text: &str) -> Parsed<u64> {
    number(text, 10, 604_800)
}

/// Items with commas between them, each checked; written back without spaces.
fn list(text: &str, check: impl Fn(&str) -> Parsed<()>) -> Parsed<String> {
    let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    for item in &items {
        check(item).map_err(|reason| format!("has \"{item}\", which {reason}"))?;
    }
    Ok(items.join(","))
}

pub(crate) fn ports(text: &str) -> Parsed<String> {
    list(text, |item| match item.parse::<Span<u16>>() {
        // A range may begin at 0, which no connection has.
        Ok(span) if span.last() > 0 => Ok(()),
        Ok(_) | Err(_) => Err("is neither a port nor a range of ports".to_owned()),
    })
}

pub(crate) fn single_ports(text: &str) -> Parsed<String> {
    list(text, |item| number(item, 1, 65535).map(drop))
}

pub(crate) fn uids(text: &str) -> Parsed<String> {
    list(text, |item| item.parse::<Span<u32>>().map(drop).map_err(|_| "is neither a user id nor a range".to_owned()))
}

pub(crate) fn networks(text: &str) -> Parsed<String> {
    list(text, |item| {
        let fine = item.parse::<IpNet>().is_ok() || item.parse::<IpAddr>().is_ok();
        fine.then_some(()).ok_or_else(|| "is no network".to_owned())
    })
}

/// `name[.namespace[...]]:port`.
pub(crate) fn upstreams(text: &str) -> Parsed<String> {
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    list(text, |item| {
        let fine = item.rsplit_once(':').is_some_and(|(name, port)| {
            name.len() <= 253 && name.split('.').all(label) && number(port, 1, 65535).is_ok()
        });
        fine.then_some(()).ok_or_else(|| "is no service with its port".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for right in ["1", "0.5", "100m", "64Mi", "1.5Gi", "2k"] {
            assert_eq!(quantity(right).as_deref(), Ok(right));
        }
        for wrong in ["", "0", "-1", "1 Gi", "Mi", "1mi", "1e3x", "1.2.3", "NaN", "inf"] {
            assert!(quantity(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mend_24_quantities_are_compared_by_their_amounts() {
        for (one, other) in [("512Mi", "256Mi"), ("1", "999m"), ("1Gi", "1G"), ("0.5", "100m"), ("2000001n", "2000u")] {
            assert!(exceeds(one, other) && !exceeds(other, one), "{one} {other}");
        }
        for (one, other) in [("1.1", "1100m"), ("1Gi", "1024Mi"), ("1k", "1000"), ("1", "x"), ("x", "1")] {
            assert!(!exceeds(one, other) && !exceeds(other, one), "{one} {other}");
        }
    }

    #[test]
    fn mend_23_names_that_the_proxy_refuses_are_refused_before() {
        assert_eq!(upstreams("reviews.shop:80").as_deref(), Ok("reviews.shop:80"));
        for wrong in ["a..b:80", ".:80", "a.:80", "-a:80", "a-.b:80", ":80", "a:0"] {
            assert!(upstreams(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lists_are_written_without_spaces() {
        assert_eq!(ports(" 80, 90-95 ,").as_deref(), Ok("80,90-95"));
        assert_eq!(networks("10.0.0.1, fd00::/8").as_deref(), Ok("10.0.0.1,fd00::/8"));
        assert_eq!(ports("0-65535").as_deref(), Ok("0-65535"));
        for wrong in ["0", "80-", "95-90", "80;90"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }
}
