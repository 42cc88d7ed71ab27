//! Whether a pod is to be captured from the node, and how: what the injector wrote on it, and what its owner did. Pure.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde_json::Value;

use crate::annotations::{self, INJECT_STATUS};
use crate::init;
use crate::patch::init::environment;
use crate::patch::{REDIRECT, REDIRECT_BY_NODE};
use crate::redirect::Settings;

/// The settings `tulle-init` would be given; `None` for a pod that is not captured, or sees to it itself.
///
/// # Errors
/// When the injector has been at work, and what the pod says cannot be understood.
pub(crate) fn settings(annotations: &BTreeMap<String, String>) -> Result<Option<Settings>, String> {
    let Some(status) = annotations.get(INJECT_STATUS) else { return Ok(None) };
    let status: Value = serde_json::from_str(status).map_err(|error| format!("{INJECT_STATUS}: {error}"))?;
    if status.get(REDIRECT).and_then(Value::as_str) != Some(REDIRECT_BY_NODE) {
        return Ok(None);
    }
    let read = annotations::read(annotations);
    if !read.errors.is_empty() {
        return Err(read.errors.join("; "));
    }
    let flags = environment(&read.options).into_iter().map(|(name, value)| {
        let name = name.trim_start_matches("TULLE_").to_lowercase().replace('_', "-");
        OsString::from(format!("--{name}={value}"))
    });
    let settings =
        init::settings(std::iter::once("tulle-init".into()).chain(flags)).map_err(|error| error.to_string())?;
    Ok(Some(settings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::{Mode, Span};

    fn of(pairs: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        settings(&pairs.iter().map(|(key, value)| (format!("tulle.io/{key}"), (*value).to_owned())).collect())
    }

    const STATUS: (&str, &str) = ("inject-status", r#"{"version": "0.1.0", "redirect": "cni"}"#);

    #[test]
    fn only_what_the_injector_left_to_the_node() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("inject", "enabled"), ("skip-inbound-ports", "nonsense")]), Ok(None));
        assert_eq!(of(&[("inject-status", r#"{"version": "0.1.0"}"#)]), Ok(None));
        let settings = of(&[STATUS]).unwrap().unwrap();
        assert_eq!((settings.mode, settings.proxy_mark, settings.proxy_uid), (Mode::Nft, None, 1337));
    }

    #[test]
    fn as_the_init_container_would_be_told() {
        let said = [
            STATUS,
            ("capture", "iptables"),
            ("skip-inbound-ports", "9090, 8000-8010"),
            ("skip-outbound-cidrs", "10.1.0.0/16,fd00:1::/64"),
            ("exclude-uids", "1000"),
        ];
        let settings = of(&said).unwrap().unwrap();
        assert_eq!(settings.mode, Mode::Iptables);
        assert_eq!(settings.skip_inbound_ports, [Span::one(9090), "8000-8010".parse().unwrap()]);
        assert_eq!(settings.skip_outbound_cidrs.len(), 2);
        assert_eq!(settings.exclude_uids, [Span::one(1000)]);
    }

    #[test]
    fn what_is_not_understood_is_said() {
        assert!(of(&[("inject-status", "yes")]).unwrap_err().contains("inject-status"));
        assert!(of(&[STATUS, ("skip-inbound-ports", "99999")]).unwrap_err().contains("99999"));
    }
}
