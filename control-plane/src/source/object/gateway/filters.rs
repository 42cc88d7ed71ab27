//! Filters of a rule, each kind once: changes of header fields, of host and path, and redirects.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Asked;
use super::text;
use crate::model::Problem;
use crate::model::route::{Changes, FieldChanges, PathChange, Redirect};
use crate::source::object::at::{Located, Number};
use tulle_proto::fields;

/// A filter as written: its type, and the part that this type has.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FilterManifest {
    r#type: Located<String>,
    #[serde(rename = "requestMirror")]
    _request_mirror: Option<IgnoredAny>,
    #[serde(rename = "cors")]
    _cors: Option<IgnoredAny>,
    #[serde(rename = "externalAuth")]
    _external_auth: Option<IgnoredAny>,
    #[serde(rename = "extensionRef")]
    _extension_ref: Option<IgnoredAny>,
    request_header_modifier: Option<FieldsManifest>,
    response_header_modifier: Option<FieldsManifest>,
    request_redirect: Option<RedirectManifest>,
    url_rewrite: Option<RewriteManifest>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FieldsManifest {
    set: Option<Vec<FieldManifest>>,
    add: Option<Vec<FieldManifest>>,
    remove: Option<Vec<Located<String>>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldManifest {
    name: Located<String>,
    value: Located<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RedirectManifest {
    scheme: Option<Located<String>>,
    hostname: Option<Located<String>>,
    path: Option<PathManifest>,
    port: Option<Number>,
    status_code: Option<Number>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RewriteManifest {
    hostname: Option<Located<String>>,
    path: Option<PathManifest>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PathManifest {
    r#type: Located<String>,
    replace_full_path: Option<Located<String>>,
    replace_prefix_match: Option<Located<String>>,
}

/// What a kind of route has of filters, in the order messages list them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kinds(pub(super) &'static [&'static str]);

/// Whether a filter refers to an object of another kind.
pub(super) fn has_unknown(written: Option<&[FilterManifest]>) -> bool {
    written.into_iter().flatten().any(|filter| filter.r#type.as_str() == "ExtensionRef")
}

/// Reads the filters of a rule.
pub(super) fn filters(
    asked: &Asked<'_>,
    kinds: Kinds,
    written: Option<&Vec<FilterManifest>>,
) -> Result<(Changes, Option<Redirect>), Problem> {
    let asked = asked.part("filters");
    let (mut changes, mut redirect) = (Changes::default(), None);
    let mut seen: Vec<&str> = Vec::new();
    for (index, written) in written.into_iter().flatten().enumerate() {
        let asked = asked.item(index);
        let kind = written.r#type.as_str();
        if !kinds.0.contains(&kind) {
            let reason = format!("filters of type {kind} are not supported; those that are: {}", kinds.0.join(", "));
            return Err(asked.part("type").wrong(&written.r#type, reason).example(kinds.0[0]));
        }
        if seen.contains(&kind) {
            return Err(asked.part("type").wrong(&written.r#type, format!("{kind} may stand in a rule once")));
        }
        seen.push(kind);
        let lacking = |part: &str| asked.part(part).wrong(&written.r#type, format!("a {kind} says what it does here"));
        match kind {
            "RequestHeaderModifier" => {
                let part = written.request_header_modifier.as_ref().ok_or_else(|| lacking("requestHeaderModifier"))?;
                changes.request = field_changes(&asked.part("requestHeaderModifier"), part)?;
            }
            "ResponseHeaderModifier" => {
                let part = written.response_header_modifier.as_ref();
                let part = part.ok_or_else(|| lacking("responseHeaderModifier"))?;
                changes.reply = field_changes(&asked.part("responseHeaderModifier"), part)?;
            }
            "URLRewrite" => {
                let part = written.url_rewrite.as_ref().ok_or_else(|| lacking("urlRewrite"))?;
                let asked = asked.part("urlRewrite");
                let name = part.hostname.as_ref();
                changes.host = name.map(|host| text::host(&asked.part("hostname"), host)).transpose()?;
                changes.path = part.path.as_ref().map(|path| path_change(&asked.part("path"), path)).transpose()?;
            }
            _ => {
                let part = written.request_redirect.as_ref().ok_or_else(|| lacking("requestRedirect"))?;
                redirect = Some(read_redirect(&asked.part("requestRedirect"), part)?);
            }
        }
    }
    if redirect.is_some() && (changes.host.is_some() || changes.path.is_some()) {
        return Err(asked.fault("a rule has a RequestRedirect or a URLRewrite, not both"));
    }
    Ok((changes, redirect))
}

fn field_changes(asked: &Asked<'_>, written: &FieldsManifest) -> Result<FieldChanges, Problem> {
    let pairs = |part: &str, written: &Option<Vec<FieldManifest>>| {
        let asked = asked.part(part);
        let mut pairs: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        for (index, written) in written.iter().flatten().enumerate() {
            let asked = asked.item(index);
            let name = field_name(&asked.part("name"), &written.name)?;
            if !fields::is_value(&written.value) {
                let reason = "a value has no control characters and no white space around it";
                return Err(asked.part("value").wrong(&written.value, reason).example("v2"));
            }
            // Of several with one name the first counts.
            // Source: Gateway API, `HTTPHeader.name`.
            if !pairs.iter().any(|(known, _)| *known == name) {
                pairs.push((name, written.value.as_str().into()));
            }
        }
        Ok(pairs)
    };
    let removed = asked.part("remove");
    let name = |(index, name): (usize, &Located<String>)| field_name(&removed.item(index), name);
    Ok(FieldChanges {
        set: pairs("set", &written.set)?,
        add: pairs("add", &written.add)?,
        remove: written.remove.iter().flatten().enumerate().map(name).collect::<Result<_, _>>()?,
    })
}

fn field_name(asked: &Asked<'_>, name: &Located<String>) -> Result<Arc<str>, Problem> {
    if fields::is_changeable(name) {
        return Ok(name.to_ascii_lowercase().into());
    }
    let reason = if fields::is_name(name) {
        format!("{} frames the message, names its host or says who sent it, and may not be changed", name.as_str())
    } else {
        format!("\"{}\" is not the name of a header field", name.as_str())
    };
    Err(asked.wrong(name, reason).example("x-version"))
}

fn path_change(asked: &Asked<'_>, written: &PathManifest) -> Result<PathChange, Problem> {
    let kind = written.r#type.as_str();
    let lacking = |part: &str| asked.part(part).wrong(&written.r#type, format!("{kind} needs {part}")).example("/v2");
    match kind {
        "ReplaceFullPath" => {
            let text = written.replace_full_path.as_ref().ok_or_else(|| lacking("replaceFullPath"))?;
            Ok(PathChange::Full(text::path(&asked.part("replaceFullPath"), text)?))
        }
        "ReplacePrefixMatch" => {
            let text = written.replace_prefix_match.as_ref().ok_or_else(|| lacking("replacePrefixMatch"))?;
            if text.is_empty() {
                return Ok(PathChange::Prefix("/".into()));
            }
            Ok(PathChange::Prefix(text::prefix(&asked.part("replacePrefixMatch"), text)?))
        }
        _ => {
            let reason = format!("there is no change of a path of type \"{kind}\"");
            Err(asked.part("type").wrong(&written.r#type, reason).example("ReplacePrefixMatch"))
        }
    }
}

fn read_redirect(asked: &Asked<'_>, written: &RedirectManifest) -> Result<Redirect, Problem> {
    let scheme = match &written.scheme {
        Some(scheme) if !["http", "https"].contains(&scheme.as_str()) => {
            let reason = format!("\"{}\" is neither http nor https", scheme.as_str());
            return Err(asked.part("scheme").wrong(scheme, reason).example("https"));
        }
        scheme => scheme.as_ref().map(|scheme| scheme.as_str().into()),
    };
    let port = |port: &Number| port.port().map_err(|reason| asked.part("port").wrong(port, reason).example("8443"));
    let port = written.port.as_ref().map(port).transpose()?;
    let status = match &written.status_code {
        Some(status) => {
            let known = [301, 302, 303, 307, 308].into_iter().find(|known| i64::from(*known) == **status);
            let reason = || format!("{} is not one of 301, 302, 303, 307 and 308", **status);
            known.ok_or_else(|| asked.part("statusCode").wrong(status, reason()).example("301"))?
        }
        None => 302,
    };
    let host = written.hostname.as_ref();
    Ok(Redirect {
        scheme,
        host: host.map(|host| text::host(&asked.part("hostname"), host)).transpose()?,
        port,
        path: written.path.as_ref().map(|path| path_change(&asked.part("path"), path)).transpose()?,
        status,
    })
}
