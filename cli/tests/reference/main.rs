//! `docs/reference/` is made from the tables in the code, and this test fails when it is not what they say.
//!
//! `UPDATE_GOLDEN=1 cargo test -p tulle --test reference` writes the pages anew; a difference is reviewed as a change of the
//! interface.

/// Tables.
mod table;

/// Values of the chart.
mod chart;

/// Annotations of pods.
mod pods;

/// Metrics of the programs.
mod metrics;

/// Flags of the programs.
mod flags;

use std::path::{Path, PathBuf};

use tulle_control_plane::model::annotations::ANNOTATIONS;
use tulle_proxy::base::failure::{Reason, Side};

use crate::table::Table;

/// The repository: as cargo says at run time, since worktrees may share one target folder.
#[expect(clippy::disallowed_methods, reason = "cargo tells the test where it belongs")]
fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&own).join("..")
}

/// Compares a page with what it should say, or writes it.
#[expect(clippy::disallowed_methods, reason = "a switch of this test only")]
fn page(name: &str, title: &str, intro: &str, body: &str) {
    let path = root().join("docs/reference").join(name);
    let made = "<!-- Made from the code by `UPDATE_GOLDEN=1 cargo test -p tulle --test reference`; do not edit. -->";
    let text = format!("{made}\n\n# {title}\n\n{intro}\n\n{}\n", body.trim_end());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap_or(&path)).expect("docs/reference can be made");
        std::fs::write(&path, &text).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let difference = found.lines().zip(text.lines()).find(|(found, wanted)| found != wanted);
    assert!(
        found == text,
        "docs/reference/{name} is not what the code says (first difference: {difference:?}): \
         run UPDATE_GOLDEN=1 cargo test -p tulle --test reference, and review what changed"
    );
}

#[test]
fn reasons() {
    let mut table = Table::new(&["reason", "whose fault", "HTTP", "gRPC", "application spared", "meaning"]);
    let docs = docs_of(&root().join("proxy/src/base/failure.rs"), "pub enum Reason {");
    assert_eq!(docs.len(), Reason::ALL.len(), "every reason has its line of documentation");
    for (reason, doc) in Reason::ALL.into_iter().zip(docs) {
        let row = reason.row();
        let side = match row.side {
            Side::Downstream => "client",
            Side::Upstream => "server",
            Side::Us => "proxy or its configuration",
        };
        let status = if row.status == 0 { "none, reset".to_owned() } else { row.status.to_string() };
        let spared = if reason.spared_the_application() { "yes" } else { "" };
        table.row(&[&format!("`{}`", row.name), side, &status, &row.grpc.to_string(), spared, &doc]);
    }
    let intro = "Why a request or connection did not go the ordinary way. The word is the same in the header `tulle-reason`, the\n\
                 access log and the label `reason` of metrics; the header `tulle-proxy` says which side answered. \
                 \"Application spared\":\na peer proxy that answers so says that its application has not seen the request.";
    page("reasons.md", "Reason codes", intro, &table.text());
}

/// The documentation of the items of an enum, in order; each is one paragraph.
fn docs_of(path: &Path, start: &str) -> Vec<String> {
    let source = std::fs::read_to_string(path).expect("a file of the repository");
    let (_, body) = source.split_once(start).expect("the enum");
    let body = body.split_once("\n}").map_or(body, |(body, _)| body);
    let mut docs = Vec::new();
    let mut doc = String::new();
    for line in body.lines().map(str::trim) {
        match line.strip_prefix("///") {
            Some(more) => doc = format!("{doc} {}", more.trim()).trim().to_owned(),
            None if !line.is_empty() => docs.push(std::mem::take(&mut doc)),
            None => {}
        }
    }
    docs
}

#[test]
fn policy_annotations() {
    let mut table = Table::new(&["annotation", "a right value", "meaning"]);
    let source = std::fs::read_to_string(root().join("control-plane/src/model/policy.rs")).expect("the policy");
    for annotation in ANNOTATIONS {
        let field = format!("    pub {}: ", annotation.key.replace('-', "_"));
        let before = source.split_once(&field).map_or("", |(before, _)| before);
        let doc = before.lines().next_back().unwrap_or_default().trim().trim_start_matches("///").trim();
        assert!(!doc.is_empty(), "{}: a field of Policy with one line of documentation", annotation.key);
        table.row(&[&format!("`tulle.io/{}`", annotation.key), &format!("`{}`", annotation.example), doc]);
    }
    table.row(&["`tulle.io/protocol.PORT`", "`grpc`", "Protocol of one port, by the number of the service's port."]);
    let intro = "On a Service; on a Namespace as the default of its services. A value that does not parse is refused where the\n\
                 validating webhook is installed; else the last good value stays in force. `tulle validate -f DIR` says what is wrong.";
    page("policy-annotations.md", "Annotations of services", intro, &table.text());
}
